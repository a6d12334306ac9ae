"""What a safetensors file says it holds, read without loading a tensor and without torch.

Invariant: a header that reads is small, complete and true to the size of its file: every tensor has
a known kind, its bytes are as many as its shape needs, and together they fill the file from the
first byte to the last. The file is untrusted; what its numbers are is left to whoever loads them.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from tyro_cli.errors import DamagedRecord
from tyro_cli.storage.files import decode_json
from tyro_cli.storage.system import open_regular, storage_errors

MAX_HEADER_BYTES = 4 * 2**20  # about thirty thousand tensors
MAX_TENSORS_BYTES = 2**46
MAX_DIMENSIONS = 8
_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1}


@dataclass(frozen=True)
class TensorEntry:
    """What a header says of one tensor.

    Attributes:
        dtype: As safetensors names it, such as `F32`.
        shape: Its dimensions.
    """

    dtype: str
    shape: tuple[int, ...]


def read_tensor_header(path: Path) -> dict[str, TensorEntry]:
    """Return the entry of every tensor in a safetensors file by its name.

    Raises:
        DamagedRecord: It is no safetensors file, its header is larger than `MAX_HEADER_BYTES`, or
            the header does not fit the file.
        StorageError: The system refused.
    """
    with storage_errors(path, "read"), open_regular(path, MAX_TENSORS_BYTES) as file:
        size_bytes = path.stat().st_size
        length_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length_bytes > min(MAX_HEADER_BYTES, size_bytes - _LENGTH_BYTES):
            raise _damaged(path, f"the length of its header, {length_bytes}, cannot be")
        data = file.read(length_bytes)
    try:
        return _entries(decode_json(data), size_bytes - _LENGTH_BYTES - length_bytes)
    except ValueError as error:
        raise _damaged(path, f"its header is damaged: {error}") from error


def _entries(header: Any, num_bytes: int) -> dict[str, TensorEntry]:
    if not isinstance(header, dict):
        raise ValueError("not a JSON object")
    header.pop(_METADATA, None)
    entries, spans = {}, []
    for name, values in header.items():
        entries[name], span = _entry(values)
        spans.append(span)
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise ValueError("tensors overlap or leave a gap")
        end = last
    if end != num_bytes:
        raise ValueError(f"tensors take {end} bytes, the file holds {num_bytes}")
    return entries


def _entry(values: Any) -> tuple[TensorEntry, tuple[int, int]]:
    if not isinstance(values, dict) or values.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("an entry is not that of a tensor")
    dtype, shape, offsets = values["dtype"], values["shape"], values["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise ValueError("a tensor is of an unknown kind")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError("a shape or a place in the file cannot be")
    first, last = offsets
    if last - first != prod(shape) * _ITEM_BYTES[dtype]:
        raise ValueError("the bytes of a tensor are not what its shape needs")
    return TensorEntry(dtype, tuple(shape)), (first, last)


def _are_sizes(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= MAX_DIMENSIONS
        and all(type(value) is int and 0 <= value <= MAX_TENSORS_BYTES for value in values)
    )


def _damaged(path: Path, problem: str) -> DamagedRecord:
    return DamagedRecord(f"{path}: {problem}", "restore the file from a copy")
