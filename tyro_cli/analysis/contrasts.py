"""A contrast: one metric of one arm minus the baseline's, over the seeds both have.

Invariant: only verified pairs of cells that are done enter the numbers; every planned pair that
does not (diverged, unfinished, not verified) is kept by name, so that nothing is dropped in
silence. Differences are arm - baseline: below zero the arm is better. What they allow one to say is
left to `verdicts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from tyro_cli.analysis.documents import DocumentUnit
from tyro_cli.analysis.formats import At, CellResult, Metric, Split, exp_or_none
from tyro_cli.analysis.pairs import PairProof, verify_pair
from tyro_cli.analysis.records import Rates, RunRecords, differing_settings
from tyro_cli.analysis.signatures import refuse_mixed_signatures, signatures_of
from tyro_cli.analysis.statistics import (
    DocumentBootstrap,
    Equivalence,
    Interval,
    SignFlip,
    equivalence_test,
    paired_document_bootstrap,
    paired_t_interval,
    paired_t_test,
    sign_flip_test,
)
from tyro_cli.errors import UsageError

METRICS: tuple[Metric, ...] = get_args(Metric)

UNIT_OF_METRIC: dict[Metric, DocumentUnit] = {"nats_per_word": "words", "nats_per_token": "tokens"}
"""Metrics that are nats over a count: their differences are logarithms of perplexity ratios."""

RATE_SETTINGS = ("training.optimizer.learning_rate", "training.optimizer.roles")
"""Settings that make the learning rates of two arms differ."""


@dataclass(frozen=True)
class Contrast:
    """One metric of an arm against the baseline, over seeds.

    Attributes:
        arm: The arm whose value comes first in every difference.
        baseline: The arm it is set against.
        metric: What was measured; lower is better for every metric.
        split: The split that was scored.
        at: The checkpoint that was scored.
        planned_seeds: Seeds for which both arms have a planned cell.
        unpaired_seeds: Seeds for which only one of the two arms has a planned cell.
        diverged: For each seed of a diverged pair, which arm diverged and where.
        unfinished_seeds: Seeds of pairs of which a cell is still to be trained.
        proofs: For each finished pair by seed, what its records prove.
        seeds: Seeds of the verified pairs, in the order of all values below.
        arm_values: The arm's value for each seed.
        baseline_values: The baseline's value for each seed.
        unavailable: Why there are no values although pairs are verified, or "".
        learning_rates: The rates of the arm and of the baseline.
        shared_rate: Whether no learning rate of any role differs between the arms.
        extended: Whether seeds were added after results had been seen.
        drifted: Cells that were resumed under another numeric fingerprint, by the user's leave.
        forced: Warning that the values have different signatures, or "".
        rates: Where the run's search put the arms; `own` without one.
        search_changed: Whether that search was planned or changed after results had been seen.
    """

    arm: str
    baseline: str
    metric: Metric
    split: Split
    at: At
    planned_seeds: tuple[int, ...]
    unpaired_seeds: tuple[int, ...]
    diverged: dict[int, str]
    unfinished_seeds: tuple[int, ...]
    proofs: dict[int, PairProof]
    seeds: tuple[int, ...]
    arm_values: tuple[float, ...]
    baseline_values: tuple[float, ...]
    unavailable: str
    learning_rates: tuple[float, float] | None
    shared_rate: bool
    extended: bool
    drifted: tuple[str, ...]
    forced: str
    rates: Rates = "own"
    search_changed: bool = False

    @property
    def differences(self) -> tuple[float, ...]:
        """Arm minus baseline for each seed."""
        return tuple(
            arm - baseline
            for arm, baseline in zip(self.arm_values, self.baseline_values, strict=True)
        )

    @property
    def mean(self) -> float | None:
        """The mean difference, or None without a pair."""
        return sum(self.differences) / len(self.seeds) if self.seeds else None

    def interval(self, confidence: float = 0.95) -> Interval | None:
        """Return the paired t interval of the mean difference, or None below two pairs."""
        return paired_t_interval(self.differences, confidence) if len(self.seeds) > 1 else None

    def equivalence(self, margin: float) -> Equivalence | None:
        """Return the two one-sided tests against a margin, or None below two pairs."""
        return equivalence_test(self.differences, margin) if len(self.seeds) > 1 else None

    @property
    def t_p(self) -> float | None:
        """The two-sided p of the paired t test, or None below two pairs."""
        return paired_t_test(self.differences) if len(self.seeds) > 1 else None

    @property
    def sign_flip(self) -> SignFlip | None:
        """The exact sign-flip test, or None without a pair or above 20."""
        return sign_flip_test(self.differences) if self.seeds else None

    @property
    def perplexity_ratio(self) -> float | None:
        """Perplexity of the arm over the baseline's (their geometric means over seeds).

        None without a pair, and for metrics that are no logarithm of a perplexity.
        """
        if self.mean is None or self.metric not in UNIT_OF_METRIC:
            return None
        return exp_or_none(self.mean)

    @property
    def num_won(self) -> int:
        """Pairs in which the arm is strictly better (lower) than the baseline."""
        return sum(difference < 0 for difference in self.differences)

    @property
    def mismatches(self) -> dict[int, str]:
        """For each finished pair that is not verified, what does not match."""
        return {seed: proof.reason for seed, proof in self.proofs.items() if not proof.verified}

    def pairs_in_words(self) -> str:
        """Return what became of the planned pairs, as `3/3 identical start`."""
        kinds = [proof.status for proof in self.proofs.values()]
        counts = [(kind, kinds.count(kind)) for kind in ("identical start", "same data")]
        counts += [
            ("not verified", len(self.mismatches)),
            ("diverged", len(self.diverged)),
            ("unfinished", len(self.unfinished_seeds)),
        ]
        planned = len(self.planned_seeds)
        return ", ".join(f"{count}/{planned} {kind}" for kind, count in counts if count) or "none"


def check_metric(metric: str) -> Metric:
    """Return the metric of that name.

    Raises:
        UsageError: There is no such metric.
    """
    for known in METRICS:
        if metric == known:
            return known
    raise UsageError(f"there is no metric {metric!r}", f"Metrics are: {', '.join(METRICS)}.")


def contrast(
    run: RunRecords,
    arm: str,
    baseline: str,
    metric: Metric = "nats_per_word",
    split: Split = "test",
    at: At = "best",
    *,
    force: bool = False,
) -> Contrast:
    """Set one metric of an arm against the baseline's, over every verified pair.

    Args:
        run: The records.
        arm: The arm that comes first in the difference.
        baseline: The arm it is set against.
        metric: What to compare; lower is better for every metric.
        split: The split that was scored.
        at: The checkpoint: best-valid, or last.
        force: Compare values of different signature.

    Raises:
        RunFolderError: The values have different signatures, and `force` is not set.
    """
    arm_seeds, baseline_seeds = set(run.seeds_of(arm)), set(run.seeds_of(baseline))
    diverged: dict[int, str] = {}
    unfinished: list[int] = []
    proofs: dict[int, PairProof] = {}
    pairs: dict[int, tuple[CellResult, CellResult]] = {}
    for seed in sorted(arm_seeds & baseline_seeds):
        cells = (run.cells[arm, seed], run.cells[baseline, seed])
        where = [
            f"{cell.arm} at step {cell.result.diverged.step:,}: {cell.result.diverged.what}"
            for cell in cells
            if cell.result is not None and cell.result.diverged is not None
        ]
        first, second = cells[0].result, cells[1].result
        if where:
            diverged[seed] = "; ".join(where)
        elif first is None or second is None:
            unfinished.append(seed)
        else:
            proofs[seed] = verify_pair(first, second)
            if proofs[seed].verified:
                pairs[seed] = (first, second)
    forced, values = _values(pairs, metric, split, at, force=force)
    some_pair = next(iter(pairs.values()), None)
    settings = [run.manifest.arms[name].settings for name in (arm, baseline)]
    return Contrast(
        arm=arm,
        baseline=baseline,
        metric=metric,
        split=split,
        at=at,
        planned_seeds=tuple(sorted(arm_seeds & baseline_seeds)),
        unpaired_seeds=tuple(sorted(arm_seeds ^ baseline_seeds)),
        diverged=diverged,
        unfinished_seeds=tuple(unfinished),
        proofs=proofs,
        seeds=tuple(values),
        arm_values=tuple(first for first, _ in values.values()),
        baseline_values=tuple(second for _, second in values.values()),
        unavailable=f"{metric} is n/a" if pairs and not values else "",
        learning_rates=(
            (some_pair[0].training.learning_rate, some_pair[1].training.learning_rate)
            if some_pair
            else None
        ),
        shared_rate=not any(
            path.startswith(RATE_SETTINGS) for path in differing_settings(*settings)
        )
        and all(a.training.learning_rate == b.training.learning_rate for a, b in pairs.values()),
        extended=_extended_after_looking(run, arm, baseline),
        drifted=tuple(
            f"{result.arm} seed {result.seed}"
            for pair in pairs.values()
            for result in pair
            if result.pairing.numeric_drift
        ),
        forced=forced,
        rates=run.rates,
        search_changed=(
            run.rates != "own" and run.search is not None and run.search.changed_after_looking
        ),
    )


def document_contrast(
    run: RunRecords, arm: str, baseline: str, seed: int, metric: Metric, split: Split = "test"
) -> DocumentBootstrap | None:
    """Bootstrap the difference of one pair's two best checkpoints over documents.

    Args:
        run: The records.
        arm: The arm that comes first in the difference.
        baseline: The arm it is set against.
        seed: The pair; both of its cells are done.
        metric: `nats_per_word` or `nats_per_token`.
        split: The split that was scored.

    Returns:
        None where there are no per-document scores, fewer than two documents, other documents in
        the two cells, or none of the metric's units.

    Raises:
        DamagedRecord: The file of per-document scores is damaged.
    """
    unit = UNIT_OF_METRIC[metric]
    cells = (run.cells[arm, seed], run.cells[baseline, seed])
    if not all(cell.has_document_scores for cell in cells):
        return None
    first, second = (cell.document_scores(split) for cell in cells)
    counts = first.counts(unit)
    same = counts.shape == second.nats.shape and bool((counts == second.counts(unit)).all())
    if not same or len(counts) < 2 or counts.sum() == 0:
        return None
    return paired_document_bootstrap(first.nats, second.nats, counts, seed=seed)


def _values(
    pairs: dict[int, tuple[CellResult, CellResult]],
    metric: Metric,
    split: Split,
    at: At,
    *,
    force: bool,
) -> tuple[str, dict[int, tuple[float, float]]]:
    """Return the values of every pair; none at all where the metric is n/a in one of them."""
    values: dict[int, tuple[float, float]] = {}
    for seed, (first, second) in pairs.items():
        one = getattr(first.scores(split, at), metric)
        other = getattr(second.scores(split, at), metric)
        if one is None or other is None:
            return "", {}
        values[seed] = (one, other)
    labelled = {
        f"{result.arm} seed {result.seed}": result for pair in pairs.values() for result in pair
    }
    signatures = signatures_of(labelled, split, metric)
    return refuse_mixed_signatures(f"{split} {metric}", signatures, force=force), values


def _extended_after_looking(run: RunRecords, arm: str, baseline: str) -> bool:
    """Return whether a later start added pairs of these two arms when results were there."""
    planned: set[tuple[str, int]] = set()
    for plan in run.manifest.plans:
        before = _seeds_of_both(planned, arm, baseline)
        # In a study only its own seeds count, whatever else the run was extended by.
        planned |= {(name, seed) for name in plan.arms for seed in plan.seeds} & run.cells.keys()
        if plan.after_results and before and _seeds_of_both(planned, arm, baseline) - before:
            return True
    return False


def _seeds_of_both(cells: set[tuple[str, int]], arm: str, baseline: str) -> set[int]:
    return {seed for name, seed in cells if name == arm and (baseline, seed) in cells}


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Return `seed 2` or `seeds 0, 1`."""
    return f"seed{'s' if len(seeds) != 1 else ''} {', '.join(str(seed) for seed in seeds)}"
