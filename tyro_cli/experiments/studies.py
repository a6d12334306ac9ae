"""The plan of a study: its points as starts, its pairs, its shards, and its folder.

Invariant: planning writes nothing but the cache of token arrays. A study's identity is the base
experiment without the factors' keys, its data, and the keys; so adding levels, arms or seeds
extends the study. Its cells lie in ordinary run folders beside it, found by content. Training them
is left to `sweep`.
"""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro_cli.analysis.contrasts import seeds_in_words
from tyro_cli.analysis.records import parse_record
from tyro_cli.analysis.studies import STUDY_REMEDY, check_shards
from tyro_cli.analysis.study_formats import ClaimRecord, StudyManifest
from tyro_cli.config.grid import Point, levels_in_words
from tyro_cli.config.paths import with_values, without
from tyro_cli.config.schema import ROLE_GRADIENTS, SECTIONS_OF_AN_ARM
from tyro_cli.config.studies import LoadedStudy
from tyro_cli.errors import ConfigurationError, RunFolderError, UsageError
from tyro_cli.experiments.claims import claim_record
from tyro_cli.experiments.identity import PROTOCOL
from tyro_cli.experiments.plan import Cell, base_settings
from tyro_cli.experiments.run import Start, prepare_start
from tyro_cli.experiments.run_folder import has_results
from tyro_cli.experiments.search import open_cells
from tyro_cli.storage.files import new_folder, write_bytes, write_json, write_text
from tyro_cli.storage.names import inside
from tyro_cli.storage.system import (
    make_folder,
    numbered_sibling,
    remove_leftovers,
    remove_leftovers_of,
)
from tyro_cli.training.signals import StopRequest

STUDY_FORMAT = 1
_CONTENT_KEYS = (
    "data.corpus",
    "data.splits",
    "data.format",
    "data.synthetic",
    "data.languages",
)


@dataclass(frozen=True)
class StudyCell:
    """One cell of a study, and the point that it belongs to."""

    point: Point
    start: Start
    cell: Cell


@dataclass(frozen=True)
class StudyPlan:
    """What a study comes to; nothing of it is on the disk yet.

    Attributes:
        loaded: The study.
        study_id: Its identity, 64 hex digits.
        folder: `NAME-HASH8` below the runs root.
        starts: For each point the start of its experiment, in the order of the grid.
        cells: Every cell, pair by pair.
        claim: What it is to decide, as the manifest keeps it; None where it makes no claim.
    """

    loaded: LoadedStudy
    study_id: str
    folder: Path
    starts: tuple[Start, ...]
    cells: tuple[StudyCell, ...]
    claim: dict[str, Any] | None


def plan_study(
    loaded: LoadedStudy,
    *,
    device: str,
    out: Path,
    say: Callable[[str], None],
    stop: StopRequest,
) -> StudyPlan:
    """Plan every experiment of a study.

    Args:
        loaded: The study.
        device: `auto`, `cpu` or `cuda`.
        out: The folder of runs.
        say: Takes progress.
        stop: Polled.

    Raises:
        UsageError: If anything about an experiment is wrong, with its point named.
    """
    claim = claim_record(loaded)
    starts: list[Start] = []
    by_run: dict[str, Point] = {}
    for point in loaded.points:
        try:
            start = prepare_start(
                point.loaded,
                seeds=loaded.seeds,
                arms=None,
                device=device,
                out=out,
                fresh=False,
                say=say,
                stop=stop,
            )
        except UsageError as error:
            where = levels_in_words(point.levels)
            raise type(error)(f"{error.message}\n  (the point {where})", error.remedy) from None
        other = by_run.setdefault(start.plan.run_id, point)
        if other is not point:
            raise ConfigurationError(
                f"{loaded.path}: the points {levels_in_words(other.levels)} and "
                f"{levels_in_words(point.levels)} are one and the same experiment",
                "take one of the levels out",
            )
        starts.append(start)
    study_id = _study_id(loaded, starts)
    folder = inside(out, f"{loaded.study.name}-{study_id[:8]}")
    cells = study_cells(loaded, starts)
    return StudyPlan(loaded, study_id, folder, tuple(starts), cells, claim)


def study_cells(loaded: LoadedStudy, starts: Sequence[Start]) -> tuple[StudyCell, ...]:
    """Return every cell of a study, those included that finished trials of a search lead to."""
    return tuple(
        StudyCell(point, start, cell)
        for point, start in zip(loaded.points, starts, strict=True)
        for cell in open_cells(start.plan)
    )


