"""`wtie compare`: the tables and the verdict of trained runs, and a gate for other programs.

Reads records and prints; nothing is trained and nothing written. The tables' content, and which
numbers may stand beside each other, belong to `analysis`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tyro_cli.cli.options import (
    RUNS_ROOT,
    JsonOption,
    OutOption,
    all_named,
    parse_names,
)
from tyro_cli.cli.run_folders import newest_run
from tyro_cli.cli.streams import print_json, print_line, print_text, warn
from tyro_cli.cli.tables import (
    Compared,
    ComparedStudy,
    compare_run,
    compare_study,
    draw,
    draw_study,
    draw_table,
    warn_of_missing_cells,
)
from tyro_cli.errors import GateFailed, UsageError

if TYPE_CHECKING:
    from tyro_cli.analysis.columns import Table
    from tyro_cli.analysis.records import RunRecords
    from tyro_cli.analysis.verdicts import Verdict

FORMATS = ("table", "md", "csv", "json", "tex")
GATES = ("worse", "not-shown")
WITHOUT_METRICS = ("parameters", "performance")
NOT_SHOWN = ("cannot-tell", "one-pair")


def compare(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN",
            help="Folders of runs, or of studies; the newest run where none is given.",
            callback=all_named,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="ARM", help="Compare against this arm instead of the file's."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="nats_per_word, nats_per_token, bits_per_byte, word_perplexity or "
            "token_perplexity in the contrasts; the verdict stays on nats per word.",
        ),
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format", metavar="FORMAT,FORMAT", help="Any of table, md, csv, json and tex."
        ),
    ] = "table",
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            metavar="NAME",
            help="Only this one: parameters, perplexity, contrasts or performance; after a search "
            "also tuned or trials; of a translation also overlap, translation or "
            "translation-contrasts; of a study results, contrasts and others (a wrong name lists "
            "them).",
        ),
    ] = None,
    fail_if: Annotated[
        str | None,
        typer.Option(
            "--fail-if",
            metavar="GATE",
            help="Exit 3. worse: when the baseline is better, also by less than the margin, or "
            "the verdict is withheld or not final; not-shown: also when one cannot tell, or has "
            "one pair.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Set numbers of different signature beside each other."),
    ] = False,
    out: OutOption = RUNS_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Print the tables and the verdict of trained runs.

    Several runs stand side by side, sorted, with only what differs. Reads records only: nothing is
    trained and nothing written.
    """
    formats = parse_names("json" if as_json else format_, "--format", "md,csv") or ()
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"--format {name!r} is unknown", f"any of {', '.join(FORMATS)}")
    if fail_if is not None and fail_if not in GATES:
        raise UsageError(f"--fail-if {fail_if!r} is unknown", f"one of {', '.join(GATES)}")
    from tyro_cli.analysis.studies import is_study

    folders = runs or [newest_run(out)]
    compared: Sequence[Compared | ComparedStudy]
    together: tuple[Table, ...] = ()
    if any(is_study(folder) for folder in folders):
        compared = _studies(folders, baseline, metric, table, force=force)
    else:
        compared, together = _runs(folders, baseline, metric, table, force=force)
    for index, name in enumerate(formats):
        if index:
            print_line()
        _print(compared, together, name)
    for each in compared:
        if isinstance(each, Compared):
            warn_of_missing_cells(each.run)
    if fail_if is not None:
        _check_gate(compared, fail_if)


def _studies(
    folders: list[Path], baseline: str | None, metric: str | None, table: str | None, *, force: bool
) -> list[ComparedStudy]:
    from tyro_cli.analysis.studies import load_study_records

    if baseline is not None or metric is not None:
        raise UsageError(
            "a study has one baseline and decides on nats per word",
            "leave --baseline and --metric out, or compare one of its runs",
        )
    return [
        compare_study(load_study_records(folder), table=table, force=force) for folder in folders
    ]


