import errno
import json
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.disk import faults, inode, journal, kills, names, open_descriptors
from tyro_cli.errors import DamagedRecord, StorageError
from tyro_cli.storage import files, system


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new" / "deep" / "a.json"
    files.write_json(path, {"b": [1, 2.5, None], "a": "é"})
    assert (
        path.read_bytes()
        == '{\n  "a": "é",\n  "b": [\n    1,\n    2.5,\n    null\n  ]\n}\n'.encode()
    )
    assert files.read_json(path) == {"a": "é", "b": [1, 2.5, None]}
    files.write_text(path, "a\r\nb\n")
    assert path.read_bytes() == b"a\r\nb\n"
    assert names(path.parent) == ["a.json"]


@pytest.mark.parametrize(
    ("number", "name", "shown", "remedy"),
    [
        (errno.EACCES, "a", "a", "check who owns it and its permissions"),
        (errno.ENAMETOOLONG, "a" * 301, "a" * 300 + "...", "use a shorter name"),
    ],
)
def test_an_error_with_a_remedy_is_told(number, name, shown, remedy):
    told = system.refusal_of(OSError(number, "no", name))
    assert (told.message, told.remedy) == (f"cannot use {shown}: no", remedy)


def test_an_error_without_a_remedy_is_somebody_elses():
    assert system.refusal_of(OSError(errno.EBADF, "no", "a")) is None


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_numbers_that_json_does_not_have_are_not_written(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", value)
    assert names(tmp_path) == []


def test_a_failing_call_leaves_the_old_file_or_the_new_one_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    for error in faults(lambda: files.write_text(path, "new"), lambda: path.write_text("old")):
        assert isinstance(error, StorageError)
        assert str(path) in error.message
        assert error.remedy
        assert names(tmp_path) == ["a.txt"]
        assert path.read_text() in ("old", "new")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_sync_or_rename_keeps_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        files.write_text(path, "new")
    assert "free some space" in caught.value.remedy
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_killed_write_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "a.txt"
    seen = set()
    for _ in kills(lambda: files.write_text(path, "new"), lambda: path.write_text("old")):
        seen.add(path.read_text())
        system.remove_leftovers(tmp_path)
        assert names(tmp_path) == ["a.txt"]
    assert seen == {"old", "new"}


def test_a_file_is_synced_before_its_rename_and_its_folder_after(tmp_path):
    path = tmp_path / "a.txt"
    notes = journal(lambda: files.write_text(path, "new"))
    assert [kind for kind, *_ in notes] == ["fsync", "rename", "fsync"]
    assert notes[0][1:] == (inode(path), len("new"))
    assert notes[1][2] == "a.txt"
    assert notes[2][1] == inode(tmp_path)


def test_new_parents_are_synced_into_theirs(tmp_path):
    notes = journal(lambda: system.make_folder(tmp_path / "a" / "b"))
    assert [note[1] for note in notes] == [inode(tmp_path), inode(tmp_path / "a")]
    assert journal(lambda: system.make_folder(tmp_path / "a" / "b")) == []


def test_a_file_where_a_folder_must_be(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(StorageError, match="Not a directory"):
        files.write_text(tmp_path / "a" / "b.txt", "")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageError, match="link"):
        files.write_text(tmp_path / "link" / "b.txt", "")


def test_writing_replaces_a_link_and_not_what_it_points_to(tmp_path):
    (tmp_path / "outside").write_text("precious")
    (tmp_path / "a.txt").symlink_to(tmp_path / "outside")
    files.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "outside").read_text() == "precious"
    assert (tmp_path / "a.txt").read_text() == "new"


def test_an_interrupt_is_not_swallowed_and_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(tmp_path / "a.txt", "new")
    with pytest.raises(KeyboardInterrupt), files.new_folder(tmp_path / "b") as folder:
        (folder / "c").write_text("")
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders_is_used_anyway(tmp_path, monkeypatch, number):
    def refuse(descriptor: int) -> None:
        raise OSError(number, "folders cannot be synced")

    monkeypatch.setattr(os, "fsync", refuse)
    system.sync_folder(tmp_path)


def test_an_error_without_a_number_or_remedy_still_has_words(tmp_path):
    with pytest.raises(StorageError, match="odd") as caught, system.storage_errors(tmp_path, "do"):
        raise OSError("odd")
    assert caught.value.remedy


