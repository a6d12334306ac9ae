"""Excess nats in tables: shown where the source of the text is known, and nowhere else."""

import pytest

from tests.analysis.fake_chains import DEPTHS, LEVELS, excess, make_chain_study
from tests.analysis.fake_runs import NATS_PER_WORD, edit_json, make_run
from tests.analysis.fake_studies import make_study, tables_of
from tyro_cli.analysis.records import load_run
from tyro_cli.analysis.rendering import RENDERERS, to_plain
from tyro_cli.analysis.side_by_side import side_by_side
from tyro_cli.analysis.studies import load_study_records
from tyro_cli.analysis.tables import all_tables, perplexity_table
from tyro_cli.errors import DamagedRecord

KNOWN = {
    "entropy_rate_nats": 2.0,
    "unigram_entropy_nats": 4.0,
    "probability_current": 0.25,
    "reversible_excess_nats": 0.125,
    "true_nats_per_token": {"valid": 2.1, "test": 1.9},
}


def know(record):
    record["known_entropy"] = KNOWN


def test_the_excess_is_counted_from_what_the_source_scores_on_the_same_tokens(tmp_path):
    table = perplexity_table(load_run(make_run(tmp_path, edit=know)))
    rows = {(row["arm"], row["split"], row["seed"]): row for row in table.rows}
    row = rows["untied", "test", "0"]
    nats = 4.50 / 1.5  # nats a word over tokens a word
    assert row["excess_nats"] == pytest.approx(nats - 1.9)
    assert row["excess_share"] == pytest.approx((nats - 1.9) / 2)
    assert row["excess_over_rate_nats"] == pytest.approx(nats - 2.0)
    assert row["entropy_rate_nats"] == 2.0
    mean = rows["untied", "test", "mean"]
    seeds = [rows["untied", "test", str(seed)]["excess_nats"] for seed in range(3)]
    assert mean["excess_nats"] == pytest.approx(sum(seeds) / 3)
    assert rows["untied", "valid", "0"]["excess_nats"] == pytest.approx(nats * 1.02 - 2.1)
    note = next(note for note in table.notes if note.startswith("Excess"))
    assert "1.9000 nats a token on test and 2.1000 on valid" in note and "of 0.1250 or more" in note
    for render in (*RENDERERS.values(), to_plain):
        assert "excess" in render(table)


def test_a_difference_of_excesses_is_the_contrast(tmp_path):
    run = load_run(make_run(tmp_path, edit=know))
    tables = all_tables(run)
    excess = {
        row["arm"]: row["excess_nats"]
        for row in tables["perplexity"].rows
        if (row["split"], row["seed"]) == ("test", "mean")
    }
    contrast = next(row for row in tables["contrasts"].rows if row["metric"] == "nats_per_token")
    assert excess["tied"] - excess["untied"] == pytest.approx(contrast["mean"])


def test_a_metric_that_does_not_compare_takes_its_excess_with_it(tmp_path):
    def edit(record):
        know(record)
        if record["arm"] == "tied":
            line = record["signatures"]["test"]["nats_per_token"]
            record["signatures"]["test"]["nats_per_token"] = line.replace("ctx:8", "ctx:9")

    table = perplexity_table(load_run(make_run(tmp_path, edit=edit)))
    for row in table.rows:
        assert ("excess_nats" in row) is (row["split"] == "valid")


def test_without_a_known_source_nothing_is_shown(tmp_path):
    table = perplexity_table(load_run(make_run(tmp_path)))
    assert not any("excess" in column.key for column in table.columns)
    assert not any("entropy" in note for note in table.notes)


def test_a_study_and_runs_side_by_side_compare_excesses_of_different_texts(tmp_path):
    def other(record):
        know(record)
        for lines in record["signatures"].values():
            lines.update({key: line.replace("corpus:", "corpus:0") for key, line in lines.items()})

    points = {(level,): NATS_PER_WORD for level in (0.0, 1.0)}
    edits = {(0.0,): know, (1.0,): other}
    folder = make_study(tmp_path, points, factors=("irreversibility",), edits=edits)
    study = load_study_records(folder)
    table = tables_of(study)["results"]
    keys = [column.key for column in table.columns]
    assert "token_perplexity" not in keys and {"excess_nats", "probability_current"} <= set(keys)
    assert all(row["reversible_excess_nats"] == 0.125 for row in table.rows)
    explained, left_out = table.notes[:2], table.notes[2:]
    assert "compares between points though their texts differ" in explained[1]
    assert left_out and all(note.startswith("Left out: ") for note in left_out)
    beside = side_by_side([point.run for point in study.points])
    assert all(row["excess_nats"] is not None for row in beside.rows)


def instrument(folder):
    return tables_of(load_study_records(folder))["instrument"]


def test_the_instrument_is_the_deepest_untied_model_on_every_chain(tmp_path):
    table = instrument(make_chain_study(tmp_path))
    places = [(row["level irreversibility"], row["layers"], row["arm"]) for row in table.rows]
    assert places == [(str(level), 2, "untied") for level in LEVELS]
    for row, level in zip(table.rows, LEVELS, strict=True):
        by_seed = [excess("untied", level, DEPTHS[-1], seed) for seed in range(3)]
        assert row["excesses"] == pytest.approx(by_seed)
        assert row["share"] == pytest.approx(sum(by_seed) / 3 / 2)  # unigram - rate is 2
        assert row["most_nats"] == pytest.approx(0.04)
        assert row["holds"] == "yes"
    assert "at most 2 % at 3 of 3 points" in table.notes[0]


def test_an_untied_model_that_is_not_the_chain_is_said(tmp_path):
    folder = make_chain_study(tmp_path)
    for path in (tmp_path / "tiny-00000008").rglob("result.json"):  # irreversibility 1, 2 layers
        edit_json(path, lambda record: record["known_entropy"].update(unigram_entropy_nats=3.0))
    table = instrument(folder)
    assert [row["holds"] for row in table.rows] == ["yes", "yes", "no"]
    assert table.rows[-1]["share"] == pytest.approx(0.022)
    assert "at most 2 % at 2 of 3 points" in table.notes[0]


def test_an_instrument_that_is_not_trained_is_not_run(tmp_path):
    folder = make_chain_study(tmp_path)
    for path in (tmp_path / "tiny-00000002").rglob("result.json"):  # irreversibility 0, 2 layers
        path.unlink()
    table = instrument(folder)
    assert [row["holds"] for row in table.rows] == ["not run", "yes", "yes"]
    assert table.rows[0]["layers"] == 2 and "share" not in table.rows[0]
    assert table.notes[1] == "Not final: 6 cells are unfinished."


def test_a_study_without_a_known_source_has_no_instrument(tmp_path):
    study = load_study_records(make_study(tmp_path, {(512,): NATS_PER_WORD}))
    assert "instrument" not in tables_of(study)


def test_a_record_that_lacks_a_split_is_damaged(tmp_path):
    def edit(record):
        record["known_entropy"] = KNOWN | {"true_nats_per_token": {"test": 1.9}}

    with pytest.raises(DamagedRecord, match=r"known_entropy\.true_nats_per_token"):
        load_run(make_run(tmp_path, edit=edit))
