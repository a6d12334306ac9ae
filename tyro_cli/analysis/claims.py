"""From the records of studies to one word about a claim.

The rule, written down before any run (docs/STATISTICS.md says it for readers). A finding is a
contrast, over the seeds whose pairs are verified, and the side of zero on which it lies if the
claim is true. Within a claim the p values of all its findings are one Holm family, in which
findings that read the same cells for the same measure count once. A finding *holds* where its mean
lies on that side with an adjusted t p of at most .05; it *fails* where its mean lies on the other
side so, or where the adjusted p of the equivalence test against its margin is at most .05; else it
is *open*, and *withheld* where a pair diverged or is not verified. All hold: `supported`. All fail:
`refuted`. Some hold and some fail: `mixed`. Anything else: `cannot tell`; and `not run` as long as
a cell is missing, or one of the studies that decide it together.
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
from tyro_cli.analysis.statistics import (
    Interval,
    equivalence_test,
    holm_adjusted,
    paired_t_interval,
    paired_t_test,
    seeds_needed,
)
from tyro_cli.analysis.studies import NO_P, PointRun, StudyRecords, is_one_text
from tyro_cli.analysis.study_formats import MARGIN_OF_STUDY, ClaimRecord, FindingRecord
from tyro_cli.analysis.verdicts import LEVEL, MOST_SEEDS_NAMED, caveats, plan_in_words
from tyro_cli.config.grid import level_text, levels_in_words
from tyro_cli.errors import NothingMatched, RunFolderError

State = Literal["measured", "withheld", "not run"]
Outcome = Literal["holds", "holds, by less than its margin", "fails", "open", "withheld", "not run"]

SUPPORTED, REFUTED, CANNOT_TELL, NOT_RUN = "supported", "refuted", "cannot tell", "not run"
COUNTED = ("parameters", "parameter_share", "memory_share")
"""Measures that are counted, not drawn: one pair is enough, and there is no interval."""
NOT_TRAINED = "its cells are not all trained"


@dataclass(frozen=True)
class Plan:
    """What would settle a finding that is open.

    Attributes:
        sentence: The seeds it would take to bring the half-width to the mean, which would settle on
            which side the difference lies, or to the margin where that is larger; at the level that
            Holm asks of the findings that are open.
        hours: Of the cells that these seeds are missing, which are of every arm at every point of
            the study, as long as those trained took; None where no time was recorded, or where they
            are too many to name.
    """

    sentence: str
    hours: float | None

    @property
    def in_full(self) -> str:
        """The sentence with the hours of the machine that trained the cells so far."""
        if self.hours is None:
            return self.sentence
        return (
            f"{self.sentence} About {self.hours:.1f} more hours of cells, every arm at every point."
        )


@dataclass(frozen=True)
class FindingResult:
    """One finding at one place of its study's grid.

    Attributes:
        finding: What was looked for.
        study: The study's name.
        where: The levels, in words; of a change `depth 0, irreversibility 0.0 to 1.0`.
        seeds: Seeds whose pairs are verified, at both places where two are set against each other.
        differences: Arm - baseline for each of them, in the measure's unit.
        p_holm: Of the t test, adjusted within the claim; None where nothing was drawn.
        equivalence_p_holm: Of the two one-sided tests against the margin, adjusted.
        margin: In the measure's unit, or None.
        baseline_parameters: Where parameters are counted at one place, those of the baseline.
        outcome: What it comes to.
        reason: Why there is no number, or "".
        plan: What would settle it, where it is open.
        repeats: Whether it reads the cells of an earlier finding for the same measure, as where
            each arm is best at the shared setting. Its p is then that of the earlier one.
        notices: What the records tell on: seeds added after looking, other numerics, a best setting
            on the edge of the grid.
    """

    finding: FindingRecord
    study: str
    where: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    p_holm: float | None
    equivalence_p_holm: float | None
    margin: float | None
    baseline_parameters: int | None
    outcome: Outcome
    reason: str
    plan: Plan | None
    repeats: bool = False
    notices: tuple[str, ...] = ()

    @property
    def mean(self) -> float | None:
        """The mean difference."""
        return sum(self.differences) / len(self.seeds) if self.seeds else None

    def interval(self, confidence: float = 0.95) -> Interval | None:
        """Return the paired t interval, not adjusted; None for what is counted."""
        if len(self.seeds) < 2 or self.finding.measure in COUNTED:
            return None
        return paired_t_interval(self.differences, confidence)


@dataclass(frozen=True)
class ClaimResult:
    """What the studies of one claim come to.

    Attributes:
        claim: The claim, from the first of its studies.
        studies: The studies that decide it, in the order given.
        word: `supported`, `refuted`, `mixed: depends on ...`, `cannot tell` or `not run`.
        findings: Every finding at every place.
    """

    claim: ClaimRecord
    studies: tuple[StudyRecords, ...]
    word: str
    findings: tuple[FindingResult, ...]


@dataclass(frozen=True)
class _Differences:
    """Arm - baseline by seed, or why there are none; and what the records tell on.

    `cells` are the folders that the numbers were read from, in an order that tells arm and baseline
    apart; none where every finding is a family member of its own, as for agreement.
    """

    by_seed: Mapping[int, float]
    state: State = "measured"
    reason: str = ""
    notices: tuple[str, ...] = ()
    cells: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Observed:
    """The differences of one finding before its family is known."""

    finding: FindingRecord
    study: StudyRecords
    where: str
    differences: _Differences
    margin: float | None = None
    baseline_parameters: int | None = None

    @property
    def member(self) -> tuple[object, ...]:
        """What it is in a Holm family: equal for findings that read the same numbers."""
        if not self.differences.cells:
            return (id(self),)
        return (self.finding.measure, self.margin, self.differences.cells)


def claim_results(studies: Sequence[StudyRecords]) -> tuple[ClaimResult, ...]:
    """Return every claim that the studies make, by number; studies without one are left out.

    Raises:
        RunFolderError: Two studies put one number's claim in other words, or numbers of one point
            have different signatures.
    """
    by_number: dict[int, list[tuple[ClaimRecord, StudyRecords]]] = {}
    for study in studies:
        claim = study.manifest.claim
        if claim is not None:
            by_number.setdefault(claim.number, []).append((claim, study))
    results = []
    for number, members in sorted(by_number.items()):
        first = members[0][0]
        for claim, study in members[1:]:
            if _in_words(claim) != _in_words(first):
                raise RunFolderError(
                    f"{study.folder} puts claim {number} in other words than "
                    f"{members[0][1].folder}",
                    "write the same sentence, depends_on and parts in both studies, and run wtie "
                    "sweep on them again",
                )
        observed = [
            one
            for claim, study in members
            for finding in claim.findings
            for one in _observe(finding, study)
        ]
        findings = _decide(observed)
        outcomes = [one.outcome for one in findings]
        result = ClaimResult(
            claim=first,
            studies=tuple(study for _, study in members),
            word=NOT_RUN if len(members) < first.parts else word_of(outcomes, first.depends_on),
            findings=findings,
        )
        results.append(result)
    return tuple(results)


def _in_words(claim: ClaimRecord) -> tuple[object, ...]:
    """Return what the studies of one claim must agree on."""
    return claim.sentence, claim.depends_on, claim.parts


def word_of(outcomes: Sequence[Outcome], depends_on: str) -> str:
    """Return the word that the outcomes of a claim's findings come to."""
    kinds = {outcome.partition(",")[0] for outcome in outcomes}
    if "not run" in kinds:
        return NOT_RUN
    if kinds == {"holds"}:
        return SUPPORTED
    if kinds == {"fails"}:
        return REFUTED
    if {"holds", "fails"} <= kinds:
        return f"mixed: depends on {depends_on}"
    return CANNOT_TELL


