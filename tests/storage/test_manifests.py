import hashlib
import json
import os
import random

import pytest

from tyro_cli.errors import DamagedFolder, StorageError
from tyro_cli.storage.files import write_json
from tyro_cli.storage.manifests import sha256_of_file, verify_manifest, write_manifest


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "checkpoint"
    (path / "deep").mkdir(parents=True)
    (path / "model.bin").write_bytes(bytes(range(256)) * 8)
    (path / "state.json").write_text('{"step": 3}\n')
    (path / "deep" / "MANIFEST.json").write_text("not ours")
    (path / "empty").write_bytes(b"")
    write_manifest(path)
    return path


FILES = ["model.bin", "state.json", "deep/MANIFEST.json", "MANIFEST.json"]


def test_the_manifest_lists_every_other_file(folder):
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert manifest["format"] == 1
    assert list(manifest["files"]) == ["deep/MANIFEST.json", "empty", "model.bin", "state.json"]
    digest = hashlib.sha256((folder / "model.bin").read_bytes()).hexdigest()
    assert manifest["files"]["model.bin"] == {"bytes": 2048, "sha256": digest}
    assert sha256_of_file(folder / "model.bin") == digest


def test_an_untouched_folder_verifies_and_so_does_one_written_again(folder):
    verify_manifest(folder)
    before = (folder / "MANIFEST.json").read_bytes()
    write_manifest(folder)
    assert (folder / "MANIFEST.json").read_bytes() == before


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [lambda n: 0, lambda n: 1, lambda n: n // 2, lambda n: n - 1])
def test_every_truncation_is_found(folder, name, keep):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: keep(len(data))])
    with pytest.raises(DamagedFolder, match=name):
        verify_manifest(folder)


@pytest.mark.parametrize("seed", range(50))
def test_every_flipped_bit_is_found(folder, seed):
    draw = random.Random(seed)
    path = folder / draw.choice(FILES)
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    with pytest.raises(DamagedFolder):
        verify_manifest(folder)


def test_a_missing_file_is_named(folder):
    (folder / "state.json").unlink()
    with pytest.raises(DamagedFolder, match=r"'state\.json' is missing"):
        verify_manifest(folder)


def test_an_extra_file_is_named(folder):
    (folder / "deep" / "canary.pkl").write_bytes(b"")
    with pytest.raises(DamagedFolder, match=r"'deep/canary\.pkl' is not in the manifest"):
        verify_manifest(folder)


def test_a_changed_file_is_named_with_both_sizes(folder):
    (folder / "model.bin").write_bytes(b"123")
    with pytest.raises(DamagedFolder, match=r"'model\.bin' has changed.*\b3\b.*\b2048\b"):
        verify_manifest(folder)


def test_links_and_pipes_are_refused(folder, tmp_path):
    (folder / "state.json").rename(tmp_path / "state.json")
    (folder / "state.json").symlink_to(tmp_path / "state.json")
    with pytest.raises(DamagedFolder, match="neither a file nor a folder"):
        verify_manifest(folder)
    with pytest.raises(DamagedFolder, match="neither a file nor a folder"):
        write_manifest(folder)
    (folder / "state.json").unlink()
    os.mkfifo(folder / "state.json")
    with pytest.raises(DamagedFolder, match="neither a file nor a folder"):
        verify_manifest(folder)


def test_a_link_to_a_good_folder_is_refused(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "file").write_text("")
    for name in ("link", "file", "nothing"):
        with pytest.raises(DamagedFolder, match="is not a folder"):
            verify_manifest(tmp_path / name)


def test_a_folder_without_a_manifest(folder):
    (folder / "MANIFEST.json").unlink()
    with pytest.raises(DamagedFolder, match=r"has no MANIFEST\.json"):
        verify_manifest(folder)


@pytest.mark.parametrize(
    "manifest",
    [
        [],
        {},
        {"format": 1},
        {"format": 2, "files": {}},
        {"format": 1, "files": []},
        {"format": 1, "files": {}, "more": 1},
        {"format": 1, "files": {"../../etc/passwd": {"bytes": 1, "sha256": "0"}}},
        {
            "format": 1,
            "files": dict.fromkeys(["deep/MANIFEST.json", "empty", "model.bin", "state.json"]),
        },
    ],
)
def test_a_manifest_that_says_something_else(folder, manifest):
    write_json(folder / "MANIFEST.json", manifest)
    with pytest.raises(DamagedFolder):
        verify_manifest(folder)


def test_a_manifest_that_is_too_large(folder):
    (folder / "MANIFEST.json").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(DamagedFolder, match="at most 1048576"):
        verify_manifest(folder)


def test_a_folder_that_cannot_be_read_is_not_called_damaged(folder, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="Permission denied") as caught:
        verify_manifest(folder)
    assert not isinstance(caught.value, DamagedFolder)
