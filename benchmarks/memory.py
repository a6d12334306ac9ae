"""Memory of one step with a large vocabulary, above what training must hold anyway.

A cost is the high-water mark of the process, less what it held before the model was built, less
parameters, gradients and both moments in float32. The mark is the kernel's, so freed blocks that
the allocator keeps count too. Linux only.
"""

from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import Call, Case, Comparison, Side, Start
from benchmarks.ours import plain_loss
from benchmarks.shapes import TINY, Shape
from tyro_cli.models.language_model import LanguageModel, build_model
from tyro_cli.training.hardware import configure_process
from tyro_cli.training.optimizer import make_optimizer

LARGE = Shape(131_072, 256, 2, 4, 1024, 256, 32)
MEBIBYTE = 2**20
PEER_BYTES = 17 * 2**30


def high_water(
    start: Start, seconds: float, *, shape: dict[str, Any], tied: bool, loss: str
) -> float:
    """Return MiB above parameters, gradients and moments after two steps of one micro-batch."""
    chosen = Shape(**shape)
    settings = chosen.settings(tied)
    configure_process("cpu", 1, settings.training.deterministic)
    loss_of = LanguageModel.loss if loss == "ours" else plain_loss

    def train(at: Shape, model: LanguageModel, steps: int) -> None:
        optimizer = make_optimizer(model, settings.model, settings.training.optimizer)
        windows = torch.from_numpy(at.tokens(at.batch_windows * (at.context_length + 1)))
        batch = windows.long().view(at.batch_windows, -1)
        for _ in range(steps):
            loss_of(model, batch[:, :-1], batch[:, 1:], torch.bfloat16).backward()
            optimizer.step()
            optimizer.zero_grad()

    # What torch's libraries take when they are first used is no part of a model.
    tiny = TINY.settings(tied).model
    train(TINY, build_model(tiny, TINY.vocab_size, TINY.context_length, 0), 2)
    start()
    before = _status_bytes("VmRSS")
    model = build_model(settings.model, chosen.vocab_size, chosen.context_length, 0)
    train(chosen, model, 2)
    held = 4 * 4 * sum(parameter.numel() for parameter in model.parameters())
    return max(_status_bytes("VmHWM") - before - held, 1) / MEBIBYTE


def _status_bytes(key: str) -> int:
    """Return a figure of this process from the kernel: `VmRSS` now, `VmHWM` at its highest.

    Not `ru_maxrss`, in which a process inherits the mark of the one that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/self/status has no {key}")


def cases(tiny: bool = False) -> tuple[Case, ...]:
    """Return the cases; `tiny` ones run in no time."""
    shape = TINY if tiny else LARGE

    def side(name: str, tied: bool, loss: str) -> Side:
        arguments = {"shape": shape.as_arguments(), "tied": tied, "loss": loss}
        needed = 0 if tiny or loss == "ours" else PEER_BYTES
        return Side(name, ((Call("memory:high_water", arguments),),), needed)

    comparisons = tuple(
        Comparison(
            f"{'tied' if tied else 'untied'}, {shape.batch_tokens:,} tokens",
            side("wtie's head loss", tied, "ours"),
            side("all logits at once", tied, "plain"),
        )
        for tied in (False, True)
    )
    return (
        Case(
            "memory-131072",
            f"Memory of a step at V {shape.vocab_size:,}, d {shape.d_model}",
            "MiB above parameters, gradients and moments",
            comparisons,
            note="Asked for: at most 600 MB (572 MiB) on our side; 8 GB or more on the other.",
            repeats=1,
        ),
    )
