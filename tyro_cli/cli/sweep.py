"""`wtie sweep`: train every missing cell of a study, then print and write its tables.

The words are checked before anything is loaded; the grid, its shards and its folder belong to
`experiments`, the tables to `analysis`.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tyro_cli.cli.options import (
    AUTO,
    RUNS_ROOT,
    AddressOption,
    DeviceOption,
    JsonOption,
    LauncherOption,
    OutOption,
    Overrides,
    StorageOption,
    ThreadsOption,
    WorkersOption,
    check_device,
    checked_overrides,
    choose_launcher,
    parse_count,
)
from tyro_cli.cli.streams import print_json, print_line, progress_console, warn
from tyro_cli.cli.tables import compare_study, draw_study
from tyro_cli.training.world import refuse_torchrun

if TYPE_CHECKING:
    from tyro_cli.analysis.studies import StudyRecords
    from tyro_cli.experiments.sweep import SweepRequest

FAILED_CELLS = 4


def sweep(
    config: Annotated[
        Path,
        typer.Option("--config", "-c", metavar="STUDY", help="The study file.", show_default=False),
    ],
    overrides: Overrides = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Only the I-th of N parts, for machines that share nothing; copying the run "
            "folders together merges them.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Move cells that diverged aside and train them again."),
    ] = False,
    fail_fast: Annotated[
        bool,
        typer.Option("--fail-fast", help="Stop at the first failed cell; the default goes on."),
    ] = False,
    workers: WorkersOption = AUTO,
    threads: ThreadsOption = AUTO,
    device: DeviceOption = AUTO,
    launcher: LauncherOption = "local",
    ray_address: AddressOption = None,
    storage: StorageOption = None,
    out: OutOption = RUNS_ROOT,
    yes: Annotated[
        bool, typer.Option("--yes", help="Train also a grid of more than 500 cells.")
    ] = False,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="Try the study on the small budget that its `smoke:` says."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show cells, tokens, disk and hours of the study; train no cell, only a few steps "
            "to measure time.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train every missing cell of a study, a grid of experiments.

    Then print and write its tables. Running the same command again trains nothing and prints the
    tables; a failed cell does not stop the others, and ends in exit code 4.
    """
    refuse_torchrun("wtie sweep", "leave torchrun out: a study trains many cells, a process each")
    check_device(device)
    from tyro_cli.experiments.studies import parse_shard
    from tyro_cli.experiments.sweep import SweepRequest

    request = SweepRequest(
        study_path=config,
        overrides=checked_overrides(overrides),
        smoke=smoke,
        workers=parse_count(workers, "--workers"),
        threads=parse_count(threads, "--threads"),
        device=device,
        out=out,
        shard=parse_shard(shard),
        fail_fast=fail_fast,
        retry_failed=retry_failed,
        confirmed=yes or dry_run,
        launcher=choose_launcher(launcher, ray_address, storage),
        command=["wtie", *sys.argv[1:]],
        console=progress_console(),
    )
    if dry_run:
        _dry_run(request, as_json=as_json)
    else:
        _sweep(request, as_json=as_json)


def _dry_run(request: "SweepRequest", *, as_json: bool) -> None:
    from tyro_cli.experiments.sweep import dry_lines, dry_sweep

    record = dry_sweep(request)
    if as_json:
        print_json(record)
    else:
        dry_lines(record, print_line)


def _sweep(request: "SweepRequest", *, as_json: bool) -> None:
    from tyro_cli.analysis.rendering import write_tables
    from tyro_cli.analysis.studies import load_study_records
    from tyro_cli.experiments.sweep import sweep_study

    outcome = sweep_study(request)
    if outcome.trained_cells == 0 and not outcome.failed:
        warn(f"all {outcome.done_cells} cells were trained before; nothing to do")
    compared = compare_study(load_study_records(outcome.folder))
    write_tables(outcome.folder, compared.tables)
    _write_tables_of_runs(compared.study)
    if as_json:
        print_json(
            {
                "planned_cells": outcome.planned_cells,
                "trained_cells": outcome.trained_cells,
                "done_cells": outcome.done_cells,
                "failed": list(outcome.failed),
                "diverged": list(outcome.diverged),
            }
            | compared.as_record()
        )
    else:
        draw_study(compared)
    for cell in outcome.failed:
        warn(f"failed: {cell}")
    for cell in outcome.diverged:
        warn(f"diverged: {cell}; --retry-failed trains it again")
    if outcome.failed or outcome.diverged:
        raise typer.Exit(FAILED_CELLS)


def _write_tables_of_runs(study: "StudyRecords") -> None:
    """Write the tables of each run that has a finished cell, as `wtie train` would."""
    from tyro_cli.analysis.records import load_run
    from tyro_cli.analysis.rendering import write_tables
    from tyro_cli.analysis.tables import all_tables

    for point in study.points:
        run = load_run(point.run.folder)
        if any(cell.status != "unfinished" for cell in run.cells.values()):
            write_tables(run.folder, all_tables(run))