def _study_id(loaded: LoadedStudy, starts: list[Start]) -> str:
    keys = sorted(key for factor in loaded.study.factors.values() for key in factor)
    first = starts[0]
    base = base_settings(first.plan.loaded).as_record()
    base = {name: base[name] for name in SECTIONS_OF_AN_ARM}
    base = without(base, "data.corpus", "data.splits", "data.languages", ROLE_GRADIENTS)
    base = with_values(base, {"training.precision": first.plan.precision})
    base = without(base, *keys)
    contents = [first.data.content_sha256]
    if any(key.startswith(_CONTENT_KEYS) for key in keys):
        contents = []  # The texts are levels, and adding a level extends the study.
    identity = {"protocol": PROTOCOL, "settings": base, "keys": keys, "content": contents}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def parse_shard(text: str | None) -> tuple[int, int]:
    """Read `--shard i/n`: which shard (from 1), of how many.

    Raises:
        UsageError: It is not written so, or i is not between 1 and n.
    """
    if text is None:
        return 1, 1
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(
            f"--shard {text[:20]!r} cannot be read",
            "write i/n with i from 1 to n, for example --shard 1/3 on the first of three machines",
        )
    return int(match[1]), int(match[2])


def cells_of_shard(
    plan: StudyPlan, shard: int, shards: int, cells: Sequence[StudyCell] | None = None
) -> tuple[StudyCell, ...]:
    """Return the cells of one shard, dealt out in turn: whole pairs, and of a search whole runs.

    A search needs the trials of all arms before it knows which cells follow.

    Args:
        plan: The study.
        shard: Which shard, from 1.
        shards: Of how many.
        cells: Those to choose from, as they are known by now; left out, the plan's.
    """

    def unit(one: StudyCell) -> tuple[str, int | None]:
        run, seed = pair_of(one)
        return run, None if one.start.plan.settings else seed

    units = list(dict.fromkeys(unit(one) for one in plan.cells))
    mine = set(units[shard - 1 :: shards])
    return tuple(one for one in (plan.cells if cells is None else cells) if unit(one) in mine)


def pair_of(one: StudyCell) -> tuple[str, int]:
    """Return what a cell shares with the cells it is paired with: run folder and seed."""
    return one.start.plan.run_folder.name, one.cell.seed


def check_study_folder(plan: StudyPlan, shard: int, shards: int) -> None:
    """Refuse a folder that is not this study's, or whose shards overlap the one asked for.

    Raises:
        RunFolderError: As said.
        DamagedRecord: A record in it does not say what it must.
    """
    folder = plan.folder
    if os.path.lexists(folder) and not folder.is_dir():
        raise RunFolderError(
            f"{folder} is in the way: it is not a folder", "move it away, or choose --out"
        )
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / "study.yaml").is_file():
        raise RunFolderError(
            f"{folder} is in the way: it is not the folder of a study",
            "move it away, choose --out, or change name: in the study",
        )
    recorded = parse_record(StudyManifest, folder / "manifest.json", STUDY_REMEDY)
    if recorded.study_id != plan.study_id:
        raise RunFolderError(
            f"{folder} holds another study: {recorded.study_id[:16]}, this one is "
            f"{plan.study_id[:16]}",
            "change name: in the study, or choose --out",
        )
    cells = set(itertools.product(recorded.arms, recorded.seeds))
    if (missing := _left_out(plan, recorded)) and any(
        has_results(inside(folder.parent, point.run), cells) for point in recorded.points
    ):
        raise RunFolderError(
            f"{folder} was planned with {missing}, and has results: leaving that out after looking "
            "would make the rest look surer than it is",
            "keep it in the study (what is trained is not trained again), or change name: in the "
            "study for another question",
        )
    if shards == 1:
        check_shards(folder, plan.study_id)
        return
    mine = {pair_of(one) for one in cells_of_shard(plan, shard, shards)}
    for other in check_shards(folder, plan.study_id):
        is_this = (other.shard, other.shards) == (shard, shards)
        if not is_this and (shared := mine & set(other.pairs)):
            run, seed = sorted(shared)[0]
            raise RunFolderError(
                f"--shard {shard}/{shards} overlaps shard {other.shard}/{other.shards}, which is "
                f"in {folder} already: both hold {run}, seed {seed}",
                f"use the same n: --shard i/{other.shards}"
                if other.shards != shards
                else "the study was extended after its shards were merged: leave --shard out",
            )


