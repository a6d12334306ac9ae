"""Token arrays on disk: little-endian integers beside a JSON header.

Invariant: an array that opens has the dtype and length that its header states. Arrays are
memory-mapped read-only, so workers share their pages. Which tokens are in them, where a document
starts, and whether their content is what was written is left to `prepared`.
"""

import hashlib
from pathlib import Path

import numpy as np

from tyro_cli.errors import DamagedRecord
from tyro_cli.storage.files import encode_json, read_json
from tyro_cli.storage.system import storage_errors

ARRAY_FORMAT = 1
_DTYPES = ("<u2", "<u4", "<i8")


def token_dtype(vocab_size: int) -> np.dtype:
    """Return uint16 where every id of the vocabulary fits into it, else uint32."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def write_array(path: Path, values: np.ndarray) -> None:
    """Write a one-dimensional array as `path` and its header as `path` + `.json`.

    Meant for the inside of `storage.files.new_folder`, which makes both durable and visible at
    once and puts system errors into words.
    """
    data = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    name = data.dtype.newbyteorder("<").str
    assert name in _DTYPES and data.ndim == 1
    content = data.tobytes()
    header = {
        "format": ARRAY_FORMAT,
        "dtype": name,
        "length": len(data),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    path.write_bytes(content)
    _header_path(path).write_text(encode_json(header), encoding="utf-8")


def open_array(path: Path) -> np.ndarray:
    """Memory-map an array, read-only.

    Args:
        path: The array's file; its header lies beside it.

    Raises:
        DamagedRecord: The header is not what was written, or the size is another.
        StorageError: A file is missing or cannot be read.
    """
    header = read_json(_header_path(path))
    expected = {"format", "dtype", "length", "sha256"}
    if not isinstance(header, dict) or set(header) != expected:
        raise DamagedRecord(f"{_header_path(path)}: not the header of a token array")
    dtype_name, length = header["dtype"], header["length"]
    if header["format"] != ARRAY_FORMAT or dtype_name not in _DTYPES:
        raise DamagedRecord(f"{_header_path(path)}: format or dtype is unknown")
    if type(length) is not int or length < 1:
        raise DamagedRecord(f"{_header_path(path)}: length must be a positive integer")
    dtype = np.dtype(dtype_name)
    with storage_errors(path, "read"):
        size_bytes = path.stat().st_size
        if size_bytes != length * dtype.itemsize:
            raise DamagedRecord(
                f"{path}: {size_bytes} bytes, the header says {length * dtype.itemsize}"
            )
        values = np.memmap(path, dtype=dtype, mode="r", shape=(length,))
    return values


def _header_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")
