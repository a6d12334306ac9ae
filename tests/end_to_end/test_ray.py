"""Cells on a Ray cluster of two nodes: same bytes as here, workers lost, drivers stopped.

The two nodes are processes of this machine with a cache and a core each; driver and nodes share
what the tests leave them to share: nothing, a storage, or the run folder.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")

from tests.end_to_end.workplace import (
    COMMAND_SECONDS,
    SWEEP,
    Started,
    Workplace,
    assert_same_run,
    assert_same_study,
    assert_told,
    children_of,
    is_running,
    kill,
    results,
    wait_until,
)
from tests.folders import digests

pytestmark = pytest.mark.slow

LONG = {"training.budget": {"steps": 400}, "evaluation.every_steps": 20, "seeds": [0]}
WORDS = ("train", "--config", "a.yaml", "--threads", "1", "--workers", "2")
RAY = (*WORDS, "--launcher", "ray")
TASK = "ray::run_on_node"


class Cluster:
    """Ray's head and a second node, one core each, with caches of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(32).hex()}
        self.nodes: list[subprocess.Popen[bytes]] = []
        # Sockets have short paths, so Ray's folder is not among pytest's.
        self.session = tempfile.mkdtemp(prefix="wtie-test-", dir="/tmp")
        self._start("head", "--head", f"--port={self.address.rpartition(':')[2]}",
                    "--include-dashboard=false", f"--temp-dir={self.session}")  # fmt: skip
        self._start("second", f"--address={self.address}")

    def _start(self, name: str, *words: str) -> None:
        ray = str(Path(sys.executable).with_name("ray"))
        command = [ray, "start", *words, "--num-cpus=1", "--object-store-memory=80000000",
                   "--disable-usage-stats", "--block"]  # fmt: skip
        environment = os.environ | self.token | {
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            "WTIE_CACHE": str(self.cache(name)),
        }  # fmt: skip
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            self.nodes.append(
                subprocess.Popen(
                    command, env=environment, cwd=self.folder, stdout=output, stderr=output
                )
            )
        wait_until(lambda: "Ray runtime started" in log.read_text(), log.name, COMMAND_SECONDS)

    def cache(self, name: str) -> Path:
        """Where a node keeps token arrays."""
        return self.folder / f"cache-{name}"

    def end(self) -> None:
        """End both nodes and what they started."""
        for node in reversed(self.nodes):
            below = descendants_of(node.pid)
            node.terminate()
            try:
                node.wait(COMMAND_SECONDS)
            finally:
                kill([node.pid, *filter(is_running, below)])
        shutil.rmtree(self.session, ignore_errors=True)

    def tasks(self) -> list[int]:
        """The processes in which Ray runs a cell: those with a cell below them."""
        below = [process for node in self.nodes for process in descendants_of(node.pid)]
        found = [process for process in below if TASK in command_of(process)]
        return [process for process in found if children_of(process)]

    def words(self, *more: object) -> tuple[object, ...]:
        """The words that train the experiment here."""
        return (*RAY, "--ray-address", self.address, *more)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def trained_here(tmp_path_factory, shared_cache) -> Workplace:
    """The long experiment, trained by the local launcher; tests must leave it as it is."""
    place = Workplace(tmp_path_factory.mktemp("here"), shared_cache)
    place.environment["COLUMNS"] = "100"  # as in every test, whose output is compared with this
    place.experiment(LONG)
    finished = place.wtie(*WORDS)
    assert finished.exit_code == 0, finished.stderr
    place.tables = tables_of(finished.stdout)  # type: ignore[attr-defined]
    return place


def tables_of(stdout: str) -> str:
    """Return the tables that a run prints, but for its times."""
    before, found, rest = stdout.partition("\nPerformance of ")
    assert found
    return before + rest[rest.index("\nrun: ") :]


