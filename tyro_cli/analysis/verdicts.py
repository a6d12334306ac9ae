"""The verdict: what a contrast allows one to say, in words (docs/STATISTICS.md).

Invariant: the 95 % interval and the 90 % equivalence interval over seeds decide; in a study the p
values adjusted within the family must agree, and no other p value decides anything. A verdict is
withheld as soon as a planned pair diverged, because a verdict over the survivors would be about
other runs than those planned. It says what its interval is over, at which learning rates, and what
is missing. docs/STATISTICS.md explains every kind.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tyro_cli.analysis.contrasts import (
    UNIT_OF_METRIC,
    Contrast,
    contrast,
    document_contrast,
    seeds_in_words,
)
from tyro_cli.analysis.records import RunRecords
from tyro_cli.analysis.rendering import p_in_words
from tyro_cli.analysis.statistics import (
    DocumentBootstrap,
    Interval,
    paired_t_interval,
    seeds_needed,
)
from tyro_cli.analysis.translation_tables import bleu_beside

Kind = Literal["better", "better-small", "equivalent", "cannot-tell", "one-pair", "withheld"]

MOST_SEEDS_NAMED = 10_000
"""Above this many seeds the plan is not one to follow, and the number is not spelled out."""

LEVEL = 0.05
"""Largest adjusted p at which a family lets a verdict say `better` or `equivalent`."""


@dataclass(frozen=True)
class FamilyPs:
    """The p values of one contrast, adjusted within its family (Holm).

    Attributes:
        better: Of the paired t test that the means are equal.
        equivalent: Of the two one-sided tests against the margin; a Holm family of its own.
        size: Contrasts of the family, those that have no p included.
        name: What the family is, for the sentence.
    """

    better: float
    equivalent: float
    size: int
    name: str


@dataclass(frozen=True)
class Verdict:
    """What a contrast allows one to say.

    Attributes:
        arm: The arm that was set against the baseline.
        baseline: The baseline.
        kind: Which of the six verdicts.
        text: The verdict in a few words.
        winner: The better arm, where the verdict names one.
        sentence: The verdict with its numbers, what they are over, and what is missing.
        metric: The metric that decided.
        final: Whether every planned pair is finished.
        extended: Whether seeds were added, or the search was changed, after results had been seen.
    """

    arm: str
    baseline: str
    kind: Kind
    text: str
    winner: str | None
    sentence: str
    metric: str
    final: bool
    extended: bool

    def as_record(self) -> dict[str, Any]:
        """Return the verdict as a JSON object."""
        return asdict(self)


def margin_in_words(margin: float) -> str:
    """Return a relative margin as `1 %`."""
    return f"{100 * margin:g} %"


def verdict(
    contrast: Contrast,
    margin: float,
    documents: DocumentBootstrap | None = None,
    family: FamilyPs | None = None,
    beside: str = "",
    units: str = "documents",
) -> Verdict:
    """Decide what a contrast in nats allows one to say.

    Args:
        contrast: A contrast in nats per word, or in nats per token where words are n/a.
        margin: Difference in perplexity that is too small to matter, relative (0.01 for 1 %).
        documents: Interval over documents, for the sentence of a single pair.
        family: In a study, the adjusted p values: `better` and `equivalent` then need them at .05
            or below, and the intervals are shown unadjusted.
        beside: A sentence for what stands beside and decides nothing: BLEU, in translation.
        units: What the document bootstrap draws, in a word.
    """
    assert contrast.metric in UNIT_OF_METRIC, "a verdict is decided in nats"
    margin_nats = math.log1p(margin)
    kind, text = _decide(contrast, margin, margin_nats, family)
    winner = None
    if kind in ("better", "better-small"):
        assert contrast.mean is not None
        winner = contrast.arm if contrast.mean < 0 else contrast.baseline
        text = f"{winner} {text}"
    sentences = [
        f"{contrast.arm} against {contrast.baseline}: {text}.",
        *_numbers(contrast, documents, units),
        *([beside] if beside else []),
        f"Pairs verified: {contrast.pairs_in_words()}.",
        *_family(contrast, family),
        *_margin_and_seeds(kind, contrast, margin),
        *_what_is_missing(contrast),
    ]
    if contrast.metric == "nats_per_token":
        sentences.append(
            "Words are n/a in these records, so nats per token decide, "
            "which compares arms of one tokenizer only."
        )
    if contrast.forced:
        sentences.append(f"{contrast.forced}.")
    sentences += _what_was_known(contrast)
    return Verdict(
        arm=contrast.arm,
        baseline=contrast.baseline,
        kind=kind,
        text=text,
        winner=winner,
        sentence=" ".join(sentences),
        metric=contrast.metric,
        final=not contrast.unfinished_seeds,
        extended=contrast.extended or contrast.search_changed,
    )


def caveats(contrast: Contrast) -> list[str]:
    """Say what the records tell on: cells resumed on other numerics, plans made after looking."""
    return [*_drift(contrast), *_what_was_known(contrast)]


def _drift(contrast: Contrast) -> list[str]:
    if not contrast.drifted:
        return []
    return [f"Resumed under another numeric fingerprint: {', '.join(contrast.drifted)}."]


def _what_was_known(contrast: Contrast) -> list[str]:
    sentences = []
    if contrast.extended:
        sentences.append("Seeds were added when results were known: extended after looking.")
    if contrast.search_changed:
        sentences.append(
            "The search was planned or changed when results were known: extended after looking."
        )
    return sentences


def decisive_contrast(run: RunRecords, arm: str, baseline: str, *, force: bool = False) -> Contrast:
    """Return the contrast that decides: test nats per word at the best-valid checkpoint.

    Where words are n/a it is nats per token; their signature holds the tokenizer, so arms with
    different ones are refused.

    Raises:
        RunFolderError: The values have different signatures, and `force` is not set.
    """
    over_words = contrast(run, arm, baseline, "nats_per_word", force=force)
    if not over_words.unavailable:
        return over_words
    return contrast(run, arm, baseline, "nats_per_token", force=force)


def verdict_of(run: RunRecords, arm: str, baseline: str, *, force: bool = False) -> Verdict:
    """Return the verdict on one arm against the baseline."""
    return verdict_on(run, decisive_contrast(run, arm, baseline, force=force), run.manifest.margin)


def verdict_on(
    run: RunRecords, decisive: Contrast, margin: float, family: FamilyPs | None = None
) -> Verdict:
    """Return the verdict on a contrast of a run, with all that its sentence says beside it.

    Args:
        run: The records that the contrast is of.
        decisive: What `decisive_contrast` returned.
        margin: As for `verdict`.
        family: As for `verdict`.
    """
    arm, baseline = decisive.arm, decisive.baseline
    documents = None
    if len(decisive.seeds) == 1:
        documents = document_contrast(run, arm, baseline, decisive.seeds[0], decisive.metric)
    beside = bleu_beside(run, arm, baseline)
    return verdict(decisive, margin, documents, family, beside, run.units)


def verdict_of_run(
    run: RunRecords, baseline: str | None = None, *, force: bool = False
) -> dict[str, Verdict]:
    """Return the verdict on every other arm against the baseline, in the order of arms.

    Args:
        run: The records.
        baseline: The baseline, where it is not the experiment's own.
        force: Compare values of different signature.

    Raises:
        NothingMatched: The run has no such arm.
        RunFolderError: The values have different signatures, and `force` is not set.
    """
    against = run.baseline(baseline)
    return {arm: verdict_of(run, arm, against, force=force) for arm in run.arms if arm != against}


def _decide(
    contrast: Contrast, margin: float, margin_nats: float, family: FamilyPs | None
) -> tuple[Kind, str]:
    """Return the kind of verdict, and its words without the winner."""
    planned = len(contrast.planned_seeds)
    if contrast.diverged:
        return "withheld", f"withheld: {len(contrast.diverged)} of {planned} pairs diverged"
    if not contrast.seeds:
        return "withheld", _why_there_is_no_pair(contrast)
    if len(contrast.seeds) == 1:
        return "one-pair", "one pair: no interval over seeds"
    interval = _interval(contrast)
    equivalence = contrast.equivalence(margin_nats)
    assert equivalence is not None
    within = equivalence.interval.lies_within(margin_nats)
    differs = interval.excludes_zero()
    if family is not None:
        within = within and family.equivalent <= LEVEL
        differs = differs and family.better <= LEVEL
    if differs:
        if within:
            return "better-small", f"better, by less than {margin_in_words(margin)}"
        return "better", "better"
    if within:
        return "equivalent", f"equivalent within {margin_in_words(margin)}"
    return "cannot-tell", "cannot tell"


def _why_there_is_no_pair(contrast: Contrast) -> str:
    planned = len(contrast.planned_seeds)
    if not planned:
        return "withheld: no seed is planned for both arms"
    if contrast.unfinished_seeds:
        return f"withheld: {len(contrast.unfinished_seeds)} of {planned} pairs unfinished"
    if contrast.unavailable:
        return f"withheld: {contrast.unavailable} in these records"
    return f"withheld: {len(contrast.mismatches)} of {planned} pairs not verified"


def _interval(contrast: Contrast) -> Interval:
    interval = contrast.interval(0.95)
    assert interval is not None, "two pairs or more have an interval"
    return interval


def _numbers(contrast: Contrast, documents: DocumentBootstrap | None, units: str) -> list[str]:
    """Say the difference, its interval, what that is over, and at which learning rates."""
    if contrast.mean is None:
        return []
    name = contrast.metric.replace("_", " ")
    sentence = (
        f"{contrast.split.capitalize()} {name}, {contrast.arm} - {contrast.baseline}: "
        f"{contrast.mean:+.4f}"
    )
    if len(contrast.seeds) > 1:
        interval = _interval(contrast)
        sentence += (
            f", 95 % interval [{interval.low:+.4f}, {interval.high:+.4f}] "
            f"over {len(contrast.seeds)} seeds"
        )
    else:
        sentence += f" at {seeds_in_words(contrast.seeds)}"
    if contrast.perplexity_ratio is not None:
        sentence += f" (perplexity ratio {contrast.perplexity_ratio:.4f})"
    of_what = "-valid" if contrast.at == "best" else ""
    sentences = [f"{sentence}, {contrast.at}{of_what} checkpoints, {_rates(contrast)}."]
    if len(contrast.seeds) > 1:
        return sentences
    if documents is None:
        return [*sentences, f"An interval over {units} needs two {units} with scores."]
    over = documents.interval
    return [
        *sentences,
        f"Over {units} (these two fixed checkpoints, {documents.num_documents:,} {units}): "
        f"95 % interval [{over.low:+.4f}, {over.high:+.4f}]; "
        "it says nothing about other seeds.",
    ]


def _family(contrast: Contrast, family: FamilyPs | None) -> list[str]:
    """Say what the family makes of the p values; the intervals are shown without it."""
    if family is None or len(contrast.seeds) < 2:
        return []
    return [
        f"In {family.name} of {family.size} contrasts, adjusted by Holm: "
        f"p {p_in_words(family.better)} that there is no difference, "
        f"p {p_in_words(family.equivalent)} that it exceeds the margin; the intervals are not "
        "adjusted."
    ]


def _rates(contrast: Contrast) -> str:
    assert contrast.learning_rates is not None
    arm_rate, baseline_rate = contrast.learning_rates
    each = f"rates {arm_rate:g} for {contrast.arm} and {baseline_rate:g} for {contrast.baseline}"
    if contrast.rates == "each-best":
        if arm_rate == baseline_rate:
            each = f"rate {arm_rate:g} for both"
        return f"each at its best: {each}"
    if contrast.shared_rate:
        of_whom = ", the baseline's best" if contrast.rates == "baseline-best" else ""
        return f"shared rate {arm_rate:g}{of_whom}"
    if arm_rate == baseline_rate:
        return f"rate {arm_rate:g} with other multipliers by role"
    return each


def _margin_and_seeds(kind: Kind, contrast: Contrast, margin: float) -> list[str]:
    """Set the 90 % interval against the margin; say how many seeds would answer what is open."""
    if kind not in ("better-small", "equivalent", "cannot-tell"):
        return []
    margin_nats = math.log1p(margin)
    in_words = f"the margin of {margin_in_words(margin)} ({margin_nats:.5f} nats)"
    if kind != "cannot-tell":
        within = contrast.interval(0.90)
        assert within is not None
        return [
            f"The 90 % interval [{within.low:+.4f}, {within.high:+.4f}] lies within {in_words}."
        ]
    is_decided_alone = _decide(contrast, margin, margin_nats, None)[0] != kind
    seeds = seeds_needed(contrast.differences, margin_nats)
    plan = plan_in_words(
        contrast.differences, seeds, margin_nats, in_words, is_decided_alone=is_decided_alone
    )
    return [f"{plan[0].upper()}{plan[1:]}"]


def plan_in_words(
    differences: Sequence[float],
    seeds: int,
    target: float,
    in_words: str,
    confidence: float = 0.95,
    *,
    is_decided_alone: bool = False,
) -> str:
    """Say how many seeds would bring the half-width of the interval to a target.

    Args:
        differences: Arm - baseline by seed, two or more.
        seeds: What `seeds_needed` says of them and the target.
        target: The half-width to come to, above zero.
        in_words: The target as the sentence names it.
        confidence: Of the interval meant; above .95 where Holm asks for more, .90 for equivalence.
        is_decided_alone: Whether the differences decide as long as no p is adjusted.
    """
    half_width = paired_t_interval(differences, confidence).half_width
    width = f"{half_width:.4f}"
    if confidence != 1 - LEVEL:
        width += f", of the {100 * confidence:.4g} % interval"
        width += " that Holm asks for" if confidence > 1 - LEVEL else ""
    if seeds <= len(differences):
        what_then = "the difference lies at the edge, and more seeds may not settle it."
        if is_decided_alone:
            what_then = (
                "what is open is due to the p adjusted by Holm, and more seeds may close it."
            )
        return f"the half-width of the interval ({width}) is within {in_words} already: {what_then}"
    basis = "by the upper 80 % bound of the spread"
    many = f"{seeds:,} seeds in all"
    if seeds > MOST_SEEDS_NAMED:
        many = f"more than {MOST_SEEDS_NAMED:,} seeds"
    if half_width <= target:
        return (
            f"the half-width of the interval ({width}) is within {in_words} already; that it stays "
            f"there would take {many}, {basis}."
        )
    return f"to bring the half-width ({width}) to {in_words} would take {many}, {basis}."


def _what_is_missing(contrast: Contrast) -> list[str]:
    """Name every pair that does not stand in the numbers."""
    planned = len(contrast.planned_seeds)
    sentences = [f"Diverged: seed {seed} ({where})." for seed, where in contrast.diverged.items()]
    if contrast.diverged and contrast.seeds:
        sentences.append("The numbers are those of the other pairs and decide nothing.")
    if contrast.unfinished_seeds:
        sentences.append(
            f"Not final: {len(contrast.unfinished_seeds)} of {planned} pairs unfinished "
            f"({seeds_in_words(contrast.unfinished_seeds)})."
        )
    sentences += [
        f"No contrast at seed {seed}, the pair is not verified: {reason}."
        for seed, reason in contrast.mismatches.items()
    ]
    sentences += _drift(contrast)
    if contrast.unpaired_seeds:
        sentences.append(
            f"Planned for one of the two arms only: {seeds_in_words(contrast.unpaired_seeds)}."
        )
    return sentences
