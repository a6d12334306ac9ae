"""The report of a run, and of a study, whose experiment has a search."""

from tests.analysis.fake_runs import make_run
from tests.analysis.fake_searches import TUNED, add_search, shared_values
from tests.reporting.fake_studies import make_study
from tests.reporting.pages import parse
from tyro_cli.reporting.folders import read_report


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


def test_a_run_without_a_search_says_nothing_of_one(run_report):
    assert "at its best" not in parse(run_report.html).all("main")[0].text()


def test_a_study_shows_each_arms_best_at_every_point(tmp_path):
    study = make_study(tmp_path)
    for folder in tmp_path.glob("*/resolved.yaml"):
        add_search(folder.parent, tuned=TUNED)
    text = parse(read_report(study).html).all("main")[0].text()
    assert "with each arm at its best" in text
    assert text.count("Trials of tiny") == len(list(tmp_path.glob("*/resolved.yaml")))