def descendants_of(process: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    found = children_of(process)
    for child in list(found):
        found += descendants_of(child)
    return found


def command_of(process: int) -> str:
    """Return the words that a process was started with; empty where it is gone."""
    return subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(process)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def assert_same_but_for_storage(one: Path, other: Path, tmp_path: Path) -> None:
    """Compare two runs, one of which has its checkpoints in a storage."""
    copies = [tmp_path / "compared" / name for name in ("one", "other")]
    for run, copy in zip((one, other), copies, strict=True):
        ignored = shutil.ignore_patterns("checkpoints", "storage.json")
        shutil.copytree(run, copy, ignore=ignored)
    assert_same_run(*copies, but=["command"])


def steps_said(lines: list[str], cell: str) -> list[int]:
    """Return the steps at which a cell's evaluations were shown, in order."""
    found = (re.match(rf"{cell}: step ([0-9,]+)/", line) for line in lines)
    return [int(match[1].replace(",", "")) for match in found if match]


# equal to the local launcher


def test_a_study_on_two_nodes_is_the_study_trained_here_byte_for_byte(place, cluster):
    place.study()
    here = place.sweep("--out", "here")
    words = (*SWEEP, "--config", "s.yaml", "--launcher", "ray", "--ray-address", cluster.address)
    there = place.wtie(*words, environment=cluster.token)
    assert there.exit_code == 0, there.stderr
    assert there.stdout == here.stdout.replace("study: here/", "study: runs/")
    assert_same_study(place.folder / "here", place.runs)
    said = [line for line in there.stderr.splitlines() if ": step " not in line]
    first_done = next(i for i, line in enumerate(said) if ": done" in line)
    assert sum(": started" in line for line in said[:first_done]) == 2, "one core, one cell a node"
    for name in ("head", "second"):  # neither had seen the data before
        copies = [path for path in cluster.cache(name).glob("data/*") if path.is_dir()]
        assert len(copies) == 1
    again = place.wtie(*words, environment=cluster.token)
    assert "all 4 cells were trained before; nothing to do" in again.stderr
    verified = [place.wtie("runs", "verify", run).exit_code for run in place.run_folders()]
    assert verified == [0, 0]


def test_ray_started_here_leaves_the_same_run_and_nothing_else(place, trained_here):
    place.experiment(LONG)
    before = set(Path("/tmp").glob("wtie-ray-*"))
    home = place.folder / "home"
    home.mkdir()
    run = place.start(*RAY, environment={"HOME": str(home)})
    run.wait_for(": started")
    own = descendants_of(run.process.pid)
    commands = "".join(map(command_of, own))
    assert "/raylet" in commands
    assert "object_store_memory,200000000" in commands
    finished = run.finish()
    assert finished.exit_code == 0, finished.stderr
    assert tables_of(finished.stdout) == trained_here.tables
    assert all(
        line.startswith(("runs/tiny", "tied/", "untied/", "training the", "tokenizing the"))
        for line in finished.stderr.splitlines()
    ), finished.stderr
    assert_same_run(place.run_folder(), trained_here.run_folder(), but=["command"])
    wait_until(lambda: not any(map(is_running, own)), "Ray's processes are gone", COMMAND_SECONDS)
    assert set(Path("/tmp").glob("wtie-ray-*")) <= before
    assert list(home.iterdir()) == []


# workers lost


@pytest.mark.parametrize("victim", ["worker of Ray", "process of the cell"])
def test_a_lost_worker_is_retried_and_goes_on_from_its_checkpoint(
    place, cluster, trained_here, tmp_path, victim
):
    place.experiment(LONG | {"arms": {"untied": {}, "tied": {"model": {"tying": "in-out"}}}})
    storage = place.folder / "storage"
    run = place.start(*cluster.words("--storage", storage), environment=cluster.token)
    run.wait_for("untied/seed-0: step 60/")
    wait_until(lambda: bool(list(storage.glob("*/untied/*/checkpoints/last-*"))), "a checkpoint")
    hit = [
        process
        for process in cluster.tasks()
        for cell in children_of(process)
        if f"{storage}/{place.run_folder().name}/untied/" in "\n".join(open_files(cell))
    ]
    assert len(hit) == 1, "the task that trains untied"
    kill(hit if victim == "worker of Ray" else children_of(hit[0]))
    finished = run.finish()
    assert finished.exit_code == 0, finished.stderr
    assert tables_of(finished.stdout) == trained_here.tables
    lost = "untied/seed-0: warning: its worker was lost"
    assert finished.stderr.count("its worker was lost") == 1
    before, _, after = finished.stderr.partition(lost)
    assert steps_said(after.splitlines(), "untied/seed-0")[0] > 20, "it began anew"
    assert steps_said(before.splitlines(), "untied/seed-0")[0] == 20
    assert_same_but_for_storage(place.run_folder(), trained_here.run_folder(), tmp_path)
    assert not list(place.runs.rglob("checkpoints"))


def open_files(process: int) -> list[str]:
    """Return the paths of the files that a process has open."""
    return [os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir()]


# stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_stopped_driver_stops_its_cells_and_they_go_on_anywhere(
    place, cluster, trained_here, number
):
    place.experiment(LONG)
    run = place.start(*cluster.words(), environment=cluster.token)
    run.wait_for(": step ", times=3)
    running = cluster.tasks()
    assert running
    run.send(number)
    finished = run.finish()
    assert finished.exit_code == 128 + number, finished.stderr
    assert finished.stdout == ""
    assert "stopping: writing checkpoints" in finished.stderr
    assert "go on with: wtie train --config a.yaml" in finished.stderr
    assert "Traceback" not in finished.stderr
    wait_until(lambda: not any(map(is_running, running)), "the tasks are gone", COMMAND_SECONDS)
    assert results(place.run_folder()) == {}
    assert list(place.runs.rglob("checkpoints/last-*")), "a checkpoint was written"
    assert place.wtie(*WORDS).exit_code == 0
    assert_same_run(place.run_folder(), trained_here.run_folder(), but=["command"])


