import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.disk import faults, inode, journal, kills, names, open_descriptors
from tyro_cli.errors import DamagedRecord, StorageError
from tyro_cli.storage import records
from tyro_cli.storage.records import RecordWriter, read_records, truncate_records


def append_line(path, value):
    """Append one record and wait until it is on the disk, as training does."""
    with RecordWriter(path) as writer:
        writer.append(value)
        writer.sync()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cell" / "metrics.jsonl"


def write(path, data):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def test_records_are_compact_lines_with_sorted_keys(path):
    with RecordWriter(path) as writer:
        writer.append({"step": 1, "kind": "train", "é": 0.5})
        assert read_records(path) == [{"step": 1, "kind": "train", "é": 0.5}]
        writer.sync()
    append_line(path, {"step": 2})
    assert path.read_bytes() == '{"kind":"train","step":1,"é":0.5}\n{"step":2}\n'.encode()


def test_a_writer_can_be_closed_twice(path):
    writer = RecordWriter(path)
    opened = open_descriptors()
    writer.close()
    writer.close()
    assert open_descriptors() == opened - 1


def test_a_system_that_refuses_to_close_is_told_in_words(path, monkeypatch):
    writer = RecordWriter(path)
    close = os.close

    def refuse(descriptor):
        close(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "close", refuse)
    with pytest.raises(StorageError, match="cannot close") as caught:
        writer.close()
    assert str(path) in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("torn", [b'{"step":2', b'{"step":2}', b"\0\0\0", b'{"st\xff\n', b"[]\n"])
def test_a_torn_last_line_is_dropped_and_cut_off_by_the_next_writer(path, torn):
    write(path, b'{"step":1}\n' + torn)
    assert read_records(path) == [{"step": 1}]
    assert path.read_bytes().endswith(torn)
    append_line(path, {"step": 3})
    assert path.read_bytes() == b'{"step":1}\n{"step":3}\n'


@pytest.mark.parametrize("damage", [b"{\n", b"\n", b"\0\n", b"[1]\n", b'{"a":NaN}\n', b"\xff\n"])
def test_damage_in_the_middle_is_an_error_that_names_the_line(path, damage):
    data = b'{"step":1}\n' + damage + b'{"step":3}\n'
    write(path, data)
    with pytest.raises(DamagedRecord, match="line 2 is damaged") as caught:
        read_records(path)
    assert str(path) in caught.value.message
    with pytest.raises(DamagedRecord, match="line 2 is damaged"):
        RecordWriter(path)
    assert path.read_bytes() == data


def test_files_and_lines_have_a_largest_size(path, monkeypatch):
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 20)
    write(path, b'{"a":"' + b"x" * 50 + b'"}\n')
    with pytest.raises(DamagedRecord, match="line 1 is damaged: longer than 20"):
        read_records(path)
    monkeypatch.setattr(records, "MAX_RECORDS_BYTES", 58)
    with pytest.raises(DamagedRecord, match="at most 58"):
        read_records(path)


def test_a_missing_file_is_an_error_to_read_and_nothing_to_cut(path):
    with pytest.raises(StorageError, match="No such file"):
        read_records(path)
    truncate_records(path, lambda record: True)
    assert not path.exists()


def test_cutting_keeps_the_leading_lines_byte_for_byte(path):
    write(path, b'{"step": 1}\n{"b":1,"step":2}\n{"step":9}\n{"step":1}\n{"step":')
    truncate_records(path, lambda record: record["step"] <= 2)
    assert path.read_bytes() == b'{"step": 1}\n{"b":1,"step":2}\n'
    before = inode(path)
    truncate_records(path, lambda record: record["step"] <= 2)
    assert inode(path) == before
    truncate_records(path, lambda record: False)
    assert path.read_bytes() == b""


def test_damage_behind_the_cut_does_not_matter(path):
    write(path, b'{"step":1}\n{"step":2}\n\0\0\n{"step":4}\n')
    truncate_records(path, lambda record: record["step"] < 2)
    assert read_records(path) == [{"step": 1}]


def test_a_failed_append_leaves_the_file_as_it_was(path, monkeypatch):
    with RecordWriter(path) as writer:
        writer.append({"step": 1})
        write_call = os.write

        def fill_up(descriptor, data):
            if len(data) < 8:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write_call(descriptor, data[:5])

        monkeypatch.setattr(os, "write", fill_up)
        with pytest.raises(StorageError, match="No space") as caught:
            writer.append({"step": 2})
        assert str(path) in caught.value.message
        monkeypatch.setattr(os, "write", write_call)
        assert path.read_bytes() == b'{"step":1}\n'
        writer.append({"step": 2})
    assert read_records(path) == [{"step": 1}, {"step": 2}]


def test_a_write_in_pieces_is_finished(path, monkeypatch):
    write_call = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write_call(descriptor, data[:3]))
    append_line(path, {"step": 12345})
    assert read_records(path) == [{"step": 12345}]


@pytest.mark.parametrize("run", [faults, kills])
def test_a_fault_at_any_call_loses_no_older_record(path, run):
    def prepare():
        write(path, b'{"step":1}\n{"st')

    for _ in run(lambda: append_line(path, {"step": 2}), prepare):
        assert read_records(path) in ([{"step": 1}], [{"step": 1}, {"step": 2}])
        append_line(path, {"step": 3})
        assert read_records(path)[-1] == {"step": 3}


def test_the_file_and_its_name_are_synced(path):
    path.parent.mkdir()
    notes = journal(lambda: append_line(path, {"step": 1}))
    assert [note[1] for note in notes] == [inode(path.parent), inode(path)]


def test_a_link_is_not_appended_to(path, tmp_path):
    (tmp_path / "outside").write_text("")
    path.parent.mkdir()
    path.symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match=str(path)) as caught:
        append_line(path, {"step": 1})
    assert "symbolic link" in caught.value.remedy
    assert (tmp_path / "outside").read_text() == ""


def test_a_number_that_is_not_finite_is_our_own_mistake(path):
    with RecordWriter(path) as writer, pytest.raises(ValueError, match="not JSON compliant"):
        writer.append({"loss": float("nan")})
    assert path.read_bytes() == b""
    assert names(path.parent) == ["metrics.jsonl"]


@given(st.binary(max_size=200), st.lists(st.integers(0, 99), max_size=5))
def test_any_bytes_are_records_or_damage(tmp_path_factory, data, steps):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(b"".join(b'{"step":%d}\n' % step for step in steps) + data)
    try:
        found = read_records(path)
    except DamagedRecord:
        return
    assert [record["step"] for record in found[: len(steps)]] == steps
