"""A disk that fails, dies or takes notes: the calls of the storage room, made observable."""

import builtins
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CALLS = ("open", "write", "fsync", "replace", "rename", "mkdir", "rmdir", "unlink", "ftruncate")


@contextmanager
def before_each_call(act: Callable[[str, tuple], None]) -> Iterator[None]:
    """Call `act` with the name and arguments before every call that the room makes of the system.

    Bytes that buffered files hand over inside C are not seen; their opening and syncing is.
    """

    def watched(name: str, call: Callable) -> Callable:
        def replacement(*arguments, **options):
            act(name, arguments)
            return call(*arguments, **options)

        return replacement

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, watched(name, getattr(os, name)))
        patch.setattr(builtins, "open", watched("open", builtins.open))
        yield


class FailingCall:
    """Raises the error at the k-th call, and counts them."""

    def __init__(self, k: int, number: int) -> None:
        self.k, self.number, self.calls = k, number, 0

    def __call__(self, name: str, arguments: tuple) -> None:
        self.calls += 1
        if self.calls == self.k:
            raise OSError(self.number, os.strerror(self.number))


class _DyingCall:
    """Ends the process at the k-th call, cleaning up nothing, as SIGKILL does."""

    def __init__(self, k: int) -> None:
        self.k, self.calls = k, 0

    def __call__(self, name: str, arguments: tuple) -> None:
        self.calls += 1
        if self.calls == self.k:
            os._exit(9)


def faults(work: Callable[[], object], prepare: Callable[[], object]) -> Iterator[OSError | None]:
    """Run the work once for each of its calls, that call failing; yield what came of it."""
    for k in range(1, 1000):
        prepare()
        failing = FailingCall(k, (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS)[k % 4])
        error = None
        with before_each_call(failing):
            try:
                work()
            except Exception as raised:
                error = raised
        if failing.calls < k:
            assert k > 3, "hardly any call was seen"
            return
        yield error


def kills(work: Callable[[], object], prepare: Callable[[], object]) -> Iterator[int]:
    """Run the work once for each of its calls, in a process that dies there; yield the call."""
    for k in range(1, 1000):
        prepare()
        process = os.fork()
        if process == 0:
            try:
                with before_each_call(_DyingCall(k)):
                    work()
            finally:
                os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0:
            assert k > 3, "hardly any call was seen"
            return
        yield k


def journal(work: Callable[[], object]) -> list[tuple[str, int | str, int | str]]:
    """Return the syncs (by inode, with the size) and renames (by names) of the work, in order."""
    notes: list[tuple[str, int | str, int | str]] = []

    def note(name: str, arguments: tuple) -> None:
        if name == "fsync":
            status = os.fstat(arguments[0])
            notes.append((name, status.st_ino, status.st_size))
        elif name in ("rename", "replace"):
            notes.append(("rename", Path(arguments[0]).name, Path(arguments[1]).name))

    with before_each_call(note):
        work()
    return notes


def inode(path: Path) -> int:
    """The number by which `journal` knows a file or folder."""
    return path.stat().st_ino


def open_descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/dev/fd"))


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden or not."""
    return sorted(os.listdir(folder))
