"""What a finding reads: the differences at each place of its study's grid, or why there are none.

Invariant: a number is read from pairs that are verified and from scores of one signature, or not at
all. A change is between two settings at which the measure has one unit. What the differences come
to is decided in `claims`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tyro_cli.analysis.contrasts import METRICS, Contrast, contrast
from tyro_cli.analysis.formats import CellResult, Metric
from tyro_cli.analysis.probes import AgreementMeasure, Agreements, Matrix, load_probes
from tyro_cli.analysis.records import RunRecords, at_best
from tyro_cli.analysis.search_tables import edges_in_words
from tyro_cli.analysis.studies import PointRun, StudyRecords, is_one_text
from tyro_cli.analysis.study_formats import MARGIN_OF_STUDY, FindingRecord, lies_at
from tyro_cli.analysis.translation_tables import quality_contrast
from tyro_cli.analysis.verdicts import caveats
from tyro_cli.config.grid import level_text, levels_in_words
from tyro_cli.errors import NothingMatched

State = Literal["measured", "withheld", "not run"]

COUNTED = ("parameters", "parameter_share", "memory_share")
"""Measures that are counted, not drawn: one pair is enough, and there is no interval."""
PER_TOKEN = ("nats_per_token", "valid_nats_per_token", "gap_nats", "last_gap_nats")
"""Measures whose unit is the tokenizer's."""
NOT_TRAINED = "its cells are not all trained"


@dataclass(frozen=True)
class Differences:
    """Arm - baseline by seed, or why there are none; and what the records tell on.

    `cells` are the folders that the numbers were read from, in an order that tells arm and baseline
    apart; none where every finding is a family member of its own, as for agreement. `units` are
    what two settings must share for a change between them to mean something.
    """

    by_seed: Mapping[int, float]
    state: State = "measured"
    reason: str = ""
    notices: tuple[str, ...] = ()
    cells: tuple[Path, ...] = ()
    units: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Observed:
    """The differences of one finding before its family is known."""

    finding: FindingRecord
    study: StudyRecords
    where: str
    differences: Differences
    margin: float | None = None
    baseline_parameters: int | None = None

    @property
    def member(self) -> tuple[object, ...]:
        """What it is in a Holm family: equal for findings that read the same numbers."""
        if not self.differences.cells:
            return (id(self),)
        return (self.finding.measure, self.differences.cells)


def observe(finding: FindingRecord, study: StudyRecords) -> list[Observed]:
    """Return a finding at every place of the grid that it does not name a level for."""
    places = [point for point in study.points if lies_at(point.levels, finding.at)]
    missing = [
        point.levels
        for point in study.manifest.points
        if point.run in study.missing and lies_at(point.levels, finding.at)
    ]
    found = [_observe_at(finding, study, point) for point in places]
    absent = Differences({}, "not run", "its run is not there yet")
    margin = _margin(finding, study)
    return found + [
        Observed(finding, study, _where(levels, finding.minus or {}), absent, margin)
        for levels in missing
    ]


def _margin(finding: FindingRecord, study: StudyRecords) -> float | None:
    """Return what counts as no difference, in the measure's unit; None where nothing does."""
    if finding.margin is None and finding.measure == MARGIN_OF_STUDY:
        return math.log1p(study.manifest.margin)
    return finding.margin


def _observe_at(finding: FindingRecord, study: StudyRecords, point: PointRun) -> Observed:
    differences = _differences(finding, point.run)
    parameters = None
    if finding.measure == "parameters" and finding.minus is None:
        parameters = point.run.manifest.arms[finding.baseline].ledger.total
    if finding.minus is not None:
        levels = {**point.levels, **finding.minus}
        other = next((one.run for one in study.points if one.levels == levels), None)
        if other is None:
            differences = Differences({}, "not run", f"no run yet at {_where(levels, {})}")
        else:
            differences = _change(finding.measure, differences, _differences(finding, other))
            is_measured = differences.state == "measured"
            if is_measured and _is_scored(finding) and not is_one_text([point.run, other]):
                reason = "other sentences are scored at each level"
                differences = Differences({}, "withheld", reason)
    where = _where(point.levels, finding.minus or {})
    return Observed(finding, study, where, differences, _margin(finding, study), parameters)


def _is_scored(finding: FindingRecord) -> bool:
    """Say whether a finding's measure comes from scores of a text: it is not counted or probed."""
    return finding.measure not in (*COUNTED, *get_args(AgreementMeasure))


def _change(measure: str, here: Differences, there: Differences) -> Differences:
    """Subtract the second from the first, seed by seed; withheld where their units differ."""
    for one in (here, there):
        if one.state != "measured":
            return one
    if here.units != there.units:
        units = ", ".join(sorted(here.units ^ there.units))
        return Differences({}, "withheld", f"{measure} has another unit at each level: {units}")
    seeds = [seed for seed in here.by_seed if seed in there.by_seed]
    return Differences(
        {seed: here.by_seed[seed] - there.by_seed[seed] for seed in seeds},
        notices=tuple(dict.fromkeys((*here.notices, *there.notices))),
        cells=(*here.cells, *there.cells),
    )


def _where(levels: Mapping[str, Any], minus: Mapping[str, Any]) -> str:
    """Return levels in words, those that change last: `depth 0, irreversibility 0.0 to 1.0`."""
    changing = [name for name in levels if name in minus and minus[name] != levels[name]]
    same = levels_in_words(levels, *changing)
    return ", ".join(
        [
            *([same] if same else []),
            *(
                f"{name} {level_text(minus[name])} to {level_text(levels[name])}"
                for name in changing
            ),
        ]
    )