# Reading what anyone may have written


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting"),
        (b"\xff", "utf-8"),
        (b"NaN", "not a finite number"),
        (b"[-Infinity]", "not a finite number"),
        (b"1e999", "not a finite number"),
        (b"9" * 5000, "limit"),
        (b'{"a": "\\ud800"}', "surrogates"),
        (b"[" * 66 + b"]" * 66, "deeper than 64"),
        (b'{"a":' * 66 + b"1" + b"}" * 66, "deeper than 64"),
        (b"[" * 10_000 + b"]" * 10_000, "deeper than 64"),
        (b"[" * 1_000_000, "deeper than 64"),
        (b"[" * 10_000_000, "more than 1,000,000 values"),
        (b"[" + b"{}," * 1_000_000 + b"{}]", "more than 1,000,000 values"),
        (b"[" + b"1," * 1_000_000 + b"1]", "more than 1,000,000 values"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_json_that_is_not_ours_is_refused_quickly(tmp_path, data, problem):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    start = time.process_time()
    with pytest.raises(DamagedRecord, match=problem) as caught:
        files.read_json(path)
    assert time.process_time() - start < 5  # not a timing: without bounds it takes minutes
    assert str(path) in caught.value.message
    assert len(caught.value.message) < 1000


def test_json_of_a_million_values_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + b"1," * 999_998 + b"1]")
    assert len(files.read_json(path)) == 999_999


def test_no_descriptor_stays_open(tmp_path):
    before = open_descriptors()
    fill(tmp_path / "folder", "x")
    files.write_text(tmp_path / "a.json", "{}")
    files.read_json(tmp_path / "a.json")
    with pytest.raises(DamagedRecord):
        files.read_json(tmp_path)
    assert open_descriptors() == before


def test_json_just_within_the_limits_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"[" * 64 + b"]" * 64)
    assert files.read_json(path, max_bytes=128)
    with pytest.raises(DamagedRecord, match="has 128 bytes; at most 127"):
        files.read_json(path, max_bytes=127)
    path.write_bytes(b'"\\u00e9"')
    assert files.read_json(path) == "é"


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(DamagedRecord, match="not a regular file"):
            files.read_json(path)
    with pytest.raises(StorageError, match="No such file"):
        files.read_json(tmp_path / "missing")


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Half of a surrogate pair cannot be written as UTF-8.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
)


@settings(max_examples=50)
@given(JSON_VALUES)
def test_encoding_and_decoding_are_inverse(value):
    assert files.decode_json(files.encode_json(value).encode()) == value


