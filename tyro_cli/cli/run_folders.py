"""Which folders under a runs root are runs and studies, what each one is in a row, and its tags.

A listing never fails because of one folder: what cannot be read is named in its row, or left out
where not even that it is a run can be seen. Tags are a
user's own words about a folder; they stand in `tags.json`, and no number depends on them.
"""

import fnmatch
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tyro_cli.errors import DamagedRecord, NothingMatched, UsageError, WtieError

TAGS = "tags.json"
STATES = ("done", "unfinished", "diverged", "damaged")
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


def is_run(folder: Path) -> bool:
    """Say whether `folder` looks like a run: it holds a manifest, and is no study."""
    return _holds(folder, "manifest.json") and not _holds(folder, "study.yaml")


def _holds(folder: Path, name: str) -> bool:
    """Say whether a folder that can be read holds a file; one that cannot is not looked into."""
    return os.path.isfile(folder / name)  # `Path.is_file` raises where it may not look


def list_runs(root: Path) -> list[Path]:
    """Return the run folders under `root`, oldest first by their manifest's time."""
    folders = [folder for folder in subfolders(root) if is_run(folder)]
    return sorted(folders, key=lambda folder: (manifest_time(folder), folder.name))


def newest_run(root: Path) -> Path:
    """Return the run under `root` that was started or extended last."""
    folders = list_runs(root)
    if not folders:
        raise NothingMatched(
            f"{root} holds no run", "train one: wtie train --config configs/quickstart.yaml"
        )
    return folders[-1]


def folder_bytes(folder: Path) -> int:
    """Return what all files under a folder hold, in bytes; what vanishes meanwhile is not there."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += os.stat(os.path.join(parent, name), follow_symlinks=False).st_size
    return size


def manifest_time(folder: Path) -> int:
    """Return when a folder's manifest was written, in nanoseconds; 0 where it has vanished."""
    with suppress(FileNotFoundError):
        return (folder / "manifest.json").stat().st_mtime_ns
    return 0


def subfolders(root: Path) -> list[Path]:
    """Return the folders in a folder by name, without those that are still being written."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[:1] != ".")


def list_folders(root: Path) -> list[Path]:
    """Return the folders of runs and studies under `root`, newest first."""
    studies = [path for path in subfolders(root) if is_study_folder(path)]
    found = [*list_runs(root), *studies]
    return sorted(found, key=lambda path: (-manifest_time(path), path.name))


def is_study_folder(folder: Path) -> bool:
    """Say whether a folder looks like a study's."""
    return _holds(folder, "study.yaml") and _holds(folder, "manifest.json")


def summary_of(folder: Path) -> dict[str, Any]:
    """Return one row of the listing; `problem` says why a folder could not be read."""
    record: dict[str, Any] = {
        "name": folder.name,
        "kind": "study" if is_study_folder(folder) else "run",
        "arms": [],
        "seeds_done": 0,
        "seeds_planned": 0,
        "state": "damaged",
        "age_seconds": round(max(0.0, time.time() - manifest_time(folder) / 1e9)),
        "bytes": folder_bytes(folder),
        "tags": [],
        "verdicts": {},
        "problem": "",
    }
    try:
        record["tags"] = read_tags(folder)
        record |= _study(folder) if record["kind"] == "study" else _run(folder)
    except WtieError as error:
        record["problem"] = error.message
    return record


def _run(folder: Path) -> dict[str, Any]:
    from tyro_cli.analysis.records import load_run
    from tyro_cli.analysis.search_tables import contrast_cells, unfinished_cells
    from tyro_cli.analysis.verdicts import verdict_of_run

    run = load_run(folder)
    # A trial that diverged is an answer of its search, and no cell to look after.
    statuses = [cell.status for cell in contrast_cells(run)]
    statuses += ["unfinished" for _ in unfinished_cells(run)]
    planned = {seed for _, seed in run.cells}
    ended = {key for key, cell in run.cells.items() if cell.status != "unfinished"}
    return {
        "arms": list(run.arms),
        "seeds_done": sum(all((arm, seed) in ended for arm in run.arms) for seed in planned),
        "seeds_planned": len(planned),
        "state": _state(statuses),
        "verdicts": {arm: verdict.text for arm, verdict in verdict_of_run(run).items()},
    }


