"""From a study file to trained cells: all missing cells of a grid, through one launcher.

As for one experiment, nothing is written before configuration, data, memory and disk have been
found fit, and the same command again trains what is missing. Cells are ordinary cells of ordinary
runs, so a study reuses what was trained before, by `wtie train` or by another study.
"""

import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro_cli.config.grid import Point
from tyro_cli.config.studies import load_study
from tyro_cli.config.tuning import grid_settings
from tyro_cli.errors import Interrupted, RunFolderError, UsageError
from tyro_cli.experiments.environment import describe_environment
from tyro_cli.experiments.launchers.choice import Launcher
from tyro_cli.experiments.launchers.local import CellFailure
from tyro_cli.experiments.limits import WORKER_BYTES, check_disk
from tyro_cli.experiments.live import LiveView, duration
from tyro_cli.experiments.run import Start, StartRequest, cell_spec, choose_threads, disk_bytes
from tyro_cli.experiments.run_folder import open_run_folder
from tyro_cli.experiments.search import most_to_come
from tyro_cli.experiments.specs import CellSpec, read_result, set_aside_foreign_result
from tyro_cli.experiments.studies import (
    StudyCell,
    StudyPlan,
    cells_of_shard,
    check_study_folder,
    open_study_folder,
    plan_study,
    study_cells,
    train_command,
)
from tyro_cli.storage.files import move_aside
from tyro_cli.storage.locks import owned
from tyro_cli.training.signals import StopRequest, polled_signals

MOST_CELLS = 500
"""A grid of more cells than this is trained only when that is confirmed (`--yes`)."""


@dataclass(frozen=True)
class SweepRequest(StartRequest):
    """What `wtie sweep` is asked for.

    Attributes:
        study_path: The study file.
        overrides: `key=value` of the command line, over the base experiment.
        smoke: Whether to lay the study's `smoke:` over it too.
        shard: Which shard, from 1, and of how many.
        fail_fast: Stop at the first failure.
        retry_failed: Move diverged cells aside and train them again.
        confirmed: Train also a grid of more than `MOST_CELLS` cells.
    """

    study_path: Path
    overrides: list[str]
    smoke: bool
    shard: tuple[int, int]
    fail_fast: bool
    retry_failed: bool
    confirmed: bool


@dataclass(frozen=True)
class SweepOutcome:
    """What `sweep_study` did.

    Attributes:
        folder: The study's folder.
        planned_cells: Cells of the whole study.
        trained_cells: Cells that were trained now.
        done_cells: Cells of this shard that are done, diverged ones included.
        failed: One line for each cell of this shard that is not done.
        diverged: Cells of this shard that diverged.
    """

    folder: Path
    planned_cells: int
    trained_cells: int
    done_cells: int
    failed: tuple[str, ...]
    diverged: tuple[str, ...]


@dataclass(frozen=True)
class _Ready:
    """A request that was found fit, before anything is written."""

    plan: StudyPlan
    cells: tuple[StudyCell, ...]
    missing: tuple[StudyCell, ...]
    to_come: tuple[StudyCell, ...]
    launcher: Launcher
    num_workers: int
    has_search: bool


def sweep_study(request: SweepRequest) -> SweepOutcome:
    """Train every missing cell of a study.

    Raises:
        UsageError: If anything about the request is wrong; nothing was written.
        Interrupted: After a signal; the message says how to go on.
    """
    again = shlex.join(word for word in request.command if word != "--retry-failed")
    with polled_signals() as stop, ExitStack() as held:
        stop.last_words = f"ended at once; go on with: {again}\n"
        try:
            ready = _prepare(request, stop, held)
            plan, missing = ready.plan, ready.missing
            held.enter_context(owned(plan.folder, f"study {plan.folder.name}"))
            for start in plan.starts:
                run = start.plan.run_folder
                held.enter_context(owned(run, f"run {run.name}"))
            share = ready.launcher.share_cores(ready.num_workers)
            threads = [_threads(request, start, share) for start in plan.starts]
            if request.retry_failed:
                for one in missing:
                    if one.cell.folder.exists() and _status(one) == "diverged":
                        move_aside(one.cell.folder)
            opened = _open(request, plan, threads)
            failures: list[CellFailure] = []
            cells, tried = ready.cells, list[StudyCell]()
            while missing:  # The trials of a search lead to more cells, once.
                request.say(
                    f"{plan.folder}: training {len(missing)} of {len(cells)} cells, "
                    f"{ready.num_workers} at a time"
                )
                for one in missing:
                    if told := set_aside_foreign_result(one.cell.folder, one.cell.cell_id):
                        request.say(f"warning: {told}")
                specs = [_spec(one, *opened[one.start.plan.run_folder]) for one in missing]
                with LiveView(request.console, len(specs)) as view:
                    failures += ready.launcher.run(
                        specs,
                        ready.num_workers,
                        view.handle,
                        stop,
                        fail_fast=request.fail_fast,
                    )
                tried += missing
                if not ready.has_search or (failures and request.fail_fast):
                    break
                known = study_cells(plan.loaded, plan.starts)
                cells = cells_of_shard(plan, *request.shard, known)
                missing = tuple(one for one in cells if one not in tried and _status(one) is None)
        except Interrupted as error:
            raise Interrupted(error.signal_number, f"go on with: {again}") from None
    reasons = {failure.name: failure.in_words() for failure in failures}
    return _outcome(plan, cells, tried, reasons)


