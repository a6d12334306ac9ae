"""One cell on several processes: the same losses, any of them may die, and checkpoints interchange.

Most tests play torchrun: a store, and its variables for each rank. So the exit code of every rank
can be seen, which torchrun turns into a 1. All ports are free ones.
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from torch.distributed import TCPStore

from tests.end_to_end.workplace import (
    PROMPT_SECONDS,
    Finished,
    Started,
    Workplace,
    assert_same_run,
    assert_told,
    children_of,
    is_running,
    kill,
    results,
    wait_until,
)
from tyro_cli.config.schema import Settings
from tyro_cli.errors import ConfigurationError
from tyro_cli.experiments.launchers.torchrun import check_world
from tyro_cli.training.world import World

pytestmark = pytest.mark.slow

EXPERIMENT = {
    "model.dropout": 0.0,
    "training.budget": {"steps": 150},
    # At a high rate rounding grows: two runs part although both are right.
    "training.optimizer": {"learning_rate": 1e-3},
    "evaluation.every_steps": 50,
}
ENDLESS = {"model.dropout": 0.0, "training.budget": {"steps": 100_000}}
WORDS = ("train", "--config", "a.yaml", "--threads", "1")
ONE_ARM = (*WORDS, "--arms", "untied")
DRIFT = "--allow-numeric-drift"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


class Ranks:
    """The ranks of one start, as torchrun would start them."""

    def __init__(self, place: Workplace, *words: object, size: int = 2) -> None:
        self.store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        self.all = [self._start(place, rank, size, words) for rank in range(size)]

    def _start(self, place: Workplace, rank: int, size: int, words: tuple[object, ...]) -> Started:
        return place.start(
            *words,
            environment={
                "TORCHELASTIC_RUN_ID": "test",
                "TORCHELASTIC_RESTART_COUNT": "0",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(size),
                "LOCAL_WORLD_SIZE": str(size),
                "MASTER_ADDR": "localhost",
                "MASTER_PORT": str(self.store.port),
            },
        )

    @property
    def workers(self) -> list[int]:
        """The workers that run now, by rank."""
        return [worker for rank in self.all for worker in children_of(rank.process.pid)]

    def finish(self, seconds: float | None = None) -> list[Finished]:
        return [rank.finish() if seconds is None else rank.finish(seconds) for rank in self.all]


def together(place: Workplace, *words: object) -> Finished:
    """Train with two processes to the end; return what rank 0 said."""
    finished = Ranks(place, *words).finish()
    assert [one.exit_code for one in finished] == [0, 0], [one.stderr for one in finished]
    assert (finished[1].stdout, finished[1].stderr) == ("", "")
    return finished[0]


def records(run: Path, arm: str = "untied") -> list[dict]:
    lines = (run / arm / "seed-0" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def result(run: Path, arm: str = "untied") -> dict:
    return json.loads((run / arm / "seed-0" / "result.json").read_text())


def assert_near(run: Path, other: Path, arm: str = "untied") -> None:
    """Check that two runs have the same losses but for rounding, from the same batches."""
    one, two = records(run, arm), records(other, arm)
    assert [(r["kind"], r["step"]) for r in one] == [(r["kind"], r["step"]) for r in two]
    for first, second in zip(one, two, strict=True):
        for key, value in first.items():
            if isinstance(value, float):
                tolerance = 1e-3 if key == "gradient_norm" else 1e-5
                assert second[key] == pytest.approx(value, rel=tolerance), (key, first["step"])
            else:
                assert second[key] == value
    mine, theirs = result(run, arm), result(other, arm)
    assert mine["cell_id"] == theirs["cell_id"]
    assert mine["pairing"]["batches"] == theirs["pairing"]["batches"]
    assert mine["pairing"]["initial_parameters"] == theirs["pairing"]["initial_parameters"]
    for split in ("valid", "test", "train_part"):
        first, second = (one["evaluations"]["best"][split] for one in (mine, theirs))
        assert second["nats"] == pytest.approx(first["nats"], rel=1e-5)
        assert (second["tokens"], second["words"]) == (first["tokens"], first["words"])


@pytest.fixture(scope="module")
def alone(tmp_path_factory, shared_cache) -> Workplace:
    """Train both arms with one process."""
    place = Workplace(tmp_path_factory.mktemp("alone"), shared_cache)
    place.experiment(EXPERIMENT)
    finished = place.wtie(*WORDS)
    assert finished.exit_code == 0, finished.stderr
    return place


@pytest.fixture(scope="module")
def paired(tmp_path_factory, shared_cache) -> Workplace:
    """Train both arms with two processes, under torchrun itself."""
    place = Workplace(tmp_path_factory.mktemp("paired"), shared_cache)
    place.experiment(EXPERIMENT)
    finished = place.start(*WORDS, under=TORCHRUN).finish()
    assert finished.exit_code == 0, finished.stderr
    assert "pairs verified: 1/1 identical start" in finished.stdout.lower()
    assert finished.stderr.count("started") == 2  # rank 0 alone speaks
    return place


@pytest.fixture
def running(place) -> Iterator[Ranks]:
    """Start a cell that would go on for hours, and wait until it trains."""
    place.experiment(ENDLESS | {"training.checkpoint_every_steps": 50_000})
    ranks = Ranks(place, *ONE_ARM)
    ranks.all[0].wait_for(": step ")
    workers = ranks.workers
    assert len(workers) == 2
    yield ranks
    kill(workers)


@pytest.mark.parametrize("arm", ["untied", "tied"])
def test_losses_equal_those_of_one_process(alone, paired, arm):
    assert_near(alone.run_folder(), paired.run_folder(), arm)
    assert result(paired.run_folder(), arm)["pairing"]["fingerprint"]["processes"] == 2
    assert "processes" not in result(alone.run_folder(), arm)["pairing"]["fingerprint"]


def test_who_starts_the_ranks_changes_no_byte_and_again_is_a_no_op(place, paired):
    place.experiment(EXPERIMENT)
    together(place, *WORDS)
    assert_same_run(place.run_folder(), paired.run_folder(), but=["command"])
    assert "nothing to do" in together(place, *WORDS).stderr
    assert_same_run(place.run_folder(), paired.run_folder(), but=["command"])


@pytest.mark.parametrize("begun_with", [2, 1])
def test_checkpoints_interchange_where_the_difference_is_accepted(place, alone, begun_with):
    """Sums are taken in another order, so it is a numeric drift like any other: told, recorded."""
    place.experiment(EXPERIMENT)
    begun = Ranks(place, *ONE_ARM) if begun_with == 2 else None
    starts = begun.all if begun else [place.start(*ONE_ARM)]
    starts[0].wait_for(": step 50/")
    for start in starts:
        start.send(signal.SIGTERM)
    assert [start.finish().exit_code for start in starts] == [143] * begun_with
    refused = place.wtie(*ONE_ARM) if begun_with == 2 else Ranks(place, *ONE_ARM).finish()[0]
    assert_told(refused, 2, f"{begun_with} process(es) a cell, not {3 - begun_with}", DRIFT)
    assert not (place.run_folder() / "untied" / "seed-0" / "result.json").exists()
    if begun_with == 2:
        assert place.wtie(*ONE_ARM, DRIFT).exit_code == 0
    else:
        together(place, *ONE_ARM, DRIFT)
    (drift,) = result(place.run_folder())["pairing"]["numeric_drift"]
    assert 50 <= drift["step"] < 150
    assert drift["changed"] == f"processes {begun_with} -> {3 - begun_with}"
    assert_near(alone.run_folder(), place.run_folder())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_to_all_ranks_ends_them_with_a_checkpoint(place, paired, number):
    place.experiment(EXPERIMENT)
    ranks = Ranks(place, *WORDS)
    ranks.all[0].wait_for(": step 50/")
    workers = ranks.workers
    for rank in reversed(ranks.all):
        rank.send(number)
    finished = ranks.finish(PROMPT_SECONDS)
    assert [one.exit_code for one in finished] == [128 + number] * 2, finished
    assert f"stopped by {number.name}" in finished[0].stderr
    assert (
        "go on with: torchrun --standalone --nproc-per-node 2 -m tyro_cli train --config a.yaml"
        in finished[0].stderr
    )
    assert not any(map(is_running, workers))
    assert list(place.run_folder().glob("untied/seed-0/checkpoints/last-*"))
    assert not list(place.run_folder().glob("*/seed-0/result.json"))
    together(place, *WORDS)
    assert_same_run(place.run_folder(), paired.run_folder(), but=["command"])


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_dies_ends_the_others_within_seconds(place, running, victim):
    workers = running.workers
    kill([workers[victim]])
    finished = running.finish(PROMPT_SECONDS)
    assert [one.exit_code for one in finished] == [1, 1]
    assert not any(map(is_running, workers))
    assert "killed, perhaps for want of memory" in finished[victim].stderr
    assert "one of the 2 processes of this cell has ended" in finished[1 - victim].stderr
    for one in finished:
        assert "goes on from" in one.stderr
        assert "Traceback" not in one.stderr and "bug in wtie" not in one.stderr
    if victim == 1:  # rank 0 lived to save the last step, far from any checkpoint that was due
        saved = list(place.run_folder().glob("untied/seed-0/checkpoints/last-*"))
        assert len(saved) == 1 and records(place.run_folder())[-1]["step"] == int(saved[0].name[5:])


def test_a_rank_whose_start_died_ends_the_others(running):
    workers = running.workers
    kill([running.all[1].process.pid])
    assert running.all[0].finish(PROMPT_SECONDS).exit_code == 1
    wait_until(lambda: not any(map(is_running, workers)), "the workers end")


def test_all_ranks_save_and_end_when_torchrun_is_killed(place):
    place.experiment(ENDLESS)
    run = place.start(*ONE_ARM, under=TORCHRUN)
    run.wait_for(": step ")
    ranks = children_of(run.process.pid)
    workers = [worker for rank in ranks for worker in children_of(rank)]
    assert (len(ranks), len(workers)) == (2, 2)
    try:
        kill([run.process.pid])
        wait_until(lambda: not any(map(is_running, ranks + workers)), "all end")
        assert list(place.run_folder().glob("untied/seed-0/checkpoints/last-*"))
    finally:
        kill(ranks + workers)


def test_a_killed_rank_under_torchrun_ends_all_and_the_run_resumes(place, paired):
    place.experiment(EXPERIMENT)
    run = place.start(*WORDS, under=TORCHRUN)
    run.wait_for(": step 50/")
    ranks = children_of(run.process.pid)
    workers = [worker for rank in ranks for worker in children_of(rank)]
    kill(workers[1:])
    assert run.finish().exit_code == 1
    assert not any(map(is_running, ranks + workers))
    together(place, *WORDS)
    assert_same_run(place.run_folder(), paired.run_folder(), but=["command"])


def test_a_cell_that_diverges_does_so_in_all_ranks_and_the_next_is_trained(place):
    wild = {"optimizer": {"learning_rate": 100}}
    place.experiment(
        {
            "model.dropout": 0.0,
            "training.budget": {"steps": 60},
            "training.gradient_clip": None,
            "allow_differences": ["training.optimizer.learning_rate"],
            "arms": {"tied": {"model": {"tying": "in-out"}, "training": wild}, "untied": {}},
        }
    )
    finished = Ranks(place, *WORDS).finish()
    assert [one.exit_code for one in finished] == [1, 0], finished[0].stderr
    assert "diverged: tied seed 0" in finished[0].stderr
    assert finished[1].stderr == ""
    assert result(place.run_folder(), "untied")["status"] == "done"


def test_a_search_goes_on_from_its_trials_to_each_arms_best(place):
    grid = {"training.optimizer.learning_rate": [3e-3, 3e-2]}
    place.experiment(
        {
            "training.budget": {"steps": 12},
            "tune": {"grid": grid, "seeds": [100], "budget": {"steps": 6}},
        }
    )
    together(place, *WORDS)
    kinds = [name.split("/")[:2] for name in results(place.run_folder())]
    for arm in ("untied", "tied"):
        assert kinds.count(["trials", arm]) == 2
        assert kinds.count(["tuned", arm]) == 1


def test_a_world_that_does_not_divide_the_batch_is_a_configuration_error(place):
    finished = Ranks(place, *ONE_ARM, size=3).finish()
    assert_told(
        finished[0], 2, "WORLD_SIZE: 3 processes cannot share a batch", "--nproc-per-node 2"
    )
    assert [(one.exit_code, one.stderr) for one in finished[1:]] == [(0, "")] * 2
    assert not place.runs.exists()


@pytest.mark.parametrize(
    "words",
    [
        (*ONE_ARM, "--dry-run"),
        (*ONE_ARM, "--launcher", "ray"),
        ("sweep", "--config", "a.yaml"),
    ],
)
def test_what_one_process_does_is_refused(place, words):
    assert_told(Ranks(place, *words).finish()[0], 2, "is one process, torchrun started 2")


def test_a_cell_that_translates_is_refused():
    settings = Settings.model_validate(yaml.safe_load(TRANSLATION))
    with pytest.raises(
        ConfigurationError, match="one process trains a cell that translates, not 2"
    ) as caught:
        check_world(World(rank=0, size=2), {"none": settings}, "cpu")
    assert caught.value.remedy.startswith("leave torchrun out")


TRANSLATION = """
task: translation
data: {corpus: kjv-web, tokenizer: {kind: byte}, context_length: 8}
model: {d_model: 16, num_layers: 1, num_heads: 2}
training: {budget: {steps: 1}, batch_tokens: 32, optimizer: {learning_rate: 0.01}}
"""


def test_several_cells_at_once_are_refused(place):
    finished = Ranks(place, *WORDS, "--workers", "2").finish()[0]
    assert_told(finished, 2, "--workers 2: under torchrun", "leave --workers out")


def test_ranks_that_no_longer_agree_fail_the_cell(place):
    """A rank that computes otherwise would train a model of its own."""
    place.experiment(EXPERIMENT)
    spoil = (
        "import os, torch\n"
        "from tyro_cli.training import loop\n"
        "step = loop.Trainer._step\n"
        "def spoiled(self):\n"
        "    step(self)\n"
        "    if self.processes.rank == 1 and self.progress.step == 3:\n"
        "        with torch.no_grad():\n"
        "            next(self.model.parameters())[0, 0] += 1e-6\n"
        "loop.Trainer._step = spoiled\n"
    )
    (place.folder / "spoil").mkdir()
    (place.folder / "spoil" / "sitecustomize.py").write_text(spoil)
    path = f"{place.folder / 'spoil'}{os.pathsep}{place.environment['PYTHONPATH']}"
    place.environment["PYTHONPATH"] = path
    finished = Ranks(place, *ONE_ARM).finish()
    assert [one.exit_code for one in finished] == [1, 1]
    assert "no longer hold the same weights" in finished[0].stderr
