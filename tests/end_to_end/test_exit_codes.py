"""The exit codes that other programs rely on: 0, 1, 2, 3 and 5 of `train` and `compare`."""

import json
import shutil

import pytest

from tests.end_to_end.workplace import Workplace, assert_told, results
from tests.folders import snapshot

# The largest rate that the configuration takes, and no clip: not finite after a few steps.
DIVERGING = {
    "model.dropout": 0.0,
    "training.budget": {"steps": 60},
    "training.gradient_clip": None,
    "allow_differences": ["training.optimizer.learning_rate"],
    "arms.tied.training": {"optimizer": {"learning_rate": 100}},
}


@pytest.fixture(scope="module")
def diverged(tmp_path_factory, shared_cache):
    """Train a run whose tied arm diverges."""
    place = Workplace(tmp_path_factory.mktemp("diverged"), shared_cache)
    place.experiment(DIVERGING)
    place.first = place.train()
    return place


def test_a_trained_run_compares_with_0_and_its_gates_know_one_pair(trained):
    assert trained.wtie("compare", "--fail-if", "worse").exit_code == 0
    gate = trained.wtie("compare", "--fail-if", "not-shown")
    assert gate.exit_code == 3
    assert "--fail-if not-shown: " in gate.stderr
    assert "one pair: no interval over seeds" in gate.stderr
    assert "Verdict on tied against untied" in gate.stdout


def test_nothing_matched_is_5(place):
    assert_told(place.wtie("compare"), 5, "runs holds no run", "wtie train --config")
    assert not place.runs.exists()


@pytest.mark.slow
def test_a_diverged_cell_is_1_and_stands_in_every_table(diverged):
    assert diverged.first.exit_code == 1
    assert "diverged: tied seed 0" in diverged.first.stderr
    assert "Traceback" not in diverged.first.stderr
    assert "withheld: 1 of 1 pairs diverged" in diverged.first.stdout
    folder = diverged.run_folder()
    result = json.loads((folder / "tied" / "seed-0" / "result.json").read_text())
    assert result["status"] == "diverged"
    assert result["diverged"]["step"] > 1
    assert len(result["diverged"]["batch_sha256"]) == 64
    for table in ("perplexity", "contrasts", "performance"):
        for kind in ("md", "csv", "json", "tex"):
            text = (folder / "tables" / f"{table}.{kind}").read_text()
            assert "diverged" in text, f"{table}.{kind}"


@pytest.mark.slow
def test_a_diverged_cell_is_not_trained_again_and_still_1(diverged):
    before = results(diverged.run_folder())
    again = diverged.train()
    assert again.exit_code == 1
    assert again.stdout == diverged.first.stdout
    assert "training" not in again.stderr.partition("diverged: tied seed 0")[0]
    assert results(diverged.run_folder()) == before


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["worse", "not-shown"])
def test_a_withheld_verdict_closes_both_gates(diverged, gate):
    closed = diverged.wtie("compare", "--fail-if", gate)
    assert closed.exit_code == 3
    assert "withheld" in closed.stderr
    assert diverged.wtie("compare").exit_code == 0


@pytest.mark.slow
def test_fresh_trains_a_diverged_cell_again(diverged, place):
    place.experiment(DIVERGING)
    shutil.copytree(diverged.runs, place.runs)
    first = results(place.run_folder())
    fresh = place.train("--fresh", "--json")
    assert fresh.exit_code == 1
    assert json.loads(fresh.stdout)["diverged"] == ["tied seed 0"]
    folders = sorted(path for path in place.runs.iterdir() if path.is_dir())
    assert [path.name.partition(".")[2] for path in folders] == ["", "old-1"]
    assert results(folders[1]) == first
    assert results(folders[0]).keys() == first.keys()
    assert not set(results(folders[0]).values()) & set(first.values())


@pytest.mark.slow
def test_gates_open_and_close_on_a_verdict_over_seeds(place):
    """An arm that learns a hundred times more slowly is worse beyond doubt."""
    place.experiment(
        {
            "seeds": [0, 1, 2],
            "allow_differences": ["training.optimizer.learning_rate"],
            "arms": {
                "quick": {},
                "slow": {"training": {"optimizer": {"learning_rate": 1e-4}}},
            },
            "baseline": "quick",
        }
    )
    assert place.train().exit_code == 0
    worse = place.wtie("compare", "--fail-if", "worse")
    assert worse.exit_code == 3
    assert "quick better" in worse.stderr
    better = place.wtie("compare", "--baseline", "slow", "--fail-if", "not-shown")
    assert better.exit_code == 0, better.stderr
    assert "quick better" in better.stdout


@pytest.mark.slow
def test_unfinished_cells_are_named_and_a_run_without_any_result_is_5(trained, place):
    folder = place.runs / trained.run_folder().name
    shutil.copytree(trained.run_folder(), folder)
    (folder / "tied" / "seed-0" / "result.json").unlink()
    before = snapshot(place.runs)
    half = place.wtie("compare")
    assert half.exit_code == 0
    assert "1 of 2 cells" in half.stderr
    assert "tied seed 0" in half.stderr
    assert place.wtie("compare", "--fail-if", "worse").exit_code == 3
    (folder / "untied" / "seed-0" / "result.json").unlink()
    before = snapshot(place.runs)
    assert_told(place.wtie("compare"), 5, "none of its 2 cells is finished", "wtie train")
    assert snapshot(place.runs) == before
