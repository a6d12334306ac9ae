"""`wtie runs`: which runs there are, what one of them holds, and whether all of it is sound.

A listing never fails because of one run: what cannot be read is named in its row. Sizes and ages
are those of the folder on disk.
"""

import shlex
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tyro_cli.cli.options import (
    RUNS_ROOT,
    JsonOption,
    OutOption,
    RunArgument,
    folder_bytes,
    list_runs,
    newest_run,
)
from tyro_cli.cli.streams import print_json, print_line
from tyro_cli.cli.tables import draw_table
from tyro_cli.errors import WtieError

app = typer.Typer(
    help="List the runs, show one, or verify one.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("ls")
def list_(out: OutOption = RUNS_ROOT, as_json: JsonOption = False) -> None:
    """List the runs: arms, seeds, age, size, verdict.

    Seeds are those done in every arm, of those planned.
    """
    records = [_summary(folder) for folder in reversed(list_runs(out))]
    if as_json:
        print_json(records)
        return
    if not records:
        print_line(f"{out} holds no run; train one: wtie train --config configs/quickstart.yaml")
        return
    from tyro_cli.analysis.columns import Column, Table

    rows = tuple(
        {
            "run": record["name"],
            "arms": ", ".join(record["arms"]),
            "seeds": f"{record['seeds_done']}/{record['seeds_planned']}",
            "age": _age(record["age_seconds"]),
            "size": record["bytes"],
            "verdict": record["problem"] or "; ".join(record["verdicts"].values()),
        }
        for record in records
    )
    columns = (
        Column("run", "run"),
        Column("arms", "arms"),
        Column("seeds", "seeds"),
        Column("age", "age"),
        Column("size", "size", "bytes"),
        Column("verdict", "verdict"),
    )
    draw_table(Table("runs", f"Runs under {out}", columns, rows))


@app.command("show")
def show(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show what one run is.

    Its arms and how they differ, its cells, data, versions and command.
    """
    from tyro_cli.analysis.records import load_run
    from tyro_cli.storage.files import read_json

    records = load_run(run)
    manifest = read_json(run / "manifest.json")
    cells = [
        {"arm": cell.arm, "seed": cell.seed, "status": cell.status}
        for cell in records.cells.values()
    ]
    if as_json:
        print_json({**_summary(run), "cells": cells, "manifest": manifest})
        return
    summary = _summary(run)
    print_line(f"run: {run}")
    print_line(f"size: {summary['bytes']:,} bytes")
    print_line(f"command: {shlex.join(map(str, manifest.get('command') or []))}")
    for name in ("created", "device", "precision", "threads", "git", "versions", "hardware"):
        print_line(f"{name}: {_in_words(manifest.get(name))}")
    for name, value in (manifest.get("data") or {}).items():
        if name != "splits":
            print_line(f"data {name}: {_in_words(value)}")
    for split, facts in ((manifest.get("data") or {}).get("splits") or {}).items():
        print_line(f"data {split}: {_in_words(facts)}")
    print_line(f"baseline: {records.manifest.baseline}")
    for arm in records.arms:
        print_line(f"arm {arm}: {records.manifest.arms[arm].ledger.total:,} parameters")
        differences = manifest["arms"][arm].get("differences") or {}
        for path, values in differences.items():
            print_line(f"  {path}: {' -> '.join(map(str, values))}")
        states = [f"{cell.seed} {cell.status}" for cell in records.cells_of(arm)]
        print_line(f"  seeds: {', '.join(states) or 'none planned'}")
    for arm, text in summary["verdicts"].items():
        print_line(f"verdict on {arm}: {text}")


@app.command("verify")
def verify(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="A run folder; the newest run where none is given."),
    ] = None,
    out: OutOption = RUNS_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Check that nothing in a run is damaged, swapped or missing.

    Manifests, hashes, identities, ties, pairing proofs and sums; one line a problem, and exit 1
    where there is any. Nothing is changed.
    """
    from tyro_cli.experiments.verify import verify_run

    found = verify_run(run or newest_run(out))
    if as_json:
        print_json(found.as_record())
    else:
        for finding in found.findings:
            print_line(f"{finding.place}: {finding.problem}")
        states = ", ".join(f"{number} {state}" for state, number in sorted(found.cells.items()))
        problems = len(found.findings)
        print_line(
            f"{found.run_folder}: {sum(found.cells.values())} cells ({states}), "
            f"{found.num_checkpoints} checkpoints, {found.num_pairs} pairs: "
            + (f"{problems} problem{'s' if problems > 1 else ''}" if problems else "all is well")
        )
    if found.findings:
        raise typer.Exit(1)


def _summary(folder: Path) -> dict[str, Any]:
    """Return one row of the listing; `problem` says why a run could not be read."""
    from tyro_cli.analysis.records import load_run
    from tyro_cli.analysis.verdicts import verdict_of_run

    record: dict[str, Any] = {
        "name": folder.name,
        "arms": [],
        "seeds_done": 0,
        "seeds_planned": 0,
        "age_seconds": round(max(0.0, time.time() - (folder / "manifest.json").stat().st_mtime)),
        "bytes": folder_bytes(folder),
        "verdicts": {},
        "problem": "",
    }
    try:
        run = load_run(folder)
        planned = {seed for _, seed in run.cells}
        done = {key for key, cell in run.cells.items() if cell.status != "unfinished"}
        record["arms"] = list(run.arms)
        record["seeds_done"] = sum(all((arm, seed) in done for arm in run.arms) for seed in planned)
        record["seeds_planned"] = len(planned)
        record["verdicts"] = {arm: v.text for arm, v in verdict_of_run(run).items()}
    except WtieError as error:
        record["problem"] = error.message
    return record


def _in_words(value: Any) -> str:
    """Return a record's value on one line."""
    if value is None:
        return "unknown"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_words(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    return str(value)


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"
