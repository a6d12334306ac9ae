"""Token arrays: what is read is what was written, or an error names the file."""

import json
from pathlib import Path

import numpy as np
import pytest

from tyro_cli.data.arrays import open_array, token_dtype, write_array
from tyro_cli.errors import DamagedRecord, StorageError


@pytest.mark.parametrize(
    ("vocab_size", "name"), [(2, "<u2"), (65_536, "<u2"), (65_537, "<u4"), (2**24, "<u4")]
)
def test_dtype_holds_every_id(vocab_size: int, name: str) -> None:
    dtype = token_dtype(vocab_size)
    assert dtype.str == name
    assert np.array([vocab_size - 1]).astype(dtype)[0] == vocab_size - 1


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<u4", "<i8"])
def test_round_trip_is_a_read_only_little_endian_memory_map(tmp_path: Path, dtype: str) -> None:
    values = np.array([0, 1, 515, 65_535], dtype=dtype)
    write_array(tmp_path / "train.tokens", values)
    read = open_array(tmp_path / "train.tokens")
    np.testing.assert_array_equal(read, values)
    assert isinstance(read, np.memmap)
    assert not read.flags.writeable
    little = values.astype(values.dtype.newbyteorder("<"))
    assert (tmp_path / "train.tokens").read_bytes() == little.tobytes()
    header = json.loads((tmp_path / "train.tokens.json").read_text())
    assert set(header) == {"format", "dtype", "length", "sha256"}
    assert header["length"] == 4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "train.tokens"
    write_array(path, np.arange(10, dtype="<u2"))
    return path


def test_truncated_content_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DamagedRecord, match="18 bytes, the header says 20"):
        open_array(path)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "|O"},
        {"dtype": "<f8"},
        {"length": -1},
        {"length": True},
        {"length": "10"},
        {"format": 2},
        {"more": 1},
    ],
)
def test_foreign_header_is_refused(path: Path, change: dict[str, object]) -> None:
    header_path = path.with_name("train.tokens.json")
    header = json.loads(header_path.read_text()) | change
    header_path.write_text(json.dumps(header))
    with pytest.raises(DamagedRecord, match=r"train\.tokens\.json"):
        open_array(path)


def test_missing_content_is_a_storage_error(path: Path) -> None:
    path.unlink()
    with pytest.raises(StorageError, match=r"train\.tokens"):
        open_array(path)
