"""Entries of the cache: named by what made them, made once, verified whenever they are opened.

Invariant: whoever holds an entry's lock is the only one that makes or removes it, and the second
starter waits for the first and then finds its work; the system frees the lock of a process that
dies. What is in an entry is left to `prepared` and `prepared_pairs`. A cell's lock, where a second
starter is turned away, is in `storage`.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tyro_cli.errors import StorageError
from tyro_cli.storage.system import remove_leftovers_of

Entry = TypeVar("Entry")


def entry_folder(cache_folder: Path, parts: Mapping[str, object]) -> Path:
    """Return the folder of the entry that is made of these parts, all that decides its content."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return cache_folder / "data" / hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


def open_or_make(
    folder: Path,
    open_entry: Callable[[Path], Entry],
    make_entry: Callable[[Path], None],
    on_progress: Callable[[str], None],
    should_stop: Callable[[], None],
) -> Entry:
    """Open an entry; make it first where it is not there, or is damaged.

    Args:
        folder: The entry.
        open_entry: Opens and verifies it, or raises `StorageError`.
        make_entry: Writes it as a whole.
        on_progress: Told what there is to wait for, and of damage.
        should_stop: Called several times a second while waiting; raises to stop.

    Raises:
        StorageError: The cache cannot be written.
    """
    try:
        return open_entry(folder)
    except StorageError:  # not there, or damaged: which of them is decided under the lock
        with waiting_lock(folder.with_suffix(".lock"), on_progress, should_stop):
            if not _is_usable(folder, open_entry, on_progress):
                remove_leftovers_of(folder)
                make_entry(folder)
        return open_entry(folder)


def _is_usable(
    folder: Path, open_entry: Callable[[Path], object], on_progress: Callable[[str], None]
) -> bool:
    """Say whether a whole entry is there; a damaged one is removed. Only the lock's owner asks."""
    if not folder.is_dir():
        return False
    try:
        open_entry(folder)
        return True
    except StorageError as error:
        on_progress(f"the cached data is damaged and is made again ({error.message})")
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise StorageError(
            f"{folder}: the damaged cache entry cannot be removed: {error.strerror or error}",
            f"remove {folder}, or set WTIE_CACHE to another folder",
        ) from error
    return False


@contextmanager
def waiting_lock(
    path: Path, on_progress: Callable[[str], None], should_stop: Callable[[], None]
) -> Iterator[None]:
    """Own a cache entry; wait, hearing signals, while another process owns it.

    Args:
        path: The lock's file, beside the entry.
        on_progress: Told once that there is something to wait for.
        should_stop: Called several times a second while waiting; raises to stop.

    Raises:
        StorageError: The cache cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        is_told = False
        while True:
            try:
                lock.acquire(timeout=0.2)
                break
            except Timeout:
                if not is_told:
                    on_progress("waiting for another process that prepares the same data")
                    is_told = True
                should_stop()
    except OSError as error:
        raise StorageError(
            f"{path}: the cache cannot be written: {error.strerror or error}",
            "set WTIE_CACHE to a folder that can be written",
        ) from error
    try:
        yield
    finally:
        lock.release()