def _observe(finding: FindingRecord, study: StudyRecords) -> list[_Observed]:
    """Return a finding at every place of the grid that it does not name a level for."""
    places = [point for point in study.points if _lies_at(point.levels, finding.at)]
    missing = [
        point.levels
        for point in study.manifest.points
        if point.run in study.missing and _lies_at(point.levels, finding.at)
    ]
    found = [_observe_at(finding, study, point) for point in places]
    absent = _Differences({}, "not run", "its run is not there yet")
    return found + [
        _Observed(finding, study, _where(levels, finding.minus or {}), absent) for levels in missing
    ]


def _observe_at(finding: FindingRecord, study: StudyRecords, point: PointRun) -> _Observed:
    margin = finding.margin
    if margin is None and finding.measure == MARGIN_OF_STUDY:
        margin = math.log1p(study.manifest.margin)
    differences = _differences(finding, point.run)
    parameters = None
    if finding.measure == "parameters" and finding.minus is None:
        parameters = point.run.manifest.arms[finding.baseline].ledger.total
    if finding.minus is not None:
        levels = {**point.levels, **finding.minus}
        other = next((one.run for one in study.points if one.levels == levels), None)
        if other is None:
            differences = _Differences({}, "not run", f"no run yet at {_where(levels, {})}")
        else:
            differences = _change(differences, _differences(finding, other))
            is_measured = differences.state == "measured"
            if is_measured and _is_scored(finding) and not is_one_text([point.run, other]):
                reason = "other sentences are scored at each level"
                differences = _Differences({}, "withheld", reason)
    where = _where(point.levels, finding.minus or {})
    return _Observed(finding, study, where, differences, margin, parameters)


