"""`wtie compare` and `wtie runs`, from records written by hand: formats, gates, refusals."""

import csv
import io
import json
from dataclasses import replace

import pytest

from tests.analysis.fake_claims import claim, finding
from tests.analysis.fake_runs import NATS_PER_WORD, diverge, edit_json, make_run, values
from tests.analysis.fake_studies import make_study
from tyro_cli.analysis.verdicts import Verdict
from tyro_cli.cli.compare import closed_by


@pytest.fixture
def root(in_empty_folder):
    (in_empty_folder / "runs").mkdir()
    return in_empty_folder / "runs"


@pytest.fixture
def run(root):
    return make_run(root)


def swapped() -> dict[tuple[str, int], float]:
    """The same numbers with the arms exchanged: the baseline is better."""
    other = {"tied": "untied", "untied": "tied"}
    return {(arm, seed): NATS_PER_WORD[other[arm], seed] for arm, seed in NATS_PER_WORD}


def test_the_newest_run_is_compared_and_the_verdict_comes_last(wtie, run):
    result = wtie("compare")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.splitlines()[-2:] == [
        "run: runs/tiny-0123abcd",
        "Verdict on tied against untied: tied better; 976 parameters fewer (18.3%)",
    ]
    for title in ("Parameters of tiny", "Perplexity of tiny", "Contrasts of tiny", "Performance"):
        assert title in result.stdout


@pytest.mark.parametrize("columns", [80, 120])
def test_every_number_is_readable_at_the_terminals_width(wtie, run, columns):
    result = wtie("compare", columns=columns)
    tables = [line for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert max(map(len, tables)) <= columns
    assert "3/3 identical start" in " ".join(result.stdout.split())


def test_json_is_one_document(wtie, run):
    record = json.loads(wtie("compare", "--json").stdout)
    assert record["verdicts"]["tied"]["kind"] == "better"
    assert list(record["tables"]) == ["parameters", "perplexity", "contrasts", "performance"]
    assert json.loads(wtie("compare", "--format", "json").stdout) == record


def test_csv_of_one_table_is_csv(wtie, run):
    result = wtie("compare", run, "--format", "csv", "--table", "contrasts")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {row["arm"] for row in rows} == {"tied"}
    assert float(rows[0]["mean"]) == pytest.approx(-0.125 / 3)


def test_several_formats_follow_each_other(wtie, run):
    one, other = (wtie("compare", "--format", name).stdout for name in ("md", "tex"))
    assert wtie("compare", "--format", "md,tex").stdout == f"{one}\n{other}"
    assert wtie("compare", "--format", "md,xml").exit_code == 2


@pytest.mark.parametrize(
    ("format_", "text"), [("md", "## Contrasts of tiny"), ("tex", "\\begin{tabular}")]
)
def test_formats(wtie, run, format_, text):
    result = wtie("compare", "--format", format_)
    assert result.exit_code == 0
    assert text in result.stdout


def test_nothing_is_written(wtie, run):
    before = sorted(run.rglob("*"))
    wtie("compare", "--format", "md")
    assert sorted(run.rglob("*")) == before


def test_no_run_at_all(wtie, in_empty_folder):
    result = wtie("compare")
    assert result.exit_code == 5
    assert "runs holds no run" in result.stderr


def test_a_folder_that_is_no_run(wtie, root):
    assert wtie("compare", root).exit_code == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--baseline", "nobody"), 5),
        (("--metric", "bleu"), 2),
        (("--table", "everything"), 2),
    ],
)
def test_what_the_run_does_not_have(wtie, run, words, code):
    result = wtie("compare", *words)
    assert result.exit_code == code
    assert result.stdout == ""


def test_another_baseline_turns_the_verdict(wtie, run):
    result = wtie("compare", "--baseline", "tied", "--fail-if", "worse")
    assert "Verdict on untied against tied: tied better" in result.stdout
    assert result.exit_code == 3


