"""The manifest of a folder: the size and SHA-256 of every file in it.

Invariant: a folder that verifies holds exactly the files it was written with, byte for byte. A
manifest is untrusted input: files are opened because they are in the folder, never because a
manifest names them, and nothing but regular files is opened. That a whole folder belongs where it
stands is left to what its files say.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tyro_cli.errors import DamagedFolder, DamagedRecord
from tyro_cli.storage.files import read_json, write_json
from tyro_cli.storage.system import storage_errors

MANIFEST_NAME = "MANIFEST.json"
MAX_MANIFEST_BYTES = 2**20


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with storage_errors(path, "read"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Write `MANIFEST.json` about every other file of a folder and of the folders in it."""
    files = {name: _entry(path) for name, path in _files(folder)}
    write_json(folder / MANIFEST_NAME, {"format": 1, "files": files})


def verify_manifest(folder: Path) -> None:
    """Check that a folder holds exactly what its manifest says.

    Raises:
        DamagedFolder: A file is missing, extra, changed or no regular file, or the manifest
            itself cannot be read as one.
        StorageError: The system refused.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise DamagedFolder(f"{folder} is not a folder")
    found = dict(_files(folder))
    if not (folder / MANIFEST_NAME).is_file():
        raise DamagedFolder(f"{folder} has no {MANIFEST_NAME}")
    try:
        manifest = read_json(folder / MANIFEST_NAME, max_bytes=MAX_MANIFEST_BYTES)
    except DamagedRecord as error:
        raise DamagedFolder(error.message) from error
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict) or manifest != {"format": 1, "files": listed}:
        raise DamagedFolder(f"{folder / MANIFEST_NAME} is not a manifest of format 1")
    for name in sorted(listed.keys() - found.keys()):
        raise DamagedFolder(f"{folder}: {name[:200]!r} is in the manifest but not in the folder")
    for name in sorted(found.keys() - listed.keys()):
        raise DamagedFolder(f"{folder / name} is not in the manifest")
    for name, path in found.items():
        entry = _entry(path)
        if entry != listed[name]:
            raise DamagedFolder(f"{path} is {entry}; the manifest says {str(listed[name])[:200]}")


def _entry(path: Path) -> dict[str, object]:
    with storage_errors(path, "read"):
        return {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name below the folder and the path of every file but the manifest."""
    with storage_errors(folder, "read"):
        paths = sorted(folder.rglob("*"))
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise DamagedFolder(f"{path} is not a regular file")
        if path.is_file() and name != MANIFEST_NAME:
            yield name, path
