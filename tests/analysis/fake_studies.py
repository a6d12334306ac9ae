"""A small hand-made study: its folder, and beside it a hand-made run for each point."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.analysis.fake_runs import ARM_CHANGES, MANIFEST_PATH, make_run, sha256, write
from tyro_cli.analysis.columns import Table
from tyro_cli.analysis.studies import StudyRecords, study_contrasts
from tyro_cli.analysis.study_tables import study_tables


def make_study(
    root: Path,
    points: Mapping[tuple[Any, ...], Mapping[tuple[str, int], float]],
    *,
    factors: Sequence[str] = ("vocabulary",),
    arms: Mapping[str, Mapping[str, Any]] = ARM_CHANGES,
    seeds: Sequence[int] = (0, 1, 2),
    study_arms: Sequence[str] | None = None,
    changes: Mapping[str, Any] | None = None,
    edits: Mapping[tuple[Any, ...], Callable[[dict[str, Any]], None]] | None = None,
    plans: list[dict[str, Any]] | None = None,
) -> Path:
    """Write a study's folder, and a run beside it for each point; return the study's.

    Args:
        root: The runs root, an existing folder.
        points: For the levels of each point, one for each factor, the test nats per word of every
            cell that is done.
        factors: The names of the factors; their levels are those of the points.
        arms: The settings that each arm of the runs changes; the first arm is the baseline.
        seeds: Seeds of the study.
        study_arms: Arms of the study, where its runs have others as well.
        changes: Keys of the study's manifest that are replaced.
        edits: For a point, what changes the record of each of its cells.
        plans: What the runs planned; by default the study's seeds for all arms.
    """
    folder = root / "sizes-89abcdef"
    folder.mkdir()
    (folder / "study.yaml").write_text("name: sizes\n")
    if plans is None:
        plans = [{"seeds": list(seeds), "arms": list(arms), "after_results": False}]
    records = []
    for index, (levels, nats_per_word) in enumerate(points.items()):
        edit = (edits or {}).get(levels)
        name, run_id = f"tiny-{index:08x}", f"run {index}"
        make_run(
            root,
            nats_per_word=nats_per_word,
            arms=arms,
            plans=plans,
            edit=edit,
            name=name,
            run_id=run_id,
        )
        point = dict(zip(factors, levels, strict=True))
        records.append({"levels": point, "run": name, "run_id": sha256(run_id)})
    record = {
        "format": 1,
        "study_id": sha256("study"),
        "name": "sizes",
        "family": "all",
        "factors": {
            factor: {
                "order": index,
                "keys": [f"data.{factor}"],
                "levels": list(dict.fromkeys(levels[index] for levels in points)),
            }
            for index, factor in enumerate(factors)
        },
        "arms": list(study_arms or arms),
        "baseline": next(iter(arms)),
        "margin": 0.01,
        "seeds": list(seeds),
        "points": records,
        "command": ["wtie", "sweep"],
    }
    write(folder / MANIFEST_PATH, record | dict(changes or {}))
    return folder


def write_shard(
    folder: Path, shard: int, shards: int, pairs: Sequence[tuple[str, int]], study: str = "study"
) -> Path:
    """Write the record of one shard of a study and return its path."""
    path = folder / "shards" / f"{shard}-of-{shards}.json"
    path.parent.mkdir(exist_ok=True)
    record = {"format": 1, "study_id": sha256(study), "shard": shard, "shards": shards}
    write(path, record | {"pairs": [list(pair) for pair in pairs]})
    return path


def tables_of(study: StudyRecords, *, force: bool = False) -> dict[str, Table]:
    """Every table of a study by its name."""
    return study_tables(study, study_contrasts(study, force=force), force=force)
