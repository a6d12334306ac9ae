"""The tables of a study that translates: BLEU and chrF, overlap, and how contrasts change.

Invariant: as in `study_tables`, pure functions of the records. Nothing here decides a verdict: that
rests on nats, at each point; whether a contrast changes along a factor is for a claim to decide
(`claims`), and here it is shown.
"""

import itertools
from collections.abc import Iterator, Mapping
from statistics import fmean

from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.analysis.contrasts import contrast
from tyro_cli.analysis.records import RunRecords
from tyro_cli.analysis.statistics import paired_t_interval
from tyro_cli.analysis.studies import PointRun, StudyRecords, is_one_text
from tyro_cli.analysis.study_columns import factor_columns, level_values, missing_notes
from tyro_cli.analysis.translation_tables import (
    CONTRAST_COLUMNS,
    COPYING,
    OVERLAP_COLUMNS,
    OVERLAP_EXPLANATION,
    comparable_scores,
    contrast_row,
    overlap_row,
    quality_contrast,
)
from tyro_cli.config.grid import level_text, levels_in_words

CHANGING = {"bits_per_byte": "bits/byte", "bleu": "BLEU"}
"""What an interaction is shown in: of the original text, so it compares however words split."""


def translates(study: StudyRecords) -> bool:
    """Say whether the experiment of a study translates."""
    return any(point.run.translates for point in study.points)


def study_translation_tables(study: StudyRecords, *, force: bool = False) -> list[Table]:
    """Return what a study that translates shows beside its results and contrasts; else nothing.

    Raises:
        RunFolderError: Scores of one point have different signatures, and `force` is not set.
    """
    if not translates(study):
        return []
    return [
        quality_table(study, force=force),
        *([interaction_table(study, force=force)] if any(_changes(study)) else []),
        overlap_table(study),
    ]


def quality_table(study: StudyRecords, *, force: bool = False) -> Table:
    """Return every contrast in BLEU and chrF on test, beside those in nats that decide."""
    baseline = study.manifest.baseline
    rows: list[Row] = []
    notes = [
        "Differences are arm - baseline on test at the best-valid checkpoint, higher is better, "
        f"with paired t intervals over seeds, not adjusted. They decide no verdict. {COPYING}."
    ]
    others = [arm for arm in study.manifest.arms if arm != baseline]
    scores = []
    for point in study.points:
        results = point.run.labelled(f"{levels_in_words(point.levels)} ")
        compared, left_out = comparable_scores(results, "cells", force=force)
        scores += [(point, score) for score in compared]
        notes += left_out
    for arm, (point, score) in itertools.product(others, scores):
        one = quality_contrast(point.run, arm, baseline, score, randomise=False, force=force)
        rows.append(level_values(point.levels) | contrast_row(one, arm, baseline, score, "test"))
    return Table(
        "translation-contrasts",
        f"Translation contrasts of the study {study.manifest.name} against {baseline}",
        (
            *factor_columns(study),
            Column("arm", "arm"),
            Column("baseline", "baseline", on_screen=False),
            Column("score", "score"),
            *CONTRAST_COLUMNS,
        ),
        tuple(rows),
        (*notes, *missing_notes(study)),
    )


def interaction_table(study: StudyRecords, *, force: bool = False) -> Table:
    """Return how much every contrast on test changes along each factor, seed by seed.

    Raises:
        RunFolderError: Scores of one point have different signatures, and `force` is not set.
    """
    baseline = study.manifest.baseline
    arms = [arm for arm in study.manifest.arms if arm != baseline]
    rows: list[Row] = []
    is_whole = True
    for arm, (name, first, point) in itertools.product(arms, _changes(study)):
        is_comparable = is_one_text([first.run, point.run])
        is_whole = is_whole and is_comparable
        for measure, header in CHANGING.items():
            row: dict[str, CellValue] = {
                **level_values(point.levels),
                "since": f"{name} {level_text(first.levels[name])}",
                "arm": arm,
                "measure": header,
            }
            if is_comparable:
                there, here = (
                    _differences(one.run, arm, baseline, measure, force=force)
                    for one in (first, point)
                )
                row |= _change_values({s: here[s] - there[s] for s in here if s in there})
            rows.append(row)
    notes = [
        "(arm - baseline) at each point minus (arm - baseline) where the factor has its first "
        "level, seed by seed, on test at the best-valid checkpoint, with paired t intervals over "
        "seeds, not adjusted. Above zero the arm loses in bits/byte and gains in BLEU. With tying "
        "in-out nothing is shared with the source, so that arm is the control of three-way."
    ]
    if not is_whole:
        notes.append("Left empty where other sentences are scored than at the first level.")
    return Table(
        "interactions",
        f"How the contrasts of the study {study.manifest.name} change along its factors",
        (
            *factor_columns(study),
            Column("since", "since"),
            Column("arm", "arm"),
            Column("measure", "measure"),
            Column("seeds", "seeds", on_screen=False),
            Column("differences", "change by seed", "signed_numbers"),
            Column("mean", "mean", "signed"),
            Column("interval_95", "95 % interval", "interval"),
        ),
        tuple(rows),
        (*notes, *missing_notes(study)),
    )


def _changes(study: StudyRecords) -> Iterator[tuple[str, PointRun, PointRun]]:
    """Yield each factor and point with the point where that factor alone has its first level."""
    for name, factor in study.factors.items():
        for point in study.points:
            start = {**point.levels, name: factor.levels[0]}
            first = next((one for one in study.points if one.levels == start), None)
            if first is not None and first is not point:
                yield name, first, point


def _differences(
    run: RunRecords, arm: str, baseline: str, measure: str, *, force: bool
) -> Mapping[int, float]:
    """Return arm - baseline by seed, over verified pairs."""
    if measure == "bits_per_byte":
        bits = contrast(run, arm, baseline, "bits_per_byte", force=force)
        return dict(zip(bits.seeds, bits.differences, strict=True))
    one = quality_contrast(run, arm, baseline, "bleu", randomise=False, force=force)
    return {} if one is None else dict(zip(one.seeds, one.differences, strict=True))


def _change_values(changes: Mapping[int, float]) -> dict[str, CellValue]:
    """Return what a row says of changes by seed; nothing of none."""
    if not changes:
        return {}
    values = tuple(changes.values())
    interval = paired_t_interval(values, 0.95) if len(values) > 1 else None
    return {
        "seeds": ", ".join(map(str, changes)),
        "differences": values,
        "mean": fmean(values),
        "interval_95": (interval.low, interval.high) if interval else None,
    }


def overlap_table(study: StudyRecords) -> Table:
    """Return what source and target have in common at every point."""
    return Table(
        "overlap",
        f"Vocabulary overlap of the study {study.manifest.name}",
        (*factor_columns(study), *OVERLAP_COLUMNS),
        tuple(level_values(point.levels) | dict(overlap_row(point.run)) for point in study.points),
        (OVERLAP_EXPLANATION, *missing_notes(study)),
    )
