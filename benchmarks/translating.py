"""Steps of a small translation model on batches of many shapes, with and without rounding them."""

from contextlib import ExitStack
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.measuring import Call, Case, Comparison, Side, Start
from benchmarks.ours import MILLION, StepWatch
from tyro_cli.config.schema import Settings
from tyro_cli.models import head_loss, layers, translation_model
from tyro_cli.models.layers import Dropout
from tyro_cli.models.translation_model import build_translation_model
from tyro_cli.training.hardware import configure_process
from tyro_cli.training.optimizer import make_optimizer

LENGTHS = (8, 72)  # of a source, `<eos>` included; a target is up to four longer or shorter


def step(
    start: Start, seconds: float, *, vocab_size: int, d_model: int, batch_tokens: int, rounded: bool
) -> float:
    """Return seconds for a million tokens of both sides, padding counted, on one thread.

    Args:
        start: Called when warm.
        seconds: How long to time.
        vocab_size: Token types of the joint vocabulary.
        d_model: Width.
        batch_tokens: Tokens of a batch, of both sides and padding included.
        rounded: Whether sizes are rounded up as `models.shapes` does it, or left as they come.
    """
    settings = _settings(vocab_size, d_model, batch_tokens)
    configure_process("cpu", 1, settings.training.deterministic)
    model = build_translation_model(settings.model, vocab_size, vocab_size, LENGTHS[1] * 2, seed=0)
    optimizer = make_optimizer(model, settings.model, settings.training.optimizer)
    generator, device = np.random.default_rng(0), torch.device("cpu")
    watch, index, tokens = StepWatch(start, seconds), 0, 0
    with ExitStack() as patches:
        for module in () if rounded else (layers, head_loss, translation_model):
            patches.enter_context(patch.object(module, "padding_of", lambda size, device, dtype: 0))
        while True:
            batch = _batch(generator, vocab_size, batch_tokens)
            objective, _ = model.loss(*batch, torch.bfloat16, Dropout(index, device), 0.1)
            objective.backward()
            optimizer.step()
            optimizer.zero_grad()
            index += 1
            if watch.steps >= 0:
                tokens += batch[0].numel() + batch[2].numel()
            if watch.step():
                return watch.elapsed / tokens * MILLION


def _settings(vocab_size: int, d_model: int, batch_tokens: int) -> Settings:
    return Settings.model_validate(
        {
            "task": "translation",
            "data": {
                "corpus": "random",
                "tokenizer": {"kind": "word", "vocab_size": vocab_size, "sharing": "joint"},
                "context_length": LENGTHS[1] * 2,
            },
            "model": {"d_model": d_model, "num_layers": 2, "num_heads": 4, "dropout": 0.1},
            "training": {
                "budget": {"steps": 10**6},
                "batch_tokens": batch_tokens,
                "optimizer": {"learning_rate": 1e-3},
            },
        }
    )


def _batch(
    generator: np.random.Generator, vocab_size: int, batch_tokens: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return random pairs of one length a side, as many as the budget holds."""
    source = int(generator.integers(*LENGTHS))
    target = max(2, source + int(generator.integers(-4, 5)))
    rows = max(1, batch_tokens // (source + target))
    source_BS, target_BT = (
        torch.from_numpy(generator.integers(1, vocab_size, size=(rows, length)))
        for length in (source, target + 1)
    )
    return source_BS, torch.full((rows,), source), target_BT[:, :-1], target_BT[:, 1:]


def cases(tiny: bool = False) -> tuple[Case, ...]:
    """Return the case; a `tiny` one has a small model."""
    sizes = ((61, 16, 288),) if tiny else ((2048, 128, 512), (5000, 256, 4096))

    def side(name: str, size: tuple[int, int, int], rounded: bool) -> Side:
        names = ("vocab_size", "d_model", "batch_tokens")
        arguments = dict(zip(names, size, strict=True)) | {"rounded": rounded}
        return Side(name, ((Call("translating:step", arguments),),))

    return (
        Case(
            "translation-shapes",
            "A translation step with its sizes rounded up, against one of every size",
            "s for a million tokens of both sides, one thread",
            tuple(
                Comparison(
                    f"V {size[0]:,}, d {size[1]}, {size[2]:,} tokens a batch",
                    side("as shipped", size, True),
                    side("sizes as they come", size, False),
                )
                for size in sizes
            ),
            work=(1e6, "tokens/s"),
        ),
    )