def _differences(finding: FindingRecord, run: RunRecords) -> Differences:
    """Return arm - baseline at one point, over the seeds whose pairs are verified."""
    arm, baseline, measure = finding.arm, finding.baseline, finding.measure
    if measure in get_args(AgreementMeasure):
        return _agreement(finding, run)
    if measure in COUNTED:
        ledgers = [run.manifest.arms[name].ledger for name in (arm, baseline)]
        is_memory = measure == "memory_share"
        totals = [one.training_memory_bytes if is_memory else one.total for one in ledgers]
        unit = 1 if measure == "parameters" else totals[1]
        seeds = sorted(set(run.seeds_of(arm)) & set(run.seeds_of(baseline)))
        of_pairs = [run.cells[name, seed] for seed in seeds for name in (arm, baseline)]
        if not seeds or any(cell.result is None for cell in of_pairs):
            return Differences({}, "not run", NOT_TRAINED)
        return Differences({seed: (totals[0] - totals[1]) / unit for seed in seeds})
    if finding.rates == "each-best":
        searched: tuple[str, ...] = (baseline, arm)
    elif run.search is not None and run.search.record.shared == "baseline-best":
        searched = (run.manifest.baseline,)
    else:
        searched = ()
    edges: list[str] = []
    for name in searched:
        if run.search is None:
            return Differences({}, "not run", f"no search was made for the best rate of {name}")
        if why := run.search.why_no_best(name):
            return Differences({}, "withheld" if run.search.is_over(name) else "not run", why)
        edges += edges_in_words(run.search, name)
    if finding.rates == "each-best":
        run = at_best(run)
    metric: Metric = next((one for one in METRICS if one == measure), "nats_per_token")
    pairs = contrast(run, arm, baseline, metric)
    if (problem := _problem_of(pairs)) is not None:
        return problem
    of_pairs = [run.cells[name, seed] for seed in pairs.seeds for name in (arm, baseline)]
    results = [cell.result for cell in of_pairs if cell.result is not None]
    values: Sequence[float]
    if measure == metric:
        if pairs.unavailable:
            return Differences({}, "withheld", pairs.unavailable)
        values = pairs.differences
    elif measure == "bleu":
        if not run.translates:
            return Differences({}, "withheld", "its run translates nothing")
        scores = quality_contrast(run, arm, baseline, "bleu", randomise=False)
        values = scores.differences if scores is not None else ()
    else:
        value = _OTHER_MEASURES[measure]
        values = [
            value(first) - value(second)
            for first, second in zip(results[::2], results[1::2], strict=True)
        ]
    return Differences(
        dict(zip(pairs.seeds, values, strict=True)),
        notices=(*caveats(pairs), *edges),
        cells=tuple(cell.folder for cell in of_pairs),
        units=_units(measure, results),
    )


def _units(measure: str, results: Sequence[CellResult]) -> frozenset[str]:
    """Return what scores must share for their differences to be in one unit.

    A token is the same where the tokenizer is, and where it is a word of as large a vocabulary.
    """
    if measure == "bleu":
        qualities = [one.quality["test"] for one in results if one.quality is not None]
        return frozenset(one.signatures.get("bleu", "") for one in qualities)
    if measure not in PER_TOKEN:
        return frozenset()
    lines = [one.signature("valid", "nats_per_token") for one in results]
    tokenizers = [part for line in lines for part in line.split("|") if part.startswith("tok:")]
    return frozenset(
        one.rpartition("-")[0] if one.startswith("tok:word-") else one for one in tokenizers
    )


def _problem_of(pairs: Contrast) -> Differences | None:
    """Return why pairs decide nothing, or None where all of them are verified."""
    if pairs.unfinished_seeds or not pairs.planned_seeds:
        return Differences({}, "not run", NOT_TRAINED)
    for what in (pairs.diverged, pairs.mismatches):
        if what:
            reason = "; ".join(f"seed {seed}: {why}" for seed, why in what.items())
            return Differences({}, "withheld", reason)
    return None


def _agreement(finding: FindingRecord, run: RunRecords) -> Differences:
    """Return the contrast of agreement across seeds, as the jackknife's pseudo-values by seed.

    Their mean is the contrast and their t interval the jackknife's, so that the test and interval
    of every other finding are right for them too.
    """
    # No number of the pairs is used, so their signatures are not compared.
    pairs = contrast(run, finding.arm, finding.baseline, "nats_per_token", force=True)
    if (problem := _problem_of(pairs)) is not None:
        return problem
    try:
        probes = load_probes(run.folder)
    except NothingMatched:
        return Differences({}, "not run", f"not probed yet: wtie probe {run.folder}")
    seeds = set(run.seeds_of(finding.arm))
    probes = probes.model_copy(update={"cells": [c for c in probes.cells if c.seed in seeds]})
    measure = next(one for one in get_args(AgreementMeasure) if one == finding.measure)
    matrix: Matrix = "input" if finding.matrix == "input" else "output"
    over = Agreements(probes, measure).contrast((finding.arm, "tied"), (finding.baseline, matrix))
    if over.jackknife is None or set(over.seeds) != seeds:
        reason = f"not probed at three seeds or more, all of the study's: wtie probe {run.folder}"
        return Differences({}, "not run", reason)
    by_seed = dict(zip(over.seeds, over.jackknife.pseudo_values, strict=True))
    return Differences(by_seed, notices=tuple(caveats(pairs)))


_OTHER_MEASURES: dict[str, Callable[[CellResult], float]] = {
    "valid_nats_per_token": lambda result: result.scores("valid", "best").nats_per_token,
    "gap_nats": lambda result: result.evaluation("best").generalisation_gap_nats,
    "last_gap_nats": lambda result: result.evaluation("last").generalisation_gap_nats,
}
