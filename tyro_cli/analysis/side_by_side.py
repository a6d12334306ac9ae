"""Several runs in one table: every arm of every run, and only what differs between them.

Invariant: numbers of different signature do not stand in one column; what is equal in all rows is
said once, below the table. Rows are sorted by the metric, the best first; what has no value comes
last.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.analysis.excess import EXCESS_COLUMNS, EXPLANATION, known_entropy_of
from tyro_cli.analysis.formats import Metric
from tyro_cli.analysis.perplexity_tables import mean_row
from tyro_cli.analysis.records import RunRecords, differing_settings
from tyro_cli.analysis.signatures import withheld_metrics
from tyro_cli.analysis.verdicts import Verdict, verdict_of_run
from tyro_cli.config.paths import value_at

SCORES = (
    Column("nats_per_token", "nats/tok", "number"),
    Column("token_perplexity", "tok ppl", "number", 2),
    Column("nats_per_word", "nats/word", "number"),
    Column("word_perplexity", "word ppl", "number", 2),
    Column("bits_per_byte", "bits/byte", "number"),
)
WITHOUT_MEANING = ("data.corpus", "data.splits.train", "data.splits.valid", "data.splits.test")
"""Where a text lies; what it holds is part of every signature."""


def side_by_side(
    runs: Sequence[RunRecords],
    metric: Metric = "nats_per_word",
    baseline: str | None = None,
    *,
    force: bool = False,
) -> Table:
    """Return one row for each arm of each run, sorted by `metric` on test.

    Args:
        runs: Two runs or more.
        metric: What the rows are sorted by, the lowest first.
        baseline: The arm that verdicts are against; by default each experiment's own.
        force: Set numbers of different signature beside each other.
    """
    verdicts = {run.folder: verdict_of_run(run, baseline, force=force) for run in runs}
    arms = [(run, arm) for run in runs for arm in run.arms if any(run.cells_of(arm))]
    settings = _differing(arms)
    results = {
        label: result for run in runs for label, result in run.labelled(f"{run.folder} ").items()
    }
    withheld, notes = withheld_metrics(results, [c.key for c in SCORES], "runs", force=force)
    excess = EXCESS_COLUMNS if known_entropy_of(results.values()) is not None else ()
    if excess:
        notes.append(f"{EXPLANATION}.")
    rows = [_row(run, arm, settings, withheld, verdicts[run.folder].get(arm)) for run, arm in arms]
    rows.sort(key=lambda row: _sort_key(row, metric))
    return Table(
        "runs",
        f"{len(runs)} runs side by side",
        (
            Column("run", "run"),
            Column("arm", "arm"),
            *(Column(path, path.rpartition(".")[2]) for path in settings),
            Column("cells", "cells"),
            Column("parameters", "parameters", "integer"),
            *(column for column in SCORES if column.key not in withheld),
            *excess,
            Column("verdict", "verdict", on_screen=False),
        ),
        tuple(rows),
        (
            f"Means over seeds on test at the best-valid checkpoint, sorted by {metric}. Columns "
            "between arm and cells are the settings that differ"
            + (f": {', '.join(f'`{path}`' for path in settings)}." if settings else ": none."),
            *notes,
            *(
                f"{run.folder.name}, {arm}: {verdict.text}."
                for run in runs
                for arm, verdict in verdicts[run.folder].items()
            ),
        ),
    )


def _differing(arms: Sequence[tuple[RunRecords, str]]) -> tuple[str, ...]:
    """Return the settings in which any two rows differ, sorted."""
    first, *others = (run.manifest.arms[arm].settings for run, arm in arms)
    paths = {path for other in others for path in differing_settings(first, other)}
    return tuple(sorted(path for path in paths if path not in WITHOUT_MEANING))


def _row(
    run: RunRecords,
    arm: str,
    settings: Sequence[str],
    withheld: set[str],
    verdict: Verdict | None,
) -> Row:
    mean = mean_row(run, arm, "test")
    row: dict[str, CellValue] = {
        "run": run.folder.name,
        "arm": arm,
        "cells": mean["status"],
        "parameters": run.manifest.arms[arm].ledger.total,
    }
    for path in settings:
        row[path] = _in_words(value_at(run.manifest.arms[arm].settings, path))
    row |= {
        column.key: mean[column.key]
        for column in (*SCORES, *EXCESS_COLUMNS)
        if column.key in mean and column.key not in withheld
    }
    return row | {"verdict": "" if verdict is None else verdict.text}


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_in_words(item)}" for key, item in value.items())
    return "not set" if value is None else str(value)


def _sort_key(row: Row, metric: str) -> tuple[float, str, str]:
    value = row.get(metric)
    number = float(value) if isinstance(value, int | float) else math.inf
    return number, str(row["run"]), str(row["arm"])
