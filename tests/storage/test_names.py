from pathlib import Path

import pytest

from tyro_cli.errors import RunFolderError, StorageError, UsageError
from tyro_cli.storage.names import check_name, inside


@pytest.mark.parametrize("name", ["a", "tied-wide", "seed-0", "A.b_C-9", "-x", "x" * 100])
def test_a_plain_name_is_returned(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        ("x" * 101, "has 101 characters"),
        ("a/b", "not allowed"),
        ("a\\b", "not allowed"),
        ("a b", "not allowed"),
        ("a\n", "not allowed"),
        ("a\0", "not allowed"),
        ("é", "not allowed"),
        ("٣", "not allowed"),
        ("<b>", "not allowed"),
        (".", "starts with a dot"),
        ("..", "starts with a dot"),
        (".hidden", "starts with a dot"),
        ("a..b", "two dots"),
        ("a..", "two dots"),
    ],
)
def test_any_other_name_is_refused(name, problem):
    with pytest.raises(UsageError, match="arm name .*" + problem) as caught:
        check_name(name, "arm name")
    assert caught.value.exit_code == 2
    assert caught.value.remedy
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300


def test_inside_joins_names(tmp_path):
    assert inside(tmp_path) == tmp_path
    assert inside(tmp_path, "run-1", "tied", "seed-0") == tmp_path / "run-1" / "tied" / "seed-0"


@pytest.mark.parametrize("part", ["..", "a/b", "/etc", ""])
def test_inside_refuses_what_could_leave_the_root(tmp_path, part):
    with pytest.raises(UsageError):
        inside(tmp_path, "run", part)


def test_inside_refuses_a_symbolic_link_at_any_level(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "run").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "dangling").symlink_to(tmp_path / "nowhere")
    for parts in (("run",), ("run", "tied"), ("dangling",)):
        with pytest.raises(RunFolderError, match="symbolic link"):
            inside(tmp_path / "root", *parts)


def test_the_root_itself_may_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert inside(tmp_path / "root", "run") == tmp_path / "root" / "run"


def test_a_root_that_cannot_be_read_is_a_storage_error(tmp_path, monkeypatch):
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_symlink", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        inside(tmp_path, "run")
