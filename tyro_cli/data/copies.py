"""Prepared data on its way to a machine that has neither the corpus nor the driver's cache.

Invariant: a copy is named by the hash of the entry's manifest, which holds the hash of every file;
so what has the name is the driver's data, byte for byte, or it is refused. How the files travel is
left to the launcher.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tyro_cli.data.cache import waiting_lock
from tyro_cli.errors import DamagedFolder, StorageError
from tyro_cli.storage.files import new_folder
from tyro_cli.storage.manifests import MANIFEST_NAME, sha256_of_file, verify_manifest
from tyro_cli.storage.system import remove_leftovers_of, storage_errors

Files = Mapping[str, np.ndarray]


def content_sha256(folder: Path) -> str:
    """Return the hash that stands for everything in a cache entry: that of its manifest."""
    return sha256_of_file(folder / MANIFEST_NAME)


def read_files(folder: Path) -> Files:
    """Return the files of a cache entry, each as an array of bytes (uint8), by name."""
    with storage_errors(folder, "read"):
        return {path.name: np.fromfile(path, np.uint8) for path in sorted(folder.iterdir())}


def holds(folder: Path, sha256: str) -> bool:
    """Say whether a folder is, and verifies as, the entry whose manifest has that hash."""
    try:
        if content_sha256(folder) != sha256:
            return False
        verify_manifest(folder)
    except StorageError:
        return False
    return True


def keep_copy(
    cache_folder: Path,
    sha256: str,
    fetch: Callable[[], Files],
    *,
    should_stop: Callable[[], None] = lambda: None,
) -> Path:
    """Return a verified copy of a cache entry; it is fetched and written where it is missing.

    Args:
        cache_folder: The cache of this machine; see `default_cache_folder`.
        sha256: As `content_sha256` gave it where the entry was made.
        fetch: Returns the files, as `read_files` gave them there.
        should_stop: Called while another process writes the same copy; raises to stop.

    Raises:
        DamagedFolder: What was fetched is not what has that hash; nothing is kept of it.
        StorageError: The cache cannot be written.
    """
    folder = cache_folder / "data" / sha256[:32]
    with waiting_lock(folder.with_suffix(".lock"), lambda _: None, should_stop):
        if holds(folder, sha256):
            return folder
        if folder.exists():
            with storage_errors(folder, "remove the damaged copy"):
                shutil.rmtree(folder)
        remove_leftovers_of(folder)
        files = fetch()
        content = files.get(MANIFEST_NAME)
        if content is None or hashlib.sha256(content.tobytes()).hexdigest() != sha256:
            raise DamagedFolder(f"{folder}: the data that arrived is not the data that was sent")
        with new_folder(folder) as new:
            for name, values in files.items():
                if Path(name).name != name:
                    raise DamagedFolder(f"{folder}: {name[:200]!r} is no name of a file")
                values.tofile(new / name)
            verify_manifest(new)
    return folder
