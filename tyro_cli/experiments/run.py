"""From an experiment file to trained cells: the order in which everything happens.

Nothing is written before configuration, data, memory and disk have been found fit. Running the same
command again trains what is missing, which may be nothing. Display and tables belong to the caller.
"""

import shlex
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tyro_cli.config.loading import LoadedExperiment, load_experiment
from tyro_cli.data.prepared import PreparedData, default_cache_folder, prepare_data
from tyro_cli.errors import Interrupted
from tyro_cli.experiments.confounds import check_confounds
from tyro_cli.experiments.environment import describe_environment
from tyro_cli.experiments.launchers.local import CellFailure, run_locally
from tyro_cli.experiments.limits import available_cores, check_disk, choose_workers
from tyro_cli.experiments.live import LiveView, duration
from tyro_cli.experiments.plan import Cell, Plan, plan_experiment
from tyro_cli.experiments.run_folder import check_run_folder, open_run_folder
from tyro_cli.experiments.specs import CellSpec, read_result
from tyro_cli.ledger.ledger import Ledger, ledger_of
from tyro_cli.storage.files import read_json
from tyro_cli.storage.locks import owned
from tyro_cli.training.signals import StopRequest, polled_signals

if TYPE_CHECKING:
    from rich.console import Console

CHECKPOINT_SLACK = 1.1  # headers, records and tables beside the tensors


@dataclass(frozen=True)
class TrainOutcome:
    """What `train_experiment` did.

    Attributes:
        run_folder: The run.
        trained_cells: Cells that were trained now.
        done_cells: Cells of the request that are done, diverged ones included.
        failed: One line for each cell that is not done.
    """

    run_folder: Path
    trained_cells: int
    done_cells: int
    failed: tuple[str, ...]


@dataclass(frozen=True)
class _Prepared:
    """What is known before anything is written."""

    loaded: LoadedExperiment
    data: PreparedData
    device: str
    precision: str
    plan: Plan
    ledgers: dict[str, Ledger]


def _prepare(
    config_path: Path,
    overrides: list[str],
    *,
    seeds: tuple[int, ...] | None,
    arms: tuple[str, ...] | None,
    device: str,
    out: Path,
    fresh: bool,
    say: Callable[[str], None],
    stop: StopRequest,
) -> _Prepared:
    loaded = load_experiment(config_path, overrides)
    check_confounds(loaded)
    data = prepare_data(
        loaded.experiment.data,
        base_folder=Path.cwd(),
        cache_folder=default_cache_folder(),
        on_progress=say,
        should_stop=stop.poll,
    )
    from tyro_cli.training.hardware import (  # torch: only once the request is known to be sound
        multiplies_bfloat16,
        resolve_device,
        resolve_precision,
    )

    device = resolve_device(device)
    asked = loaded.experiment.training.precision
    precision = resolve_precision(asked, device)
    if precision == "bf16" and not multiplies_bfloat16(device):
        say(
            "warning: this hardware emulates bf16; fp32 is likely to be faster "
            "(training.precision=fp32)"
        )
    plan = plan_experiment(loaded, data, precision=precision, runs_root=out, seeds=seeds, arms=arms)
    ledgers = {
        name: ledger_of(arm.settings, data.vocab_size, precision)  # type: ignore[arg-type]
        for name, arm in plan.arms.items()
    }
    if not fresh:
        check_run_folder(plan, data)
    return _Prepared(loaded, data, device, precision, plan, ledgers)


def _largest_arm(ready: _Prepared) -> tuple[str, int]:
    """Return the planned arm whose training takes the most memory, and that estimate in bytes."""
    needed = {name: ready.ledgers[name].training_memory_bytes for name in ready.plan.selected_arms}
    largest = max(needed, key=lambda name: needed[name])
    return largest, needed[largest]


