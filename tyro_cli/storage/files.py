"""Files and folders that are either wholly written or not there at all.

Invariant: what has its final name is complete and on the disk. Everything is written under a
temporary name, every file and folder synced, renamed, and the parent synced; a crash leaves at
most temporary names, for the owner's `remove_leftovers` to clear. JSON that is read is untrusted:
its size, depth and number of values are limited. What the content means is left to the callers.
"""

import errno
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tyro_cli.errors import DamagedRecord
from tyro_cli.storage.system import (
    make_folder,
    numbered_sibling,
    open_regular,
    remove_whole,
    storage_errors,
    sync_file,
    sync_folder,
    temporary_sibling,
)

MAX_JSON_BYTES = 16 * 2**20  # a cell of a hundred thousand evaluations
MAX_JSON_VALUES = 10**6  # `{},` takes 3 bytes in a file and a hundred in memory
MAX_JSON_DEPTH = 64


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file as a whole: after a failure the old content is there, or the new one.

    Raises:
        StorageError: The system refused; nothing half-written is left.
    """
    make_folder(path.parent)
    temporary = temporary_sibling(path)
    with storage_errors(path, "write"):
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole, in UTF-8, line ends as given."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write a value as canonical JSON, as a whole."""
    write_text(path, encode_json(value))


def encode_json(value: object) -> str:
    """Return the one text that stands for a value: sorted keys, two spaces, no NaN."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def decode_json(data: bytes, *, max_values: int = MAX_JSON_VALUES) -> Any:
    """Parse JSON from anywhere.

    Raises:
        ValueError: It is not UTF-8, not JSON, too deep, has too many values, or holds what cannot
            be written again (a number that is not finite, half of a surrogate pair).
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > max_values:  # at least as many as values
        raise ValueError(f"more than {max_values:,} values")
    text = data.decode("utf-8")
    try:
        value = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels") from None
    level = [value]
    for _ in range(MAX_JSON_DEPTH + 1):
        containers = [item for item in level if isinstance(item, dict | list)]
        if not containers:
            break
        level = [
            child
            for item in containers
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    else:
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels")
    if "\\u" in text:  # the only way in for half of a surrogate pair; our own files have none
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def read_json(
    path: Path, *, max_bytes: int = MAX_JSON_BYTES, max_values: int = MAX_JSON_VALUES
) -> Any:
    """Read a JSON file that anyone may have written.

    Raises:
        DamagedRecord: It is too large, too deep, or not the JSON that `encode_json` could give.
        StorageError: The system refused.
    """
    with storage_errors(path, "read"), open_regular(path, max_bytes) as file:
        data = file.read(max_bytes)
    try:
        return decode_json(data, max_values=max_values)
    except ValueError as error:
        raise DamagedRecord(
            f"{path} is damaged: {error}", "remove it, or restore it from a copy"
        ) from error


@contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Fill a temporary folder that becomes `path` when the body ends without an error.

    Args:
        path: The folder to create.
        replace: Take the place of an existing folder. That one is renamed to `NAME.replaced-N`
            and removed only when the new folder is safely there, so a crash at any moment leaves
            at least one of the two whole.

    Raises:
        StorageError: The system refused, or `path` exists and `replace` is false.
    """
    make_folder(path.parent)
    temporary = temporary_sibling(path)
    with storage_errors(path, "write the folder"):
        try:
            if not replace and os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            temporary.mkdir()
            yield temporary
            for folder, _, names in os.walk(temporary, topdown=False):
                for name in names:
                    sync_file(Path(folder, name))
                sync_folder(Path(folder))
            if replace and os.path.lexists(path):
                os.rename(path, numbered_sibling(path, ".replaced"))
            os.rename(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if replace:  # only now: until the parent is synced, a crash may bring back the old name
            for old in sorted(path.parent.glob(f"{path.name}.replaced-*")):
                remove_whole(old)


def move_aside(path: Path) -> Path:
    """Rename a file or folder to `NAME.old-N` beside it and return that path; delete nothing."""
    aside = numbered_sibling(path, ".old")
    with storage_errors(path, "move aside"):
        os.rename(path, aside)
        sync_folder(path.parent)
    return aside
