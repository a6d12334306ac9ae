"""The memory estimate against real workers: a start is refused by a number that a run bears out."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from tyro_cli.config.schema import Settings
from tyro_cli.data.prepared import PreparedData, prepare_data
from tyro_cli.data.prepared_pairs import prepare_pairs
from tyro_cli.data.preparing import Prepared
from tyro_cli.experiments.launchers.local import run_locally
from tyro_cli.experiments.limits import WORKER_BYTES
from tyro_cli.experiments.specs import CellSpec
from tyro_cli.ledger.memory import training_memory
from tyro_cli.training.hardware import multiplies_bfloat16
from tyro_cli.training.signals import StopRequest

pytestmark = pytest.mark.slow

STEPS = 4
STEPS_OF_SHAPES = 40  # so many batches of translation have almost as many shapes
# More tokens than an evaluation takes at once, so that it reaches its own mark.
EVALUATED_TOKENS = 5000

PRECISIONS = [
    "fp32",
    pytest.param(
        "bf16",
        marks=pytest.mark.skipif(
            not multiplies_bfloat16("cpu"), reason="bfloat16 is emulated here, in memory of its own"
        ),
    ),
]
LLAMA, GPT2 = {"family": "llama", "num_layers": 2}, {"family": "gpt2", "num_layers": 2}
# Vocabulary, context_length, batch_tokens, micro_batch_tokens, model.
CELLS: dict[str, tuple[int, int, int, int | None, dict[str, Any]]] = {
    "2048 x 128, the evaluation is the mark": (2048, 128, 1024, None, LLAMA | {"d_model": 128}),
    "2048 x 128, micro-batches": (2048, 128, 8192, 4096, LLAMA | {"d_model": 128}),
    "8192 x 256": (8192, 128, 4096, None, GPT2 | {"d_model": 256}),
    "8192 x 256, tied": (8192, 128, 4096, None, GPT2 | {"d_model": 256, "tying": "in-out"}),
    "33278 x 200": (33278, 128, 2048, None, LLAMA | {"d_model": 200}),
    "33278 x 200, tied": (33278, 256, 4096, None, LLAMA | {"d_model": 200, "tying": "in-out"}),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cells")


def prepared(place: Path, settings: Settings, vocab_size: int) -> PreparedData:
    """Prepare a corpus of exactly so many different words, once."""
    folder = Path(settings.data.corpus)
    if not folder.exists():
        folder.mkdir()
        draw = random.Random(0)
        words = [f"w{number}" for number in range(vocab_size - 2)]  # <eos> and <unk> come to them
        texts = {
            "train": words + draw.choices(words, k=40_000),
            "valid": draw.choices(words, k=EVALUATED_TOKENS),
            "test": draw.choices(words, k=EVALUATED_TOKENS),
        }
        for name, text in texts.items():
            lines = [" ".join(text[start : start + 20]) for start in range(0, len(text), 20)]
            (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    data = prepare_data(settings.data, cache_folder=place / "cache")
    assert data.vocab_size == vocab_size
    return data


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_takes_what_is_estimated_within_a_quarter(place, name, precision):
    vocab_size, context_length, batch_tokens, micro, model = CELLS[name]
    settings = Settings.model_validate(
        {
            "task": "language-modeling",
            "data": {
                "corpus": str(place / f"corpus-{vocab_size}"),
                "tokenizer": {"kind": "word"},
                "context_length": context_length,
            },
            "model": {"num_heads": 4, "dropout": 0.1} | model,
            "training": {
                "budget": {"steps": STEPS},
                "batch_tokens": batch_tokens,
                "micro_batch_tokens": micro,
                "optimizer": {"learning_rate": 1e-3},
            },
            "evaluation": {"every_steps": 2, "stride": context_length},
        }
    )
    data = prepared(place, settings, vocab_size)
    assert_estimated(place / f"{name}-{precision}", settings, data, precision)


# Joint vocabulary, context_length, batch_tokens, model.
TRANSLATIONS: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "2048 x 128": (2048, 64, 4096, LLAMA | {"d_model": 128}),
    "8192 x 256, three-way": (8192, 96, 4096, LLAMA | {"d_model": 256, "tying": "three-way"}),
}


def sentences(place: Path, vocab_size: int, longest: int) -> Path:
    """Write pairs of sentences, up to the longest that fit, of exactly so many different words."""
    folder = place / f"pairs-{vocab_size}"
    if not folder.exists():
        folder.mkdir()
        draw = random.Random(0)
        words = [f"w{number}" for number in range(vocab_size - 2)]  # <eos> and <unk> come to them
        for name, pairs in (("train", 3000), ("valid", 100), ("test", 100)):
            for side in ("en", "de"):
                lines = [draw.choices(words, k=draw.randint(5, longest)) for _ in range(pairs)]
                if name == "train" and side == "en":
                    lines += [words[at : at + longest] for at in range(0, len(words), longest)]
                elif name == "train":
                    lines += [["w0"]] * math.ceil(len(words) / longest)
                text = "\n".join(" ".join(line) for line in lines)
                (folder / f"{name}.{side}").write_text(text + "\n")
    return folder


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", TRANSLATIONS)
def test_a_cell_that_translates_takes_what_is_estimated_within_a_quarter(place, name, precision):
    vocab_size, context_length, batch_tokens, model = TRANSLATIONS[name]
    settings = Settings.model_validate(
        {
            "task": "translation",
            "data": {
                "corpus": str(sentences(place, vocab_size, context_length - 8)),
                "languages": {"source": "en", "target": "de"},
                "tokenizer": {"kind": "word"},
                "context_length": context_length,
            },
            "model": {"num_heads": 4, "dropout": 0.1} | model,
            "training": {
                "budget": {"steps": STEPS_OF_SHAPES},
                "batch_tokens": batch_tokens,
                "optimizer": {"learning_rate": 1e-3},
            },
            "evaluation": {"every_steps": STEPS_OF_SHAPES // 2, "beam_size": 5},
        }
    )
    data = prepare_pairs(settings.data, cache_folder=place / "cache")
    assert data.vocab_size == vocab_size
    assert_estimated(place / f"{name}-{precision}-pairs", settings, data, precision)


def assert_estimated(folder: Path, settings: Settings, data: Prepared, precision: str) -> None:
    """Train a cell in a worker, and hold its estimate against what it took."""
    spec = CellSpec(
        cell_id="c" * 64,
        arm="arm",
        seed=0,
        settings=settings.model_dump(mode="json"),
        folder=str(folder),
        prepared_folder=str(data.folder),
        total_steps=settings.training.budget.steps,
        device="cpu",
        precision=precision,
        threads=1,
    )
    assert run_locally([spec], 1, lambda event: None, StopRequest()) == []
    measured = json.loads((folder / "performance.json").read_text())["peak_memory_bytes"]
    estimate = training_memory(settings, data.vocab_size, precision).total + WORKER_BYTES
    print(f"{folder.name}: measured {measured}, ratio {estimate / measured:.3f}")
    assert 0.75 * measured <= estimate <= 1.25 * measured, estimate / measured
