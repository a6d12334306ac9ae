"""The memory of training one cell: each term, and the sum against what real runs measured."""

import json
from pathlib import Path

import pytest

from tests.ledger.test_ledger import V, settings
from tyro_cli.config.schema import Settings
from tyro_cli.experiments.limits import WORKER_BYTES
from tyro_cli.ledger.ledger import ledger_of
from tyro_cli.ledger.memory import (
    HEAD_CHUNK_BYTES,
    HEAP_FACTOR,
    TrainingMemory,
    training_memory,
)

RECORDS = Path(__file__).resolve().parents[2] / "docs" / "results" / "records"


def published_cells() -> list[Path]:
    """Return the folder of every cell whose records are published."""
    return sorted(path.parent for path in RECORDS.rglob("performance.json"))


def test_memory_starts_with_sixteen_bytes_a_parameter() -> None:
    total = ledger_of(settings(), V).total
    memory = training_memory(settings(), V)
    assert memory.weights + memory.gradients + memory.moments == 16 * total
    assert memory.copies == 0
    assert memory.alive > 16 * total
    assert memory.total == int(HEAP_FACTOR * memory.alive) + 4 * total


def test_memory_grows_with_the_micro_batch_and_not_with_the_batch() -> None:
    one = training_memory(settings(64, 8), V)
    assert training_memory(settings(640, 8), V) == one
    assert one.accumulates
    # Gradients of earlier micro-batches lie beside the activations.
    assert one.activations == training_memory(settings(8), V).activations
    assert training_memory(settings(64, 16), V).activations == 2 * one.activations


def test_bf16_halves_activations_and_adds_copies() -> None:
    full = training_memory(settings(family="gpt2"), V, "fp32")
    half = training_memory(settings(family="gpt2"), V, "bf16")
    assert 2 * half.activations == full.activations
    assert half.copies > 0


def test_the_full_logits_never_count() -> None:
    vocab_size, tokens = 131_072, 8192
    many = settings(tokens, d_model=256, num_layers=2, tying="in-out")
    memory = training_memory(many, vocab_size)
    assert memory.head < tokens * vocab_size * 4 / 10


def test_the_measurement_of_role_gradients_counts() -> None:
    """It runs in float32 whatever the cell trains in, so it may be the most that a cell holds."""
    many = settings(8192, d_model=256, num_layers=4, tying="in-out")
    measured = many.model_copy(
        update={
            "evaluation": many.evaluation.model_copy(update={"role_gradients_every_steps": 100})
        }
    )
    assert training_memory(many, V, "bf16").roles == 0
    plain, probed = training_memory(many, V, "bf16"), training_memory(measured, V, "bf16")
    assert probed.roles > training_memory(many, V, "fp32").activations
    assert probed.total > plain.total


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_activations_are_what_the_real_model_keeps(
    family: str, dropout: float, precision: str
) -> None:
    """The estimate counts the bytes that autograd saves, to within 5 %."""
    import torch

    from tyro_cli.models.language_model import build_model
    from tyro_cli.models.layers import Dropout

    one = settings(64, family=family, dropout=dropout, d_model=64, num_layers=3)
    model = build_model(one.model, V, 8, seed=0)
    kept = {parameter.untyped_storage().data_ptr(): 0 for parameter in model.parameters()}
    if family == "llama":
        kept[model.rotary_2TK.untyped_storage().data_ptr()] = 0
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(storage.data_ptr(), storage.nbytes())
        alive.append(tensor)  # so that no address is used twice
        return tensor

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    tokens_BT = torch.arange(64).view(8, 8) % V
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.hidden(tokens_BT, dtype, Dropout(0, torch.device("cpu")))
    memory: TrainingMemory = training_memory(one, V, precision)  # type: ignore[arg-type]
    # Autograd keeps the copies of the blocks' matrices, not the head's, which is not run here.
    copies = memory.copies - 2 * V * 64 if precision == "bf16" else 0
    assert memory.activations + copies == pytest.approx(sum(kept.values()), rel=0.05)


def test_each_of_the_three_marks_can_be_the_highest() -> None:
    def parts(**terms: int) -> TrainingMemory:
        names = TrainingMemory.__dataclass_fields__.keys() - {"accumulates"}
        return TrainingMemory(**dict.fromkeys(names, 1) | terms, accumulates=False)

    assert parts(activations=100).alive == 2 + 1 + 100 + 1 + 1
    assert parts(activations=100, head=9, layer=7).alive == 2 + 1 + 100 + 1 + 9
    assert parts(gradients=100, second_gradient=10).alive == 2 + 110
    assert parts(evaluation=100).alive == 2 + 1 + 100
    accumulating = dict.fromkeys(TrainingMemory.__dataclass_fields__, 1) | {"accumulates": True}
    assert TrainingMemory(**accumulating).alive == 2 + 5


def test_a_small_batch_is_outdone_by_the_evaluation() -> None:
    small = training_memory(settings(8, d_model=64, num_layers=2), 2048)
    assert small.alive == small.weights + small.moments + small.weights + small.evaluation
    assert small.evaluation >= HEAD_CHUNK_BYTES
    large = training_memory(settings(65536, d_model=64, num_layers=2), 2048)
    assert large.evaluation == small.evaluation
    assert large.alive > 5 * small.alive


@pytest.mark.parametrize("cell", published_cells(), ids=lambda p: str(p.relative_to(RECORDS)))
def test_published_runs_took_what_is_estimated_within_a_quarter(cell: Path) -> None:
    """Whole runs, of hours, on hardware that multiplies bfloat16."""
    result = json.loads((cell / "result.json").read_text())
    measured = json.loads((cell / "performance.json").read_text())["peak_memory_bytes"]
    precision = result["pairing"]["fingerprint"]["precision"]
    chosen = Settings.model_validate(result["settings"])
    estimate = training_memory(chosen, result["vocab_size"], precision).total + WORKER_BYTES
    assert 0.75 * measured <= estimate <= 1.25 * measured, estimate / measured