def test_gate_passes_a_better_arm(wtie, run):
    assert wtie("compare", "--fail-if", "worse").exit_code == 0
    assert wtie("compare", "--fail-if", "not-shown").exit_code == 0


def test_gate_closes_on_a_worse_arm_and_still_prints(wtie, root):
    make_run(root, nats_per_word=swapped())
    result = wtie("compare", "--fail-if", "worse")
    assert result.exit_code == 3
    assert "Verdict on tied against untied: untied better" in result.stdout
    assert result.stderr.startswith("error: --fail-if worse: tiny-0123abcd: tied against untied")


def test_gate_closes_on_a_diverged_pair(wtie, root):
    def edit(record):
        if (record["arm"], record["seed"]) == ("tied", 1):
            diverge(record)

    make_run(root, edit=edit)
    result = wtie("compare", "--fail-if", "worse")
    assert result.exit_code == 3
    assert "withheld: 1 of 3 pairs diverged" in result.stderr


def test_one_pair_closes_only_the_stricter_gate(wtie, root):
    one = {cell: value for cell, value in NATS_PER_WORD.items() if cell[1] == 0}
    make_run(root, nats_per_word=one)
    assert wtie("compare", "--fail-if", "worse").exit_code == 0
    assert wtie("compare", "--fail-if", "not-shown").exit_code == 3


def test_unfinished_cells_are_named_and_close_a_gate(wtie, root):
    done = {cell: value for cell, value in NATS_PER_WORD.items() if cell != ("tied", 2)}
    make_run(root, nats_per_word=done)
    result = wtie("compare", "--fail-if", "worse")
    assert result.exit_code == 3
    assert "1 of 6 cells of tiny-0123abcd are unfinished (tied seed 2)" in result.stderr


def test_a_run_without_a_finished_cell(wtie, root):
    plans = [{"seeds": [0], "arms": ["untied", "tied"], "after_results": False}]
    make_run(root, nats_per_word={}, plans=plans)
    result = wtie("compare")
    assert result.exit_code == 5
    assert "none of its 2 cells is finished" in result.stderr


@pytest.fixture
def two_runs(root):
    """Two runs of which the second was evaluated with another stride."""
    first, second = root / "a", root / "b"
    first.mkdir()
    second.mkdir()

    def edit(record):
        for split in record["signatures"].values():
            for metric, signature in split.items():
                split[metric] = signature.replace("stride:4", "stride:8")

    return make_run(first), make_run(second, edit=edit)


def test_runs_of_different_signature_are_refused(wtie, two_runs):
    result = wtie("compare", *two_runs)
    assert result.exit_code == 2
    assert "stride" in result.stderr
    assert result.stdout == ""


def test_force_shows_them_with_a_warning(wtie, two_runs):
    result = wtie("compare", *two_runs, "--force")
    assert result.exit_code == 0
    assert "warning: Forced" in result.stderr
    words = " ".join(result.stdout.split())
    assert "Forced: word_perplexity does not compare between runs" in words
    assert "word ppl" in words


def test_runs_of_one_signature_make_one_document(wtie, root):
    first, second = root / "a", root / "b"
    first.mkdir()
    second.mkdir()
    record = json.loads(wtie("compare", make_run(first), make_run(second), "--json").stdout)
    assert [each["name"] for each in record["runs"]] == ["tiny", "tiny"]
    assert list(record["tables"]) == ["runs"]


