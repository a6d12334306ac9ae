import errno
import os
from pathlib import Path

import pytest

from tests.storage.disk import faults, kills, names
from tyro_cli.errors import DamagedFolder, StorageError
from tyro_cli.storage import system
from tyro_cli.storage.checkpoints import (
    checkpoint_path,
    list_checkpoints,
    newest_verified,
    prune,
    save,
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def writer(text):
    def write(path: Path) -> None:
        (path / "state.json").write_text(text)
        (path / "model.bin").write_text(text * 100)

    return write


def steps(folder, kind="last"):
    return [step for step, _ in list_checkpoints(folder, kind)]


def no_damage(path, problem):
    pytest.fail(f"{path} was called damaged: {problem}")


def newest_text(folder, on_damage=no_damage):
    found = newest_verified(folder, "last", on_damage=on_damage)
    assert found is not None
    return (found[1] / "state.json").read_text()


def test_names():
    assert checkpoint_path(Path("c"), "last", 123) == Path("c/last-00000123")
    assert checkpoint_path(Path("c"), "best", 123456789) == Path("c/best-123456789")


def test_saving_listing_and_loading(folder):
    assert list_checkpoints(folder, "last") == []
    assert newest_verified(folder, "last", on_damage=no_damage) is None
    for step in (0, 100, 20):
        assert save(folder, "last", step, writer(str(step))) == checkpoint_path(
            folder, "last", step
        )
    save(folder, "best", 300, writer("best"))
    assert steps(folder) == [100, 20, 0]
    assert steps(folder, "best") == [300]
    assert newest_verified(folder, "last", on_damage=no_damage) == (100, folder / "last-00000100")
    assert newest_verified(folder, "last", at_most_step=99, on_damage=no_damage) == (
        20,
        folder / "last-00000020",
    )
    assert newest_verified(folder, "last", at_most_step=-1, on_damage=no_damage) is None
    assert names(folder / "last-00000100") == ["MANIFEST.json", "model.bin", "state.json"]


def test_only_checkpoints_are_listed_and_one_step_in_order_of_age(folder):
    folder.mkdir()
    mine = ["last-00000007.replaced-10", "last-00000007.replaced-9", "last-00000007"]
    others = [
        ".last-00000008.tmp-0123abcd",
        "last-00000008.corrupt",
        "last-00000008.corrupt-1",
        "last-8",
        "last-00000008x",
        "best-00000009",
        "last-" + "9" * 30,
        "last-0000000٣",
    ]
    for name in mine + others:
        (folder / name).mkdir()
    assert [path.name for _, path in list_checkpoints(folder, "last")] == [
        "last-00000007",
        "last-00000007.replaced-10",
        "last-00000007.replaced-9",
    ]


def test_the_leftovers_of_a_crash_go_at_the_next_save(folder):
    save(folder, "last", 1, writer("1"))
    system.temporary_sibling(folder / "last-00000002").mkdir()
    save(folder, "last", 3, writer("3"))
    assert names(folder) == ["last-00000001", "last-00000003"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "model.bin").write_text("4" * 99),
        lambda path: (path / "model.bin").write_text("5" * 100),
        lambda path: (path / "model.bin").unlink(),
        lambda path: (path / "extra").write_text(""),
        lambda path: (path / "MANIFEST.json").unlink(),
        lambda path: (
            [(path / name).unlink() for name in names(path)]
            + [path.rmdir()]
            + [path.write_text("")]
        ),
        lambda path: path.rename(path.parent / "x") and path.symlink_to(path.parent / "x"),
    ],
    ids=["truncated", "changed", "missing", "extra", "no manifest", "a file", "a link"],
)
def test_a_damaged_checkpoint_is_quarantined_and_the_one_before_is_used(folder, damage):
    save(folder, "last", 3, writer("3"))
    save(folder, "last", 4, writer("4"))
    damage(folder / "last-00000004")
    told = []
    found = newest_verified(
        folder, "last", on_damage=lambda path, problem: told.append((path, problem))
    )
    assert found == (3, folder / "last-00000003")
    [(path, problem)] = told
    assert path == folder / "last-00000004"
    assert str(path) in problem
    assert "last-00000004.corrupt" in names(folder)
    assert newest_text(folder) == "3"


