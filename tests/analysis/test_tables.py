import json
import math

import pytest

from tests.analysis.fake_runs import (
    ARM_CHANGES,
    NATS_PER_WORD,
    D,
    V,
    diverge,
    edit_json,
    ledger,
    make_run,
    signatures,
)
from tests.analysis.golden_tables import FOLDER, golden_texts
from tests.analysis.test_contrasts import only, without_words
from tyro_cli.analysis.records import load_run
from tyro_cli.analysis.tables import (
    all_tables,
    contrast_table,
    parameter_table,
    performance_table,
    perplexity_table,
)
from tyro_cli.errors import DamagedRecord, NothingMatched, RunFolderError, UsageError


def row_of(table, **keys):
    """Return the one row that has these values."""
    (row,) = [row for row in table.rows if all(row.get(k) == v for k, v in keys.items())]
    return row


def test_tables_are_the_golden_texts_to_the_byte(tmp_path):
    texts = dict(golden_texts(tmp_path))
    assert sorted(texts) == sorted(path.name for path in FOLDER.iterdir())
    for name, text in texts.items():
        assert text == (FOLDER / name).read_text(), (
            f"{name} changed: `python -m tests.analysis.golden_tables` rewrites it, "
            "with a line under Numbers in the CHANGELOG"
        )


def test_the_arms_differ_by_v_times_d(tmp_path):
    table = parameter_table(load_run(make_run(tmp_path)))
    assert row_of(table, quantity="total")["difference tied"] == -V * D
    assert row_of(table, quantity="head")["value tied"] == 0
    assert table.notes[0] == "untied - tied = 976 parameters, exactly V x d = 61 x 16 = 976."
    assert sum(row["value tied"] for row in table.rows[:6]) == 4352
    shares = [row["share untied"] for row in table.rows[:6]]
    assert sum(shares) == pytest.approx(1)


def test_the_check_reads_the_same_from_the_other_side(tmp_path):
    table = parameter_table(load_run(make_run(tmp_path)), "tied")
    assert row_of(table, quantity="total")["difference untied"] == V * D
    assert table.notes[0] == "untied - tied = 976 parameters, exactly V x d = 61 x 16 = 976."


def test_a_ledger_that_breaks_the_formula_prints_no_table(tmp_path):
    folder = make_run(tmp_path, nats_per_word={})

    def add_a_row(manifest):
        record = manifest["arms"]["tied"]["ledger"]
        record["rows"][5]["parameters"] += 1
        record["total"] += 1

    edit_json(folder / "manifest.json", add_a_row)
    with pytest.raises(DamagedRecord, match="untied - tied is 975 parameters, but the tie alone"):
        parameter_table(load_run(folder))


def test_arms_that_differ_in_more_are_listed_without_a_formula(tmp_path):
    arms = ARM_CHANGES | {"wide": {"model": {"tying": "in-out", "d_ff": 68}}}
    folder = make_run(tmp_path, arms=arms, nats_per_word={})

    def match(manifest):
        manifest["arms"]["wide"]["match"] = {
            "by": "d_ff",
            "value": 68,
            "parameters_of": "untied",
            "target_parameters": 5328,
            "parameters": 5312,
            "difference": -16,
        }

    edit_json(folder / "manifest.json", match)
    notes = parameter_table(load_run(folder)).notes
    assert "the arms differ in more than the tie, so no formula is checked." in notes[1]
    assert (
        "wide differs from untied in `model.d_ff`: 48 -> 68; `model.tying`: none -> in-out."
        in notes
    )
    assert (
        "wide has `d_ff` 68, solved to match the 5,328 parameters of untied: "
        "5,312, difference -16." in notes
    )


def test_the_role_of_the_shared_matrix_and_its_initial_deviation_are_said(tmp_path):
    arms = {
        "untied": {"model": {"embedding_std": 0.05}},
        "tied": {"model": {"tying": "in-out", "tied_role": "embedding"}},
    }
    notes = " ".join(parameter_table(load_run(make_run(tmp_path, arms=arms))).notes)
    assert "tied: the shared matrix takes the rate and decay of the role `embedding`" in notes
    assert "drawn with standard deviation 0.05 (untied)" in notes
    assert "drawn with standard deviation 0.02 (tied)" in notes
    assert "`model.embedding_std`: 0.05 -> not set" in notes


