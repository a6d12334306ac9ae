import json
import os
import socket
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from tests.storage.disk import inode, journal
from tyro_cli.errors import LockHeld, StorageError
from tyro_cli.storage import locks
from tyro_cli.storage.locks import owned

OWNER = """
import sys
from pathlib import Path
from tyro_cli.storage.locks import owned
with owned(Path(sys.argv[1]), "cell tied, seed 0"):
    print("owned", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def cell(tmp_path):
    return tmp_path / "run" / "tied" / "seed-0"


@pytest.fixture
def start(repository):
    started = []

    def start(path):
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(path)],
            cwd=repository,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_starter_is_told_who_holds_it_and_a_killed_owner_holds_nothing(cell, start):
    owner = start(cell)
    assert owner.stdout.readline() == "owned\n"
    with pytest.raises(LockHeld) as caught, owned(cell, "cell tied, seed 0"):
        pytest.fail("two owners")
    for part in ("cell tied, seed 0", f"process {owner.pid} on {socket.gethostname()} since 20"):
        assert part in caught.value.message
    assert str(cell) in caught.value.message
    assert caught.value.remedy
    owner.kill()
    owner.wait()
    assert (cell.parent / ".seed-0.lock.json").exists()
    begin = time.monotonic()
    with owned(cell, "cell"):
        holder = json.loads((cell.parent / ".seed-0.lock.json").read_text())
        assert holder["process"] == os.getpid()
    assert time.monotonic() - begin < 10  # at once: nothing waits for a lock to age


def test_of_many_that_start_at_once_one_runs(cell, start):
    processes = [start(cell) for _ in range(4)]
    deadline = time.monotonic() + 30
    while sum(process.poll() is None for process in processes) > 1:
        assert time.monotonic() < deadline, "more than one runs"
        time.sleep(0.02)
    outputs = [process.communicate() for process in processes]  # closing its input ends the owner
    owners = [process.pid for process, output in zip(processes, outputs, strict=True) if output[0]]
    assert len(owners) == 1
    refusals = [error for output, error in outputs if not output]
    assert all(f"process {owners[0]} on" in error for error in refusals)


def test_an_owner_leaves_only_the_lock_and_others_may_follow(cell):
    for _ in range(2):
        with owned(cell, "cell"):
            assert not cell.exists()
    assert sorted(os.listdir(cell.parent)) in ([".seed-0.lock"], [])
    with pytest.raises(RuntimeError, match="mine"), owned(cell, "cell"):
        raise RuntimeError("mine")
    with owned(cell, "cell"), owned(cell.with_name("seed-1"), "another"):
        pass


def test_the_lock_is_released_and_not_left_to_the_garbage_collector(cell, monkeypatch):
    made = []

    def make(*arguments, **options):
        made.append(FileLock(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(locks, "FileLock", make)
    with owned(cell, "cell"):
        assert made[0].is_locked
    assert not made[0].is_locked


def test_the_folders_above_are_durable(cell, tmp_path):
    def own():
        with owned(cell, "cell"):
            pass

    synced = [number for kind, number, _ in journal(own) if kind == "fsync"]
    assert synced[:2] == [inode(tmp_path), inode(tmp_path / "run")]


@pytest.mark.parametrize(
    ("holder", "description"),
    [
        (None, "another process"),
        ("damaged", "another process"),
        ([], "another process"),
        ({"process": "1", "host": "a", "since": "b"}, "another process"),
        (
            {"process": 1, "host": "far-away", "since": "then\x1b[31m"},
            r"process 1 on far-away since then\x1b[31m",
        ),
        (
            {"process": 10**30, "host": "HERE", "since": "then"},
            f"process {10**30} on HERE since then",
        ),
    ],
    ids=["none", "damaged", "a list", "text", "another host", "an impossible process"],
)
def test_whatever_the_holder_file_says_the_lock_decides(cell, monkeypatch, holder, description):
    monkeypatch.setattr(locks, "_INTRODUCTION_SECONDS", 0.1)
    monkeypatch.setattr(locks.socket, "gethostname", lambda: "HERE")
    with owned(cell, "cell"):
        path = cell.parent / ".seed-0.lock.json"
        path.unlink()
        if holder is not None:
            path.write_text("{" if holder == "damaged" else json.dumps(holder))
        with pytest.raises(LockHeld) as caught, owned(cell, "cell"):
            pytest.fail("two owners")
        assert f"in use by {description} (" in caught.value.message


def test_the_process_of_another_user_counts_as_running(monkeypatch):
    def refuse(process, signal):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    assert locks._process_exists(1)


def test_a_folder_that_cannot_be_written_is_a_storage_error(cell, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    cell.parent.mkdir(parents=True)
    monkeypatch.setattr(os, "open", refuse)
    refused = pytest.raises(StorageError, match=r"cannot lock .*Permission denied")
    with refused as caught, owned(cell, "cell"):
        pytest.fail("owned without a lock")
    assert not isinstance(caught.value, LockHeld)


def test_a_link_in_place_of_the_lock_is_not_followed(cell, tmp_path):
    (tmp_path / "outside").write_text("precious")
    cell.parent.mkdir(parents=True)
    (cell.parent / ".seed-0.lock").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="cannot lock"), owned(cell, "cell"):
        pytest.fail("owned through a link")
    assert (tmp_path / "outside").read_text() == "precious"
