"""What stands in a folder, as short values: two of them that differ are told apart by name.

Contents are compared by hash. A failing comparison of whole files would let pytest look for the
difference inside them, which takes minutes where CI asks for the full report.
"""

import hashlib
from pathlib import Path


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder by relative path; empty where none is."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    """Return content hash and time of change of everything below a folder, folders included."""
    found = {path.relative_to(folder).as_posix(): ("", 0) for path in sorted(folder.rglob("*"))}
    for name, digest in digests(folder).items():
        found[name] = (digest, (folder / name).stat().st_mtime_ns)
    return found
