"""The main job: train, train again, extend; and what the tables say of the tie."""

import json

import pytest

from tests.end_to_end.workplace import results
from tests.folders import snapshot

V, D = 257, 16


def test_training_says_what_it_does_and_leaves_the_run(trained):
    assert "training 2 of 2 cells" in trained.first.stderr
    assert "Verdict on tied against untied: one pair" in trained.first.stdout
    folder = trained.run_folder()
    assert sorted(path.name for path in (folder / "tables").iterdir()) == sorted(
        f"{table}.{kind}"
        for table in ("parameters", "perplexity", "contrasts", "performance")
        for kind in ("md", "csv", "json", "tex")
    )
    for cell in ("untied/seed-0", "tied/seed-0"):
        assert {path.name for path in (folder / cell).iterdir()} == {
            "checkpoints",
            "documents.npz",
            "log.txt",
            "metrics.jsonl",
            "performance.json",
            "result.json",
        }


def test_the_same_command_again_trains_nothing_and_prints_the_same(trained):
    before = snapshot(trained.run_folder())
    again = trained.train()
    assert again.exit_code == 0
    assert "all 2 cells were trained before; nothing to do" in again.stderr
    assert again.stdout == trained.first.stdout
    after = snapshot(trained.run_folder())
    assert {name: sha for name, (sha, _) in after.items()} == {
        name: sha for name, (sha, _) in before.items()
    }
    assert {n: v for n, v in after.items() if not n.startswith("tables/")} == {
        n: v for n, v in before.items() if not n.startswith("tables/")
    }


def test_arms_that_differ_in_the_tie_alone_differ_by_v_times_d(trained):
    folder = trained.run_folder()
    record = json.loads(trained.wtie("compare", "--json").stdout)
    rows = {row["quantity"]: row for row in record["tables"]["parameters"]["rows"]}
    assert rows["total"]["difference tied"] == rows["head"]["difference tied"] == -V * D
    assert rows["non-embedding"]["difference tied"] == 0
    assert f"untied - tied = {V * D:,} parameters, exactly V x d = {V} x {D}" in (
        trained.first.stdout
    )
    totals = {
        arm: json.loads((folder / arm / "seed-0" / "result.json").read_text())["parameters"]
        for arm in ("untied", "tied")
    }
    for key in ("total", "unique_storage"):
        assert totals["untied"][key] - totals["tied"][key] == V * D
    for kind in ("md", "csv", "json", "tex"):
        text = (folder / "tables" / f"parameters.{kind}").read_text().replace("{,}", ",")
        assert f"{V * D:,}" in text or str(V * D) in text


@pytest.mark.slow
def test_a_new_seed_and_a_new_arm_extend_the_run_and_retrain_nothing(trained_copy):
    place = trained_copy
    first = results(place.run_folder())

    more_seeds = place.train("--seeds", "0-1", "--json")
    assert more_seeds.exit_code == 0
    assert json.loads(more_seeds.stdout)["trained_cells"] == 2
    second = results(place.run_folder())
    assert len(second) == 4
    assert {name: second[name] for name in first} == first

    place.experiment(
        {
            "seeds": [0, 1],
            "arms.wide": {
                "model": {"tying": "in-out"},
                "match": {"parameters_of": "untied", "by": "d_ff"},
            },
        }
    )
    more_arms = place.train("--json")
    assert more_arms.exit_code == 0
    assert json.loads(more_arms.stdout)["trained_cells"] == 2
    third = results(place.run_folder())
    assert len(third) == 6
    assert {name: third[name] for name in second} == second
    assert set(json.loads(more_arms.stdout)["verdicts"]) == {"tied", "wide"}
    again = place.train("--json")
    assert json.loads(again.stdout)["trained_cells"] == 0
    assert results(place.run_folder()) == third


@pytest.mark.slow
def test_only_the_arms_asked_for_are_trained(place):
    alone = place.train("--arms", "tied", "--json")
    assert alone.exit_code == 0
    assert list(results(place.run_folder())) == ["tied/seed-0/result.json"]
    both = place.train("--json")
    assert json.loads(both.stdout)["trained_cells"] == 1
    assert "one pair" in json.loads(both.stdout)["verdicts"]["tied"]["text"]


@pytest.mark.slow
def test_fresh_moves_the_old_run_aside(trained_copy):
    place = trained_copy
    folder = place.run_folder()
    before = snapshot(folder)
    assert place.train("--fresh").exit_code == 0
    aside = folder.with_name(f"{folder.name}.old-1")
    assert snapshot(aside) == before
    assert results(folder).keys() == results(aside).keys()
    assert results(folder) != results(aside)


@pytest.mark.slow
def test_the_same_data_elsewhere_is_the_same_run_and_other_data_is_not(trained_copy):
    place = trained_copy
    (place.folder / "corpus").rename(place.folder / "moved")
    moved = place.train("data.corpus=moved", "--json")
    assert json.loads(moved.stdout)["trained_cells"] == 0
    with (place.folder / "moved" / "train.txt").open("a", encoding="utf-8") as file:
        file.write("one more document\n")
    changed = place.train("data.corpus=moved", "--json")
    assert json.loads(changed.stdout)["trained_cells"] == 2
    assert len([path for path in place.runs.iterdir() if path.is_dir()]) == 2
