"""A study: the records of its runs, its contrasts by point, their families and crossovers.

Invariant: only the arms and seeds that the study planned enter, whatever else its runs hold, and
every planned contrast counts in its family, also one that has no p. Which run holds a point is
what the study's manifest says, by content; the runs lie beside the study's folder.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tyro_cli.analysis.contrasts import Contrast
from tyro_cli.analysis.formats import FactorRecord, PointRecord, ShardRecord, StudyManifest
from tyro_cli.analysis.records import RunRecords, load_run, parse_record
from tyro_cli.analysis.statistics import holm_adjusted
from tyro_cli.analysis.verdicts import FamilyPs, Verdict, decisive_contrast, verdict
from tyro_cli.errors import NothingMatched, RunFolderError, UsageError
from tyro_cli.storage.names import inside

WHOLE_STUDY = "all"
NO_P = 1.0
"""What a planned contrast without a p counts as, so that a family is never smaller than planned."""


@dataclass(frozen=True)
class PointRun:
    """One point of the grid and the records of its run, cut to the study's arms and seeds."""

    levels: Mapping[str, Any]
    run: RunRecords


@dataclass(frozen=True)
class StudyRecords:
    """A study's folder: its manifest, and its points in the order of the grid.

    Attributes:
        folder: The study's folder.
        manifest: What it planned.
        points: Every point whose run is there.
        missing: Run folders that are not there yet.
    """

    folder: Path
    manifest: StudyManifest
    points: tuple[PointRun, ...]
    missing: tuple[str, ...]

    @property
    def factors(self) -> dict[str, FactorRecord]:
        """The factors in the order of the study file."""
        return self.manifest.factors


@dataclass(frozen=True)
class StudyContrast:
    """The decisive contrast of one arm at one point, with what its family makes of it.

    Attributes:
        levels: The point.
        contrast: Test nats per word (or per token) at the best-valid checkpoint.
        p: Of the paired t test; None below two pairs.
        equivalence_p: Of the two one-sided tests; None below two pairs.
        family: The adjusted p values.
        verdict: What they allow one to say.
    """

    levels: Mapping[str, Any]
    contrast: Contrast
    p: float | None
    equivalence_p: float | None
    family: FamilyPs
    verdict: Verdict


def is_study(folder: Path) -> bool:
    """Say whether a folder is a study's."""
    return (folder / "study.yaml").is_file()


def load_study_records(folder: Path) -> StudyRecords:
    """Read a study's manifest and the runs beside it.

    Raises:
        RunFolderError: The folder is not a study's, a run beside it is another one than the study
            names, or its shards do not belong together.
        DamagedRecord: A file does not say what it must.
        NothingMatched: None of its runs is there.
    """
    if not is_study(folder):
        raise RunFolderError(
            f"{folder} is not a study folder: it has no study.yaml",
            "name a folder that `wtie sweep` wrote, for example runs/NAME-HASH",
        )
    manifest = parse_record(StudyManifest, folder / "manifest.json")
    check_shards(folder, manifest.study_id)
    points, missing = [], []
    for point in manifest.points:
        run_folder = _run_folder(folder, point)
        if not (run_folder / "manifest.json").is_file():
            missing.append(point.run)
            continue
        points.append(PointRun(point.levels, _load_point(run_folder, point, manifest)))
    if not points:
        raise NothingMatched(
            f"{folder}: none of its {len(manifest.points)} runs is there",
            f"they lie beside it, for example {_run_folder(folder, manifest.points[0])}; "
            "run the same wtie sweep command again",
        )
    return StudyRecords(folder, manifest, tuple(points), tuple(missing))


def _run_folder(folder: Path, point: PointRecord) -> Path:
    try:
        return inside(folder.parent, point.run)
    except UsageError as error:
        raise RunFolderError(f"{folder / 'manifest.json'}: {error.message}", error.remedy) from None


def _load_point(run_folder: Path, point: PointRecord, manifest: StudyManifest) -> RunRecords:
    run = load_run(run_folder)
    if run.manifest.run_id != point.run_id:
        raise RunFolderError(
            f"{run_folder} holds another run than the study planned: {run.manifest.run_id[:16]}, "
            f"not {point.run_id[:16]}",
            "move it away and run the same wtie sweep command again",
        )
    cells = {
        (arm, seed): cell
        for (arm, seed), cell in run.cells.items()
        if arm in manifest.arms and seed in manifest.seeds
    }
    return replace(run, cells=cells)


def check_shards(folder: Path, study_id: str) -> tuple[ShardRecord, ...]:
    """Return the shards that a study's folder holds.

    Raises:
        RunFolderError: Two of them trained the same pair, or one belongs to another study.
        DamagedRecord: A file does not say what it must.
    """
    shards: list[tuple[str, ShardRecord]] = []
    for path in sorted((folder / "shards").glob("*.json")):
        shard = parse_record(ShardRecord, path)
        if shard.study_id != study_id:
            raise RunFolderError(
                f"{path} belongs to another study ({shard.study_id[:16]}, this one is "
                f"{study_id[:16]})",
                "copy only shards of one study together",
            )
        for name, other in shards:
            if shared := set(shard.pairs) & set(other.pairs):
                run, seed = sorted(shared)[0]
                raise RunFolderError(
                    f"{folder}: shards {name} and {path.stem} overlap: both hold {run}, seed "
                    f"{seed} ({len(shared)} pairs in all)",
                    "split a study in one way: the same n in every --shard i/n",
                )
        shards.append((path.stem, shard))
    return tuple(shard for _, shard in shards)


