"""Checkpoint folders: which exist, which is the newest that can be trusted, which may go.

Invariant: once a cell has a verified checkpoint, it has one at every later moment: a new folder
is whole before it gets its name, and an old one goes only when what stays has been verified. Of
one kind and step there may be, after a crash, the folder itself and the ones it was about to
replace. The files in a checkpoint, and whose they are, are left to the caller's `write`.
"""

import os
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Literal

from tyro_cli.errors import DamagedFolder
from tyro_cli.storage.files import new_folder
from tyro_cli.storage.manifests import verify_manifest, write_manifest
from tyro_cli.storage.system import (
    make_folder,
    numbered_sibling,
    remove_leftovers,
    remove_whole,
    storage_errors,
)

Kind = Literal["last", "best"]

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
"""The files of a checkpoint."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What the optimiser's file holds of each parameter."""

_NAME = re.compile(r"(last|best)-([0-9]{8,18})(?:\.replaced-([0-9]{1,9}))?")


def checkpoint_path(folder: Path, kind: Kind, step: int) -> Path:
    """Return where the checkpoint of a kind and step lies, such as `last-00000123`."""
    return folder / f"{kind}-{step:08d}"


def list_checkpoints(folder: Path, kind: Kind) -> list[tuple[int, Path]]:
    """List the checkpoints of a kind, newest step first, unverified.

    Of one step the folder itself comes first, then what it was about to replace when a crash
    came, youngest first. Unfinished and quarantined folders are not among them.
    """
    found: list[tuple[int, float, Path]] = []
    with storage_errors(folder, "read"):
        if not folder.is_dir():
            return []
        for path in folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and match[1] == kind:
                age = int(match[3]) if match[3] else float("inf")
                found.append((int(match[2]), age, path))
    return [(step, path) for step, _, path in sorted(found, reverse=True)]


def save(folder: Path, kind: Kind, step: int, write: Callable[[Path], None]) -> Path:
    """Write a checkpoint as a whole, with its manifest, and return its path.

    Args:
        folder: The cell's folder of checkpoints, whose one owner the caller is.
        kind: `last` or `best`.
        step: The step it belongs to; a checkpoint of that kind and step is replaced.
        write: Writes the files into the folder it is given.

    Raises:
        StorageError: The system refused; the checkpoints that were there can still be loaded.
    """
    make_folder(folder)
    remove_leftovers(folder)
    path = checkpoint_path(folder, kind, step)
    with new_folder(path, replace=True) as temporary:
        write(temporary)
        write_manifest(temporary)
    return path


def newest_verified(
    folder: Path,
    kind: Kind,
    *,
    at_most_step: int | None = None,
    on_damage: Callable[[Path, str], None],
) -> tuple[int, Path] | None:
    """Return the newest checkpoint that matches its manifest, or None where there is none.

    Damaged ones on the way are renamed to `NAME.corrupt` (numbered where that is taken); where
    even that is not possible, as on a disk that is read-only, they are passed over.

    Args:
        folder: The cell's folder of checkpoints.
        kind: `last` or `best`.
        at_most_step: Ignore newer ones.
        on_damage: Told the path and the damage of each checkpoint passed over.

    Raises:
        StorageError: The system refused to read a checkpoint, which says nothing against it.
    """
    for step, path in list_checkpoints(folder, kind):
        if at_most_step is not None and step > at_most_step:
            continue
        try:
            verify_manifest(path)
        except DamagedFolder as damage:
            on_damage(path, damage.message)
            set_aside(path)
        else:
            return step, path
    return None


def set_aside(path: Path) -> None:
    """Rename a checkpoint to `NAME.corrupt`, numbered where that is taken, if it can be renamed."""
    first = path.with_name(f"{path.name}.corrupt")
    aside = numbered_sibling(path, ".corrupt") if os.path.lexists(first) else first
    with suppress(OSError):
        os.rename(path, aside)


def prune(folder: Path, kind: Kind, keep_steps: Collection[int]) -> None:
    """Remove the checkpoints of a kind but those of some steps, once the newest of them verifies.

    Args:
        folder: The cell's folder of checkpoints, whose one owner the caller is.
        kind: `last` or `best`.
        keep_steps: At least one; only the newest of them must exist.

    Raises:
        DamagedFolder: The newest to keep does not verify; nothing was removed.
    """
    kept = {checkpoint_path(folder, kind, step) for step in keep_steps}
    others = [path for _, path in list_checkpoints(folder, kind) if path not in kept]
    if not others:
        return
    try:
        verify_manifest(checkpoint_path(folder, kind, max(keep_steps)))
    except DamagedFolder as damage:
        remedy = "run the same command again: it is set aside then, and the one before it serves"
        raise DamagedFolder(damage.message, remedy) from damage
    for path in others:
        remove_whole(path)