def test_quarantine_never_overwrites(folder):
    for _ in range(3):
        save(folder, "last", 4, writer("4"))
        (folder / "last-00000004" / "model.bin").write_text("")
        assert newest_verified(folder, "last", on_damage=lambda *_: None) is None
    assert names(folder) == [f"last-00000004.corrupt{end}" for end in ("", "-1", "-2")]


def test_a_read_only_disk_does_not_keep_the_fallback_away(folder, monkeypatch):
    save(folder, "last", 3, writer("3"))
    save(folder, "last", 4, writer("4"))
    (folder / "last-00000004" / "model.bin").write_text("")

    def refuse(*arguments):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "rename", refuse)
    assert newest_text(folder, on_damage=lambda *_: None) == "3"


def test_a_checkpoint_that_cannot_be_read_is_not_quarantined(folder, monkeypatch):
    save(folder, "last", 3, writer("3"))

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        with pytest.raises(StorageError, match="Permission denied"):
            newest_verified(folder, "last", on_damage=no_damage)
    assert newest_text(folder) == "3"


def test_files_of_another_checkpoint_are_found_out(folder):
    save(folder, "last", 3, writer("3"))
    save(folder, "last", 4, writer("4"))
    (folder / "last-00000003" / "model.bin").replace(folder / "last-00000004" / "model.bin")
    assert newest_verified(folder, "last", on_damage=lambda *_: None) is None


@pytest.mark.parametrize("run", [faults, kills])
@pytest.mark.parametrize("step", [1, 2], ids=["same step", "next step"])
def test_after_a_fault_at_any_call_of_a_save_the_old_or_the_new_one_loads(folder, run, step):
    def prepare():
        if folder.exists():
            system.remove_whole(folder)
        save(folder, "last", 1, writer("old"))

    seen = set()
    for outcome in run(lambda: save(folder, "last", step, writer("new")), prepare):
        if run is faults:
            assert isinstance(outcome, StorageError)
            assert str(folder) in outcome.message
            assert outcome.remedy
        seen.add(newest_text(folder))
        save(folder, "last", step, writer("newer"))
        assert newest_text(folder) == "newer"
        assert names(folder) == sorted({"last-00000001", f"last-{step:08d}"})
    assert seen == {"old", "new"}


@pytest.mark.parametrize("run", [faults, kills])
def test_a_fault_in_pruning_loses_nothing_that_stays_and_damages_nothing(folder, run):
    def prepare():
        for step in (1, 2, 3):
            save(folder, "last", step, writer(str(step)))

    for _ in run(lambda: prune(folder, "last", [3]), prepare):
        for step, path in list_checkpoints(folder, "last"):
            assert (path / "state.json").read_text() == str(step)
            assert (path / "MANIFEST.json").exists()
        assert newest_text(folder) == "3"


def test_pruning_keeps_one_of_its_kind_and_all_of_the_other(folder):
    for step in (1, 2, 3):
        save(folder, "last", step, writer(str(step)))
    save(folder, "best", 1, writer("best"))
    (folder / "last-00000002.corrupt").mkdir()
    (folder / "last-00000002.replaced-1").mkdir()
    prune(folder, "last", [2])
    assert names(folder) == sorted(["best-00000001", "last-00000002", "last-00000002.corrupt"])
    prune(folder, "last", [2])
    assert steps(folder, "best") == [1]


def test_pruning_removes_nothing_when_the_one_to_keep_is_damaged_or_gone(folder):
    for step in (1, 2):
        save(folder, "last", step, writer(str(step)))
    (folder / "last-00000002" / "model.bin").write_text("")
    for keep_step in (2, 3):
        with pytest.raises(DamagedFolder) as caught:
            prune(folder, "last", [keep_step])
        assert str(folder) in caught.value.message
        assert caught.value.remedy
    assert newest_text(folder, on_damage=lambda *_: None) == "1"


def test_what_a_crash_left_half_replaced_loads_and_is_pruned_later(folder):
    save(folder, "last", 5, writer("5"))
    (folder / "last-00000005").rename(folder / "last-00000005.replaced-1")
    assert newest_text(folder) == "5"
    save(folder, "last", 6, writer("6"))
    prune(folder, "last", [6])
    assert names(folder) == ["last-00000006"]


def test_an_error_of_the_writer_keeps_the_old_one(folder):
    save(folder, "last", 1, writer("old"))

    def fail(path: Path) -> None:
        writer("new")(path)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        save(folder, "last", 1, fail)
    assert names(folder) == ["last-00000001"]
    assert newest_text(folder) == "old"
