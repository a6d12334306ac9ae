"""A study: the records of its runs, its contrasts by point, their families and crossovers.

Invariant: only the arms and seeds that the study planned enter, whatever else its runs hold, and
every planned contrast counts in its family, also one that has no p or a diverged pair. Which run
holds a point is what the study's manifest says, by content; the runs lie beside the study's folder.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tyro_cli.analysis.contrasts import Contrast
from tyro_cli.analysis.excess import known_entropy_of
from tyro_cli.analysis.formats import CellResult
from tyro_cli.analysis.records import RunRecords, load_run, parse_record
from tyro_cli.analysis.statistics import holm_adjusted
from tyro_cli.analysis.study_formats import (
    WHOLE_STUDY,
    FactorRecord,
    PointRecord,
    ShardRecord,
    StudyManifest,
)
from tyro_cli.analysis.verdicts import FamilyPs, Verdict, decisive_contrast, verdict_on
from tyro_cli.config.grid import level_text, levels_in_words
from tyro_cli.errors import NothingMatched, RunFolderError, UsageError
from tyro_cli.storage.names import inside

STUDY_REMEDY = (
    "Restore the file from a copy, or move the study's folder aside and run the same wtie sweep "
    "command again: the cells lie in the runs beside it and are found there."
)
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
        return _in_order(self.manifest.factors)

    def labelled(self) -> dict[str, CellResult]:
        """Return every result that is done by `POINT ARM seed SEED`, the point in words."""
        return {
            label: result
            for point in self.points
            for label, result in point.run.labelled(f"{levels_in_words(point.levels)} ").items()
        }


@dataclass(frozen=True)
class StudyContrast:
    """The decisive contrast of one arm at one point, with what its family makes of it.

    Attributes:
        levels: The point.
        contrast: Test nats per word (or per token) at the best-valid checkpoint.
        equivalence_p: Of the two one-sided tests; None below two pairs.
        family: The adjusted p values.
        verdict: What they allow one to say.
    """

    levels: Mapping[str, Any]
    contrast: Contrast
    equivalence_p: float | None
    family: FamilyPs
    verdict: Verdict

    @property
    def where(self) -> str:
        """The point in words: `vocabulary 1024, data 0.1`."""
        return levels_in_words(self.levels)


def is_study(folder: Path) -> bool:
    """Say whether a folder is a study's."""
    return (folder / "study.yaml").is_file()


def load_study_records(folder: Path) -> StudyRecords:
    """Read a study's manifest and the runs beside it.

    Raises:
        RunFolderError: The folder is not a study's, a run beside it is another one than the study
            names or was not planned with its arms and seeds, or its shards do not belong together.
        DamagedRecord: A file does not say what it must.
        NothingMatched: None of its runs is there.
    """
    if not is_study(folder):
        raise RunFolderError(
            f"{folder} is not a study folder: it has no study.yaml",
            "name a folder that `wtie sweep` wrote, for example runs/NAME-HASH",
        )
    manifest = parse_record(StudyManifest, folder / "manifest.json", STUDY_REMEDY)
    check_shards(folder, manifest.study_id)
    points, missing = [], []
    factors = _in_order(manifest.factors)
    for point in manifest.points:
        run_folder = _run_folder(folder, point)
        if not (run_folder / "manifest.json").is_file():
            missing.append(point.run)
            continue
        levels = {name: point.levels[name] for name in factors}
        points.append(PointRun(levels, _load_point(run_folder, point, manifest)))
    if not points:
        raise NothingMatched(
            f"{folder}: none of its {len(manifest.points)} runs is there",
            f"they lie beside it, for example {_run_folder(folder, manifest.points[0])}; "
            "run the same wtie sweep command again",
        )
    return StudyRecords(folder, manifest, tuple(points), tuple(missing))


def studies_in(folder: Path) -> tuple[StudyRecords, ...]:
    """Return the studies that lie in a folder and make a claim, by name.

    Raises:
        RunFolderError, DamagedRecord, NothingMatched: As `load_study_records`, for any of them.
    """
    found = [
        path.parent
        for path in sorted(folder.glob("*/study.yaml"))
        if parse_record(StudyManifest, path.parent / "manifest.json", STUDY_REMEDY).claim
    ]
    return tuple(load_study_records(path) for path in found)


def source_factors(study: StudyRecords) -> tuple[str, ...]:
    """Return the factors that change the text, where the source of the text is known."""
    results = (result for point in study.points for result in point.run.results())
    if known_entropy_of(results) is None:
        return ()
    return tuple(
        name
        for name, factor in study.factors.items()
        if any(key.startswith("data.synthetic") for key in factor.keys)
    )


def is_one_text(runs: Sequence[RunRecords]) -> bool:
    """Say whether the same sentences are scored in runs, as their scores of copying tell."""
    qualities = [
        result.quality["test"] for run in runs for result in run.results() if result.quality
    ]
    return len({(one.sentences, one.copy_bleu, one.copy_chrf) for one in qualities}) <= 1


