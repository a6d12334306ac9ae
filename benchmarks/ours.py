"""Our side: the training loop of the program as it is shipped, and its parts on their own.

Every function runs in a process of its own; see `measuring.Call`.
"""

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measuring import Start
from benchmarks.shapes import Shape
from tyro_cli.data.batches import TrainingBatches
from tyro_cli.evaluation.perplexity import sweep_nats
from tyro_cli.ledger.ledger import ledger_of
from tyro_cli.models import layers
from tyro_cli.models.language_model import LanguageModel, build_model
from tyro_cli.models.layers import Dropout
from tyro_cli.models.tying import softmax_matrix
from tyro_cli.training.hardware import compute_dtype, configure_process
from tyro_cli.training.loop import CellContext, Trainer
from tyro_cli.training.optimizer import make_optimizer

WARM_UP_STEPS = 3
MILLION = 1e6


class StepWatch:
    """Times steps after a warm-up, until `seconds` are over.

    Args:
        start: Called once, when warm.
        seconds: How long to time.
    """

    def __init__(self, start: Start, seconds: float) -> None:
        self.start, self.seconds = start, seconds
        self.steps = -WARM_UP_STEPS
        self.started = self.elapsed = 0.0

    def step(self) -> bool:
        """Count a step that has ended; say whether it was the last."""
        self.steps += 1
        if self.steps == 0:
            self.start()
            self.started = time.perf_counter()
        elif self.steps > 0:
            self.elapsed = time.perf_counter() - self.started
        return self.steps > 0 and self.elapsed >= self.seconds

    def seconds_per_million(self, step_tokens: int) -> float:
        """Return seconds for a million tokens."""
        return self.elapsed / (self.steps * step_tokens) * MILLION


class _Enough(Exception):
    """Enough steps were timed."""


