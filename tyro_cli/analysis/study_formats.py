"""The formats of a study's manifest.json and of its shards, as the analysis reads them.

Invariant: as in `formats`, a record that validates agrees with itself: its points lie on its grid,
and its claim names arms and points that it has. What the runs of its points hold is left to
`records`.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tyro_cli.analysis.formats import Count, Record, Size
from tyro_cli.config.claims import Measure

WHOLE_STUDY = "all"
"""The family of a study whose contrasts are all tested as one."""


MARGIN_OF_STUDY = "nats_per_word"
"""The measure whose findings take the study's margin where they have none of their own."""


def lies_at(levels: Mapping[str, Any], at: Mapping[str, Any]) -> bool:
    """Say whether a point has the levels that a finding names."""
    return all(levels.get(name) == level for name, level in at.items())


class FactorRecord(Record):
    """One factor of a study: its place among them, the keys that it sets, its levels in order."""

    order: Count
    keys: list[str] = Field(min_length=1)
    levels: list[Any] = Field(min_length=1)


class PointRecord(Record):
    """One point of a study's grid, and the run that holds its cells."""

    levels: dict[str, Any]
    run: str
    run_id: str


class FindingRecord(Record):
    """One thing that a claim says would be seen: a contrast and the side of zero it lies on."""

    name: str
    measure: Measure
    arm: str
    baseline: str
    matrix: Literal["input", "output"] | None
    at: dict[str, Any]
    minus: dict[str, Any] | None = None
    rates: Literal["shared", "each-best"]
    expected: Literal["lower", "higher"]
    margin: Annotated[float, Field(gt=0)] | None = None


class CountedModel(Record):
    """A model that was counted and not trained.

    `saving` is what the tie saves, or would save where the model has none, in parameters.
    """

    name: str
    vocab_size: Size
    d_model: Size
    untied_total: Size
    saving: Size


class PublishedModel(CountedModel):
    """A published model, counted from its configuration file.

    `tied` and `embedding_and_head`, the parameters of these two, are as it was published.
    """

    tied: bool
    embedding_and_head: Size

    @model_validator(mode="after")
    def _parts_fit_the_whole(self) -> "PublishedModel":
        matrix = self.vocab_size * self.d_model
        if self.saving not in (matrix, 2 * matrix):  # tied in two roles, or in three
            raise ValueError(f"{self.name}: saving is not vocab_size x d_model, or twice that")
        if not matrix <= self.embedding_and_head <= self.total:
            raise ValueError(
                f"{self.name}: embedding_and_head is not between vocab_size x d_model and the total"
            )
        return self

    @property
    def tied_total(self) -> int:
        """Unique parameters with the tie."""
        return self.untied_total - self.saving

    @property
    def total(self) -> int:
        """Unique parameters as published."""
        return self.tied_total if self.tied else self.untied_total


class ClaimRecord(Record):
    """What a study was to decide; `parts` and `published` stand in no record older than they."""

    number: Size
    parts: Size = 1
    sentence: str
    depends_on: str
    findings: list[FindingRecord] = Field(min_length=1)
    counted: list[CountedModel]
    published: list[PublishedModel] = Field(default_factory=list)

    @property
    def takes_margin(self) -> bool:
        """Whether a finding has no margin of its own and takes the study's."""
        return any(one.margin is None and one.measure == MARGIN_OF_STUDY for one in self.findings)


class StudyManifest(Record):
    """`manifest.json` of a study: its grid, and the runs beside it that hold the cells."""

    format: Literal[1]
    study_id: str
    name: str
    family: str
    factors: dict[str, FactorRecord] = Field(min_length=1)
    points: list[PointRecord] = Field(min_length=1)
    arms: list[str] = Field(min_length=1)
    baseline: str
    margin: Annotated[float, Field(gt=0)]
    seeds: list[Count] = Field(min_length=1)
    claim: ClaimRecord | None = None
    claim_after_cells: Count | None = None
    """How many cells had been trained when the claim was written down as it stands."""

    @model_validator(mode="after")
    def _points_lie_on_the_grid(self) -> "StudyManifest":
        for index, point in enumerate(self.points):
            if point.levels.keys() != self.factors.keys():
                raise ValueError(f"points[{index}].levels does not name every factor")
            for name, level in point.levels.items():
                if level not in self.factors[name].levels:
                    raise ValueError(f"points[{index}].levels.{name} is no level of the factor")
        all_levels = [point.levels for point in self.points]
        levels = {json.dumps(one, sort_keys=True) for one in all_levels}
        if len(levels) < len(self.points):
            raise ValueError("two points have the same levels")
        if self.family != WHOLE_STUDY and self.family not in self.factors:
            raise ValueError(f"family {self.family!r} is neither all nor one of the factors")
        if self.baseline not in self.arms:
            raise ValueError(f"baseline {self.baseline!r} is not one of the arms")
        for index, finding in enumerate(self.claim.findings if self.claim else ()):
            if unknown := {finding.arm, finding.baseline} - set(self.arms):
                raise ValueError(f"claim.findings[{index}] names no arm {sorted(unknown)[0]!r}")
            places = [point.levels for point in self.points if lies_at(point.levels, finding.at)]
            if not places or any(
                {**one, **(finding.minus or {})} not in all_levels for one in places
            ):
                raise ValueError(f"claim.findings[{index}] names a point that the study has not")
        return self


class ShardRecord(Record):
    """`shards/I-of-N.json`: which pairs of a study one machine trained."""

    format: Literal[1]
    study_id: str
    shard: Size
    shards: Size
    pairs: list[Annotated[tuple[str, Count], Field(strict=False)]]
    """Run folder and seed of each."""
