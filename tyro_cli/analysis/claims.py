"""From the records of studies to one word about a claim.

The rule, written down before any run (docs/STATISTICS.md says it for readers). A finding is a
contrast, over the seeds whose pairs are verified, and the side of zero on which it lies if the
claim is true. Within a claim the p values of all its findings are one Holm family, in which
findings that read the same cells for the same measure count once. A finding *holds* where its mean
lies on that side with an adjusted t p of at most .05; it *fails* where its mean lies on the other
side so, or where the adjusted p of the equivalence test against its margin is at most .05; else it
is *open*, and *withheld* where a pair or every trial of a search diverged, a pair is not verified,
or a change has no common unit. All hold: `supported`. All fail: `refuted`. Some hold and some fail:
`mixed`. Anything else: `cannot tell`; and `not run` as long as
a cell is missing, or one of the studies that decide it together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro_cli.analysis.findings import COUNTED, Observed, observe
from tyro_cli.analysis.records import at_best
from tyro_cli.analysis.statistics import (
    Interval,
    equivalence_test,
    holm_adjusted,
    paired_t_interval,
    paired_t_test,
    seeds_needed,
)
from tyro_cli.analysis.studies import NO_P, StudyRecords
from tyro_cli.analysis.study_formats import ClaimRecord, FindingRecord
from tyro_cli.analysis.verdicts import LEVEL, MOST_SEEDS_NAMED, plan_in_words
from tyro_cli.errors import RunFolderError

Outcome = Literal["holds", "holds, by less than its margin", "fails", "open", "withheld", "not run"]

SUPPORTED, REFUTED, CANNOT_TELL, NOT_RUN = "supported", "refuted", "cannot tell", "not run"


@dataclass(frozen=True)
class Plan:
    """What would settle a finding that is open.

    Attributes:
        sentence: The seeds it would take to bring the half-width to the mean, which would settle on
            which side the difference lies, or to what the mean is below the margin, which would
            settle that it counts as none, whichever takes fewer; at the level that Holm asks of the
            findings that are open.
        hours: Of the cells that these seeds are missing, which are of every arm at every point of
            the study, as long as those trained took; None where no time was recorded, or where
            they are too many to name.
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
            each arm is best at the shared setting. Its t p is then that of the earlier one.
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


def claim_results(studies: Sequence[StudyRecords]) -> tuple[ClaimResult, ...]:
    """Return every claim that the studies make, by number; studies without one are left out.

    Raises:
        RunFolderError: Two studies of one number have one name or put its claim in other words, or
            numbers of one point have different signatures.
    """
    by_number: dict[int, list[tuple[ClaimRecord, StudyRecords]]] = {}
    for study in studies:
        claim = study.manifest.claim
        if claim is not None:
            by_number.setdefault(claim.number, []).append((claim, study))
    results = []
    for number, members in sorted(by_number.items()):
        first = members[0][0]
        _check_names(number, [study for _, study in members])
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
            for one in observe(finding, study)
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


def _check_names(number: int, studies: Sequence[StudyRecords]) -> None:
    """Refuse two studies of one name: they are one half of a claim twice, not both halves."""
    folders: dict[str, Path] = {}
    for study in studies:
        other = folders.setdefault(study.manifest.name, study.folder)
        if other != study.folder:
            raise RunFolderError(
                f"{other} and {study.folder} are both the study {study.manifest.name}, which would "
                f"decide claim {number} twice",
                "move one of the two into another folder: one tried with --smoke, say, or trained "
                "in another precision",
            )


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


def _decide(observed: Sequence[Observed]) -> tuple[FindingResult, ...]:
    """Adjust the p values within the claim and say of each finding what it comes to."""
    drawn = [one for one in observed if one.finding.measure not in COUNTED]
    better = _Family(drawn, lambda one: one.member, lambda values, one: paired_t_test(values))
    equivalent = _Family(
        [one for one in drawn if one.margin is not None],
        lambda one: (*one.member, one.margin),
        _equivalence_p,
    )
    seen: set[tuple[object, ...]] = set()
    results = []
    for one in observed:
        results.append(_result(one, better, equivalent, repeats=one.member in seen))
        seen.add(one.member)
    return tuple(results)


def _equivalence_p(values: Sequence[float], one: Observed) -> float:
    assert one.margin is not None
    return equivalence_test(values, one.margin).p


class _Family:
    """Holm-adjusted p values of findings; one without a p counts as 1, one twice there once."""

    def __init__(
        self,
        members: Sequence[Observed],
        key: Callable[[Observed], tuple[object, ...]],
        test: Callable[[Sequence[float], Observed], float],
    ) -> None:
        self._key = key
        ps = {}
        for one in members:
            values = tuple(one.differences.by_seed.values())
            ps[key(one)] = test(values, one) if len(values) > 1 else NO_P
        self._adjusted = dict(zip(ps, holm_adjusted(list(ps.values())), strict=True))

    def p(self, one: Observed) -> float | None:
        """Return the adjusted p, or None for what is not in the family."""
        return self._adjusted.get(self._key(one))

    @property
    def level(self) -> float:
        """The unadjusted p that is enough for any member which Holm does not reject yet."""
        return LEVEL / max(1, sum(p > LEVEL for p in self._adjusted.values()))


def _result(one: Observed, better: _Family, equivalent: _Family, *, repeats: bool) -> FindingResult:
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
    one: Observed, values: Sequence[float], p: float | None, equivalence_p: float | None
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
    one: Observed, values: Sequence[float], level: float, equivalence_level: float
) -> Plan | None:
    """Say what would settle an open finding; None where its mean and its margin are zero.

    Args:
        one: The finding.
        values: Its differences by seed, two or more.
        level: The unadjusted p at which the t test would decide.
        equivalence_level: The same of the equivalence test.
    """
    mean, margin = abs(sum(values) / len(values)), one.margin or 0.0
    ways = []
    if mean > 0:  # its side is known once the interval leaves zero
        ways.append((mean, 1 - level, ""))
    if margin > mean:
        inside = ", at which the interval would lie within the margin,"
        ways.append((margin - mean, 1 - 2 * equivalence_level, inside))
    if not ways:
        return None
    seeds, target, confidence, what = min(
        (seeds_needed(values, target, confidence), target, confidence, what)
        for target, confidence, what in ways
    )
    sentence = plan_in_words(values, seeds, target, f"{target:.4f}{what}", confidence)
    hours = _hours_a_seed(one.study)
    if hours is None or seeds > MOST_SEEDS_NAMED:
        return Plan(sentence, None)
    return Plan(sentence, (seeds - len(values)) * hours)