def train(
    start: Start, seconds: float, *, shape: dict[str, Any], tied: bool, threads: int = 1
) -> float:
    """Return seconds for a million tokens of the program's own training loop."""
    chosen = Shape(**shape)
    settings = chosen.settings(tied)
    configure_process("cpu", threads, settings.training.deterministic)
    watch = StepWatch(start, seconds)

    def report(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and watch.step():
            raise _Enough

    with tempfile.TemporaryDirectory() as folder:
        context = CellContext(
            cell_id="0" * 64,
            settings=settings,
            seed=0,
            data=chosen.prepared(Path(folder)),
            total_steps=10**6,
            device="cpu",
            precision="bf16",
            folder=Path(folder),
            allow_numeric_drift=False,
            poll=lambda: None,
            warn=lambda text: None,
            report=report,
        )
        try:
            Trainer(context).run()
        except _Enough:
            return watch.seconds_per_million(chosen.batch_tokens)
    raise AssertionError("training ended before the time was over")


def train_float32_sgd(
    start: Start, seconds: float, *, shape: dict[str, Any], tied: bool, threads: int = 1
) -> float:
    """Return seconds for a million tokens of our model in float32 with plain SGD."""
    chosen = Shape(**shape)
    model, batches = _model_and_batches(chosen, tied, threads)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch, step = StepWatch(start, seconds), 0
    while True:
        batch = torch.from_numpy(batches.batch(step))
        dropout = Dropout(step, batch.device)
        optimizer.zero_grad()
        model.loss(batch[:, :-1], batch[:, 1:], torch.float32, dropout).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        step += 1
        if watch.step():
            return watch.seconds_per_million(chosen.batch_tokens)


def step(
    start: Start,
    seconds: float,
    *,
    shape: dict[str, Any],
    loss: str = "ours",
    attention: str = "ours",
    compiled: bool = False,
) -> float:
    """Return seconds for a million tokens of a bare step, on one thread.

    Args:
        start: Called when warm.
        seconds: How long to time.
        shape: The model.
        loss: `ours`, or `plain` for `cross_entropy` on all logits at once.
        attention: `ours`, or `flash` for torch's fused kernel.
        compiled: Whether `torch.compile` makes the blocks, during the warm-up.
    """
    chosen = Shape(**shape)
    model, batches = _model_and_batches(chosen, True, 1)
    for block in model.blocks if compiled else ():
        block.compile(dynamic=False)
    settings = chosen.settings(True)
    optimizer = make_optimizer(model, settings.model, settings.training.optimizer)
    loss_of = LanguageModel.loss if loss == "ours" else plain_loss
    attend = layers.attend if attention == "ours" else flash_attention
    watch, index = StepWatch(start, seconds), 0
    with patch.object(layers, "attend", attend):
        while True:
            batch = torch.from_numpy(batches.batch(index))
            loss_of(model, batch[:, :-1], batch[:, 1:], torch.bfloat16).backward()
            optimizer.step()
            optimizer.zero_grad()
            index += 1
            if watch.step():
                return watch.seconds_per_million(chosen.batch_tokens)


def sweep(
    start: Start, seconds: float, *, shape: dict[str, Any], precision: str, stride: int
) -> float:
    """Return seconds for a million scored tokens of the evaluation sweep, on one thread."""
    chosen = Shape(**shape)
    model, _ = _model_and_batches(chosen, True, 1)
    tokens = chosen.tokens(4 * max(chosen.batch_tokens, 4096) + 1)
    dtype = compute_dtype(precision)
    sweep_nats(model, tokens[: len(tokens) // 4], stride=stride, dtype=dtype)
    start()
    started, scored = time.perf_counter(), 0
    while scored == 0 or time.perf_counter() - started < seconds:
        scored += len(sweep_nats(model, tokens, stride=stride, dtype=dtype))
    return (time.perf_counter() - started) / scored * MILLION


def train_per_flop(start: Start, seconds: float, *, shape: dict[str, Any], tied: bool) -> float:
    """Return seconds for a TFLOP of matrix products, counted by the ledger, of whole steps."""
    per_million = train(start, seconds, shape=shape, tied=tied)
    chosen = Shape(**shape)
    forward = ledger_of(chosen.settings(tied), chosen.vocab_size).forward_flops_per_token
    return per_million / (3 * forward * MILLION / 1e12)


def best_product(start: Start, seconds: float, *, shape: dict[str, Any], tokens: int) -> float:
    """Return seconds for a TFLOP of the fastest of the head's three products, on one thread."""
    chosen = Shape(**shape)
    configure_process("cpu", 1, deterministic=False)
    hidden = torch.randn(tokens, chosen.d_model, dtype=torch.bfloat16)
    matrix = torch.randn(chosen.vocab_size, chosen.d_model, dtype=torch.bfloat16)
    logits = torch.randn(tokens, chosen.vocab_size, dtype=torch.bfloat16)
    tflop = 2 * tokens * chosen.d_model * chosen.vocab_size / 1e12
    products: list[Callable[[], Tensor]] = [
        lambda: hidden @ matrix.t(),
        lambda: logits @ matrix,
        lambda: logits.t() @ hidden,
    ]
    for product in products * 2:
        product()
    start()
    costs = []
    for product in products:
        started, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - started < seconds / len(products):
            product()
            calls += 1
        costs.append((time.perf_counter() - started) / (calls * tflop))
    return min(costs)


def plain_loss(model: LanguageModel, inputs: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the loss as it is usually written: all logits, then `cross_entropy`."""
    hidden = model.hidden(inputs, dtype, None).flatten(0, 1)
    logits = hidden @ softmax_matrix(model).to(dtype).t()
    return F.cross_entropy(logits.float(), targets.flatten())


def flash_attention(query: Tensor, key: Tensor, value: Tensor, mask: None) -> Tensor:
    """Return causal attention by torch's fused kernel."""
    assert mask is None, "a language model is causal"
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)


def _model_and_batches(
    shape: Shape, tied: bool, threads: int
) -> tuple[LanguageModel, TrainingBatches]:
    settings = shape.settings(tied)
    configure_process("cpu", threads, settings.training.deterministic)
    model = build_model(settings.model, shape.vocab_size, shape.context_length, seed=0)
    tokens = shape.tokens(math.ceil(16.0 * (shape.batch_tokens + shape.context_length)))
    return model, TrainingBatches(tokens, shape.context_length, shape.batch_windows, 0)