def _study(folder: Path) -> dict[str, Any]:
    from tyro_cli.analysis.studies import load_study_records, study_contrasts

    study = load_study_records(folder)
    cells = [cell for point in study.points for cell in point.run.cells.values()]
    seeds = study.manifest.seeds
    ended = {
        seed
        for seed in seeds
        if not study.missing
        and all(cell.status != "unfinished" for cell in cells if cell.seed == seed)
    }
    return {
        "arms": list(study.manifest.arms),
        "seeds_done": len(ended),
        "seeds_planned": len(seeds),
        "state": "unfinished" if study.missing else _state(cell.status for cell in cells),
        "verdicts": {
            f"{one.where}, {one.contrast.arm}": one.verdict.text for one in study_contrasts(study)
        },
    }


def _state(statuses: Iterable[str]) -> str:
    """Return the worst that a folder's cells are: unfinished, diverged or done."""
    found = set(statuses)
    return next((state for state in ("unfinished", "diverged") if state in found), "done")


def fits(record: dict[str, Any], name: str | None, tag: str | None, state: str | None) -> bool:
    """Say whether a row passes the filters that are given.

    Args:
        record: The row.
        name: A shell pattern for the folder's name.
        tag: A tag that it must have.
        state: One of `STATES`.
    """
    return (
        (name is None or fnmatch.fnmatchcase(record["name"], name))
        and (tag is None or tag in record["tags"])
        and (state is None or record["state"] == state)
    )


def read_tags(folder: Path) -> list[str]:
    """Return a folder's tags, sorted.

    Raises:
        DamagedRecord: The file of tags does not hold a list of words.
    """
    from tyro_cli.storage.files import read_json

    path = folder / TAGS
    if not path.exists():
        return []
    tags = read_json(path, max_bytes=2**20)
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise DamagedRecord(
            f"{path}: it must hold a list of words", "remove it; it holds tags only"
        )
    return sorted(set(tags))


def change_tags(folder: Path, tags: list[str], *, remove: bool) -> list[str]:
    """Give a folder tags, or take them away; return those it then has.

    Raises:
        UsageError: A tag is not a word of letters, digits, `.`, `_` and `-`.
    """
    from tyro_cli.storage.files import write_json
    from tyro_cli.storage.names import check_name

    for tag in tags:
        check_name(tag, "the tag")
    had = set(read_tags(folder))
    now = sorted(had - set(tags) if remove else had | set(tags))
    write_json(folder / TAGS, now)
    return now


def remove_folder(folder: Path) -> None:
    """Remove a run's or study's folder that nobody is training in.

    Raises:
        UsageError: It is a symbolic link, or neither a run's folder nor a study's.
        LockHeld: It, or one of its cells, is in use.
    """
    from contextlib import ExitStack

    from tyro_cli.storage.locks import owned
    from tyro_cli.storage.system import remove_leftovers_of, remove_whole

    check_removable(folder)
    with ExitStack() as held:
        held.enter_context(owned(folder, f"run {folder.name}"))
        for cell in sorted([*folder.glob("*/seed-*"), *folder.glob("*/*/*/seed-*")]):
            if cell.is_dir() and not cell.is_symlink():
                held.enter_context(owned(cell, f"cell {cell.parent.name}/{cell.name}"))
        remove_leftovers_of(folder)
        remove_whole(folder)


def check_removable(folder: Path) -> None:
    """Refuse to remove what is not plainly a folder of ours.

    Raises:
        UsageError: As said.
    """
    if folder.is_symlink():
        raise UsageError(f"{folder} is a symbolic link", "name the folder that it points at")
    # Many a folder has a manifest.json that is not ours; a damaged run of ours has one of these.
    ours = ("experiment.yaml", "resolved.yaml", "study.yaml")
    if not (_holds(folder, "manifest.json") and any(_holds(folder, name) for name in ours)):
        raise UsageError(
            f"{folder} is neither a run's folder nor a study's: it has no manifest.json with one "
            f"of {', '.join(ours)} beside it",
            "`wtie runs ls` lists what there is",
        )


def age_in_words(seconds: float) -> str:
    """Return an age in the largest unit that fits, as `3 d`, `2 h` or `5 min`."""
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"