def test_perplexity_of_the_mean_is_derived_from_nats(tmp_path):
    table = perplexity_table(load_run(make_run(tmp_path)))
    mean = row_of(table, arm="tied", split="test", seed="mean")
    assert mean["nats_per_word"] == pytest.approx(4.46833, abs=1e-5)
    assert mean["word_perplexity"] == pytest.approx(math.exp((4.46 + 4.47 + 4.475) / 3))
    average = sum(math.exp(nats) for nats in (4.46, 4.47, 4.475)) / 3
    assert mean["word_perplexity"] != pytest.approx(average, rel=1e-6)
    assert mean["status"] == "3/3 done"
    seed = row_of(table, arm="tied", split="valid", seed="1")
    assert seed["nats_per_word"] == pytest.approx(4.47 * 1.02)
    assert seed["last_word_perplexity"] == pytest.approx(math.exp(4.47 * 1.02 * 1.005))
    assert seed["gap_nats"] == pytest.approx(4.47 * (1.02 - 0.95) / 1.5, abs=0.01)
    assert (seed["best_step"], seed["still_improving"]) == (40, "no")


def test_cells_that_are_not_done_keep_their_rows(tmp_path):
    values = {key: value for key, value in NATS_PER_WORD.items() if key != ("untied", 2)}
    run = load_run(make_run(tmp_path, nats_per_word=values, edit=only("tied", 1, diverge)))
    tables = all_tables(run)
    diverged = row_of(tables["perplexity"], arm="tied", split="test", seed="1")
    assert diverged["status"] == "diverged at step 33"
    assert "nats_per_token" not in diverged
    assert (
        row_of(tables["perplexity"], arm="untied", split="test", seed="2")["status"] == "unfinished"
    )
    mean = row_of(tables["perplexity"], arm="tied", split="test", seed="mean")
    assert mean["status"] == "2/3 done"
    assert mean["nats_per_word"] == pytest.approx((4.46 + 4.475) / 2)
    status = next(c for c in tables["perplexity"].columns if c.key == "status")
    assert status.on_screen
    for row in tables["contrasts"].rows:
        assert row["pairs_verified"] == "1/3 identical start, 1/3 diverged, 1/3 unfinished"
    assert row_of(tables["performance"], arm="tied", seed="1")["status"] == "diverged at step 33"


def test_a_run_with_nothing_trained_has_tables(tmp_path):
    plans = [{"seeds": [0], "arms": ["untied", "tied"], "after_results": False}]
    tables = all_tables(load_run(make_run(tmp_path, nats_per_word={}, plans=plans)))
    assert "No cell is trained yet: the counts are the ledger's." in tables["parameters"].notes
    assert [row["status"] for row in tables["performance"].rows] == ["unfinished"] * 2
    assert all("mean" not in row for row in tables["contrasts"].rows)


def test_one_arm_has_nothing_to_contrast(tmp_path):
    run = load_run(make_run(tmp_path, arms={"untied": {}}, nats_per_word={("untied", 0): 4.5}))
    tables = all_tables(run)
    assert tables["contrasts"].rows == ()
    assert tables["contrasts"].notes == (
        "The run has one arm: there is nothing to set against it.",
    )
    assert tables["parameters"].rows


def test_words_that_are_not_available_are_said(tmp_path):
    tables = all_tables(load_run(make_run(tmp_path, edit=without_words)))
    mean = row_of(tables["perplexity"], arm="tied", split="test", seed="mean")
    assert mean["word_perplexity"] is None
    assert mean["token_perplexity"] is not None
    words = row_of(tables["contrasts"], metric="nats_per_word")
    assert words["mean"] is None
    scored = [(r["metric"], r["split"], r["checkpoint"]) for r in tables["contrasts"].rows]
    assert ("nats_per_token", "valid", "best") in scored, "what decides is shown in full"
    notes = " ".join(tables["perplexity"].notes)
    assert "Token perplexity, test: `token_ppl|" in notes
    assert "Word perplexity" not in notes


def test_the_contrasts_hold_every_number_behind_the_verdict(tmp_path):
    table = contrast_table(load_run(make_run(tmp_path)))
    row = row_of(table, metric="nats_per_word", split="test", checkpoint="best")
    assert row["differences"] == pytest.approx((-0.04, -0.05, -0.035))
    assert row["interval_95"] == pytest.approx((-0.06064, -0.02269), abs=1e-5)
    assert row["interval_90"] == pytest.approx((-0.05454, -0.02879), abs=1e-5)
    assert (row["sign_flip_p"], row["smallest_p"]) == (0.25, 0.25)
    assert row["perplexity_ratio"] == pytest.approx(0.95919, abs=1e-5)
    assert (row["pairs_won"], row["pairs_verified"]) == ("3/3", "3/3 identical start")
    last = row_of(table, metric="nats_per_word", split="test", checkpoint="last")
    assert last["mean"] == pytest.approx(row["mean"] * 1.005)
    assert table.notes[0].startswith("Verdict: tied against untied: tied better. ")
    assert "over the 4 test documents, two fixed checkpoints at a time" in table.notes[1]