def _runs(
    folders: list[Path], baseline: str | None, metric: str | None, table: str | None, *, force: bool
) -> tuple[list[Compared], tuple["Table", ...]]:
    """Return what is shown of each run, and the tables that show them together."""
    from tyro_cli.analysis.contrasts import check_metric
    from tyro_cli.analysis.records import load_run
    from tyro_cli.analysis.side_by_side import side_by_side

    loaded = [load_run(folder) for folder in folders]
    if table not in WITHOUT_METRICS:
        _refuse_mixed_runs(loaded, metric, force=force)
    compared = [
        compare_run(run, baseline=baseline, metric=metric, table=table, force=force)
        for run in loaded
    ]
    if len(loaded) == 1 or table is not None:
        return compared, ()
    by = check_metric(metric or "nats_per_word")
    return compared, (side_by_side(loaded, by, baseline, force=force),)


def _print(
    compared: Sequence[Compared | ComparedStudy], together: tuple["Table", ...], format_: str
) -> None:
    """Print in one format: what shows runs together in place of their own tables."""
    from tyro_cli.analysis import rendering

    if format_ == "json":
        documents = [each.as_record() for each in compared]
        if together:
            tables = {table.name: rendering.table_record(table) for table in together}
            print_json({"tables": tables, "runs": documents})
        else:
            print_json(documents[0] if len(documents) == 1 else documents)
        return
    if format_ == "table":
        for table in together:
            draw_table(table)
        for index, each in enumerate([] if together else compared):
            if index:
                print_line()
            if isinstance(each, Compared):
                draw(each)
            else:
                draw_study(each)
        return
    render = {"md": rendering.to_markdown, "csv": rendering.to_csv, "tex": rendering.to_latex}
    shown = together or [table for each in compared for table in each.tables.values()]
    pieces = [render[format_](table) for table in shown]
    print_text("\n".join(piece.rstrip("\n") + "\n" for piece in pieces))


def _refuse_mixed_runs(runs: list["RunRecords"], metric: str | None, *, force: bool) -> None:
    """Refuse runs whose numbers were not computed in one way; warn about the other metrics."""
    from tyro_cli.analysis.contrasts import METRICS, check_metric
    from tyro_cli.analysis.signatures import (
        mixed_signatures,
        refuse_mixed_signatures,
        signatures_of,
    )

    decisive = check_metric(metric or "nats_per_word")
    if len(runs) < 2:
        return
    results = {
        f"{run.folder} {result.arm} seed {result.seed}": result
        for run in runs
        for result in run.results()
    }
    for split in ("valid", "test"):
        signatures = signatures_of(results, split, decisive)
        warning = refuse_mixed_signatures(f"{split} {decisive}", signatures, force=force)
        if warning:
            warn(f"warning: {warning}")
    for name in METRICS:
        if name != decisive and mixed_signatures(signatures_of(results, "test", name)):
            warn(f"warning: {name} does not compare between these runs: signatures differ")


def _check_gate(compared: Sequence[Compared | ComparedStudy], gate: str) -> None:
    """Raise `GateFailed` naming every verdict that the gate does not let through."""
    reasons = []
    for each in compared:
        is_run = isinstance(each, Compared)
        folder = each.run.folder if isinstance(each, Compared) else each.study.folder
        for where, verdict in each.verdicts.items():
            if reason := closed_by(verdict, gate):
                point = "" if is_run else f" at {where.rpartition(', ')[0]}"
                pair = f"{verdict.arm} against {verdict.baseline}"
                reasons.append(f"{folder.name}: {pair}{point}: {reason}")
    if reasons:
        raise GateFailed(f"--fail-if {gate}: " + "; ".join(reasons))


def closed_by(verdict: "Verdict", gate: str) -> str:
    """Return why a verdict closes a gate, or "" where it passes.

    Args:
        verdict: The verdict on one arm.
        gate: `worse` or `not-shown`; the second closes whenever the first does.
    """
    if verdict.kind == "withheld" or verdict.winner == verdict.baseline:
        return verdict.text
    if not verdict.final:
        return "not final, planned pairs are unfinished"
    if gate == "not-shown" and verdict.kind in NOT_SHOWN:
        return verdict.text
    return ""