def study_contrasts(study: StudyRecords, *, force: bool = False) -> tuple[StudyContrast, ...]:
    """Return the decisive contrast of every arm at every point, adjusted within its family.

    Raises:
        RunFolderError: Numbers of one point have different signatures, and `force` is not set.
    """
    manifest = study.manifest
    found = [
        (point, decisive_contrast(point.run, arm, manifest.baseline, force=force))
        for arm in manifest.arms
        if arm != manifest.baseline
        for point in study.points
    ]
    families = _families(study, found)
    contrasts = []
    for (point, contrast), family in zip(found, families, strict=True):
        margin = manifest.margin
        contrasts.append(
            StudyContrast(
                levels=point.levels,
                contrast=contrast,
                p=contrast.t_p,
                equivalence_p=_equivalence_p(contrast, margin),
                family=family,
                verdict=verdict(contrast, margin, family=family),
            )
        )
    return tuple(contrasts)


def _families(study: StudyRecords, found: Sequence[tuple[PointRun, Contrast]]) -> list[FamilyPs]:
    """Return each contrast's adjusted p values, in order."""
    by = study.manifest.family
    members: dict[str, list[int]] = {}
    for index, (point, _) in enumerate(found):
        name = "a family" if by == WHOLE_STUDY else f"the family of {by} {point.levels[by]}"
        members.setdefault(name, []).append(index)
    adjusted: list[FamilyPs | None] = [None] * len(found)
    for name, indices in members.items():
        contrasts = [found[index][1] for index in indices]
        better = holm_adjusted([_or_one(one.t_p) for one in contrasts])
        equivalent = holm_adjusted(
            [_or_one(_equivalence_p(one, study.manifest.margin)) for one in contrasts]
        )
        for index, first, second in zip(indices, better, equivalent, strict=True):
            adjusted[index] = FamilyPs(first, second, len(indices), name)
    return [one for one in adjusted if one is not None]


def _or_one(p: float | None) -> float:
    return NO_P if p is None else p


def _equivalence_p(contrast: Contrast, margin: float) -> float | None:
    equivalence = contrast.equivalence(math.log1p(margin))
    return None if equivalence is None else equivalence.p


def crossovers(study: StudyRecords, contrasts: Sequence[StudyContrast]) -> tuple[str, ...]:
    """Say where the sign of a contrast changes along a factor, and whether that is established.

    A crossover is stated only between two levels whose adjusted verdicts are `better` in opposite
    directions; where only the sign of the mean changes, that is what is said.
    """
    sentences = []
    for name, factor in study.factors.items():
        if len(factor.levels) < 2:
            continue
        for arm, elsewhere, line in _lines(study, contrasts, name):
            where = f"{arm} along {name}" + (f" at {elsewhere}" if elsewhere else "")
            ordered = [line[index] for index in sorted(line)]
            established = _established(ordered, name)
            if established:
                sentences.append(f"Crossover of {where}: {established}.")
                continue
            for first, second in itertools.pairwise(ordered):
                one, other = first.contrast.mean, second.contrast.mean
                if one is not None and other is not None and one * other < 0:
                    sentences.append(
                        f"{where[0].upper()}{where[1:]}: the sign of the mean changes between "
                        f"{first.levels[name]} ({one:+.4f}) and {second.levels[name]} "
                        f"({other:+.4f}), not established."
                    )
    return tuple(sentences)


def _lines(
    study: StudyRecords, contrasts: Sequence[StudyContrast], factor: str
) -> Iterator[tuple[str, str, dict[int, StudyContrast]]]:
    """Yield, for each arm and each combination of the other factors, the contrasts by level."""
    levels = study.factors[factor].levels
    lines: dict[tuple[str, str], dict[int, StudyContrast]] = {}
    for one in contrasts:
        elsewhere = ", ".join(
            f"{key} {level}" for key, level in one.levels.items() if key != factor
        )
        line = lines.setdefault((one.contrast.arm, elsewhere), {})
        line[levels.index(one.levels[factor])] = one
    for (arm, elsewhere), line in lines.items():
        yield arm, elsewhere, line


def _established(ordered: Sequence[StudyContrast], factor: str) -> str:
    """Return the closest two levels with `better` in opposite directions, in words; or ""."""
    decided = [one for one in ordered if one.verdict.winner is not None]
    for first, second in itertools.pairwise(decided):
        if first.verdict.winner != second.verdict.winner:
            return (
                f"{first.verdict.winner} better at {first.levels[factor]}, "
                f"{second.verdict.winner} better at {second.levels[factor]}"
            )
    return ""
