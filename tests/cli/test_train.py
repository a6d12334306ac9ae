"""`wtie train` between its words and its records; training itself is tested where it lives."""

import json
from pathlib import Path

import pytest

from tests.analysis.fake_runs import diverge, make_run
from tyro_cli.experiments import dry_run as experiments_dry_run
from tyro_cli.experiments import run as experiments_run


@pytest.fixture
def trained(in_empty_folder, monkeypatch, repository):
    """Let training return a run written by hand, and keep what was asked of it."""
    asked = []
    Path("a.yaml").write_text((repository / "configs" / "quickstart.yaml").read_text())

    def prepare(*, failed=(), trained_cells=6, **changes):
        folder = make_run(in_empty_folder, **changes)

        def train_experiment(request, world):
            asked.append(request)
            request.console.print("untied/seed-0: started")
            return experiments_run.TrainOutcome(folder, trained_cells, 6, tuple(failed))

        monkeypatch.setattr(experiments_run, "train_experiment", train_experiment)
        return folder, asked

    return prepare


def test_tables_go_to_stdout_and_to_files_and_progress_to_stderr(wtie, trained):
    folder, _ = trained()
    result = wtie("train", "--config", "a.yaml")
    assert result.exit_code == 0
    assert result.stdout.endswith(
        "Verdict on tied against untied: tied better; 976 parameters fewer (18.3%)\n"
    )
    assert result.stderr == "untied/seed-0: started\n"
    assert len(list((folder / "tables").iterdir())) == 4 * 4


def test_words_become_a_request(wtie, trained):
    _, asked = trained()
    words = ("--seeds", "0-2,5", "--arms", "tied,untied", "--workers", "3", "--fresh", "name=other")
    wtie("train", "--config", "a.yaml", *words)
    (request,) = asked
    assert request.seeds == (0, 1, 2, 5)
    assert request.arms == ("tied", "untied")
    assert request.workers == 3
    assert request.threads is None
    assert request.fresh is True
    assert request.loaded.experiment.name == "other"


def test_nothing_to_do_is_said(wtie, trained):
    trained(trained_cells=0)
    result = wtie("train", "--config", "a.yaml")
    assert result.exit_code == 0
    assert "all 6 cells were trained before; nothing to do" in result.stderr


def test_json_is_one_document(wtie, trained):
    trained()
    record = json.loads(wtie("train", "--config", "a.yaml", "--json").stdout)
    assert record["trained_cells"] == 6
    assert record["verdicts"]["tied"]["kind"] == "better"


def test_a_failed_cell_is_named_and_exits_1(wtie, trained):
    trained(failed=["tied/seed-2: broken arm"])
    result = wtie("train", "--config", "a.yaml")
    assert result.exit_code == 1
    assert "failed: tied/seed-2: broken arm" in result.stderr


def test_a_diverged_cell_exits_1_every_time(wtie, trained):
    trained(trained_cells=0, edit=lambda r: diverge(r) if r["seed"] == 1 else None)
    result = wtie("train", "--config", "a.yaml")
    assert result.exit_code == 1
    assert "diverged: tied seed 1" in result.stderr
    assert "withheld" in result.stdout


def test_without_a_single_result_there_are_no_tables(wtie, trained):
    plans = [{"seeds": [0], "arms": ["untied", "tied"], "after_results": False}]
    folder, _ = trained(nats_per_word={}, plans=plans, failed=["untied/seed-0: killed"])
    result = wtie("train", "--config", "a.yaml")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert not (folder / "tables").exists()


def test_dry_run_trains_nothing(wtie, trained, monkeypatch):
    _, asked = trained()
    plan = experiments_dry_run.DryRun(("run folder  runs/x", "cells  6"), {"missing_cells": 6})
    monkeypatch.setattr(experiments_dry_run, "dry_run", lambda request: plan)
    assert wtie("train", "--dry-run", "--config", "a.yaml").stdout == (
        "run folder  runs/x\ncells  6\n"
    )
    record = json.loads(wtie("train", "--dry-run", "--config", "a.yaml", "--json").stdout)
    assert record == {"missing_cells": 6}
    assert asked == []
