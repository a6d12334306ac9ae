"""The tables of claims: the answers, every finding, what was counted, and published models."""

import shutil

import pytest

from tests.analysis.fake_claims import (
    BETTER,
    NOISY,
    SMALL,
    SMALLER,
    WORSE,
    claim,
    finding,
    only,
    published,
    result_of,
)
from tests.analysis.fake_runs import (
    edit_json,
    values,
)
from tests.analysis.fake_studies import make_study
from tyro_cli.analysis.claim_tables import (
    alike,
    claim_tables,
    findings_table,
    outcome_in_words,
)
from tyro_cli.analysis.claims import claim_results
from tyro_cli.analysis.rendering import to_markdown
from tyro_cli.analysis.studies import load_study_records
from tyro_cli.errors import DamagedRecord


def test_the_tables_say_claim_answer_and_numbers(tmp_path):
    counted = {"name": "big", "vocab_size": 10, "d_model": 4, "untied_total": 100, "saving": 40}
    folder = make_study(
        tmp_path,
        {(512,): values(BETTER), (1024,): values(NOISY)},
        changes={"claim": claim(finding(), counted=[counted])},
    )
    tables = claim_tables(claim_results([load_study_records(folder)]))
    assert list(tables) == ["claims", "claim-3", "claim-3-counted"]
    text = {name: to_markdown(table) for name, table in tables.items()}
    for part in ("Tying helps.", "cannot tell", "1 of 2 holds", "1 of 2 open", "-0.0417"):
        assert part in text["claims"]
    for part in ("vocabulary 1024", "seeds in all, by the upper 80 % bound", "holds"):
        assert part in text["claim-3"]
    assert [name for name, one in text.items() if "All hold" in one] == ["claims"]
    assert tables["claim-3-counted"].rows == ({"vocab_size": 10, "share 4": 0.4},)


def test_no_number_of_one_finding_stands_for_the_claim(tmp_path):
    result = result_of(tmp_path, {512: BETTER, 1024: SMALL, 2048: SMALLER}, finding())
    (held, failed), table = alike(result), claim_tables([result])["claims"]
    assert [one.outcome for one in (held, failed)] == [
        "1 of 3 holds",
        "2 of 3 fail: no effect (within margin)",
    ]
    assert [one.where for one in (held, failed)] == [
        "vocabulary 512",
        "vocabulary 1024; vocabulary 2048",
    ]
    assert held.means == (result.findings[0].mean,)
    assert failed.means == pytest.approx((sum(SMALLER) / 3, sum(SMALL) / 3))
    first, second = table.rows
    assert first["answer"] == result.word and "highest_mean" not in first
    assert "answer" not in second and second["highest_mean"] == pytest.approx(sum(SMALL) / 3)
    assert second["interval_95"] == failed.interval
    assert "lowest and highest mean" in table.notes[1]


def test_findings_of_two_sides_are_not_alike(tmp_path):
    findings = (
        finding("lower", at={"vocabulary": 512}),
        finding("higher", at={"vocabulary": 1024}),
    )
    result = result_of(tmp_path, {512: BETTER, 1024: WORSE}, *findings)
    assert [one.outcome for one in alike(result)] == ["1 of 2 holds", "1 of 2 holds"]


def test_a_claim_says_how_small_its_experiments_are_in_its_first_row(tmp_path):
    folder = make_study(
        tmp_path,
        {(512,): values(BETTER), (1024,): values(WORSE)},
        changes={"claim": claim(finding())},
    )
    one_point = tmp_path / "tiny-00000000"

    def edit_settings(settings):
        settings["data"]["corpus"] = "../data/wikitext-2"
        settings["model"]["num_layers"] = 0

    for path in one_point.rglob("result.json"):
        edit_json(path, lambda record: edit_settings(record["settings"]))
        edit_json(path, lambda record: record["training"].update(tokens=900))
    edit_json(
        one_point / "manifest.json",
        lambda record: [edit_settings(arm["settings"]) for arm in record["arms"].values()],
    )
    result = only(claim_results([load_study_records(folder)]))
    first, second = claim_tables([result])["claims"].rows
    assert first["measured_on"] == (
        "wikitext-2, kjv, 900 to 3,840 tokens a cell, width 16, 0 to 1 layer, 3 seeds"
    )
    assert "measured_on" not in second


def test_a_claim_with_damaged_settings_says_of_its_size_what_it_can(tmp_path):
    folder = make_study(tmp_path, {(512,): values(BETTER)}, changes={"claim": claim(finding())})
    run = tmp_path / "tiny-00000000"
    for path in run.rglob("seed-*"):
        shutil.rmtree(path)
    edit_json(
        run / "manifest.json",
        lambda record: record["arms"]["untied"].update(settings={"model": {"d_model": "wide"}}),
    )
    row = claim_tables(claim_results([load_study_records(folder)]))["claims"].rows[0]
    assert row["answer"] == "not run" and row["measured_on"] == "3 seeds"


