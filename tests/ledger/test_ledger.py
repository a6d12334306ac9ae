"""The account of an arm: rows, bytes, FLOPs, memory, and what a tie saves."""

import json
from typing import Any

import pytest

from tyro_cli.config.schema import Settings
from tyro_cli.ledger.ledger import (
    COMPONENTS,
    HEAD_CHUNK_BYTES,
    HEAD_SLICE_BYTES,
    TrainingMemory,
    expected_saving,
    ledger_of,
    savings,
    training_memory,
)

V = 61


def settings(batch_tokens: int = 64, micro: int | None = None, **model: Any) -> Settings:
    return Settings.model_validate(
        {
            "task": "language-modeling",
            "data": {"corpus": "kjv", "tokenizer": {"kind": "word"}, "context_length": 8},
            "model": {"d_model": 16, "num_layers": 2, "num_heads": 4} | model,
            "training": {
                "budget": {"steps": 1},
                "batch_tokens": batch_tokens,
                "micro_batch_tokens": micro,
                "optimizer": {"learning_rate": 1e-3},
            },
        }
    )


def test_the_rows_by_hand() -> None:
    ledger = ledger_of(settings(family="gpt2"), V)
    assert {row.component: row.parameters for row in ledger.rows} == {
        "token embedding": 976,
        "positions": 128,
        "attention": 2 * 1088,
        "feed-forward": 2 * 2128,
        "norms": 2 * 64 + 32,
        "head": 976,
    }
    assert tuple(row.component for row in ledger.rows) == COMPONENTS
    assert ledger.total == 8672
    assert ledger.non_embedding == 8672 - 976 - 976 - 128
    assert ledger.checkpoint_bytes == 4 * 8672
    assert ledger.optimizer_bytes == 8 * 8672
    assert sum(row.share for row in ledger.rows) == pytest.approx(1)
    assert ledger.rows[0].share == 976 / 8672


def test_forward_flops_by_hand_and_the_head_costs_the_same_when_tied() -> None:
    untied, tied = (ledger_of(settings(tying=tying), V) for tying in ("none", "in-out"))
    # Two a multiply-add: projections 4 * 16^2, scores and values 2 * 8 * 16; SwiGLU 3 * 16 * 48.
    expected = {
        "token embedding": 0,
        "positions": 0,
        "attention": 2 * 2 * (4 * 256 + 2 * 128),
        "feed-forward": 2 * 2 * 2304,
        "norms": 0,
        "head": 2 * 61 * 16,
    }
    for ledger in (untied, tied):
        assert {row.component: row.forward_flops_per_token for row in ledger.rows} == expected
        assert ledger.forward_flops_per_token == sum(expected.values())
    assert tied.rows[-1].parameters == 0


def test_a_model_without_layers_has_a_ledger() -> None:
    ledger = ledger_of(settings(num_layers=0, tying="in-out"), V)
    assert ledger.total == 61 * 16 + 16
    assert ledger.forward_flops_per_token == 2 * 61 * 16


def test_a_record_is_plain_json_that_reads_back_the_same() -> None:
    record = ledger_of(settings(), V).as_record()
    assert json.loads(json.dumps(record)) == record
    assert record["rows"][0]["component"] == "token embedding"


def test_the_analysis_reads_the_record() -> None:
    from tyro_cli.analysis.formats import LedgerRecord

    for tying in ("none", "in-out"):
        record = ledger_of(settings(tying=tying), V).as_record()
        assert LedgerRecord.model_validate(record).total == record["total"]


def test_the_saving_is_the_formula() -> None:
    untied, tied = settings(), settings(tying="in-out")
    assert savings(ledger_of(untied, V), ledger_of(tied, V)) == V * 16
    assert expected_saving(untied, tied, V) == V * 16
    assert expected_saving(tied, untied, V) == -V * 16
    assert expected_saving(tied, tied, V) == 0
    # What counts no parameters does not stand in the way; the default written out is the default.
    assert expected_saving(untied, settings(tying="in-out", dropout=0.1, d_ff=48), V) == V * 16


@pytest.mark.parametrize("change", [{"d_ff": 64}, {"num_layers": 3}, {"family": "gpt2"}])
def test_there_is_no_formula_where_more_than_the_tie_differs(change: dict[str, Any]) -> None:
    assert expected_saving(settings(), settings(tying="in-out", **change), V) is None


def test_memory_starts_with_sixteen_bytes_a_parameter() -> None:
    total = ledger_of(settings(), V).total
    memory = training_memory(settings(), V)
    assert memory.weights + memory.gradients + memory.moments == 16 * total
    assert memory.copies == 0
    assert memory.total > 16 * total


def test_memory_grows_with_the_micro_batch_and_not_with_the_batch() -> None:
    one = training_memory(settings(64, 8), V)
    assert training_memory(settings(640, 8), V) == one
    assert one.accumulates
    # Gradients of earlier micro-batches lie beside the activations.
    assert one.total > training_memory(settings(8), V).total
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


def test_constants_are_those_of_the_head_loss() -> None:
    from tyro_cli.models import head_loss

    assert (HEAD_CHUNK_BYTES, HEAD_SLICE_BYTES) == (head_loss.CHUNK_BYTES, head_loss.SLICE_BYTES)


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