def test_one_metric_may_be_asked_for(tmp_path):
    run = load_run(make_run(tmp_path))
    table = contrast_table(run, metric="word_perplexity")
    assert {row["metric"] for row in table.rows} == {"word_perplexity"}
    assert len(table.rows) == 3
    assert "Test nats per word" in table.notes[0], "the verdict stays on nats per word"
    with pytest.raises(UsageError, match="no metric 'bleu'"):
        all_tables(run, metric="bleu")
    with pytest.raises(NothingMatched):
        all_tables(run, "absent")


def test_several_arms_are_contrasted_one_by_one(tmp_path):
    arms = ARM_CHANGES | {"other": {"model": {"tying": "in-out", "tied_role": "embedding"}}}
    values = NATS_PER_WORD | {("other", seed): 4.6 for seed in range(3)}
    table = contrast_table(load_run(make_run(tmp_path, arms=arms, nats_per_word=values)))
    assert [row["arm"] for row in table.rows] == ["tied"] * 5 + ["other"] * 5
    assert any("2 arms are set against one baseline" in note for note in table.notes)


def test_a_metric_with_two_signatures_is_left_out_and_said(tmp_path):
    def other_tokenizer(record):
        for split in ("valid", "test"):
            for metric in ("nats_per_token", "token_perplexity"):
                signature = record["signatures"][split][metric]
                record["signatures"][split][metric] = signature.replace("tok:bpe", "tok:unigram")

    run = load_run(make_run(tmp_path, edit=only("tied", 0, other_tokenizer)))
    table = perplexity_table(run)
    row = row_of(table, arm="untied", split="test", seed="0")
    assert "nats_per_token" not in row and "last_nats_per_token" not in row
    assert row["word_perplexity"] == pytest.approx(math.exp(4.5))
    left_out = [note for note in table.notes if note.startswith("Left out: ")]
    assert len(left_out) == 4
    assert "Left out: test nats_per_token: the signatures differ in tok (" in left_out[0]
    contrasts = contrast_table(run)
    assert "nats_per_token" not in {row["metric"] for row in contrasts.rows}
    assert any(note.startswith("Left out: test nats_per_token") for note in contrasts.notes)
    with pytest.raises(RunFolderError, match="nats_per_token was not computed in one way"):
        contrast_table(run, metric="nats_per_token")
    forced = perplexity_table(run, force=True)
    assert "nats_per_token" in row_of(forced, arm="untied", split="test", seed="0")
    assert any(note.startswith("Forced: test nats_per_token") for note in forced.notes)


def test_a_run_with_no_comparable_metric_is_refused(tmp_path):
    def other_stride(record):
        for split in ("valid", "test"):
            record["signatures"][split] = signatures(split, stride=8)

    run = load_run(make_run(tmp_path, edit=only("tied", 0, other_stride)))
    with pytest.raises(RunFolderError, match="no metric was computed in one way"):
        perplexity_table(run)
    with pytest.raises(RunFolderError, match="differ in stride"):
        all_tables(run)
    assert all_tables(run, force=True)["contrasts"].rows


def test_times_are_in_one_table_only(tmp_path):
    folder = make_run(tmp_path)
    before = all_tables(load_run(folder))
    for path in folder.rglob("performance.json"):
        path.write_text(json.dumps({"train_seconds": 9999.0}))
    after = all_tables(load_run(folder))
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ["performance"]
    row = performance_table(load_run(folder)).rows[0]
    assert (row["train_seconds"], row["peak_memory_bytes"]) == (9999.0, None)


def test_cells_of_several_machines_are_told_apart(tmp_path):
    folder = make_run(tmp_path)
    assert len(performance_table(load_run(folder)).notes) == 1
    names = {"tied/seed-0": ["A"], "untied/seed-0": ["A", "B"]}
    for path in folder.rglob("performance.json"):
        cell = str(path.parent.relative_to(folder))
        path.write_text(json.dumps({"processors": names.get(cell, ["B"])}))
    cells = len(load_run(folder).cells)
    assert performance_table(load_run(folder)).notes[1] == (
        f"Cells by processor: 1 on A, 1 on A and B, {cells - 2} on B."
    )


def test_a_cell_without_performance_keeps_its_row(tmp_path):
    folder = make_run(tmp_path)
    (folder / "tied/seed-0/performance.json").unlink()
    row = row_of(performance_table(load_run(folder)), arm="tied", seed="0")
    assert row == {"arm": "tied", "seed": "0", "status": "done"}


def test_the_fixture_counts_like_a_ledger():
    untied, tied = ledger("none"), ledger("in-out")
    assert untied["total"] - tied["total"] == V * D
    assert untied["forward_flops_per_token"] == tied["forward_flops_per_token"]
