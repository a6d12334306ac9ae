"""Copies of prepared data: the same bytes under the name of their content, or nothing."""

from pathlib import Path

import numpy as np
import pytest

from tests.folders import snapshot
from tyro_cli.data.copies import content_sha256, holds, keep_copy, read_files
from tyro_cli.errors import DamagedFolder
from tyro_cli.storage.manifests import MANIFEST_NAME, write_manifest


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    folder = tmp_path / "entry"
    folder.mkdir()
    (folder / "train.tokens").write_bytes(np.arange(99, dtype="<u2").tobytes())
    (folder / "prepared.json").write_text("{}\n")
    write_manifest(folder)
    return folder


def never():
    raise AssertionError("fetched again")


def test_a_copy_has_the_bytes_of_its_original_and_is_made_once(entry, tmp_path):
    sha256 = content_sha256(entry)
    copy = keep_copy(tmp_path / "cache", sha256, lambda: read_files(entry))
    assert copy == tmp_path / "cache" / "data" / sha256[:32]
    names = {path.name for path in entry.iterdir()}
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        name: (entry / name).read_bytes() for name in names
    }
    before = snapshot(copy)
    assert keep_copy(tmp_path / "cache", sha256, never) == copy
    assert snapshot(copy) == before


def test_a_damaged_copy_is_made_again(entry, tmp_path):
    sha256 = content_sha256(entry)
    copy = keep_copy(tmp_path / "cache", sha256, lambda: read_files(entry))
    (copy / "train.tokens").write_bytes(bytes(198))
    assert not holds(copy, sha256)
    assert keep_copy(tmp_path / "cache", sha256, lambda: read_files(entry)) == copy
    assert holds(copy, sha256)


def test_what_is_whole_under_another_manifest_is_not_it(entry, tmp_path):
    sha256 = content_sha256(entry)
    (entry / "train.tokens").write_bytes(bytes(2))
    (entry / MANIFEST_NAME).unlink()
    write_manifest(entry)
    assert holds(entry, content_sha256(entry))
    assert not holds(entry, sha256)
    assert not holds(tmp_path / "nothing", sha256)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.tokens", bytes(198)),
        ("more.tokens", b"1"),
        (MANIFEST_NAME, b"{}\n"),
        ("../outside", b"1"),
    ],
)
def test_what_arrives_otherwise_than_it_was_sent_is_refused_and_not_kept(
    entry, tmp_path, name, content
):
    files = dict(read_files(entry)) | {name: np.frombuffer(content, np.uint8)}
    with pytest.raises(DamagedFolder):
        keep_copy(tmp_path / "cache", content_sha256(entry), lambda: files)
    left = [path.name for path in (tmp_path / "cache").rglob("*")]
    assert set(left) == {"data", f"{content_sha256(entry)[:32]}.lock"}


def test_a_copy_without_its_manifest_is_refused(entry, tmp_path):
    files = dict(read_files(entry))
    del files[MANIFEST_NAME]
    with pytest.raises(DamagedFolder, match="not the data that was sent"):
        keep_copy(tmp_path / "cache", content_sha256(entry), lambda: files)