def test_several_runs_stand_side_by_side_sorted_with_only_what_differs(wtie, root):
    worse = {cell: value + 0.5 for cell, value in NATS_PER_WORD.items()}
    first, second = root / "a", root / "b"
    first.mkdir()
    second.mkdir()
    other = make_run(first, nats_per_word=worse).rename(first / "worse-1")
    result = wtie("compare", other, make_run(second), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    order = [("tiny-0123abcd", "tied"), ("tiny-0123abcd", "untied")]
    assert [(row["run"], row["arm"]) for row in rows[:2]] == order
    assert {row["run"] for row in rows[2:]} == {"worse-1"}
    settings = list(rows[0])[2 : list(rows[0]).index("cells")]
    assert settings == ["model.tying"]
    turned = wtie(
        "compare", other, second / "tiny-0123abcd", "--baseline", "tied", "--format", "csv"
    )
    rows = list(csv.DictReader(io.StringIO(turned.stdout)))
    assert {row["verdict"] for row in rows if row["arm"] == "tied"} == {""}
    assert {row["verdict"] for row in rows if row["arm"] == "untied"} == {"tied better"}


BETTER = Verdict(
    "tied", "untied", "better", "tied better", "tied", "", "nats_per_word", True, False
)


@pytest.mark.parametrize(
    ("changes", "worse", "not_shown"),
    [
        ({}, False, False),
        ({"kind": "better-small"}, False, False),
        ({"kind": "equivalent", "winner": None}, False, False),
        ({"kind": "cannot-tell", "winner": None}, False, True),
        ({"kind": "one-pair", "winner": None}, False, True),
        ({"winner": "untied"}, True, True),
        ({"kind": "better-small", "winner": "untied"}, True, True),
        ({"kind": "withheld", "winner": None}, True, True),
        ({"final": False}, True, True),
    ],
)
def test_what_closes_a_gate(changes, worse, not_shown):
    verdict = replace(BETTER, **changes)
    assert bool(closed_by(verdict, "worse")) is worse
    assert bool(closed_by(verdict, "not-shown")) is not_shown


def test_runs_ls_lists_each_run_and_its_verdict(wtie, run):
    record = json.loads(wtie("runs", "ls", "--json").stdout)[0]
    assert record["name"] == "tiny-0123abcd"
    assert record["arms"] == ["untied", "tied"]
    assert (record["seeds_done"], record["seeds_planned"]) == (3, 3)
    assert record["bytes"] > 1000
    assert record["verdicts"] == {"tied": "tied better"}
    assert "tied better" in wtie("runs", "ls").stdout


def test_runs_ls_of_nothing(wtie, in_empty_folder):
    result = wtie("runs", "ls")
    assert result.exit_code == 0
    assert "holds no run" in result.stdout
    assert json.loads(wtie("runs", "ls", "--json").stdout) == []


def test_a_damaged_run_does_not_hide_the_others(wtie, root, run):
    other = root / "broken"
    other.mkdir()
    (other / "manifest.json").write_text("{")
    result = wtie("runs", "ls")
    assert result.exit_code == 0
    assert "broken" in result.stdout
    assert "tied better" in result.stdout


def test_runs_show_names_cells_and_where_they_came_from(wtie, run):
    result = wtie("runs", "show", run)
    assert result.exit_code == 0
    for text in ("command: wtie train", "seeds: 0 done, 1 done, 2 done", "verdict on tied: tied"):
        assert text in result.stdout
    record = json.loads(wtie("runs", "show", run, "--json").stdout)
    assert len(record["cells"]) == 6


def test_a_damaged_record_is_named(wtie, run):
    path = run / "tied" / "seed-0" / "result.json"
    edit_json(path, lambda record: record.pop("evaluations"))
    result = wtie("compare")
    assert result.exit_code == 1
    assert "result.json" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(("parts", "by"), [(1, "this study"), (2, "this study alone, one of 2")])
def test_a_study_says_last_what_its_claim_comes_to(wtie, root, parts, by):
    study = make_study(
        root,
        {(512,): values([-0.04, -0.05, -0.035])},
        changes={"claim": claim(finding(), parts=parts)},
    )
    assert wtie("compare", study).stdout.splitlines()[-2:] == [
        f"study: {study}",
        f"claim 3, by {by}: supported; its page: wtie report {root}",
    ]
