"""`wtie eval`, `wtie generate`, `wtie runs` and `wtie data` on a run that the command trained."""

import json
import shutil

import pytest

from tests.end_to_end.workplace import assert_told
from tests.folders import snapshot
from tyro_cli.cli.app import main


@pytest.fixture
def here(trained, monkeypatch, capsys):
    """Run commands in this process, where torch is loaded once; they must write nothing."""
    monkeypatch.chdir(trained.folder)
    monkeypatch.setenv("WTIE_CACHE", trained.environment["WTIE_CACHE"])
    before = snapshot(trained.runs)

    def run(*words):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    yield run
    assert snapshot(trained.runs) == before


def test_eval_gives_the_scores_of_the_records(here, trained):
    folder = trained.run_folder()
    scores = json.loads(here("eval", folder, "--json"))
    assert [(s["arm"], s["seed"], s["split"]) for s in scores] == [
        (arm, 0, split) for arm in ("untied", "tied") for split in ("valid", "test")
    ]
    for score in scores:
        path = folder / score["arm"] / "seed-0" / "result.json"
        recorded = json.loads(path.read_text())["evaluations"]["best"][score["split"]]
        assert score["tokens"] == recorded["tokens"]
        assert score["nats"] == pytest.approx(recorded["nats"], rel=1e-6)


def test_eval_of_another_text(here, trained):
    text = trained.folder / "corpus" / "test.txt"
    (score,) = json.loads(
        here("eval", trained.run_folder(), "--text", text, "--arm=tied", "--json")
    )
    own = json.loads(here("eval", trained.run_folder(), "--arm=tied", "--json"))[1]
    assert score["split"] == "test.txt"
    assert score["nats"] == own["nats"]
    assert "word ppl" in here("eval", trained.run_folder(), "--text", text)


def test_generate_draws_one_text_for_one_random_seed(here, trained):
    def text(*words):
        return here(
            "generate", trained.run_folder(), "--prompt", "ba", "--max-tokens", "40", *words
        )

    assert text("--random-seed", "3") == text("--random-seed", "3")
    assert text("--random-seed", "3") != text("--random-seed", "4")
    assert text("--arm", "tied") != text("--arm", "untied")
    assert text("--temperature", "0", "--random-seed", "3") == text("--temperature", "0")


def test_runs_and_data_show_the_run(here, trained):
    (run,) = json.loads(here("runs", "ls", "--json"))
    assert run["name"] == trained.run_folder().name
    assert run["seeds_done"] == run["seeds_planned"] == 1
    shown = json.loads(here("runs", "show", trained.run_folder(), "--json"))
    assert [cell["status"] for cell in shown["cells"]] == ["done", "done"]
    assert "4,112" not in here("runs", "ls")
    assert "tied" in here("runs", "show", trained.run_folder())


@pytest.mark.slow
def test_a_cell_that_is_not_there(trained):
    before = snapshot(trained.runs)
    for words in (("eval",), ("generate", "--prompt", "ba")):
        refused = trained.wtie(words[0], trained.run_folder(), *words[1:], "--seed", "99")
        assert_told(refused, 5, "no finished cell")
    assert snapshot(trained.runs) == before


@pytest.mark.slow
def test_eval_refuses_a_corpus_that_has_changed(place):
    assert place.train().exit_code == 0
    (place.folder / "corpus" / "test.txt").write_text("another text\n", encoding="utf-8")
    before = snapshot(place.runs)
    refused = place.wtie("eval", place.run_folder())
    assert_told(refused, 2, "corpus: its text", "is not the one that", "--text FILE")
    assert snapshot(place.runs) == before


@pytest.mark.slow
def test_checkpoints_that_lie_in_a_storage_are_asked_for_by_its_name(trained, tmp_path):
    run = tmp_path / "copy"
    ignored = shutil.ignore_patterns("checkpoints")
    shutil.copytree(trained.run_folder(), run, ignore=ignored)
    assert_told(trained.wtie("eval", run), 1, "no usable best checkpoint", "train the cell again")
    record = run / "untied" / "seed-0" / "storage.json"
    record.write_text('{"folder": "/elsewhere/seed-0-1"}')
    told = trained.wtie("eval", run)
    assert_told(told, 1, f"{record} names the folder that holds them: copy its `checkpoints`")