def _in_order(factors: Mapping[str, FactorRecord]) -> dict[str, FactorRecord]:
    """Return the factors as the study file orders them; a JSON file sorts its keys."""
    return dict(sorted(factors.items(), key=lambda item: (item[1].order, item[0])))


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
    wanted = {(arm, seed) for arm in manifest.arms for seed in manifest.seeds}
    if absent := sorted(wanted - run.cells.keys()):
        arm, seed = absent[0]
        raise RunFolderError(
            f"{run_folder} was not planned with all arms and seeds of the study: it has no {arm}, "
            f"seed {seed} ({len(absent)} cells in all)",
            "run the same wtie sweep command again",
        )
    arms = {arm: run.manifest.arms[arm] for arm in manifest.arms}
    return replace(
        run,
        manifest=run.manifest.model_copy(update={"arms": arms, "baseline": manifest.baseline}),
        cells={key: cell for key, cell in run.cells.items() if key in wanted},
    )


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
                equivalence_p=_equivalence_p(contrast, margin),
                family=family,
                verdict=verdict_on(point.run, contrast, margin, family),
            )
        )
    return tuple(contrasts)


def _families(study: StudyRecords, found: Sequence[tuple[PointRun, Contrast]]) -> list[FamilyPs]:
    """Return each contrast's adjusted p values, in order."""
    manifest = study.manifest
    members: dict[str, list[int]] = {}
    for index, (point, _) in enumerate(found):
        members.setdefault(_family_name(manifest, point.levels), []).append(index)
    missing_points = Counter(
        _family_name(manifest, point.levels)
        for point in manifest.points
        if point.run in study.missing
    )
    adjusted: list[FamilyPs | None] = [None] * len(found)
    for name, indices in members.items():
        contrasts = [found[index][1] for index in indices]
        missing = [NO_P] * (missing_points[name] * (len(manifest.arms) - 1))
        better = holm_adjusted([_counted(one, one.t_p) for one in contrasts] + missing)
        equivalent = holm_adjusted(
            [_counted(one, _equivalence_p(one, manifest.margin)) for one in contrasts] + missing
        )
        for index, first, second in zip(indices, better, equivalent, strict=False):
            adjusted[index] = FamilyPs(first, second, len(better), name)
    return [one for one in adjusted if one is not None]


def _family_name(manifest: StudyManifest, levels: Mapping[str, Any]) -> str:
    by = manifest.family
    if by == WHOLE_STUDY:
        return "a family"
    return f"the family of {by} {level_text(levels[by])}"


def _counted(contrast: Contrast, p: float | None) -> float:
    """Return what a contrast counts as; with a diverged pair it is not the one planned."""
    return NO_P if p is None or contrast.diverged else p


def _equivalence_p(contrast: Contrast, margin: float) -> float | None:
    equivalence = contrast.equivalence(math.log1p(margin))
    return None if equivalence is None else equivalence.p


@dataclass(frozen=True)
class SignChange:
    """Where the contrast of an arm changes its sign along a factor.

    Attributes:
        arm: The arm.
        is_established: Whether it is a crossover, or only the mean changes its sign.
        sentence: What is said of it.
    """

    arm: str
    is_established: bool
    sentence: str


def sign_changes(study: StudyRecords, contrasts: Sequence[StudyContrast]) -> tuple[SignChange, ...]:
    """Return where the sign of a contrast changes along a factor, and whether that is established.

    A crossover is stated only between two levels whose adjusted verdicts are `better` in opposite
    directions; where only the sign of the mean changes, that is what is said.
    """
    changes = []
    for name, factor in study.factors.items():
        if len(factor.levels) < 2:
            continue
        for arm, elsewhere, line in _lines(study, contrasts, name):
            where = f"{arm} along {name}" + (f" at {elsewhere}" if elsewhere else "")
            ordered = [line[index] for index in sorted(line)]
            established = _established(ordered, name)
            if established:
                changes.append(SignChange(arm, True, f"Crossover of {where}: {established}."))
                continue
            # A mean of zero, or none yet, has no sign: the change lies across it.
            signed = [
                (level_text(one.levels[name]), one.contrast.mean)
                for one in ordered
                if one.contrast.mean
            ]
            for (first, one_mean), (second, other_mean) in itertools.pairwise(signed):
                if (one_mean > 0) != (other_mean > 0):
                    sentence = (
                        f"{where[0].upper()}{where[1:]}: the sign of the mean changes between "
                        f"{first} ({one_mean:+.4f}) and {second} ({other_mean:+.4f}), "
                        "not established."
                    )
                    changes.append(SignChange(arm, False, sentence))
    return tuple(changes)


def _lines(
    study: StudyRecords, contrasts: Sequence[StudyContrast], factor: str
) -> Iterator[tuple[str, str, dict[int, StudyContrast]]]:
    """Yield, for each arm and each combination of the other factors, the contrasts by level."""
    levels = study.factors[factor].levels
    lines: dict[tuple[str, str], dict[int, StudyContrast]] = {}
    for one in contrasts:
        elsewhere = levels_in_words(one.levels, factor)
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
                f"{first.verdict.winner} better at {level_text(first.levels[factor])}, "
                f"{second.verdict.winner} better at {level_text(second.levels[factor])}"
            )
    return ""
