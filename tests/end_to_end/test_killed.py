"""Killed at random moments and started again until done: the bytes of an uninterrupted run."""

import random
import time

import pytest

from tests.end_to_end.workplace import (
    Workplace,
    assert_same_run,
    children_of,
    is_running,
    kill,
    wait_until,
)

pytestmark = pytest.mark.slow

# A checkpoint at every step: most moments are in the middle of a write.
EXPERIMENT = {
    "training.budget": {"steps": 60},
    "training.checkpoint_every_steps": 1,
    "evaluation.every_steps": 5,
}
WORDS = ("train", "--config", "a.yaml", "--threads", "1", "--workers", "2")
MOST_STARTS = 12


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, shared_cache):
    """Train the experiment in one go."""
    place = Workplace(tmp_path_factory.mktemp("uninterrupted"), shared_cache)
    place.experiment(EXPERIMENT)
    place.first = place.wtie(*WORDS)
    assert place.first.exit_code == 0, place.first.stderr
    return place


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_and_started_again_gives_the_same_bytes(place, uninterrupted, seed):
    """Some starts lose everything, some the parent alone, some one worker."""
    generator = random.Random(seed)
    place.experiment(EXPERIMENT)
    for victims in ("all", "parent", "worker", "all"):
        run = place.start(*WORDS)
        # From before the folder exists to the last steps.
        mark = generator.choice(["", ": started", ": step ", ": step ", ": step "])
        if mark:
            run.wait_for(mark, times=generator.randint(1, 3))
        time.sleep(generator.uniform(0.0, 0.5))
        workers = children_of(run.process.pid)
        if victims == "worker" and workers:
            kill([generator.choice(workers)])
            finished = run.finish()
            assert finished.exit_code in (0, 1)  # it may have been done
            assert "Traceback" not in finished.stderr
        else:
            kill([run.process.pid] + (workers if victims == "all" else []))
            run.process.wait()
    for _ in range(MOST_STARTS):
        last = place.wtie(*WORDS)
        if last.exit_code == 0:
            break
        assert "in use by process" in last.stderr  # a worker that has not yet seen its parent die
    assert last.exit_code == 0, last.stderr
    assert_same_run(place.run_folder(), uninterrupted.run_folder())
    again = place.wtie(*WORDS)
    assert (again.exit_code, again.stdout) == (0, last.stdout)
    left = [path.name for path in place.runs.rglob("*") if ".tmp-" in path.name]
    assert left == []


@pytest.mark.parametrize("mark", [": started", ": step "])
def test_workers_end_by_themselves_when_their_parent_is_killed(place, mark):
    place.experiment({"training.budget": {"steps": 100_000}, "evaluation.every_steps": 20})
    run = place.start(*WORDS)
    run.wait_for(mark, times=2)
    workers = children_of(run.process.pid)
    try:
        assert len(workers) == 2
        kill([run.process.pid])
        run.process.wait()
        wait_until(lambda: not any(map(is_running, workers)), "the workers end", 30)
    finally:
        kill(workers)


def test_a_killed_worker_is_named_and_the_other_cell_is_trained(place):
    place.experiment({"training.budget": {"steps": 40}})
    run = place.start(*WORDS)
    run.wait_for("tied/seed-0: started", times=2)
    killed = children_of(run.process.pid)[-1]
    kill([killed])
    finished = run.finish()
    assert finished.exit_code == 1
    assert "killed" in finished.stderr
    assert "goes on from the last checkpoint" in finished.stderr
    assert finished.stderr.count("failed: ") >= 1
    assert len(list(place.run_folder().glob("*/seed-0/result.json"))) == 1
    assert place.wtie(*WORDS).exit_code == 0
