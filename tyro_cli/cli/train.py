"""`wtie train`: train every missing cell of an experiment, then print and write its tables.

The words are checked before anything is loaded; training itself, its live display and its records
belong to `experiments`. The tables go to stdout, everything said on the way to stderr.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from tyro_cli.cli.options import (
    AUTO,
    RUNS_ROOT,
    AddressOption,
    ConfigOption,
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
    load_checked,
    parse_count,
    parse_names,
)
from tyro_cli.cli.streams import print_json, print_line, progress_console, warn
from tyro_cli.cli.tables import compare_run, draw, warn_of_missing_cells
from tyro_cli.training.world import World, read_world, refuse_torchrun

if TYPE_CHECKING:
    from tyro_cli.experiments.run import TrainRequest


def train(
    config: ConfigOption,
    overrides: Overrides = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="SEEDS", help="Seeds instead of the file's: 0-4, or 0,2,5-7."),
    ] = None,
    arms: Annotated[
        str | None, typer.Option(metavar="ARM,ARM", help="Only these arms: untied,tied.")
    ] = None,
    workers: WorkersOption = AUTO,
    threads: ThreadsOption = AUTO,
    device: DeviceOption = AUTO,
    launcher: LauncherOption = "local",
    ray_address: AddressOption = None,
    storage: StorageOption = None,
    out: OutOption = RUNS_ROOT,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Move the run's old folder aside and start over."),
    ] = False,
    allow_numeric_drift: Annotated[
        bool,
        typer.Option(
            "--allow-numeric-drift",
            help="Resume on hardware or a torch build that may give other bytes; recorded.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show the resolved configuration, the ledger, memory and time; train no cell, "
            "only a few steps to measure time.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train every missing cell, then print and write the tables.

    Running the same command again trains nothing and prints the tables; adding seeds or arms
    trains only what is new; after an interruption the same command resumes.

    Several devices train one cell at a time with:
    torchrun --standalone --nproc-per-node 2 -m tyro_cli train ...
    """
    world = read_world()
    if world.rank > 0:
        from tyro_cli.experiments.launchers.torchrun import follow

        follow(world)
        return
    with _leading(world):
        if launcher != "local":
            refuse_torchrun(f"wtie train --launcher {launcher}", "leave torchrun out")
        check_device(device)
        loaded = load_checked(config, checked_overrides(overrides))
        from tyro_cli.config.seeds import parse_seeds
        from tyro_cli.experiments.run import TrainRequest

        request = TrainRequest(
            loaded=loaded,
            seeds=None if seeds is None else parse_seeds(seeds),
            arms=parse_names(arms, "--arms", "untied,tied"),
            workers=parse_count(workers, "--workers"),
            threads=parse_count(threads, "--threads"),
            device=device,
            out=out,
            fresh=fresh,
            allow_numeric_drift=allow_numeric_drift,
            launcher=choose_launcher(launcher, ray_address, storage),
            command=[*_program(world), *sys.argv[1:]],
            console=progress_console(),
        )
        if dry_run:
            refuse_torchrun("wtie train --dry-run", "leave torchrun out")
            _show_plan(request, as_json=as_json)
            return
        _train(request, world, as_json=as_json)


def _leading(world: World) -> AbstractContextManager[None]:
    if world.size == 1:
        return nullcontext()
    from tyro_cli.experiments.launchers.torchrun import leading

    return leading(world)


def _program(world: World) -> list[str]:
    """Return the words before `train` that start this command again."""
    if world.size == 1:
        return ["wtie"]
    return ["torchrun", "--standalone", "--nproc-per-node", str(world.size), "-m", "tyro_cli"]


def _show_plan(request: "TrainRequest", *, as_json: bool) -> None:
    from tyro_cli.experiments.dry_run import dry_run

    plan = dry_run(request)
    if as_json:
        print_json(plan.record)
        return
    for line in plan.lines:
        print_line(line)


def _train(request: "TrainRequest", world: World, *, as_json: bool) -> None:
    from tyro_cli.experiments.run import train_experiment

    outcome = train_experiment(request, world)
    if outcome.trained_cells == 0 and not outcome.failed:
        warn(f"all {outcome.done_cells} cells were trained before; nothing to do")
    from tyro_cli.analysis.records import load_run
    from tyro_cli.analysis.rendering import write_tables
    from tyro_cli.analysis.search_tables import contrast_cells

    run = load_run(outcome.run_folder)
    diverged = [f"{c.arm} seed {c.seed}" for c in contrast_cells(run) if c.status == "diverged"]
    record = {
        "run_folder": str(outcome.run_folder),
        "trained_cells": outcome.trained_cells,
        "done_cells": outcome.done_cells,
        "failed": list(outcome.failed),
        "diverged": diverged,
    }
    if any(cell.status != "unfinished" for cell in run.cells.values()):
        compared = compare_run(run)
        write_tables(run.folder, compared.tables)
        record |= compared.as_record()
        if not as_json:
            draw(compared)
    if as_json:
        print_json(record)
    warn_of_missing_cells(run)
    for cell in outcome.failed:
        warn(f"failed: {cell}")
    for cell in diverged:
        warn(f"diverged: {cell}")
    if outcome.failed or diverged:
        raise typer.Exit(1)