def train_experiment(
    config_path: Path,
    overrides: list[str],
    *,
    seeds: tuple[int, ...] | None,
    arms: tuple[str, ...] | None,
    workers: int | None,
    threads: int | None,
    device: str,
    out: Path,
    fresh: bool,
    allow_numeric_drift: bool,
    command: list[str],
    console: "Console",
) -> TrainOutcome:
    """Train every missing cell of an experiment.

    Args:
        config_path: The experiment file.
        overrides: `key=value` of the command line.
        seeds: Instead of the experiment's, or None.
        arms: Only these arms, or None for all.
        workers: Cells at once; None for as many as cells, cores, devices and memory allow.
        threads: Threads of a worker; None for cores divided by the cells at once. A run keeps the
            number of its first start.
        device: `auto`, `cpu` or `cuda`.
        out: The folder of runs.
        fresh: Move an existing run folder aside first.
        allow_numeric_drift: Resume cells under another numeric fingerprint, and record it.
        command: The command line, for the manifest and the message that says how to resume.
        console: Where progress is shown (stderr).

    Raises:
        UsageError: If anything about the request is wrong; nothing was written.
        Interrupted: After a signal; the message says how to go on.
    """

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    with polled_signals() as stop, ExitStack() as held:
        try:
            ready = _prepare(
                config_path,
                overrides,
                seeds=seeds,
                arms=arms,
                device=device,
                out=out,
                fresh=fresh,
                say=say,
                stop=stop,
            )
            plan = ready.plan
            missing = [c for c in plan.cells if fresh or read_result(c.folder, c.cell_id) is None]
            largest, memory_bytes = _largest_arm(ready)
            num_workers = choose_workers(workers, len(missing), memory_bytes, ready.device, largest)
            check_disk(plan.run_folder, _disk_bytes(ready, len(missing)))
            held.enter_context(owned(plan.run_folder, f"run {plan.run_folder.name}"))
            num_threads = _threads(plan.run_folder, threads, num_workers, fresh)
            open_run_folder(
                plan,
                prepared=ready.data,
                ledgers=ready.ledgers,
                threads=num_threads,
                device=ready.device,
                precision=ready.precision,
                environment=describe_environment(command, ready.device),
                fresh=fresh,
            )
            failures: list[CellFailure] = []
            if missing:
                say(
                    f"{plan.run_folder}: training {len(missing)} of {len(plan.cells)} cells, "
                    f"{num_workers} at a time, {num_threads} thread(s) each, {ready.precision} "
                    f"on {ready.device}"
                )
                specs = [_spec(ready, cell, num_threads, allow_numeric_drift) for cell in missing]
                with LiveView(console, len(specs)) as view:
                    failures = run_locally(specs, num_workers, view.handle, stop)
        except Interrupted as error:
            raise Interrupted(
                error.signal_number, f"go on with the same command: {shlex.join(command)}"
            ) from None
    done = [cell for cell in plan.cells if read_result(cell.folder, cell.cell_id) is not None]
    failed = [
        f"{failure.name}: {failure.message}" + (f" ({failure.remedy})" if failure.remedy else "")
        for failure in failures
        if not any(f"{cell.arm}/seed-{cell.seed}" == failure.name for cell in done)
    ]
    return TrainOutcome(
        run_folder=plan.run_folder,
        trained_cells=len(missing) - len(failed),
        done_cells=len(done),
        failed=tuple(failed),
    )


def _spec(ready: _Prepared, cell: Cell, threads: int, allow_numeric_drift: bool) -> CellSpec:
    arm = ready.plan.arms[cell.arm]
    return CellSpec(
        cell_id=cell.cell_id,
        arm=cell.arm,
        seed=cell.seed,
        settings=arm.settings.model_dump(mode="json"),
        folder=str(cell.folder),
        prepared_folder=str(ready.data.folder),
        total_steps=ready.plan.total_steps[cell.arm],
        device=ready.device,
        precision=ready.precision,
        threads=threads,
        allow_numeric_drift=allow_numeric_drift,
    )


def _disk_bytes(ready: _Prepared, num_cells: int) -> int:
    """Estimate the disk that the checkpoints take at their largest.

    A finished cell holds two sets of weights; a running one a full checkpoint more, twice while it
    is replaced.
    """
    if not num_cells:
        return 0
    weights = max(ledger.checkpoint_bytes for ledger in ready.ledgers.values())
    moments = max(ledger.optimizer_bytes for ledger in ready.ledgers.values())
    running = min(num_cells, available_cores()) * 2 * (weights + moments)
    return int(CHECKPOINT_SLACK * (num_cells * 2 * weights + running))


