"""The learning rate as a pure function of the step."""

import math

from tyro_cli.config.schema import ScheduleConfig


def rate_factor(schedule: ScheduleConfig, step: int, total_steps: int) -> float:
    """Return what the learning rate is multiplied with at `step` (from 0) of `total_steps`.

    A linear warm-up over `warmup_fraction` of the steps; then, by kind, a constant 1 or a cosine
    from 1 down to `final_fraction` (Loshchilov & Hutter 2017, eq. 5, without restarts).
    """
    warmup_steps = round(schedule.warmup_fraction * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule.kind == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return schedule.final_fraction + (1.0 - schedule.final_fraction) * cosine