def test_the_terminals_ctrl_c_reaches_ray_as_well_and_is_a_stop_all_the_same(place, trained_here):
    place.experiment(LONG)
    run = in_a_group_of_its_own(place, *RAY)
    run.wait_for(": step ", times=2)
    os.killpg(run.process.pid, signal.SIGINT)
    finished = run.finish()
    assert finished.exit_code == 130, finished.stderr
    assert "go on with: wtie train" in finished.stderr
    assert place.wtie(*WORDS).exit_code == 0
    assert_same_run(place.run_folder(), trained_here.run_folder(), but=["command"])


def in_a_group_of_its_own(place: Workplace, *words: object) -> Started:
    """Start `wtie` as a shell does a job."""
    return Started(
        subprocess.Popen(
            [sys.executable, "-m", "tyro_cli", *map(str, words)],
            cwd=place.folder, env=place.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
        )
    )  # fmt: skip


def test_a_killed_driver_leaves_no_task_and_a_run_that_goes_on(place, cluster, trained_here):
    place.experiment(LONG)
    run = place.start(*cluster.words(), environment=cluster.token)
    run.wait_for(": step ", times=3)
    running = cluster.tasks()
    cells = [cell for process in running for cell in children_of(process)]
    assert cells
    kill([run.process.pid])
    run.process.wait()
    gone = [*running, *cells]
    wait_until(lambda: not any(map(is_running, gone)), "the tasks are gone", COMMAND_SECONDS)
    finished = place.wtie(*cluster.words(), environment=cluster.token)
    assert finished.exit_code == 0, finished.stderr
    assert_same_run(place.run_folder(), trained_here.run_folder(), but=["command"])


def test_a_lost_cluster_is_told_and_loses_nothing(place, trained_here):
    place.experiment(LONG)
    run = place.start(*RAY)
    run.wait_for(": step ", times=2)
    own = descendants_of(run.process.pid)
    kill([process for process in own if "/raylet " in command_of(process)])
    finished = run.finish()
    assert_told(finished, 1, "error: the Ray cluster was lost")
    assert place.wtie(*WORDS).exit_code == 0
    assert_same_run(place.run_folder(), trained_here.run_folder(), but=["command"])


# failed


def test_a_failed_cell_fails_alone_and_says_why(place, cluster):
    place.study({"rate": {"training.optimizer.learning_rate": [100, 0.01]}})
    place.experiment({"training.budget": {"steps": 40}, "training.gradient_clip": None})
    words = (*SWEEP, "--config", "s.yaml", "--launcher", "ray", "--ray-address", cluster.address)
    finished = place.wtie(*words, "--json", environment=cluster.token)
    assert finished.exit_code == 4, finished.stderr
    record = json.loads(finished.stdout)
    assert record["diverged"] == ["100/untied/seed-0", "100/tied/seed-0"]
    assert record["done_cells"] == 4
    storage = place.folder / "storage"
    storage.write_text("mine")
    failed = place.wtie(*words, "--retry-failed", "--storage", storage, environment=cluster.token)
    assert failed.exit_code == 4, failed.stderr
    assert failed.stderr.count("failed: 100/") == 2
    assert "cannot create the folder" in failed.stderr
    storage.unlink()
    retried = place.wtie(*words, "--storage", storage, "--json", environment=cluster.token)
    assert json.loads(retried.stdout)["diverged"] == record["diverged"]
    tried = digests(storage)
    again = place.wtie(
        *words, "--retry-failed", "--storage", storage, "--json", environment=cluster.token
    )
    assert json.loads(again.stdout)["diverged"] == record["diverged"]
    assert len(digests(storage)) > len(tried), "it went on with what it should begin anew"


def test_a_wrong_token_is_refused_in_words(place, cluster):
    finished = place.wtie(
        *cluster.words(), environment={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    )
    assert_told(finished, 2, "asks for another token", "RAY_AUTH_MODE=token")
    assert len(finished.stderr.splitlines()) <= 6, "nothing of Ray's own"
    assert not place.runs.exists()


def test_a_driver_that_is_ended_while_ray_starts(place):
    before = set(Path("/tmp").glob("wtie-ray-*/session_*"))
    run = place.start(*RAY)
    wait_until(
        lambda: bool(set(Path("/tmp").glob("wtie-ray-*/session_*")) - before),
        "Ray is starting",
        COMMAND_SECONDS,
    )
    time.sleep(0.5)
    run.send(signal.SIGTERM)
    finished = run.finish()
    assert finished.exit_code == 143, finished.stderr
    assert "go on with: wtie train" in finished.stderr
