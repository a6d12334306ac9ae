"""`wtie runs`: which runs there are, what one of them holds, and whether all of it is sound.

What a folder is, its row and its tags are `run_folders`' matter. Removing asks first, and nothing
else here changes a record.
"""

import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tyro_cli.cli.options import (
    RUNS_ROOT,
    JsonOption,
    OutOption,
    RunArgument,
    all_named,
    named,
)
from tyro_cli.cli.run_folders import (
    STATES,
    age_in_words,
    change_tags,
    check_removable,
    fits,
    is_study_folder,
    list_folders,
    newest_run,
    remove_folder,
    summary_of,
)
from tyro_cli.cli.streams import print_json, print_line
from tyro_cli.cli.tables import draw_table
from tyro_cli.errors import UsageError

if TYPE_CHECKING:
    from tyro_cli.analysis.records import RunRecords

app = typer.Typer(
    help="List runs and studies, show, tag, remove or verify one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("ls")
def list_(
    name: Annotated[
        str | None, typer.Option("--name", metavar="PATTERN", help="Only names like this: quick*.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="TAG", help="Only what has this tag.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            "--state", metavar="STATE", help="Only done, unfinished, diverged or damaged."
        ),
    ] = None,
    out: OutOption = RUNS_ROOT,
    as_json: JsonOption = False,
) -> None:
    """List the runs and studies: arms, seeds, age, size, verdict.

    The newest come first. Seeds are those done in every arm, of those planned.
    """
    if state is not None and state not in STATES:
        raise UsageError(f"--state {state!r} is unknown", f"one of {', '.join(STATES)}")
    records = [
        record
        for folder in list_folders(out)
        if fits(record := summary_of(folder), name, tag, state)
    ]
    if as_json:
        print_json(records)
        return
    if not records:
        filtered = (name, tag, state) != (None, None, None)
        hint = "train one: wtie train --config configs/quickstart.yaml"
        print_line(f"{out} holds no run" + (" that fits" if filtered else f"; {hint}"))
        return
    from tyro_cli.analysis.columns import Column, Table

    rows = tuple(
        {
            "run": record["name"],
            "kind": record["kind"],
            "arms": ", ".join(record["arms"]),
            "seeds": f"{record['seeds_done']}/{record['seeds_planned']}",
            "age": age_in_words(record["age_seconds"]),
            "size": record["bytes"],
            "tags": ", ".join(record["tags"]),
            "verdict": record["problem"] or _verdicts_in_words(record["verdicts"]),
        }
        for record in records
    )
    columns = (
        Column("run", "run"),
        Column("kind", "kind"),
        Column("arms", "arms"),
        Column("seeds", "seeds"),
        Column("age", "age"),
        Column("size", "size", "bytes"),
        *([Column("tags", "tags")] if any(record["tags"] for record in records) else []),
        Column("verdict", "verdict"),
    )
    draw_table(Table("runs", f"Runs under {out}", columns, rows))


def _verdicts_in_words(verdicts: dict[str, str]) -> str:
    """Return the verdicts of a run, or how often a study has each."""
    texts = list(verdicts.values())
    if len(texts) < 3:
        return "; ".join(texts)
    return "; ".join(f"{texts.count(text)} {text}" for text in dict.fromkeys(texts))


@app.command("tag")
def tag_(
    run: RunArgument,
    tags: Annotated[list[str], typer.Argument(metavar="TAG", help="Words to find it by.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take these tags away instead.")] = False,
) -> None:
    """Give a run or study tags to find it by, or take them away."""
    check_removable(run)
    now = change_tags(run, tags, remove=remove)
    print_line(f"{run}: {', '.join(now) or 'no tags'}")


@app.command("rm")
def remove(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN", help="Folders of runs or studies to remove.", callback=all_named
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")
    ] = False,
) -> None:
    """Remove runs or studies for good, after asking.

    Removing a study keeps the runs that hold its cells.
    """
    for folder in runs:
        check_removable(folder)
    for folder in runs:
        record = summary_of(folder)
        size, age = _size_and_age(record)
        print_line(f"{folder}: {record['kind']}, {size}, {age}")
    if dry_run:
        return
    if not yes and not _confirmed(len(runs)):
        print_line("nothing was removed")
        return
    for folder in runs:
        remove_folder(folder)
        print_line(f"removed {folder}")


def _confirmed(number: int) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("removing asks first, and there is no terminal to ask", "add --yes")
    return typer.confirm(f"remove {'it' if number == 1 else f'these {number}'} for good?", err=True)


