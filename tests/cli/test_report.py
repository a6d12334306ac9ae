"""`wtie report`: where the page goes, and what every refusal says."""

import json
import sys

import pytest

from tests.analysis.fake_runs import NATS_PER_WORD, edit_json, make_run
from tests.reporting.fake_grids import make_grid


@pytest.fixture
def root(in_empty_folder):
    (in_empty_folder / "runs").mkdir()
    return in_empty_folder / "runs"


@pytest.fixture
def run(root):
    return make_run(root)


def test_a_page_of_a_run(wtie, run):
    result = wtie("report", "runs/tiny-0123abcd")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout == (
        "wrote runs/tiny-0123abcd/report.html and 7 charts in runs/tiny-0123abcd/plots\n"
    )
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert len(list((run / "plots").iterdir())) == 21


def test_a_page_of_a_study_and_one_of_its_runs(wtie, root):
    folder = make_grid(root, factors={"data": [0.5, 1.0]})
    result = wtie("report", folder, root / "point-0", "--json")
    assert result.exit_code == 0
    study, run = json.loads(result.stdout)
    assert study["page"].endswith("grid-0123abcd/report.html")
    assert run["page"].endswith("point-0/report.html")
    assert (folder / "report.html").is_file()


def test_a_page_elsewhere(wtie, run, in_empty_folder):
    (in_empty_folder / "site").mkdir()
    assert wtie("report", run, "-o", "site/page.html").exit_code == 0
    assert (in_empty_folder / "site" / "page-plots" / "seeds.svg").is_file()
    assert not (run / "report.html").exists()


def test_without_records_of_training_the_page_says_so(wtie, run):
    for path in run.rglob("metrics.jsonl"):
        path.unlink()
    assert wtie("report", run).exit_code == 0
    assert "There are no learning curves" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message", "fix"),
    [
        (
            ["runs"],
            "runs is neither a run nor a study, and holds no study that makes a claim",
            "wtie train",
        ),
        (["nowhere"], "nowhere is neither a run nor a study", "wtie sweep"),
        (
            ["runs/tiny-0123abcd", "-o", "missing/page.html"],
            "--output missing/page.html: there is no folder missing",
            "mkdir -p missing",
        ),
        (["runs/tiny-0123abcd", "-o", "runs"], "--output runs is a folder", "runs/report.html"),
        (["runs/tiny-0123abcd", "-o", "."], "--output . is a folder", "report.html"),
        (
            ["runs/tiny-0123abcd", "-o", "runs/tiny-0123abcd/manifest.json"],
            "--output runs/tiny-0123abcd/manifest.json is no name of a page",
            "manifest.html",
        ),
        (
            ["runs/tiny-0123abcd", "runs/tiny-0123abcd", "-o", "page.html"],
            "--output names one file for 2 pages",
            "report.html",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(wtie, run, words, message, fix):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    result = wtie("report", *words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert fix in result.stderr.splitlines()[-1]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["manifest.json", "tied/seed-1/result.json"])
def test_a_damaged_record_is_named(wtie, run, name):
    (run / name).write_text("{")
    result = wtie("report", run)
    assert result.exit_code == 1
    assert name in result.stderr
    assert not (run / "report.html").exists()


def test_a_damaged_record_of_training_is_named(wtie, run):
    path = run / "tied" / "seed-1" / "metrics.jsonl"
    path.write_text("nonsense\n" + path.read_text())
    result = wtie("report", run)
    assert result.exit_code == 1
    assert "tied/seed-1/metrics.jsonl: line 1 is damaged" in result.stderr


def test_a_run_without_a_finished_cell_has_no_page(wtie, root):
    plans = [{"seeds": [0, 1], "arms": ["untied", "tied"]}]
    run = make_run(root, nats_per_word={}, plans=plans)
    result = wtie("report", run)
    assert result.exit_code == 5
    assert "none of its 4 cells is finished" in result.stderr


def test_an_unfinished_run_has_a_page_that_says_what_is_missing(wtie, root):
    nats = {cell: value for cell, value in NATS_PER_WORD.items() if cell != ("tied", 2)}
    run = make_run(root, nats_per_word=nats)
    assert wtie("report", run).exit_code == 0
    assert "1 of 6 cells unfinished: tied seed 2." in (run / "report.html").read_text()


def test_other_signatures_need_force(wtie, run):
    def other_stride(content):
        for split in content["signatures"].values():
            for metric in split:
                split[metric] = split[metric].replace("stride:4", "stride:8")

    for path in (run / "tied").rglob("result.json"):
        edit_json(path, other_stride)
    result = wtie("report", run)
    assert result.exit_code == 2
    assert "stride" in result.stderr
    assert wtie("report", run, "--force").exit_code == 0
    assert "Forced: " in (run / "report.html").read_text()


def test_a_missing_renderer_is_named_with_its_extra(wtie, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    result = wtie("report", run)
    assert result.exit_code == 2
    assert "vl-convert-python, which is not installed" in result.stderr
    assert "the extra `report`" in result.stderr


def test_help_text(wtie, golden):
    golden("report-help.txt", wtie("report", "--help").stdout)
