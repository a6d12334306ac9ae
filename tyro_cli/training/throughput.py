"""A few training steps, timed, to estimate how long a run would take."""

import time

import torch

from tyro_cli.config.schema import Settings
from tyro_cli.data.batches import TrainingBatches
from tyro_cli.data.prepared import PreparedData
from tyro_cli.models.language_model import build_model
from tyro_cli.models.layers import Dropout
from tyro_cli.training.hardware import compute_dtype, configure_process
from tyro_cli.training.optimizer import make_optimizer

WARM_UP_STEPS = 2
LEAST_SECONDS = 2.0
MOST_STEPS = 20


def measure_step_seconds(
    settings: Settings, data: PreparedData, device: str, precision: str, threads: int
) -> float:
    """Return the seconds of one update, measured over about two seconds after a warm-up."""
    configure_process(device, threads, settings.training.deterministic)
    context = settings.data.context_length
    model = build_model(settings.model, data.vocab_size, context, seed=0).to(device)
    optimizer = make_optimizer(model, settings.model, settings.training.optimizer)
    windows = settings.training.batch_tokens // context
    batches = TrainingBatches(data.splits["train"].tokens, context, windows, 0)
    micro = (settings.training.micro_batch_tokens or settings.training.batch_tokens) // context

    def step(index: int) -> None:
        for part in torch.from_numpy(batches.batch(index)).to(device).split(micro):
            dropout = Dropout(index, part.device)
            model.loss(part[:, :-1], part[:, 1:], compute_dtype(precision), dropout).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for index in range(WARM_UP_STEPS):
        step(index)
    started, steps = time.perf_counter(), 0
    while steps < MOST_STEPS and time.perf_counter() - started < LEAST_SECONDS:
        step(steps)
        steps += 1
    return (time.perf_counter() - started) / steps