def _outcome(
    plan: StudyPlan,
    cells: Sequence[StudyCell],
    tried: Sequence[StudyCell],
    failures: dict[str, str],
) -> SweepOutcome:
    done = [one for one in cells if _status(one) is not None]
    open_cells = [one for one in cells if _status(one) is None]
    failed = [failures.get(cell_name(one), f"{cell_name(one)}: not trained") for one in open_cells]
    return SweepOutcome(
        folder=plan.folder,
        planned_cells=max(len(plan.cells), len(cells)),
        trained_cells=sum(_status(one) is not None for one in tried),
        done_cells=len(done),
        failed=tuple(failed),
        diverged=tuple(
            cell_name(one) for one in done if _status(one) == "diverged" and not one.cell.is_trial
        ),
    )


def cell_name(one: StudyCell) -> str:
    """Return how a cell is called on the screen: point, arm and seed."""
    return one.cell.name(one.point.label)


def _status(one: StudyCell) -> str | None:
    result = read_result(one.cell.folder, one.cell.cell_id)
    return None if result is None else str(result.get("status"))


def _prepare(request: SweepRequest, stop: StopRequest, held: ExitStack) -> _Ready:
    """Find out whether the request can be carried out; nothing is written but the cache.

    The launcher stays open for as long as `held` does.
    """
    loaded = load_study(request.study_path, request.overrides, smoke=request.smoke)
    num_cells = sum(_num_cells(point, len(loaded.seeds)) for point in loaded.points)
    if num_cells > MOST_CELLS and not request.confirmed:
        raise UsageError(
            f"{request.study_path}: the grid has {num_cells:,} cells, more than {MOST_CELLS}",
            "see what it costs with --dry-run, and confirm it with --yes",
        )
    plan = plan_study(loaded, device=request.device, out=request.out, say=request.say, stop=stop)
    check_study_folder(plan, *request.shard)
    has_search = any(start.plan.settings for start in plan.starts)
    cells = cells_of_shard(plan, *request.shard)
    missing = tuple(one for one in cells if _is_missing(one, request.retry_failed))
    to_come = tuple(
        StudyCell(point, start, cell)
        for point, start in zip(plan.loaded.points, plan.starts, strict=True)
        for cell in most_to_come(start.plan, [one.cell for one in missing if one.start is start])
    )
    at_most = (*missing, *to_come)
    memory, largest = _largest(at_most)
    device = plan.starts[0].device
    launcher = held.enter_context(request.launcher.opened(len(at_most)))
    num_workers = launcher.choose_workers(request.workers, len(at_most), memory, device, largest)
    if request.launcher.storage is None:
        check_disk(plan.folder, _disk_bytes(at_most, num_workers))
    return _Ready(plan, cells, missing, to_come, launcher, num_workers, has_search)


def _num_cells(point: Point, num_seeds: int) -> int:
    """Return the cells of a point: its contrasts at one setting, and its trials."""
    tune = point.loaded.experiment.tune
    trials = len(grid_settings(point.loaded.experiment)) * len(tune.seeds) if tune else 0
    return len(point.loaded.arms) * (num_seeds + trials)


def _is_missing(one: StudyCell, retry_failed: bool) -> bool:
    """Say whether a cell is to be trained; a trial that diverged has had its chance."""
    status = _status(one)
    return status is None or (status == "diverged" and retry_failed and not one.cell.is_trial)


def _largest(missing: tuple[StudyCell, ...]) -> tuple[int, str]:
    """Return the most memory that a missing cell is estimated to take, and which cell that is."""
    needed = [
        (one.start.ledgers[one.cell.arm].training_memory_bytes, cell_name(one)) for one in missing
    ]
    return max(needed, default=(0, "none"))


def _disk_bytes(missing: tuple[StudyCell, ...], num_workers: int) -> int:
    return disk_bytes([one.start.ledgers[one.cell.arm] for one in missing], num_workers)


