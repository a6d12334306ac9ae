"""The tables of a study: what every arm reached at every point, and every contrast in its family.

Invariant: a pure function of the records, without times, which `study_performance` has; every
planned contrast has a row or, where its run is not there, is counted below the table. A metric
whose signatures differ between points is left out and said so, because its numbers would stand
beside each other.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.analysis.excess import (
    EXCESS_COLUMNS,
    EXPLANATION,
    SOURCE_COLUMNS,
    known_entropy_of,
    source_values,
)
from tyro_cli.analysis.instrument import instrument_table
from tyro_cli.analysis.perplexity_tables import mean_row
from tyro_cli.analysis.records import RunRecords
from tyro_cli.analysis.search_tables import best_in_words, tuned_verdicts
from tyro_cli.analysis.signatures import mixed_signatures, signatures_of, withheld_metrics
from tyro_cli.analysis.statistics import seeds_needed
from tyro_cli.analysis.studies import StudyContrast, StudyRecords, sign_changes
from tyro_cli.analysis.study_columns import factor_columns, level_values, missing_notes
from tyro_cli.analysis.study_probe_tables import study_probe_tables
from tyro_cli.analysis.study_translation_tables import (
    study_translation_tables,
    translates,
)
from tyro_cli.analysis.translation_tables import COPYING, NAMES, SCORES, comparable_scores
from tyro_cli.analysis.verdicts import MOST_SEEDS_NAMED, decisive_contrast, margin_in_words

METRICS = (
    Column("token_perplexity", "tok ppl", "number", 2),
    Column("word_perplexity", "word ppl", "number", 2),
    Column("bits_per_byte", "bits/byte", "number"),
)


def study_tables(
    study: StudyRecords, contrasts: Sequence[StudyContrast], *, force: bool = False
) -> dict[str, Table]:
    """Return every table of a study by its name.

    Args:
        study: The records.
        contrasts: What `study_contrasts` says of it.
        force: Set numbers of different signature beside each other.
    """
    tables = [results_table(study, force=force), family_table(study, contrasts)]
    tables += study_translation_tables(study, force=force)
    tables += study_probe_tables(study)
    if has_search(study):
        tables.append(tuned_table(study, force=force))
    if instrument := instrument_table(study):
        tables.append(instrument)
    return {table.name: table for table in tables}


def has_search(study: StudyRecords) -> bool:
    """Say whether the experiment of a study searches for learning rates."""
    return any(point.run.search is not None for point in study.points)


def tuned_table(study: StudyRecords, *, force: bool = False) -> Table:
    """Return the contrast of every point with each arm at its best, and if its sign survives.

    Raises:
        RunFolderError: Numbers of one point have different signatures, and `force` is not set.
    """
    baseline = study.manifest.baseline
    rows = []
    searched = [
        (point, point.run.search, tuned_verdicts(point.run, baseline, force=force))
        for point in study.points
        if point.run.search is not None
    ]
    for arm in study.manifest.arms:
        if arm == baseline:
            continue
        for point, search, verdicts in searched:
            tuned = verdicts[arm]
            row: dict[str, CellValue] = {
                **level_values(point.levels),
                "arm": arm,
                "sign": tuned.sign,
            }
            for each, key in ((arm, "best"), (baseline, "baseline_best")):
                row[key], row[f"{key}_edge"] = best_in_words(search, each)
            shared = decisive_contrast(point.run, arm, baseline, force=force)
            if shared.mean is not None:
                row["shared_mean"] = shared.mean
            if tuned.contrast is not None and tuned.contrast.mean is not None:
                row["mean"] = tuned.contrast.mean
                interval = tuned.contrast.interval(0.95)
                row["interval_95"] = (interval.low, interval.high) if interval else None
            rows.append(row)
    return Table(
        "tuned",
        f"Contrasts of the study {study.manifest.name} with each arm at its best",
        (
            *factor_columns(study),
            Column("arm", "arm"),
            Column("best", "its best"),
            Column("best_edge", "edge"),
            Column("baseline_best", f"best of {baseline}"),
            Column("baseline_best_edge", "edge"),
            Column("shared_mean", "mean, shared", "signed"),
            Column("mean", "mean, each at its best", "signed"),
            Column("interval_95", "95 % interval", "interval"),
            Column("sign", "sign"),
        ),
        tuple(rows),
        (
            "Each arm's best is found on valid, by the same trials for each, at seeds that no "
            "contrast uses. The intervals are not adjusted, and the family's verdicts are those "
            "at the shared setting. Edge: the best value is the lowest or highest of the grid, so "
            "a better one may lie beyond.",
        ),
    )


def results_table(study: StudyRecords, *, force: bool = False) -> Table:
    """Return points by arms: parameters, and means over seeds at the best-valid checkpoint."""
    results = study.labelled()
    withheld, left_out = withheld_metrics(results, [c.key for c in METRICS], "points", force=force)
    rows = []
    for point in study.points:
        baseline = point.run.manifest.arms[study.manifest.baseline].ledger.total
        for arm in study.manifest.arms:
            rows.append(_result_row(point.levels, point.run, arm, baseline, withheld))
    kept = [column for column in METRICS if column.key not in withheld]
    notes = [
        "Means over seeds on test at the best-valid checkpoint; the perplexity of a mean is "
        "exp(mean nats). Saved: the share of the baseline's parameters that an arm does without. "
        "Gap: nats per token, valid minus a part of train, at the best and at the last step."
    ]
    of_valid = signatures_of(results, "valid", "nats_per_token")
    valid_nats = [Column("valid_nats_per_token", "valid nats/tok", "number", on_screen=False)]
    if mixed_signatures(of_valid) and not force:
        valid_nats = []
    if translates(study):
        scores, score_notes = comparable_scores(results, "points", force=force)
        for score in scores:
            name = NAMES[score]
            kept.append(Column(score, name, "number", 2))
            kept.append(Column(f"copy_{score}", f"{name} of copying", "number", 2, score == "bleu"))
        notes += [f"{COPYING}."] if scores else []
        left_out += score_notes
    if known_entropy_of(results.values()) is not None:
        kept += [*SOURCE_COLUMNS, *EXCESS_COLUMNS]
        notes.append(
            f"{EXPLANATION}. It compares between points though their texts differ. Reversible: "
            "the least expected excess of any reversible chain, and so of every 0-layer tied model "
            "without a norm; current: the source's distance from reversible, 0 to 1."
        )
    return Table(
        "results",
        f"Results of the study {study.manifest.name}",
        (
            *factor_columns(study),
            Column("arm", "arm"),
            Column("cells", "cells"),
            Column("parameters", "parameters", "integer"),
            Column("saved", "saved", "percent", 1),
            *kept,
            *valid_nats,
            Column("gap_nats", "gap", "signed"),
            Column("last_gap_nats", "gap, last", "signed"),
            Column("best_step", "best at", "number", 0),
        ),
        tuple(rows),
        (*notes, *left_out, *missing_notes(study)),
    )


def family_table(study: StudyRecords, contrasts: Sequence[StudyContrast]) -> Table:
    """Return every decisive contrast with its p values, adjusted within its family."""
    notes = [change.sentence for change in sign_changes(study, contrasts)]
    several = [name for name, factor in study.factors.items() if len(factor.levels) > 1]
    if several and not notes and all(one.contrast.mean is not None for one in contrasts):
        notes = [f"No contrast changes its sign along {' or '.join(several)}."]
    notes.append(
        "Differences are arm - baseline in test nats, lower is better, with paired t intervals "
        "over seeds, not adjusted. The p values are adjusted by Holm within the family "
        f"(`family: {study.manifest.family}`): `better` needs the adjusted t p at most .05, "
        "`equivalent` the adjusted equivalence p at most .05. A planned contrast that has no p, "
        "or a diverged pair, counts in its family as p = 1."
    )
    if any(one.verdict.kind == "cannot-tell" for one in contrasts):
        notes.append(
            "Seeds needed, where one cannot tell: how many seeds in all would bring the half-width "
            f"of the interval to the margin of {margin_in_words(study.manifest.margin)}, by the "
            "upper 80 % bound of the spread; left empty where it is that narrow already, or where "
            f"it would take more than {MOST_SEEDS_NAMED:,}."
        )
    extended = [one for one in contrasts if one.verdict.extended]
    if extended:
        notes.append(f"Extended after looking: {len(extended)} of {len(contrasts)} contrasts.")
    return Table(
        "contrasts",
        f"Contrasts of the study {study.manifest.name} against {study.manifest.baseline}",
        (
            *factor_columns(study),
            Column("arm", "arm"),
            Column("metric", "metric", on_screen=False),
            Column("seeds", "seeds", "integer"),
            Column("differences", "difference by seed", "signed_numbers", on_screen=False),
            Column("mean", "mean", "signed"),
            Column("interval_95", "95 % interval", "interval"),
            Column("interval_90", "90 % interval", "interval", on_screen=False),
            Column("perplexity_ratio", "ppl ratio", "number"),
            Column("p", "t p", "p"),
            Column("p_holm", "t p, Holm", "p"),
            Column("equivalence_p", "equivalence p", "p", on_screen=False),
            Column("equivalence_p_holm", "equiv. p, Holm", "p"),
            Column("family", "family", "integer", on_screen=False),
            Column("pairs_verified", "pairs verified", on_screen=False),
            Column("seeds_needed", "seeds needed", "integer"),
            Column("verdict", "verdict"),
        ),
        tuple(_contrast_row(one, study.manifest.margin) for one in contrasts),
        (*notes, *missing_notes(study)),
    )


def _result_row(
    levels: Mapping[str, Any],
    run: RunRecords,
    arm: str,
    baseline: int,
    withheld: set[str],
) -> Row:
    cells = tuple(run.cells_of(arm))
    done = run.done(arm)
    diverged = sum(cell.status == "diverged" for cell in cells)
    total = run.manifest.arms[arm].ledger.total
    row: dict[str, CellValue] = {
        **level_values(levels),
        "arm": arm,
        "cells": f"{len(done)}/{len(cells)}" + (f", {diverged} diverged" if diverged else ""),
        "parameters": total,
        "saved": (baseline - total) / baseline,
    }
    if not done:
        return row
    test, valid = mean_row(run, arm, "test"), mean_row(run, arm, "valid")
    row |= {key.key: test[key.key] for key in METRICS if key.key not in withheld}
    if (known := known_entropy_of(done)) is not None:
        row |= source_values(known)
        row |= {column.key: test[column.key] for column in EXCESS_COLUMNS if column.key in test}
    qualities = [result.quality["test"] for result in done if result.quality is not None]
    if qualities:
        keys = (key for score in SCORES for key in (score, f"copy_{score}"))
        row |= {key: fmean(getattr(one, key) for one in qualities) for key in keys}
    row["valid_nats_per_token"] = valid["nats_per_token"]
    row |= {key: valid[key] for key in ("gap_nats", "last_gap_nats")}
    row["best_step"] = fmean(result.evaluation("best").step for result in done)
    return row


def _contrast_row(one: StudyContrast, margin: float) -> Row:
    contrast = one.contrast
    row: dict[str, CellValue] = {
        **level_values(one.levels),
        "arm": contrast.arm,
        "metric": contrast.metric,
        "seeds": len(contrast.seeds),
        "family": one.family.size,
        "pairs_verified": contrast.pairs_in_words(),
        "verdict": one.verdict.text,
    }
    if contrast.mean is None:
        return row
    row |= {
        "differences": contrast.differences,
        "mean": contrast.mean,
        "perplexity_ratio": contrast.perplexity_ratio,
    }
    if one.verdict.kind == "cannot-tell":
        needed = seeds_needed(contrast.differences, math.log1p(margin))
        if len(contrast.seeds) < needed <= MOST_SEEDS_NAMED:
            row["seeds_needed"] = needed
    interval_95, interval_90 = contrast.interval(0.95), contrast.interval(0.90)
    if interval_95 is None or interval_90 is None:
        return row
    return row | {
        "interval_95": (interval_95.low, interval_95.high),
        "interval_90": (interval_90.low, interval_90.high),
        "p": contrast.t_p,
        "p_holm": one.family.better,
        "equivalence_p": one.equivalence_p,
        "equivalence_p_holm": one.family.equivalent,
    }