def _left_out(plan: StudyPlan, recorded: StudyManifest) -> str:
    """Say what a study's folder was planned with and the study no longer has."""
    runs = {start.plan.run_folder.name for start in plan.starts}
    points = [levels_in_words(one.levels) for one in recorded.points if one.run not in runs]
    seeds = sorted(set(recorded.seeds) - set(plan.loaded.seeds))
    arms = [one for one in recorded.arms if one not in plan.starts[0].plan.arms]
    return "; ".join(
        [*points, *([seeds_in_words(seeds)] if seeds else []), *(f"arm {one}" for one in arms)]
    )


def open_study_folder(plan: StudyPlan, shard: int, shards: int, command: list[str]) -> None:
    """Write what the study is; an older text is kept beside it, and nothing is lost.

    The caller owns the folder and has checked it.
    """
    folder = plan.folder
    manifest = _manifest(plan, command)
    if not folder.is_dir() or not any(folder.iterdir()):
        remove_leftovers_of(folder)
        with new_folder(folder, replace=True) as new:
            write_text(new / "study.yaml", plan.loaded.text)
            write_json(new / "manifest.json", manifest | _when_claimed(plan))
    else:
        for part in (folder, folder / "tables", folder / "shards"):
            if part.is_dir():
                remove_leftovers(part)
        text = folder / "study.yaml"
        recorded = text.read_bytes()
        if recorded != plan.loaded.text.encode("utf-8"):
            # A folder without its study.yaml, if only for a moment, would be taken for no study.
            write_bytes(numbered_sibling(text, ".old"), recorded)
            write_text(text, plan.loaded.text)
        write_json(folder / "manifest.json", manifest | _when_claimed(plan))
    if shards > 1:
        make_folder(folder / "shards")
        pairs = sorted({pair_of(one) for one in cells_of_shard(plan, shard, shards)})
        write_json(
            folder / "shards" / f"{shard}-of-{shards}.json",
            {
                "format": STUDY_FORMAT,
                "study_id": plan.study_id,
                "shard": shard,
                "shards": shards,
                "pairs": pairs,
            },
        )


def _when_claimed(plan: StudyPlan) -> dict[str, Any]:
    """Return how many cells were done when the claim was first recorded as it stands now.

    Whoever changes what a study is to decide after seeing its results is not stopped, but told on.
    """
    if plan.claim is None:
        return {}
    path = plan.folder / "manifest.json"
    if path.is_file():
        recorded = parse_record(StudyManifest, path, STUDY_REMEDY)
        claim = ClaimRecord.model_validate(plan.claim)  # whatever version wrote it
        margin = plan.starts[0].plan.loaded.experiment.analysis.margin
        if _decides_the_same(recorded.claim, claim) and (
            recorded.margin == margin or not claim.takes_margin
        ):
            known = recorded.claim_after_cells
            return {} if known is None else {"claim_after_cells": known}
    cells = sum((one.cell.folder / "result.json").is_file() for one in plan.cells)
    return {"claim_after_cells": cells}


def _decides_the_same(one: ClaimRecord | None, other: ClaimRecord) -> bool:
    """Compare claims in all but how many studies decide them, of which one study knows nothing."""
    return one is not None and one.model_copy(update={"parts": other.parts}) == other


def _manifest(plan: StudyPlan, command: list[str]) -> dict[str, Any]:
    study, first = plan.loaded.study, plan.starts[0].plan.loaded.experiment
    factors = {}
    for order, (name, keys) in enumerate(study.factors.items()):
        levels: list[Any] = []
        for point in plan.loaded.points:
            if point.levels[name] not in levels:
                levels.append(point.levels[name])
        factors[name] = {"order": order, "keys": list(keys), "levels": levels}
    return {
        "format": STUDY_FORMAT,
        "study_id": plan.study_id,
        "name": study.name,
        "family": study.family,
        "factors": factors,
        "arms": list(first.arms),
        "baseline": first.baseline,
        "margin": first.analysis.margin,
        "seeds": sorted(plan.loaded.seeds),
        "points": [
            {
                "levels": point.levels,
                "run": start.plan.run_folder.name,
                "run_id": start.plan.run_id,
            }
            for point, start in zip(plan.loaded.points, plan.starts, strict=True)
        ],
        "command": command,
    } | ({} if plan.claim is None else {"claim": plan.claim})


def train_command(loaded: LoadedStudy, point: Point) -> list[str]:
    """Return the `wtie train` command that trains one point of a study on its own."""
    values = [
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in point.values.items()
    ]
    seeds = ",".join(str(seed) for seed in loaded.seeds)
    return [
        *("wtie", "train", "--config", str(loaded.experiment_path)),
        *loaded.overrides,
        *values,
        *("--seeds", seeds),
    ]
