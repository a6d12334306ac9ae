"""`wtie runs`: which runs there are, and what one of them holds.

A listing never fails because of one run: what cannot be read is named in its row. Sizes and ages
are those of the folder on disk.
"""

import time
from pathlib import Path
from typing import Any

import typer

from tyro_cli.cli.options import RUNS_ROOT, JsonOption, OutOption, RunArgument, list_runs
from tyro_cli.cli.streams import print_json, print_line, result_console
from tyro_cli.errors import WtieError

app = typer.Typer(help="List the runs, or show one.", no_args_is_help=True, rich_markup_mode=None)


@app.command("ls")
def list_(out: OutOption = RUNS_ROOT, as_json: JsonOption = False) -> None:
    """List the runs: arms, seeds, age, size, verdict.

    Seeds are those done of those planned.
    """
    records = [_summary(folder) for folder in reversed(list_runs(out))]
    if as_json:
        print_json(records)
        return
    if not records:
        print_line(f"{out} holds no run; train one: wtie train --config configs/quickstart.yaml")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_edge=False)
    for header in ("run", "arms", "seeds", "age", "size", "verdict"):
        table.add_column(header, overflow="fold", vertical="top")
    for record in records:
        table.add_row(
            record["name"],
            ", ".join(record["arms"]),
            f"{record['seeds_done']}/{record['seeds_planned']}",
            _age(record["age_seconds"]),
            _size(record["bytes"]),
            record["problem"] or "; ".join(record["verdicts"].values()),
        )
    result_console().print(table)


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
    lines: list[tuple[str, str]] = [
        ("run", str(run)),
        ("baseline", records.manifest.baseline),
        ("size", _size(summary["bytes"])),
        ("created", str(manifest.get("created", "unknown"))),
        ("command", " ".join(map(str, manifest.get("command", [])))),
        (
            "device",
            f"{manifest.get('device')}, {manifest.get('precision')}, "
            f"{manifest.get('threads')} threads a cell",
        ),
        *(
            (name, _in_words(manifest.get(name)))
            for name in ("data", "versions", "hardware", "git")
        ),
    ]
    for arm in records.arms:
        differences = manifest["arms"][arm].get("differences") or {}
        states = [f"{cell.seed} {cell.status}" for cell in records.cells_of(arm)]
        lines.append((f"arm {arm}", f"{records.manifest.arms[arm].ledger.total:,} parameters"))
        lines += [("", f"{path}: {a} -> {b}") for path, (a, b) in sorted(differences.items())]
        lines.append(("", f"seeds: {', '.join(states) or 'none planned'}"))
    lines += [(f"verdict {arm}", text) for arm, text in summary["verdicts"].items()]
    _print_pairs(lines)


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
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "verdicts": {},
        "problem": "",
    }
    try:
        run = load_run(folder)
        planned = {seed for _, seed in run.cells}
        unfinished = {seed for (_, seed), c in run.cells.items() if c.status == "unfinished"}
        record["arms"] = list(run.arms)
        record["seeds_done"] = len(planned - unfinished)
        record["seeds_planned"] = len(planned)
        record["verdicts"] = {arm: v.text for arm, v in verdict_of_run(run).items()}
    except WtieError as error:
        record["problem"] = error.message
    return record


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_words(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    return str(value)


def _print_pairs(lines: list[tuple[str, str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in lines:
        table.add_row(name, text)
    result_console().print(table)


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000 or unit == "GB":
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    raise AssertionError("the last unit ends the loop")
