"""Records that grow line by line: one JSON object a line, compact, keys sorted.

Invariant: a record counts once its line is complete. A crash can tear only the last line, which
readers drop and the next writer cuts off; damage anywhere else is an error that names the line.
What the records mean, and when they must be synced, is left to the callers.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any

from tyro_cli.errors import DamagedRecord
from tyro_cli.storage.files import decode_json, write_bytes
from tyro_cli.storage.system import make_folder, open_regular, storage_errors, sync_folder

MAX_RECORDS_BYTES = 256 * 2**20  # a million steps take about 110 MB
MAX_LINE_BYTES = 2**20

Record = dict[str, Any]


def read_records(path: Path) -> list[Record]:
    """Read every complete record.

    Raises:
        DamagedRecord: A line before the last one is not a record, or the file is too large.
        StorageError: The system refused.
    """
    with storage_errors(path, "read"):
        return [record for _, record in _sound_lines(path)]


def truncate_records(path: Path, keep: Callable[[Record], bool]) -> None:
    """Cut a file, as a whole, to its leading records for which `keep` is true.

    Lines after the first one that is not kept are not looked at. A missing file stays missing.

    Raises:
        DamagedRecord: A line among the leading ones is not a record.
        StorageError: The system refused; the file is as it was.
    """
    if not os.path.lexists(path):
        return
    with storage_errors(path, "read"):
        kept = takewhile(lambda line: keep(line[1]), _sound_lines(path))
        data = b"".join(text for text, _ in kept)
        unchanged = len(data) == path.stat().st_size
    if not unchanged:
        write_bytes(path, data)


class RecordWriter:
    """Appends records to a file that it owns, beginning by cutting off a torn last line.

    A record survives the end of the process as soon as `append` returns, and the loss of power
    as soon as `sync` returns.

    Args:
        path: The file; it is created where it is missing.

    Raises:
        DamagedRecord: The file has damage that appending would bury.
        StorageError: The system refused.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        make_folder(path.parent)
        truncate_records(path, lambda _: True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with storage_errors(path, "open"):
            self._descriptor = os.open(path, flags, 0o666)
            sync_folder(path.parent)

    def append(self, value: Record) -> None:
        """Append one record; after a failure the file is as it was before."""
        text = json.dumps(
            value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
        rest = memoryview(text.encode("utf-8") + b"\n")
        with storage_errors(self._path, "append to"):
            length = os.fstat(self._descriptor).st_size
            try:
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(self._descriptor, length)
                raise

    def sync(self) -> None:
        """Wait until every appended record is on the disk."""
        with storage_errors(self._path, "sync"):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Let the file go; closing again does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with storage_errors(self._path, "close"):  # a network file system may fail only here
                os.close(descriptor)

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _sound_lines(path: Path) -> Iterator[tuple[bytes, Record]]:
    """Yield each complete line with its record; stop at a torn last line."""
    with open_regular(path, MAX_RECORDS_BYTES) as file:
        lines = iter(lambda: file.readline(MAX_LINE_BYTES), b"")
        for number, line in enumerate(lines, start=1):
            try:
                record = _record(line)
            except ValueError as error:
                if not file.read(1):
                    return
                raise DamagedRecord(
                    f"{path}: line {number} is damaged: {error}",
                    "restore the file from a copy, or start again with --fresh",
                ) from error
            yield line, record


def _record(line: bytes) -> Record:
    if not line.endswith(b"\n"):
        raise ValueError(f"longer than {MAX_LINE_BYTES} bytes")
    record = decode_json(line)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record
