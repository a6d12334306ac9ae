"""The manifest of a folder: the size and SHA-256 of every file in it.

Invariant: a folder that verifies holds exactly the files it was written with, byte for byte. A
manifest is untrusted input: files are opened because they are in the folder, never because a
manifest names them, and nothing but regular files is opened. That a whole folder belongs where it
stands is left to what its files say.
"""

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from tyro_cli.errors import DamagedFolder, DamagedRecord
from tyro_cli.storage.files import encode_json, read_json, write_json
from tyro_cli.storage.system import storage_errors

MANIFEST_NAME = "MANIFEST.json"
MAX_MANIFEST_BYTES = 2**20


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with storage_errors(path, "read"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Write `MANIFEST.json` about every other file of a folder and of the folders in it."""
    files = {name: _entry(path) for name, path in _files(folder).items()}
    write_json(folder / MANIFEST_NAME, {"format": 1, "files": files})


def verify_manifest(folder: Path) -> None:
    """Check that a folder holds exactly what its manifest says.

    Raises:
        DamagedFolder: A file is missing, extra, changed or no regular file, or the manifest
            itself cannot be read as one.
        StorageError: The system refused.
    """
    found = _files(folder)
    listed = _listed(folder)
    for name in sorted(listed.keys() - found.keys()):
        raise DamagedFolder(f"{folder}: {name[:200]!r} is missing, though in the manifest")
    for name in sorted(found.keys() - listed.keys()):
        raise DamagedFolder(f"{folder}: {name!r} is not in the manifest")
    for name, path in found.items():
        entry = _entry(path)
        if entry != listed[name]:
            raise DamagedFolder(
                f"{folder}: {name!r} has changed: it is {entry}, "
                f"the manifest says {str(listed[name])[:200]}"
            )


def _entry(path: Path) -> dict[str, object]:
    with storage_errors(path, "read"):
        return {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}


def _files(folder: Path) -> dict[str, Path]:
    """Return the path of every file but the manifest, by its name below the folder."""
    files = {}
    with storage_errors(folder, "read"):
        if folder.is_symlink() or not folder.is_dir():
            raise DamagedFolder(f"{folder} is not a folder")
        for place, folders, names in os.walk(folder, onerror=_raise):
            for path in (Path(place, name) for name in folders + names):
                name = path.relative_to(folder).as_posix()
                mode = path.lstat().st_mode
                if stat.S_ISREG(mode):
                    files[name] = path
                elif not stat.S_ISDIR(mode):
                    raise DamagedFolder(f"{folder}: {name!r} is neither a file nor a folder")
    files.pop(MANIFEST_NAME, None)
    return dict(sorted(files.items()))


def _raise(error: OSError) -> None:
    raise error


def _listed(folder: Path) -> dict[str, Any]:
    """Return the entries of the manifest, unchecked, by file name."""
    path = folder / MANIFEST_NAME
    if not os.path.lexists(path):
        raise DamagedFolder(f"{folder} has no {MANIFEST_NAME}")
    try:
        manifest = read_json(path, max_bytes=MAX_MANIFEST_BYTES)
    except DamagedRecord as error:
        raise DamagedFolder(error.message) from error
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict) or manifest != {"format": 1, "files": listed}:
        raise DamagedFolder(f"{path} is not a manifest of format 1")
    with storage_errors(path, "read"):
        if path.read_bytes() != encode_json(manifest).encode("utf-8"):
            raise DamagedFolder(f"{path} has changed: it is not the text that was written")
    return listed
