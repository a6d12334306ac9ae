"""A few training steps, timed, to estimate how long a run would take."""

import time

import torch

from tyro_cli.config.schema import Settings
from tyro_cli.data.preparing import Prepared
from tyro_cli.models.layers import Dropout
from tyro_cli.training.hardware import compute_dtype, configure_process
from tyro_cli.training.optimizer import make_optimizer
from tyro_cli.training.processes import ALONE
from tyro_cli.training.tasks import task_of

WARM_UP_STEPS = 2
LEAST_SECONDS = 2.0
MOST_STEPS = 20


def measure_step_seconds(
    settings: Settings, data: Prepared, device: str, precision: str, threads: int
) -> float:
    """Return the seconds of one update, measured over about two seconds after a warm-up."""
    configure_process(device, threads, settings.training.deterministic)
    task = task_of(settings, data, seed=0)
    model = task.build_model().to(device)
    optimizer = make_optimizer(model, settings.model, settings.training.optimizer)

    def step(index: int) -> None:
        for micro in task.micro_batches(model, task.batch(index), ALONE):
            objective, _ = micro.loss(
                compute_dtype(precision), Dropout(index, torch.device(device))
            )
            (objective * micro.share).backward()
        optimizer.step()
        optimizer.zero_grad()

    for index in range(WARM_UP_STEPS):
        step(index)
    started, steps = time.perf_counter(), 0
    while steps < MOST_STEPS and time.perf_counter() - started < LEAST_SECONDS:
        step(steps)
        steps += 1
    return (time.perf_counter() - started) / steps