def _is_scored(finding: FindingRecord) -> bool:
    """Say whether a finding's measure comes from scores of a text: it is not counted or probed."""
    return finding.measure not in (*COUNTED, *get_args(AgreementMeasure))


def _change(here: _Differences, there: _Differences) -> _Differences:
    """Subtract the second from the first, seed by seed."""
    for one in (here, there):
        if one.state != "measured":
            return one
    seeds = [seed for seed in here.by_seed if seed in there.by_seed]
    return _Differences(
        {seed: here.by_seed[seed] - there.by_seed[seed] for seed in seeds},
        notices=tuple(dict.fromkeys((*here.notices, *there.notices))),
        cells=(*here.cells, *there.cells),
    )


def _lies_at(levels: Mapping[str, Any], at: Mapping[str, Any]) -> bool:
    return all(levels.get(name) == level for name, level in at.items())


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


def _differences(finding: FindingRecord, run: RunRecords) -> _Differences:
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
            return _Differences({}, "not run", NOT_TRAINED)
        return _Differences({seed: (totals[0] - totals[1]) / unit for seed in seeds})
    edges: list[str] = []
    if finding.rates == "each-best":
        for name in (baseline, arm):
            if run.search is None or run.search.why_no_best(name):
                return _Differences({}, "not run", f"no best rate of {name} is known yet")
            edges += edges_in_words(run.search, name)
        run = at_best(run)
    elif run.search is not None and run.search.record.shared == "baseline-best":
        edges += edges_in_words(run.search, run.manifest.baseline)
    metric: Metric = next((one for one in METRICS if one == measure), "nats_per_token")
    pairs = contrast(run, arm, baseline, metric)
    if (problem := _problem_of(pairs)) is not None:
        return problem
    notices = (*caveats(pairs), *edges)
    cells = tuple(run.cells[name, seed].folder for seed in pairs.seeds for name in (arm, baseline))
    if measure == metric:
        if pairs.unavailable:
            return _Differences({}, "withheld", pairs.unavailable)
        by_seed = dict(zip(pairs.seeds, pairs.differences, strict=True))
        return _Differences(by_seed, notices=notices, cells=cells)
    value = _OTHER_MEASURES[measure]
    found: dict[int, float] = {}
    for seed in pairs.seeds:
        first, second = (run.cells[name, seed].result for name in (arm, baseline))
        assert first is not None and second is not None, "a verified pair is done"
        found[seed] = value(first) - value(second)
    return _Differences(found, notices=notices, cells=cells)


def _problem_of(pairs: Contrast) -> _Differences | None:
    """Return why pairs decide nothing, or None where all of them are verified."""
    if pairs.unfinished_seeds or not pairs.planned_seeds:
        return _Differences({}, "not run", NOT_TRAINED)
    for what in (pairs.diverged, pairs.mismatches):
        if what:
            reason = "; ".join(f"seed {seed}: {why}" for seed, why in what.items())
            return _Differences({}, "withheld", reason)
    return None


def _agreement(finding: FindingRecord, run: RunRecords) -> _Differences:
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
        return _Differences({}, "not run", f"not probed yet: wtie probe {run.folder}")
    seeds = set(run.seeds_of(finding.arm))
    probes = probes.model_copy(update={"cells": [c for c in probes.cells if c.seed in seeds]})
    measure = next(one for one in get_args(AgreementMeasure) if one == finding.measure)
    matrix: Matrix = "input" if finding.matrix == "input" else "output"
    over = Agreements(probes, measure).contrast((finding.arm, "tied"), (finding.baseline, matrix))
    if over.jackknife is None or set(over.seeds) != seeds:
        reason = f"not probed at three seeds or more, all of the study's: wtie probe {run.folder}"
        return _Differences({}, "not run", reason)
    by_seed = dict(zip(over.seeds, over.jackknife.pseudo_values, strict=True))
    return _Differences(by_seed, notices=tuple(caveats(pairs)))


def _bleu(result: CellResult) -> float:
    assert result.quality is not None, "a translation cell that is done has it"
    return result.quality["test"].bleu


_OTHER_MEASURES: dict[str, Callable[[CellResult], float]] = {
    "valid_nats_per_token": lambda result: result.scores("valid", "best").nats_per_token,
    "gap_nats": lambda result: result.evaluation("best").generalisation_gap_nats,
    "last_gap_nats": lambda result: result.evaluation("last").generalisation_gap_nats,
    "bleu": _bleu,
}


