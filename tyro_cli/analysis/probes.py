"""`probes.json`: what a run's probes measured, and what it says over seeds.

Invariant: everything here is a pure function of the record. A difference leaves a seed out of both
arms at once; what is not defined is None and stays so. How the numbers were measured is left to
`evaluation.probes`, what the tables look like to `probe_tables`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import fsum
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tyro_cli.analysis.formats import At, Count, NonNegative, Record, Size
from tyro_cli.analysis.records import parse_record
from tyro_cli.analysis.statistics import Jackknife, jackknife
from tyro_cli.errors import NothingMatched

PROBES = "probes.json"

Matrix = Literal["tied", "input", "output", "source"]
MATRICES: tuple[Matrix, ...] = ("tied", "input", "output", "source")
AgreementMeasure = Literal[
    "neighbour_overlap", "linear_cka", "similarity_correlation", "procrustes_residual"
]
ShapeMeasure = Literal[
    "mean_norm",
    "mean_cosine",
    "partition_ratio",
    "effective_rank",
    "norm_frequency_correlation",
    "norm_frequency_slope",
]
LESS_IS_ALIKE: AgreementMeasure = "procrustes_residual"
"""The one measure of agreement that falls when two spaces grow alike."""


class ProbedMatrix(Record):
    """Which matrix of which cell."""

    arm: str
    seed: Count
    matrix: Matrix


class ProbedShape(ProbedMatrix):
    """The shape of one matrix."""

    values: dict[ShapeMeasure, float | None]


class ProbedAgreement(Record):
    """How alike two matrices are, and how alike with the rows of the second shuffled."""

    first: ProbedMatrix
    second: ProbedMatrix
    observed: dict[AgreementMeasure, float | None]
    shuffled: dict[AgreementMeasure, float | None]


class BandGradients(Record):
    """The gradients of the roles by band of frequency; the last band was never seen.

    What is of the encoder's input is None as a whole where it was not measured.
    """

    tokens: list[Count]
    input_norm: list[NonNegative | None]
    output_norm: list[NonNegative | None]
    cosine: list[float | None]
    source_norm: list[NonNegative | None] | None = None
    input_source_cosine: list[float | None] | None = None
    output_source_cosine: list[float | None] | None = None

    @model_validator(mode="after")
    def _of_the_source_all_or_nothing(self) -> "BandGradients":
        of_source = (self.source_norm, self.input_source_cosine, self.output_source_cosine)
        if len({values is None for values in of_source}) > 1:
            raise ValueError("bands: a part of the encoder's gradients is missing")
        return self


class RoleGradientRecord(Record):
    """One record of the gradients of the roles, as `metrics.jsonl` has it.

    The bands say whether the encoder's input was measured.
    """

    step: Size
    loss_nats: float | None
    input_norm: NonNegative | None
    output_norm: NonNegative | None
    cosine: float | None
    source_norm: NonNegative | None = None
    input_source_cosine: float | None = None
    output_source_cosine: float | None = None
    bands: BandGradients


class CellCourse(Record):
    """The first, the middle and the last record of one cell."""

    arm: str
    seed: Count
    records: Annotated[list[RoleGradientRecord], Field(min_length=3, max_length=3)]


class ProbedRows(Record):
    """Which rows counted on one side of the data."""

    vocab_size: Size
    counted: Size
    sampled: Size


class ProbeSettings(Record):
    """What decides which rows are measured."""

    min_count: Size
    num_neighbours: Size
    num_bands: Size


class ProbedCell(Record):
    """A cell that was probed."""

    arm: str
    seed: Count
    cell_id: str
    step: Count


class ProbeRecord(Record):
    """`probes.json`."""

    format: Literal[1]
    name: str
    run_id: str
    checkpoint: At
    settings: ProbeSettings
    rows: dict[Literal["target", "source"], ProbedRows]
    cells: Annotated[list[ProbedCell], Field(min_length=1)]
    shapes: list[ProbedShape]
    agreements: list[ProbedAgreement]
    role_gradients: list[CellCourse]

    @model_validator(mode="after")
    def _every_band_has_its_numbers(self) -> "ProbeRecord":
        for course in self.role_gradients:
            for record in course.records:
                for values in dict(record.bands).values():
                    if values is not None and len(values) != self.settings.num_bands + 1:
                        raise ValueError("role_gradients: a list has not one number a band")
        return self

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that were probed, in the order of the experiment."""
        return tuple(dict.fromkeys(cell.arm for cell in self.cells))

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Return the seeds of an arm that were probed, ascending."""
        return tuple(sorted(cell.seed for cell in self.cells if cell.arm == arm))

    def matrices_of(self, arm: str) -> tuple[Matrix, ...]:
        """Return the distinct matrices of an arm."""
        own = {shape.matrix for shape in self.shapes if shape.arm == arm}
        return tuple(matrix for matrix in MATRICES if matrix in own)


def load_probes(folder: Path) -> ProbeRecord:
    """Read the probes of a run.

    Raises:
        NothingMatched: The run has not been probed.
        DamagedRecord: The record does not say what it must.
    """
    path = folder / PROBES
    if not path.is_file():
        raise NothingMatched(f"{folder} has not been probed", f"wtie probe {folder}")
    return parse_record(ProbeRecord, path, f"Remove it and run `wtie probe {folder}` again.")


@dataclass(frozen=True)
class OverSeeds:
    """A number over seeds.

    Attributes:
        seeds: The seeds it is made of.
        values: What it is made of: a value a seed, or a value a pair of seeds.
        estimate: The number; None where a part is not defined.
        jackknife: Its interval; None where there are too few seeds.
        shuffled: The same number with shuffled rows; None where there is no such null.
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    estimate: float | None
    jackknife: Jackknife | None
    shuffled: float | None = None


