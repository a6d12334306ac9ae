"""Taking turns at a cache entry: the second starter waits for the first and then finds its work.

Invariant: whoever holds the lock is the only one that makes or removes the entry; the system frees
the lock of a process that dies. A cell's lock, where a second starter is turned away, is in
`storage`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tyro_cli.errors import StorageError


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