@app.command("show")
def show(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show what one run or study is.

    Of a run its arms and how they differ, its cells, data, versions and command; of a study its
    factors, and the run and cells of every point.
    """
    if is_study_folder(run):
        _show_study(run, as_json=as_json)
        return
    from tyro_cli.analysis.records import load_run
    from tyro_cli.storage.files import read_json

    records = load_run(run)
    manifest = read_json(run / "manifest.json")
    cells = [
        {"arm": cell.arm, "seed": cell.seed, "status": cell.status}
        for cell in records.cells.values()
    ]
    if as_json:
        print_json({**summary_of(run), "cells": cells, "manifest": manifest})
        return
    summary = summary_of(run)
    _print_summary(summary, run, manifest.get("command"))
    for name in ("created", "device", "precision", "threads", "git", "versions", "hardware"):
        print_line(f"{name}: {_in_words(manifest.get(name))}")
    data = _mapping(manifest.get("data"))
    for name, value in data.items():
        if name != "splits":
            print_line(f"data {name}: {_in_words(value)}")
    for split, facts in _mapping(data.get("splits")).items():
        print_line(f"data {split}: {_in_words(facts)}")
    print_line(f"baseline: {records.manifest.baseline}")
    for arm in records.arms:
        print_line(f"arm {arm}: {records.manifest.arms[arm].ledger.total:,} parameters")
        for path, values in _mapping(manifest["arms"][arm].get("differences")).items():
            both = values if isinstance(values, list) else [values]
            print_line(f"  {path}: {' -> '.join(map(str, both))}")
        states = [f"{cell.seed} {cell.status}" for cell in records.cells_of(arm)]
        print_line(f"  seeds: {', '.join(states) or 'none planned'}")
    for line in _search_lines(records):
        print_line(line)
    for arm, text in summary["verdicts"].items():
        print_line(f"verdict on {arm}: {text}")


def _print_summary(summary: dict[str, Any], folder: Path, command: Any) -> None:
    """Print what a run and a study have in common: where it lies, its size, age and tags."""
    print_line(f"{summary['kind']}: {folder}")
    print_line(", ".join(_size_and_age(summary)))
    if summary["tags"]:
        print_line(f"tags: {', '.join(summary['tags'])}")
    words = command if isinstance(command, list) else []
    print_line(f"command: {shlex.join(map(str, words))}")


def _size_and_age(summary: dict[str, Any]) -> tuple[str, str]:
    from tyro_cli.analysis.rendering import bytes_in_words

    age = age_in_words(summary["age_seconds"])
    return bytes_in_words(summary["bytes"]), f"{age} old" if age != "now" else "written just now"


def _show_study(folder: Path, *, as_json: bool) -> None:
    """Show what a study varies, and for every point where its cells lie and how far they are."""
    from tyro_cli.analysis.studies import load_study_records
    from tyro_cli.config.grid import level_text, levels_in_words
    from tyro_cli.storage.files import read_json

    study = load_study_records(folder)
    statuses = {
        point.run.folder.name: [cell.status for cell in point.run.cells.values()]
        for point in study.points
    }
    points: list[dict[str, Any]] = [
        {
            "levels": dict(point.levels),
            "run": point.run,
            "cells": dict(Counter(statuses.get(point.run, ()))),
        }
        for point in study.manifest.points
    ]
    summary, manifest = summary_of(folder), read_json(folder / "manifest.json")
    if as_json:
        print_json({**summary, "points": points, "manifest": manifest})
        return
    _print_summary(summary, folder, manifest.get("command"))
    for name, factor in study.factors.items():
        levels = ", ".join(map(level_text, factor.levels))
        print_line(f"factor {name}: {', '.join(factor.keys)} at {levels}")
    print_line(f"baseline: {study.manifest.baseline}")
    print_line(f"arms: {', '.join(study.manifest.arms)}")
    print_line(f"seeds: {_in_words(study.manifest.seeds)}")
    print_line(f"family: {study.manifest.family}")
    for point in points:
        where = levels_in_words({name: point["levels"][name] for name in study.factors})
        cells = ", ".join(f"{number} {status}" for status, number in point["cells"].items())
        print_line(f"point {where}: {folder.parent / point['run']}, {cells or 'not there yet'}")
    for where, text in summary["verdicts"].items():
        print_line(f"verdict at {where}: {text}")


def _search_lines(run: "RunRecords") -> list[str]:
    """Return what a run's search tried for each arm, and what came of it."""
    from tyro_cli.config.tuning import in_words

    if run.search is None:
        return []
    record = run.search.record
    lines = [
        f"search: {len(record.settings)} settings for each arm, seeds "
        f"{', '.join(map(str, record.seeds))}, shared setting: {record.shared}"
    ]
    for arm, trials in run.search.trials.items():
        statuses = [trial.status for trial in trials]
        counts = ", ".join(f"{statuses.count(one)} {one}" for one in dict.fromkeys(statuses))
        best = run.search.setting(run.search.best[arm] or "")
        found = f"; best at {in_words(best.values)}" if best is not None else "; no best setting"
        lines.append(f"trials of {arm}: {counts}{found}")
    return lines


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

    found = verify_run(named(run) if run else newest_run(out))
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


def _mapping(value: Any) -> dict[str, Any]:
    """Return a part of a manifest that no record class reads; none where it is something else."""
    return value if isinstance(value, dict) else {}


def _in_words(value: Any) -> str:
    """Return a record's value on one line."""
    if value is None:
        return "unknown"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_words(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    return str(value)