Key = tuple[str, int, Matrix]
Pair = tuple[Key, Key]


class Agreements:
    """The values of one measure by pair of matrices, whichever of the two comes first."""

    def __init__(self, record: ProbeRecord, measure: AgreementMeasure) -> None:
        self.record = record
        self.observed: dict[Pair, float | None] = {}
        self.shuffled: dict[Pair, float | None] = {}
        for one in record.agreements:
            first, second = _key(one.first), _key(one.second)
            for pair in ((first, second), (second, first)):
                self.observed[pair] = one.observed.get(measure)
                self.shuffled[pair] = one.shuffled.get(measure)

    def across_seeds(self, arm: str, matrix: Matrix) -> OverSeeds:
        """Return the mean over all pairs of seeds of how alike their matrices are."""
        return self._over(self.record.seeds_of(arm), self._pairs((arm, matrix)), at_least=3)

    def contrast(self, tied: tuple[str, Matrix], untied: tuple[str, Matrix]) -> OverSeeds:
        """Return the agreement across seeds of one matrix minus that of another arm's."""

        def pairs(seeds: Sequence[int]) -> list[tuple[float, Pair]]:
            own, other = self._pairs(tied)(seeds), self._pairs(untied)(seeds)
            return [*own, *((-weight, pair) for weight, pair in other)]

        return self._over(self._common_seeds(tied[0], untied[0]), pairs, at_least=3)

    def resemblance(
        self, tied: tuple[str, Matrix], untied: tuple[str, Matrix], *, same_seed: bool
    ) -> OverSeeds:
        """Return how alike the tied matrix and one of the untied are, over seeds."""
        seeds = self._common_seeds(tied[0], untied[0])
        return self._over(seeds, self._between(tied, untied, same_seed), 2 if same_seed else 3)

    def preference(
        self, tied: tuple[str, Matrix], untied_arm: str, *, same_seed: bool
    ) -> OverSeeds:
        """Return how much more alike the tied matrix is to the untied output than to the input."""
        to_output = self._between(tied, (untied_arm, "output"), same_seed)
        to_input = self._between(tied, (untied_arm, "input"), same_seed)

        def pairs(seeds: Sequence[int]) -> list[tuple[float, Pair]]:
            return [
                *to_output(seeds),
                *((-weight, pair) for weight, pair in to_input(seeds)),
            ]

        seeds = self._common_seeds(tied[0], untied_arm)
        return self._over(seeds, pairs, 2 if same_seed else 3)

    def _common_seeds(self, arm: str, other: str) -> tuple[int, ...]:
        others = self.record.seeds_of(other)
        return tuple(seed for seed in self.record.seeds_of(arm) if seed in others)

    def _pairs(self, one: tuple[str, Matrix]) -> "Parts":
        arm, matrix = one
        return lambda seeds: _weighted(
            [((arm, s, matrix), (arm, t, matrix)) for s, t in combinations(seeds, 2)]
        )

    def _between(
        self, tied: tuple[str, Matrix], untied: tuple[str, Matrix], same_seed: bool
    ) -> "Parts":
        return lambda seeds: _weighted(
            [
                ((tied[0], s, tied[1]), (untied[0], t, untied[1]))
                for s in seeds
                for t in seeds
                if (s == t) == same_seed
            ]
        )

    def _over(self, seeds: tuple[int, ...], parts: "Parts", at_least: int) -> OverSeeds:
        """Return a weighted sum of values over seeds, with what leaving one out makes of it."""
        weighted = parts(seeds)
        values = [self.observed.get(pair) for _, pair in weighted]
        known = tuple(value for value in values if value is not None)
        if not weighted or len(known) < len(values):
            return OverSeeds(seeds, known, None, None)

        def total(values: Mapping[Pair, float | None], some: Sequence[int]) -> float:
            # Summed exactly, so that what cancels leaves nothing that looks like a difference.
            return fsum(weight * (values.get(pair) or 0.0) for weight, pair in parts(some))

        has_null = all(self.shuffled.get(pair) is not None for _, pair in weighted)
        return OverSeeds(
            seeds,
            known,
            total(self.observed, seeds),
            jackknife(lambda some: total(self.observed, some), seeds)
            if len(seeds) >= at_least
            else None,
            total(self.shuffled, seeds) if has_null else None,
        )


