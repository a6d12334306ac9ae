"""A search with real workers: stopped in the middle and resumed, and every reader of its run."""

import json
import signal

import pytest

from tests.end_to_end.workplace import Workplace, assert_same_run, results
from tests.folders import digests
from tyro_cli.storage.files import read_json

pytestmark = pytest.mark.slow

SEARCH = {
    "training.budget": {"steps": 12},
    "tune": {
        "grid": {"training.optimizer.learning_rate": [3e-3, 3e-2]},
        "seeds": [100],
        "budget": {"steps": 6},
    },
}
WORDS = ("train", "--config", "a.yaml", "--threads", "1", "--workers", "2")


@pytest.fixture(scope="module")
def searched(tmp_path_factory, shared_cache):
    """A run with a search, trained in one go."""
    place = Workplace(tmp_path_factory.mktemp("searched"), shared_cache)
    place.experiment(SEARCH)
    place.first = place.wtie(*WORDS)
    assert place.first.exit_code == 0, place.first.stderr
    return place


def test_every_arm_has_its_trials_and_its_best(searched):
    trained = results(searched.run_folder())
    kinds = [name.split("/")[:2] for name in trained]
    for arm in ("untied", "tied"):
        assert kinds.count(["trials", arm]) == 2
        assert kinds.count(["tuned", arm]) == 1
    assert len(trained) == 8
    for name in trained:
        evaluations = read_json(searched.run_folder() / name)["evaluations"]
        for at in ("best", "last"):
            assert ("test" in evaluations[at]) != name.startswith("trials/"), name
    assert "each arm at its best: one pair" in searched.first.stdout


@pytest.mark.parametrize("moment", [": step 6/6", ": started", "cells, 2 at a time"])
def test_stopped_and_started_again_it_is_the_run_that_was_never_stopped(place, searched, moment):
    place.experiment(SEARCH)
    started = place.start(*WORDS)
    # The second round's first line is the second of its kind.
    started.wait_for(moment, times=2)
    started.send(signal.SIGINT)
    assert started.finish().exit_code in (0, 130)
    again = place.wtie(*WORDS)
    assert again.exit_code == 0, again.stderr
    assert_same_run(place.run_folder(), searched.run_folder())
    tables = [digests(run.run_folder() / "tables") for run in (place, searched)]
    for name in tables[0]:
        assert name.startswith("performance") or tables[0][name] == tables[1][name]


def test_a_trained_cell_is_the_one_that_an_experiment_at_that_rate_trains(place, searched):
    """What a search finds is reproduced by writing its rate into the file."""
    place.experiment({"training.optimizer.learning_rate": 3e-2})
    assert place.wtie(*WORDS).exit_code == 0
    for arm in ("untied", "tied"):
        (tuned,) = searched.run_folder().glob(f"tuned/{arm}/*/seed-0/result.json")
        alone = place.run_folder() / arm / "seed-0" / "result.json"
        assert json.loads(tuned.read_text()) == json.loads(alone.read_text())


def test_the_run_verifies_and_its_cells_can_be_used(searched):
    folder = searched.run_folder()
    verified = searched.wtie("runs", "verify", folder)
    assert verified.exit_code == 0
    assert "8 cells (8 done)" in verified.stdout
    scored = json.loads(searched.wtie("eval", folder, "--json").stdout)
    assert {row["arm"] for row in scored} == {"untied", "tied"}