def test_many_places_of_one_outcome_are_counted(tmp_path):
    counted = finding("lower", "parameters")
    result = result_of(tmp_path, dict.fromkeys((1, 2, 3, 4), BETTER), counted)
    (group,) = alike(result)
    assert (group.outcome, group.where, group.means) == ("4 of 4 hold", "4 places", (-976,))
    assert group.interval is None


def test_what_is_counted_shows_the_share_saved_and_no_empty_columns(tmp_path):
    result = result_of(tmp_path, {512: BETTER}, finding("lower", "parameters"))
    table = findings_table(result)
    keys = [column.key for column in table.columns]
    assert keys == [
        "finding", "where", "measure", "expected", "seeds", "mean", "share_saved", "outcome",
    ]  # fmt: skip
    row = only(table.rows)
    (study,) = result.studies
    total = study.points[0].run.manifest.arms["untied"].ledger.total
    assert row["mean"] == -976 and row["share_saved"] == pytest.approx(976 / total)
    assert table.notes == ()


def test_a_change_of_a_count_has_no_share_and_is_explained(tmp_path):
    change = finding(
        "lower", "parameters", at={"vocabulary": 1024}, minus={"vocabulary": 512}, margin=None
    )
    table = findings_table(result_of(tmp_path, {512: BETTER, 1024: BETTER}, change))
    assert "share_saved" not in [column.key for column in table.columns]
    assert only(table.notes).startswith("A change is the difference at the second")


def test_a_change_to_a_point_without_a_run_names_both_levels(tmp_path):
    change = finding("lower", at={"vocabulary": 1024}, minus={"vocabulary": 512})
    folder = make_study(
        tmp_path,
        {(512,): values(BETTER), (1024,): values(BETTER)},
        changes={"claim": claim(change)},
    )
    shutil.rmtree(tmp_path / "tiny-00000001")
    one = only(only(claim_results([load_study_records(folder)])).findings)
    assert one.where == "vocabulary 512 to 1024"
    assert outcome_in_words(one) == "not run: its run is not there yet"


def test_counts_of_several_studies_have_a_table_each(tmp_path):
    folders = []
    for name, saving in (("one", 40), ("two", 20)):
        (tmp_path / name).mkdir()
        counted = {"name": "a", "vocab_size": 10, "d_model": 4, "untied_total": 100}
        folders.append(
            make_study(
                tmp_path / name,
                {(512,): values(BETTER)},
                changes={
                    "name": name,
                    "claim": claim(finding(), counted=[counted | {"saving": saving}]),
                },
            )
        )
    tables = claim_tables(claim_results([load_study_records(one) for one in folders]))
    assert list(tables) == ["claims", "claim-3", "claim-3-counted", "claim-3-counted-2"]
    assert "study" in [column.key for column in tables["claim-3"].columns]


def test_published_models_have_a_table_of_their_own(tmp_path):
    models = [
        published(untied_total=200),
        published(name="small", tied=True, embedding_and_head=40),
    ]
    folder = make_study(
        tmp_path,
        {(512,): values(BETTER)},
        changes={"claim": claim(finding(), published=models)},
    )
    tables = claim_tables(claim_results([load_study_records(folder)]))
    assert list(tables) == ["claims", "claim-3", "claim-3-published"]
    either = {
        "vocab_size": 10,
        "d_model": 4,
        "saving": 40,
    }
    assert tables["claim-3-published"].rows == (
        either
        | {"name": "small", "published": "tied"}
        | {"untied_total": 100, "tied_total": 60, "share": 0.4},
        either
        | {"name": "big", "published": "untied"}
        | {"untied_total": 200, "tied_total": 160, "share": 0.2},
    )
    text = to_markdown(tables["claim-3-published"])
    for part in (" untied ", "20.0 %", "40.0 %", "no weight was read"):
        assert part in text


def test_published_models_change_no_answer(tmp_path):
    folders = []
    for name, models in (("with", [published()]), ("without", [])):
        (tmp_path / name).mkdir()
        folders.append(
            make_study(
                tmp_path / name,
                {(512,): values(NOISY)},
                changes={"claim": claim(finding(), published=models)},
            )
        )
    first, second = (only(claim_results([load_study_records(one)])) for one in folders)
    assert first.word == second.word == "cannot tell"
    assert first.findings == second.findings


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"saving": 41}, "saving is not vocab_size x d_model"),
        ({"embedding_and_head": 39}, "embedding_and_head is not between vocab_size x d_model and"),
        ({"embedding_and_head": 61, "tied": True}, "embedding_and_head is not between vocab_size"),
    ],
)
def test_a_published_model_that_contradicts_itself_is_damaged(tmp_path, keys, message):
    folder = make_study(
        tmp_path,
        {(512,): values(BETTER)},
        changes={"claim": claim(finding(), published=[published(**keys)])},
    )
    with pytest.raises(DamagedRecord, match=message):
        load_study_records(folder)
