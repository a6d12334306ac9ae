"""What a start would do, without doing it: `wtie train --dry-run`.

Everything is found out as a start would, up to the point where something is written.
"""

from dataclasses import dataclass
from typing import Any

import yaml

from tyro_cli.experiments.limits import WORKER_BYTES
from tyro_cli.experiments.live import duration
from tyro_cli.experiments.run import (
    Start,
    TrainRequest,
    choose_threads,
    disk_bytes,
    largest_arm,
)
from tyro_cli.experiments.search import most_to_come, open_cells
from tyro_cli.training.signals import polled_signals


@dataclass(frozen=True)
class DryRun:
    """What a start would do: lines for a person, a record for a program."""

    lines: tuple[str, ...]
    record: dict[str, Any]


def dry_run(request: TrainRequest) -> DryRun:
    """Say what `train_experiment` would do, and write nothing but the cache of token arrays.

    Time is estimated from a few steps of each missing arm, measured now.
    """
    with polled_signals() as stop:
        ready = request.prepare(stop)
        plan = ready.plan
        cells = open_cells(plan, fresh=request.fresh)
        missing = request.missing(cells)
        to_come = most_to_come(plan, missing)
        at_most = [*missing, *to_come]
        largest, memory = largest_arm(ready, at_most)
        with request.launcher.opened(len(at_most)) as carrier:
            num_workers = carrier.choose_workers(
                request.workers, len(at_most), memory, ready.device, largest
            )
            share = carrier.share_cores(num_workers)
        num_threads = choose_threads(
            ready,
            request.threads,
            share,
            fresh=request.fresh,
            allow_drift=request.allow_numeric_drift,
        )
        from tyro_cli.training.throughput import measure_step_seconds  # torch: not before

        step_seconds = {}
        for name in dict.fromkeys(cell.arm for cell in at_most):
            stop.poll()
            step_seconds[name] = measure_step_seconds(
                plan.arms[name].settings,
                ready.data,
                ready.device,
                ready.plan.precision,
                num_threads,
            )
    seconds = sum(step_seconds[c.arm] * c.total_steps for c in at_most) / num_workers
    settings = {name: arm.settings.as_record() for name, arm in plan.arms.items()}
    record = {
        "run_folder": str(plan.run_folder),
        "arms": {
            name: {
                "settings": settings[name],
                "differences": plan.differences[name],
                "ledger": ready.ledgers[name].as_record(),
                "steps": plan.total_steps[name],
            }
            for name in plan.arms
        },
        "cells": [
            {"arm": c.arm, "seed": c.seed, "cell_id": c.cell_id, "setting": c.label} for c in cells
        ],
        "missing_cells": len(missing),
        "trials": len(plan.trials),
        "most_cells_to_come": len(to_come),
        "workers": num_workers,
        "threads": num_threads,
        "device": ready.device,
        "precision": ready.plan.precision,
        "cell_memory_bytes": memory,
        "worker_memory_bytes": memory + WORKER_BYTES,
        "disk_bytes": disk_bytes([ready.ledgers[c.arm] for c in at_most], num_workers),
        "train_seconds": seconds,
        "data": ready.data.facts(),
    }
    return DryRun(tuple(_dry_lines(ready, record)), record)


def _dry_lines(ready: Start, record: dict[str, Any]) -> list[str]:
    plan, data = ready.plan, ready.data
    train, valid, test = (data.splits[name].num_tokens for name in ("train", "valid", "test"))
    time_line = "none: every cell is done"
    if record["missing_cells"]:
        time_line = (
            f"about {duration(record['train_seconds'])} of training (a few steps, measured just "
            "now); evaluation comes on top"
        )
    lines = [
        f"run folder  {plan.run_folder}",
        f"data        {train:,} / {valid:,} / {test:,} tokens (train / valid / test), "
        f"vocabulary {data.vocab_size:,}",
        f"cells       {len(record['cells'])}, {record['missing_cells']} of them missing",
        *_search_lines(record),
        f"workers     {record['workers']} at a time, {record['threads']} thread(s) each, "
        f"{ready.plan.precision} on {ready.device}",
        f"memory      about {record['worker_memory_bytes'] / 2**20:,.0f} MiB a cell, "
        f"disk about {record['disk_bytes'] / 2**20:,.0f} MiB",
        f"time        {time_line}",
        "",
        *_ledger_lines(ready),
    ]
    baseline = plan.loaded.experiment.baseline
    text = yaml.safe_dump(record["arms"][baseline]["settings"], sort_keys=False)
    lines += ["", "resolved configuration of the baseline"]
    return lines + [f"  {line}" for line in text.splitlines()]


def _search_lines(record: dict[str, Any]) -> list[str]:
    """Say how many of the cells are trials, and how many may follow from them."""
    if not record["trials"]:
        return []
    line = f"search      {record['trials']} of the cells are trials"
    if record["most_cells_to_come"]:
        line += f"; at most {record['most_cells_to_come']} more follow from them, counted below"
    return [line]


def _ledger_lines(ready: Start) -> list[str]:
    """Return the ledger of every arm, side by side, and what each arm differs in."""
    names = list(ready.ledgers)
    width = max(15, *(len(name) + 2 for name in names))
    rows = zip(*(ready.ledgers[name].rows for name in names), strict=True)
    table = [("parameters", *names)]
    table += [(row[0].component, *(f"{one.parameters:,}" for one in row)) for row in rows]
    table.append(("total", *(f"{ready.ledgers[name].total:,}" for name in names)))
    lines = [f"{row[0]:<16}" + "".join(f"{cell:>{width}}" for cell in row[1:]) for row in table]
    baseline = ready.plan.loaded.experiment.baseline
    for name in names:
        differences = ready.plan.differences[name].items()
        told = ", ".join(f"{key} {values[0]} -> {values[1]}" for key, values in differences)
        if name != baseline:
            lines.append(f"{name} differs from {baseline} in: {told or 'nothing'}")
    return lines