def _hours_a_seed(study: StudyRecords) -> float | None:
    """Return the hours of one more seed of a study, as `wtie sweep` would train it.

    That is a cell of every arm at every point, and at its best setting where that is another; the
    mean over those trained. None where no time was recorded of one of them.
    """
    times: dict[Path, list[float]] = {}
    for point in study.points:
        best = [] if point.run.search is None else [at_best(point.run)]
        for cell in [cell for run in (point.run, *best) for cell in run.cells.values()]:
            seconds = [] if cell.performance is None else [cell.performance.seconds]
            times.setdefault(cell.folder.parent, []).extend(seconds)
    if study.missing or not all(times.values()):
        return None
    return sum(sum(one) / len(one) for one in times.values()) / 3600


def _decide(observed: Sequence[_Observed]) -> tuple[FindingResult, ...]:
    """Adjust the p values within the claim and say of each finding what it comes to."""
    drawn = [one for one in observed if one.finding.measure not in COUNTED]
    better = _Family(drawn, lambda values, one: paired_t_test(values))
    equivalent = _Family([one for one in drawn if one.margin is not None], _equivalence_p)
    seen: set[tuple[object, ...]] = set()
    results = []
    for one in observed:
        results.append(_result(one, better, equivalent, repeats=one.member in seen))
        seen.add(one.member)
    return tuple(results)


def _equivalence_p(values: Sequence[float], one: _Observed) -> float:
    assert one.margin is not None
    return equivalence_test(values, one.margin).p


class _Family:
    """Holm-adjusted p values of findings; one without a p counts as 1, one twice there once."""

    def __init__(
        self, members: Sequence[_Observed], test: Callable[[Sequence[float], _Observed], float]
    ) -> None:
        ps = {}
        for one in members:
            values = tuple(one.differences.by_seed.values())
            ps[one.member] = test(values, one) if len(values) > 1 else NO_P
        self._adjusted = dict(zip(ps, holm_adjusted(list(ps.values())), strict=True))

    def p(self, one: _Observed) -> float | None:
        """Return the adjusted p, or None for what is not in the family."""
        return self._adjusted.get(one.member)

    @property
    def level(self) -> float:
        """The unadjusted p that is enough for any member which Holm does not reject yet."""
        return LEVEL / max(1, sum(p > LEVEL for p in self._adjusted.values()))


def _result(
    one: _Observed, better: _Family, equivalent: _Family, *, repeats: bool
) -> FindingResult:
    values = tuple(one.differences.by_seed.values())
    p, equivalence_p = better.p(one), equivalent.p(one)
    outcome = _outcome(one, values, p, equivalence_p)
    is_open = outcome == "open" and len(values) > 1
    return FindingResult(
        finding=one.finding,
        study=one.study.manifest.name,
        where=one.where,
        seeds=tuple(one.differences.by_seed),
        differences=values,
        p_holm=p,
        equivalence_p_holm=equivalence_p,
        margin=one.margin,
        baseline_parameters=one.baseline_parameters,
        outcome=outcome,
        reason=one.differences.reason,
        plan=_plan(one, values, better.level, equivalent.level) if is_open else None,
        repeats=repeats,
        notices=one.differences.notices,
    )


def _outcome(
    one: _Observed, values: Sequence[float], p: float | None, equivalence_p: float | None
) -> Outcome:
    if one.differences.state != "measured":
        return one.differences.state
    mean = sum(values) / len(values)
    is_expected = mean < 0 if one.finding.expected == "lower" else mean > 0
    if one.finding.measure in COUNTED:
        return "holds" if is_expected else "fails"
    assert p is not None
    is_small = equivalence_p is not None and equivalence_p <= LEVEL
    if p <= LEVEL and is_expected:
        return "holds, by less than its margin" if is_small else "holds"
    return "fails" if p <= LEVEL or is_small else "open"


def _plan(
    one: _Observed, values: Sequence[float], level: float, equivalence_level: float
) -> Plan | None:
    """Say what would settle an open finding; None where its mean and its margin are zero.

    Args:
        one: The finding.
        values: Its differences by seed, two or more.
        level: The unadjusted p at which the t test would decide.
        equivalence_level: The same of the equivalence test.
    """
    mean, margin = abs(sum(values) / len(values)), one.margin or 0.0
    target = max(margin, mean)
    if target == 0:
        return None
    confidence = 1 - (level if mean >= margin else equivalence_level)
    seeds = seeds_needed(values, target, confidence)
    sentence = plan_in_words(values, seeds, target, f"{target:.4f}", confidence)
    hours = _hours_a_seed(one.study)
    if hours is None or seeds > MOST_SEEDS_NAMED:
        return Plan(sentence, None)
    return Plan(sentence, max(0, seeds - len(values)) * hours)