def _threads(run_folder: Path, asked: int | None, num_workers: int, fresh: bool) -> int:
    """Return the threads of a worker: asked for, or the run's own, or cores shared out."""
    if asked is not None:
        return asked
    manifest = run_folder / "manifest.json"
    if not fresh and manifest.exists():
        recorded = read_json(manifest)
        if isinstance(recorded, dict) and isinstance(recorded.get("threads"), int):
            return int(recorded["threads"])
    return max(1, available_cores() // num_workers)


@dataclass(frozen=True)
class DryRun:
    """What a start would do: lines for a person, a record for a program."""

    lines: tuple[str, ...]
    record: dict[str, Any]

    def as_record(self) -> dict[str, Any]:
        """Return plain values, for `--json`."""
        return self.record


def dry_run(
    config_path: Path,
    overrides: list[str],
    *,
    seeds: tuple[int, ...] | None,
    arms: tuple[str, ...] | None,
    workers: int | None,
    threads: int | None,
    device: str,
    out: Path,
    fresh: bool,
    allow_numeric_drift: bool,
    command: list[str],
    console: "Console",
) -> DryRun:
    """Say what `train_experiment` would do, and write nothing but the cache of token arrays.

    Time is estimated from a few steps of the largest arm, measured now.
    """
    with polled_signals() as stop:
        ready = _prepare(
            config_path,
            overrides,
            seeds=seeds,
            arms=arms,
            device=device,
            out=out,
            fresh=fresh,
            say=lambda text: console.print(text, soft_wrap=True),
            stop=stop,
        )
    plan = ready.plan
    missing = [c for c in plan.cells if fresh or read_result(c.folder, c.cell_id) is None]
    largest, memory = _largest_arm(ready)
    num_workers = choose_workers(workers, len(missing), memory, ready.device, largest)
    num_threads = _threads(plan.run_folder, threads, num_workers, fresh)
    from tyro_cli.training.throughput import measure_step_seconds

    step_seconds = measure_step_seconds(
        plan.arms[largest].settings, ready.data, ready.device, ready.precision, num_threads
    )
    steps = sum(plan.total_steps[cell.arm] for cell in missing)
    seconds = step_seconds * steps / num_workers
    settings = {name: arm.settings.model_dump(mode="json") for name, arm in plan.arms.items()}
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
        "cells": [{"arm": c.arm, "seed": c.seed, "cell_id": c.cell_id} for c in plan.cells],
        "missing_cells": len(missing),
        "workers": num_workers,
        "threads": num_threads,
        "device": ready.device,
        "precision": ready.precision,
        "cell_memory_bytes": memory,
        "disk_bytes": _disk_bytes(ready, len(missing)),
        "train_seconds": seconds,
        "data": ready.data.facts(),
    }
    return DryRun(tuple(_dry_lines(ready, record, seconds)), record)


def _dry_lines(ready: _Prepared, record: dict[str, Any], seconds: float) -> list[str]:
    plan, data = ready.plan, ready.data
    train, valid, test = (data.splits[name].num_tokens for name in ("train", "valid", "test"))
    lines = [
        f"run folder  {plan.run_folder}",
        f"data        {train:,} / {valid:,} / {test:,} tokens (train / valid / test), "
        f"vocabulary {data.vocab_size:,}",
        f"cells       {len(plan.cells)} ({len(plan.arms)} arms), {record['missing_cells']} missing",
        f"workers     {record['workers']} at a time, {record['threads']} thread(s) each, "
        f"{ready.precision} on {ready.device}",
        f"memory      about {record['cell_memory_bytes'] / 2**20:,.0f} MiB a cell, "
        f"disk about {record['disk_bytes'] / 2**20:,.0f} MiB",
        f"time        about {duration(seconds)} of training (measured on a few steps just now; "
        "evaluation comes on top)",
        "",
        "parameters",
    ]
    for name, ledger in ready.ledgers.items():
        differences = ", ".join(
            f"{key} {values[0]} -> {values[1]}" for key, values in plan.differences[name].items()
        )
        lines.append(
            f"  {name:<16} {ledger.total:>13,}   {ledger.forward_flops_per_token / 1e6:>8.2f} "
            f"MFLOP a token forward   {differences or 'baseline'}"
        )
    lines += ["", "resolved configuration of the baseline"]
    baseline = ready.loaded.experiment.baseline
    name = baseline if baseline in plan.arms else next(iter(plan.arms))
    text = yaml.safe_dump(record["arms"][name]["settings"], sort_keys=False)
    return lines + [f"  {line}" for line in text.splitlines()]
