"""The report of a run, and of a study, whose experiment has a search."""

import json

from tests.analysis.fake_runs import edit_json, make_run
from tests.analysis.fake_searches import DIVERGED, TRIALS, TUNED, add_search, shared_values
from tests.reporting.fake_grids import make_grid
from tests.reporting.pages import parse
from tyro_cli.analysis.records import load_run
from tyro_cli.reporting.folders import read_report
from tyro_cli.reporting.run_page import run_page


def test_a_run_shows_its_trials_and_each_arm_at_its_best(tmp_path):
    folder = add_search(make_run(tmp_path, nats_per_word=shared_values()))
    page = parse(read_report(folder).html)
    assert "Each arm at its best" in [one.text() for one in page.all("h2")]
    main = page.all("main")[0]
    verdict = main.children[0].text()
    assert "each arm at its best" in verdict
    assert "untied better; the sign does not survive" in verdict
    text = main.text()
    for part in (
        "Trials of tiny",
        "learning_rate highest",
        "The sign does not survive: tied - untied is -0.0450 nats per word",
        "On the edge of the grid: 0.004 is the highest",
    ):
        assert part in text


def test_a_forced_page_shows_each_arm_at_its_best_too(tmp_path):
    folder = add_search(make_run(tmp_path, nats_per_word=shared_values()))
    for path in folder.rglob("tied/*/result.json"):
        edit_json(path, other_stride)
    text = parse(read_report(folder, force=True).html).all("main")[0].text()
    assert "Forced: " in text


def other_stride(record):
    for metrics in record["signatures"].values():
        for metric in metrics:
            metrics[metric] = metrics[metric].replace("stride:4", "stride:8")


def test_a_run_without_a_search_says_nothing_of_one(run_report):
    assert "at its best" not in parse(run_report.html).all("main")[0].text()


def test_a_study_shows_each_arms_best_at_every_point(tmp_path):
    study = make_grid(tmp_path)
    for folder in tmp_path.glob("*/resolved.yaml"):
        add_search(folder.parent, tuned=TUNED)
    text = parse(read_report(study).html).all("main")[0].text()
    assert "with each arm at its best" in text
    assert text.count("Trials of tiny") == len(list(tmp_path.glob("*/resolved.yaml")))


def chart_of(folder):
    charts = {chart.name: chart for chart in run_page(load_run(folder)).charts()}
    return charts.get("trials")


def test_the_chart_of_trials_has_every_mean_and_marks_each_arms_best(tmp_path):
    chart = chart_of(add_search(make_run(tmp_path, nats_per_word=shared_values())))
    rows = {(row["arm"], row["setting"]): row for row in chart.data.rows}
    assert len(rows) == len(TRIALS)
    best = [key for key, row in rows.items() if row["best"]]
    assert best == [("untied", "learning_rate 0.004"), ("tied", "learning_rate 0.002")]
    assert "untied, learning_rate 0.004: 2.9988 nats per token, the best" in chart.description
    assert len(json.dumps(chart.narrow).split("the best")) == 3


def test_a_trial_that_is_not_done_leaves_a_gap_in_the_chart(tmp_path):
    trials = {**TRIALS, ("tied", 0.001): DIVERGED}
    chart = chart_of(add_search(make_run(tmp_path, nats_per_word=shared_values()), trials))
    assert [row["setting"] for row in chart.data.rows if row["arm"] == "tied"] == [
        "learning_rate 0.002",
        "learning_rate 0.004",
    ]


def test_without_a_finished_trial_there_is_no_chart(tmp_path):
    folder = make_run(tmp_path, nats_per_word=shared_values())
    assert chart_of(add_search(folder, dict.fromkeys(TRIALS), {})) is None
