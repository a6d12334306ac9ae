import json
import struct

import pytest

from tyro_cli.errors import DamagedRecord, StorageError
from tyro_cli.storage.tensors import MAX_HEADER_BYTES, TensorEntry, read_tensor_header


def entry(first, last, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


SOUND = {"b": entry(16, 24, [1], "I64"), "a": entry(0, 16, [2, 2]), "none": entry(24, 24, [0, 3])}


def written(path, header, num_bytes=24, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", length or len(text)) + text + b"\0" * num_bytes)
    return path


def test_what_a_file_holds_is_read(tmp_path):
    path = written(tmp_path / "a", SOUND | {"__metadata__": {"format": "pt"}})
    assert read_tensor_header(path) == {
        "a": TensorEntry("F32", (2, 2)),
        "b": TensorEntry("I64", (1,)),
        "none": TensorEntry("F32", (0, 3)),
    }


def test_it_reads_what_the_library_writes(tmp_path):
    import numpy as np
    from safetensors.numpy import save_file

    arrays = {"w": np.ones((3, 2), np.float32), "n": np.arange(4), "s": np.array(1.5)}
    save_file(arrays, tmp_path / "a")
    found = read_tensor_header(tmp_path / "a")
    assert {name: entry.shape for name, entry in found.items()} == {
        name: array.shape for name, array in arrays.items()
    }
    assert {entry.dtype for entry in found.values()} == {"F32", "F64", "I64"}


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"[]", "not a JSON object"),
        (b"{", "Expecting"),
        ({"a": []}, "not that of a tensor"),
        ({"a": entry(0, 24, [6]) | {"more": 1}}, "not that of a tensor"),
        ({"a": entry(0, 24, [6], "X9")}, "unknown kind"),
        ({"a": entry(0, 24, [6], ["F32"])}, "unknown kind"),
        ({"a": entry(0, 24, [-6])}, "cannot be"),
        ({"a": entry(0, 24, [True, 6])}, "cannot be"),
        ({"a": entry(0, 24, [1] * 9)}, "cannot be"),
        ({"a": entry(0, 24, [2**50])}, "cannot be"),
        ({"a": entry(0, 24, "6")}, "cannot be"),
        ({"a": {"dtype": "F32", "shape": [6], "data_offsets": [0]}}, "cannot be"),
        ({"a": entry(0, 24, [5])}, "not what its shape needs"),
        ({"a": entry(24, 0, [6])}, "not what its shape needs"),
        ({"a": entry(0, 16, [4]), "b": entry(0, 16, [4])}, "overlap"),
        ({"a": entry(0, 8, [2]), "b": entry(16, 24, [2])}, "gap"),
        ({"a": entry(0, 16, [4])}, "take 16 bytes, the file holds 24"),
        ({}, "take 0 bytes"),
    ],
)
def test_a_header_that_does_not_fit_its_file_is_refused(tmp_path, header, problem):
    path = written(tmp_path / "a", header)
    with pytest.raises(DamagedRecord, match=problem) as caught:
        read_tensor_header(path)
    assert str(path) in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("length", [2**63, MAX_HEADER_BYTES + 1, 2_000])
def test_a_length_that_cannot_be_is_refused_unread(tmp_path, length):
    with pytest.raises(DamagedRecord, match="length of its header"):
        read_tensor_header(written(tmp_path / "a", SOUND, length=length))


@pytest.mark.parametrize("data", [b"", b"\1\0"])
def test_a_file_too_short_for_a_length(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(DamagedRecord, match="header"):
        read_tensor_header(tmp_path / "a")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match="cannot read"):
        read_tensor_header(tmp_path / "a")
