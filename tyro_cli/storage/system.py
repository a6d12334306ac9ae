"""What the room asks of the operating system: error messages, syncing, names for unfinished work.

Invariant: a failure of the system reaches the user as a `StorageError` that names the path and
says what to do, and a sync returns only when the disk has what it was given. In which order files
are written, synced and renamed is for `files` and `records` to say.
"""

import errno
import glob
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import BinaryIO

from tyro_cli.errors import DamagedRecord, StorageError

_TEMPORARY = re.compile(r"\..+\.tmp-[0-9a-f]{8}")
_NO_SPACE = "free some space there, or write to another disk; then run the same command again"
_NOT_ALLOWED = "check who owns it and its permissions"
_TAKEN = "something with that name is already there: move it away, or use another name"
_REMEDIES = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: _NO_SPACE,
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: "this file system is read-only: write to another folder",
    errno.EIO: "the disk reported a fault: check it (the system log says more), or use another",
    errno.EEXIST: _TAKEN,
    errno.ENOTEMPTY: _TAKEN,
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ELOOP: "symbolic links are not followed here: put the real file in its place",
}
_LONGEST_SHOWN = 300
# Some network file systems cannot sync a folder at all, and say so with one of these.
_CANNOT_SYNC_FOLDERS = (errno.EINVAL, errno.ENOTSUP)


@contextmanager
def storage_errors(path: Path, action: str) -> Iterator[None]:
    """Turn an `OSError` of the body into a `StorageError` with the path and a remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check the path and the disk it is on")
        raise StorageError(f"cannot {action} {path}: {error.strerror or error}", remedy) from error


def refusal_of(error: OSError) -> StorageError | None:
    """Return what to tell of an error of the system that has a remedy; None of any other.

    `Path.is_file` and its like raise where a folder may not be entered, or a name is too long.
    """
    if error.errno not in _REMEDIES:
        return None
    name = str(os.fsdecode(error.filename))
    shown = name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}..."
    return StorageError(f"cannot use {shown}: {error.strerror}", _REMEDIES[error.errno])


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC_FOLDERS:
            raise
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents, each of them durably."""
    with storage_errors(path, "create the folder"):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)


def open_regular(path: Path, max_bytes: int) -> BinaryIO:
    """Open a file for reading unless it is a device, a pipe or a folder, or too large.

    Raises:
        DamagedRecord: It is no regular file, or larger than `max_bytes`.
        OSError: The system refused.
    """
    # Without O_NONBLOCK the opening of a pipe waits for a writer that may never come.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        problem = "is not a regular file"
    elif status.st_size > max_bytes:
        problem = f"has {status.st_size} bytes; at most {max_bytes} are read"
    else:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise DamagedRecord(f"{path} {problem}", "remove it, or restore it from a copy")


def temporary_sibling(path: Path) -> Path:
    """Return an unused name beside a path that `remove_leftovers` recognises."""
    return path.with_name(f".{path.name}.tmp-{os.urandom(4).hex()}")


def numbered_sibling(path: Path, suffix: str) -> Path:
    """Return the first unused of `NAME<suffix>-1`, `NAME<suffix>-2`, ... beside a path."""
    names = (path.with_name(f"{path.name}{suffix}-{number}") for number in count(1))
    return next(name for name in names if not os.path.lexists(name))


def remove_whole(path: Path) -> None:
    """Remove a file or folder; a crash on the way leaves at most a temporary name."""
    doomed = temporary_sibling(path)
    with storage_errors(path, "remove"):
        os.rename(path, doomed)
        _remove(doomed)


def remove_leftovers(folder: Path) -> None:
    """Remove what a crash left unfinished in a folder.

    Only the owner of the folder may call this: the unfinished work of anyone else goes as well.
    """
    with storage_errors(folder, "clear"):
        for path in sorted(folder.iterdir()):
            if _TEMPORARY.fullmatch(path.name):
                _remove(path)


def remove_leftovers_of(path: Path) -> None:
    """Remove what a crash left unfinished of one file or folder, beside it.

    Only the owner of the path may call this.
    """
    with storage_errors(path, "clear"):
        for other in sorted(path.parent.glob(f".{glob.escape(path.name)}.tmp-*")):
            if _TEMPORARY.fullmatch(other.name):
                _remove(other)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