@settings(max_examples=50)
@given(st.binary() | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_decoding_gives_a_value_that_can_be_written_or_a_value_error(data):
    try:
        value = files.decode_json(data)
    except ValueError:
        return
    assert files.decode_json(files.encode_json(value).encode("utf-8")) == value


# Folders


def fill(path, text, replace=False):
    with files.new_folder(path, replace=replace) as folder:
        (folder / "a.txt").write_text(text)
        (folder / "deep").mkdir()
        (folder / "deep" / "b.txt").write_text(text)


def content(path):
    return (path / "a.txt").read_text() + (path / "deep" / "b.txt").read_text()


def test_a_folder_appears_as_a_whole(tmp_path):
    path = tmp_path / "parent" / "folder"
    with files.new_folder(path) as folder:
        assert not path.exists()
        (folder / "a.txt").write_text("x")
    assert names(path) == ["a.txt"]
    assert names(tmp_path / "parent") == ["folder"]


def test_a_folder_is_synced_from_the_inside_out_then_renamed_then_its_parent(tmp_path):
    path = tmp_path / "folder"
    notes = journal(lambda: fill(path, "x"))
    kinds = [kind for kind, *_ in notes]
    assert kinds == ["fsync"] * 4 + ["rename", "fsync"]
    inner = [path / "deep" / "b.txt", path / "deep", path / "a.txt", path]
    assert [note[1] for note in notes[:4]] == [inode(each) for each in inner]
    assert notes[5][1] == inode(tmp_path)


def test_an_error_in_the_body_leaves_nothing(tmp_path):
    def body(error):
        with files.new_folder(tmp_path / "folder") as folder:
            (folder / "a.txt").write_text("x")
            raise error

    with pytest.raises(RuntimeError, match="mine"):
        body(RuntimeError("mine"))
    with pytest.raises(StorageError, match="folder: No space"):
        body(OSError(errno.ENOSPC, "No space"))
    assert names(tmp_path) == []


def test_an_existing_folder_is_refused_before_any_work(tmp_path):
    fill(tmp_path / "folder", "old")
    with pytest.raises(StorageError, match="exists"), files.new_folder(tmp_path / "folder"):
        pytest.fail("the body ran")
    assert content(tmp_path / "folder") == "oldold"
    assert names(tmp_path) == ["folder"]


def test_a_folder_that_came_up_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(StorageError, match="not empty"), files.new_folder(tmp_path / "folder"):
        fill(tmp_path / "folder", "theirs")
    assert content(tmp_path / "folder") == "theirstheirs"
    assert names(tmp_path) == ["folder"]


def test_an_existing_folder_is_replaced_when_asked(tmp_path):
    path = tmp_path / "folder"
    fill(path, "old", replace=True)
    (tmp_path / "folder.replaced-1").mkdir()
    (tmp_path / "other.replaced-1").mkdir()
    fill(path, "new", replace=True)
    assert content(path) == "newnew"
    assert names(tmp_path) == ["folder", "other.replaced-1"]


def test_the_old_folder_goes_only_when_the_new_name_is_on_the_disk(tmp_path):
    path = tmp_path / "folder"
    fill(path, "old")
    notes = journal(lambda: fill(path, "new", replace=True))
    renames = [place for place, note in enumerate(notes) if note[0] == "rename"]
    aside, into_place, doomed = (notes[place][1:] for place in renames)
    assert aside == ("folder", "folder.replaced-1")
    assert into_place[1] == "folder"
    assert doomed[0] == "folder.replaced-1"
    synced = [note[1] for note in notes[renames[1] : renames[2]] if note[0] == "fsync"]
    assert synced == [inode(tmp_path)]


@pytest.mark.parametrize("run", [faults, kills])
def test_at_every_moment_of_a_replacement_one_of_the_two_is_whole(tmp_path, run):
    path = tmp_path / "folder"
    places = set()

    def prepare():
        for name in names(tmp_path):
            system.remove_whole(tmp_path / name)
        fill(path, "old")

    for _ in run(lambda: fill(path, "new", replace=True), prepare):
        aside = tmp_path / "folder.replaced-1"
        place = path if path.exists() else aside
        places.add(place.name)
        assert content(place) in ("oldold", "newnew")
        if aside.exists():
            assert content(aside) == "oldold"
    assert places == {"folder", "folder.replaced-1"}


def test_moving_aside_numbers_and_deletes_nothing(tmp_path):
    path = tmp_path / "run"
    for number in (1, 2, 3):
        path.mkdir()
        (path / str(number)).write_text("")
        assert files.move_aside(path) == tmp_path / f"run.old-{number}"
    assert [names(tmp_path / name) for name in names(tmp_path)] == [["1"], ["2"], ["3"]]
    with pytest.raises(StorageError, match="No such file"):
        files.move_aside(path)


def test_moving_aside_is_durable(tmp_path):
    (tmp_path / "run").mkdir()
    notes = journal(lambda: files.move_aside(tmp_path / "run"))
    assert notes[0] == ("rename", "run", "run.old-1")
    assert [note[:2] for note in notes[1:]] == [("fsync", inode(tmp_path))]


def test_leftovers_are_told_from_everything_else(tmp_path):
    (tmp_path / "kept").mkdir()
    for kept in (".a.tmp-xyz", "a.tmp-00000000", ".hidden", ".tmp-00000000"):
        (tmp_path / kept).write_text("")
    folder = system.temporary_sibling(tmp_path / "folder")
    (folder / "deep").mkdir(parents=True)
    system.temporary_sibling(tmp_path / "file").write_text("")
    system.temporary_sibling(tmp_path / "link").symlink_to(tmp_path / "kept")
    system.remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(
        ["kept", ".a.tmp-xyz", "a.tmp-00000000", ".hidden", ".tmp-00000000"]
    )
    with pytest.raises(StorageError, match="clear"):
        system.remove_leftovers(tmp_path / "missing")


def test_leftovers_of_one_path_are_told_from_those_of_its_neighbours(tmp_path):
    path = tmp_path / "a[b]"
    kept = [".a[b].tmp-xyz", ".a[b]c.tmp-00000000", ".ab.tmp-00000000"]
    for name in (*kept, ".a[b].tmp-00000001"):
        (tmp_path / name).write_text("")
    (system.temporary_sibling(path) / "deep").mkdir(parents=True)
    system.remove_leftovers_of(path)
    assert names(tmp_path) == sorted(kept)