Parts = Callable[[Sequence[int]], list[tuple[float, Pair]]]


def shape_over_seeds(
    record: ProbeRecord, arm: str, matrix: Matrix, measure: ShapeMeasure
) -> OverSeeds:
    """Return the mean over seeds of one measure of one matrix."""
    values = _shapes(record, arm, matrix, measure)
    return _mean_over_seeds(values)


def shape_contrast(
    record: ProbeRecord,
    tied: tuple[str, Matrix],
    untied: tuple[str, Matrix],
    measure: ShapeMeasure,
) -> OverSeeds:
    """Return the mean over seeds of one measure of one matrix minus another arm's."""
    own, other = (_shapes(record, *one, measure) for one in (tied, untied))
    differences: dict[int, float | None] = {}
    for seed in own.keys() & other.keys():
        one, two = own[seed], other[seed]
        differences[seed] = None if one is None or two is None else one - two
    return _mean_over_seeds(differences)


def _shapes(
    record: ProbeRecord, arm: str, matrix: Matrix, measure: ShapeMeasure
) -> dict[int, float | None]:
    return {
        shape.seed: shape.values.get(measure)
        for shape in record.shapes
        if (shape.arm, shape.matrix) == (arm, matrix)
    }


def _mean_over_seeds(values: Mapping[int, float | None]) -> OverSeeds:
    seeds = tuple(sorted(values))
    known = {seed: value for seed, value in values.items() if value is not None}
    numbers = tuple(known[seed] for seed in seeds if seed in known)
    if not numbers or len(known) < len(seeds):
        return OverSeeds(seeds, numbers, None, None)

    def mean(some: Sequence[int]) -> float:
        return fmean(known[seed] for seed in some)

    return OverSeeds(
        seeds, numbers, mean(seeds), jackknife(mean, seeds) if len(seeds) > 1 else None
    )


def _weighted(pairs: list[Pair]) -> list[tuple[float, Pair]]:
    return [(1.0 / len(pairs), pair) for pair in pairs]


def _key(one: ProbedMatrix) -> Key:
    return one.arm, one.seed, one.matrix