def _open(
    request: SweepRequest, plan: StudyPlan, threads_of_starts: Sequence[int]
) -> dict[Path, tuple[dict[str, Any], int]]:
    """Open the study's folder and every run folder; return each run's manifest and threads."""
    opened = {}
    for point, start, threads in zip(
        plan.loaded.points, plan.starts, threads_of_starts, strict=True
    ):
        manifest = open_run_folder(
            start.plan,
            prepared=start.data,
            ledgers=start.ledgers,
            threads=threads,
            device=start.device,
            environment=describe_environment(train_command(plan.loaded, point), start.device),
        )
        opened[start.plan.run_folder] = (manifest, threads)
    open_study_folder(plan, *request.shard, request.command)
    return opened


def _spec(one: StudyCell, manifest: dict[str, Any], threads: int) -> CellSpec:
    return cell_spec(one.start, one.cell, manifest, threads, False, one.point.label)


def _threads(request: SweepRequest, start: Start, share: int) -> int:
    try:
        return choose_threads(start, request.threads, share, fresh=False, allow_drift=False)
    except RunFolderError as error:
        raise RunFolderError(error.message, "leave --threads and --device out") from None


def dry_sweep(request: SweepRequest) -> dict[str, Any]:
    """Return what `sweep_study` would do, as plain values; nothing is written but the cache.

    Time is estimated from a few steps of each distinct model, measured now.
    """
    with polled_signals() as stop, ExitStack() as held:
        ready = _prepare(request, stop, held)
        seconds = _training_seconds(request, ready, stop)
    missing = ready.missing
    at_most = (*missing, *ready.to_come)
    return {
        "study_folder": str(ready.plan.folder),
        "points": [dict(point.levels) for point in ready.plan.loaded.points],
        "arms": list(ready.plan.loaded.points[0].loaded.arms),
        "seeds": list(ready.plan.loaded.seeds),
        "cells": len(ready.plan.cells),
        "shard_cells": len(ready.cells),
        "missing_cells": len(missing),
        "most_cells_to_come": len(ready.to_come),
        "trials": sum(one.cell.is_trial for one in ready.cells),
        "missing_tokens": sum(_tokens(one) for one in at_most),
        "workers": ready.num_workers,
        "worker_memory_bytes": _largest(at_most)[0] + WORKER_BYTES,
        "disk_bytes": _disk_bytes(at_most, ready.num_workers),
        "train_seconds": seconds,
    }


def _tokens(one: StudyCell) -> int:
    settings = one.start.plan.arms[one.cell.arm].settings
    return one.cell.total_steps * settings.training.batch_tokens


def _training_seconds(request: SweepRequest, ready: _Ready, stop: StopRequest) -> float:
    from tyro_cli.training.throughput import measure_step_seconds  # torch: not before

    step_seconds: dict[str, float] = {}
    total = 0.0
    share = ready.launcher.share_cores(ready.num_workers)
    for one in (*ready.missing, *ready.to_come):
        stop.poll()
        settings = one.start.plan.arms[one.cell.arm].settings
        training = settings.training
        key = (
            f"{settings.model} {settings.data.context_length} {training.batch_tokens} "
            f"{training.micro_batch_tokens} {one.start.data.vocab_size}"
        )
        if key not in step_seconds:
            threads = _threads(request, one.start, share)
            step_seconds[key] = measure_step_seconds(
                settings, one.start.data, one.start.device, one.start.plan.precision, threads
            )
        total += step_seconds[key] * one.cell.total_steps
    return total / ready.num_workers


def dry_lines(record: dict[str, Any], say: Callable[[str], None]) -> None:
    """Say what a dry run found, line by line."""
    say(f"study folder  {record['study_folder']}")
    say(
        f"cells         {record['cells']:,}: {len(record['points'])} points, "
        f"{len(record['arms'])} arms, {len(record['seeds'])} seeds"
    )
    if record["trials"]:
        say(
            f"search        {record['trials']:,} of the cells are trials; at most "
            f"{record['most_cells_to_come']:,} more follow from them, counted below"
        )
    say(f"missing       {record['missing_cells']:,} of the {record['shard_cells']:,} asked for")
    say(f"tokens        {record['missing_tokens']:,} to train on")
    say(
        f"memory        about {record['worker_memory_bytes'] / 2**20:,.0f} MiB the largest cell, "
        f"{record['workers']} at a time; disk about {record['disk_bytes'] / 2**20:,.0f} MiB"
    )
    if record["missing_cells"]:
        say(
            f"time          about {duration(record['train_seconds'])} of training "
            f"({record['train_seconds'] / 3600:.1f} hours; a few steps, measured just now); "
            "evaluation comes on top"
        )
    else:
        say("time          none: every cell is done")
