"""One owner at a time for a cell, a cache entry or whatever else has a path.

Invariant: the lock is the kernel's, so it ends with its owner however that ends, and no stale one
is ever in the way. A file beside it says who holds it; that file only informs and decides nothing.
Waiting for an owner to finish is left to callers, who can try again.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from tyro_cli.errors import LockHeld, StorageError
from tyro_cli.storage.files import read_json, write_json
from tyro_cli.storage.system import make_folder, storage_errors

# An owner tells who it is a moment after it takes the lock; a second starter waits that moment.
_INTRODUCTION_SECONDS = 2.0
_POLL_SECONDS = 0.02
_MAX_HOLDER_BYTES = 4096


@contextmanager
def owned(path: Path, what: str) -> Iterator[None]:
    """Own a path while the body runs.

    The lock lies beside the path as `.NAME.lock`, and the owner's process, host and start time
    in `.NAME.lock.json`; the path itself need not exist and is not touched.

    Args:
        path: The file or folder to own.
        what: What that is to the user, for the message.

    Raises:
        LockHeld: Another process owns it; the message says which.
        StorageError: The system refused.
    """
    make_folder(path.parent)
    holder_path = path.with_name(f".{path.name}.lock.json")
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    deadline = time.monotonic() + _INTRODUCTION_SECONDS
    while not _acquired(lock, path):
        holder = _read_holder(holder_path)
        if (holder and _may_run(holder)) or time.monotonic() > deadline:
            raise LockHeld(
                f"{what} is in use by {_describe(holder)} ({path})",
                "wait until it has finished, or stop it; then run the same command again",
            )
        time.sleep(_POLL_SECONDS)
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
        write_json(holder_path, holder)
        yield
    finally:
        with suppress(OSError):
            holder_path.unlink()
        lock.release()


def _acquired(lock: BaseFileLock, path: Path) -> bool:
    with storage_errors(path, "lock"):
        try:
            lock.acquire()
        except Timeout:
            return False
        return True


def _read_holder(path: Path) -> dict[str, Any] | None:
    try:
        holder = read_json(path, max_bytes=_MAX_HOLDER_BYTES)
    except StorageError:
        return None
    named = isinstance(holder, dict) and {"process", "host", "since"} <= holder.keys()
    return holder if named and type(holder["process"]) is int else None


def _may_run(holder: dict[str, Any]) -> bool:
    """Whether the process that a holder file names may be the owner of today."""
    if holder["host"] != socket.gethostname():
        return True
    return _process_exists(holder["process"])


def _process_exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it exists and belongs to someone else
        pass
    return True


def _describe(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "another process"
    host, since = (ascii(str(holder[key])[:100])[1:-1] for key in ("host", "since"))
    return f"process {holder['process']} on {host} since {since}"
