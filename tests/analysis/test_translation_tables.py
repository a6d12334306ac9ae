"""Tables of translation quality, and BLEU beside the verdict, from hand-made records."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.analysis.fake_runs import edit_json, make_run
from tyro_cli.analysis.bleu import corpus_bleu, randomisation_test
from tyro_cli.analysis.records import load_run
from tyro_cli.analysis.tables import all_tables
from tyro_cli.analysis.translation_tables import quality_contrast
from tyro_cli.analysis.verdicts import verdict_of_run
from tyro_cli.errors import DamagedRecord, RunFolderError

SENTENCES = 30
SIGNATURES = {"bleu": "nrefs:1|case:mixed|tok:13a|beam:5", "chrf": "nrefs:1|case:mixed|beam:5"}


def counts(arm: str, seed: int) -> np.ndarray:
    """Counts of sentences of 10 tokens; the tied arm matches a little more often."""
    generator = np.random.default_rng(seed)
    matching = generator.integers(4, 9, SENTENCES)
    if arm == "tied":
        matching = matching + (np.arange(SENTENCES) % 5 < 2 + seed % 2)
    columns = [np.full(SENTENCES, 10), np.full(SENTENCES, 10)]
    columns += [np.maximum(matching - order, 0) for order in range(4)]
    columns += [np.full(SENTENCES, 10 - order) for order in range(4)]
    return np.stack(columns, axis=1).astype(np.int64)


def quality(arm: str, seed: int) -> dict[str, Any]:
    return {
        "bleu": float(corpus_bleu(counts(arm, seed).sum(axis=0))),
        "chrf": 50.0 + seed + (arm == "tied"),
        "copy_bleu": 3.25,
        "copy_chrf": 17.5,
        "sentences": SENTENCES,
        "signatures": SIGNATURES,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run of two arms and three seeds that translates."""

    def edit(record: dict[str, Any]) -> None:
        record["settings"]["task"] = "translation"
        one = quality(record["arm"], record["seed"])
        record["quality"] = {"valid": one, "test": one}

    made = make_run(tmp_path, edit=edit)
    edit_json(made / "manifest.json", lambda manifest: manifest.update(task="translation"))
    for arm in ("untied", "tied"):
        for seed in range(3):
            path = made / arm / f"seed-{seed}" / "documents.npz"
            with np.load(path) as content:
                arrays = dict(content)
            one = counts(arm, seed)
            np.savez(path, **arrays, valid_bleu=one, test_bleu=one)
    return made


def test_scores_of_every_cell_and_their_means(folder: Path) -> None:
    table = all_tables(load_run(folder))["translation"]
    tests = [row for row in table.rows if row["split"] == "test" and row["arm"] == "tied"]
    assert [row["seed"] for row in tests] == ["mean", "0", "1", "2"]
    bleus = [quality("tied", seed)["bleu"] for seed in range(3)]
    assert [row["bleu"] for row in tests[1:]] == bleus
    assert tests[0]["bleu"] == pytest.approx(sum(bleus) / 3)
    assert all(row["copy_bleu"] == 3.25 for row in tests)
    assert any("`nrefs:1|case:mixed|tok:13a|beam:5`" in note for note in table.notes)


def test_differences_have_an_interval_over_seeds_and_a_p_at_each(folder: Path) -> None:
    table = all_tables(load_run(folder))["translation-contrasts"]
    [row] = [row for row in table.rows if (row["score"], row["split"]) == ("BLEU", "test")]
    expected = [quality("tied", s)["bleu"] - quality("untied", s)["bleu"] for s in range(3)]
    assert row["differences"] == pytest.approx(expected)
    assert row["mean"] == pytest.approx(sum(expected) / 3)
    low, high = row["interval_95"]
    assert low < row["mean"] < high
    ps = [randomisation_test(counts("tied", s), counts("untied", s), s).p for s in range(3)]
    assert row["randomisation_ps"] == tuple(ps)
    assert row["pairs_won"] == "3/3"
    [chrf] = [row for row in table.rows if (row["score"], row["split"]) == ("chrF", "test")]
    assert chrf["differences"] == (1.0, 1.0, 1.0) and "randomisation_ps" not in chrf


def test_bleu_stands_beside_the_verdict(folder: Path) -> None:
    sentence = verdict_of_run(load_run(folder))["tied"].sentence
    assert "Test BLEU, tied - untied: +" in sentence
    assert "over 3 seeds; higher is better, and it decides nothing." in sentence


def test_one_pair_says_its_randomisation_p(folder: Path) -> None:
    plans = [{"seeds": [0], "arms": ["untied", "tied"], "after_results": False}]
    edit_json(folder / "manifest.json", lambda manifest: manifest.update(plans=plans))
    sentence = verdict_of_run(load_run(folder))["tied"].sentence
    assert "at seed 0 (randomisation p 0." in sentence
    assert "Over sentences (these two fixed checkpoints, 4 sentences)" in sentence


def test_scores_of_other_searches_are_no_contrast(folder: Path) -> None:
    def edit(record: dict[str, Any]) -> None:
        record["quality"]["test"]["signatures"]["bleu"] = "nrefs:1|case:mixed|tok:13a|beam:1"

    edit_json(folder / "tied" / "seed-1" / "result.json", edit)
    run = load_run(folder)
    with pytest.raises(RunFolderError, match="test bleu was not computed in one way"):
        quality_contrast(run, "tied", "untied", "bleu")
    forced = quality_contrast(run, "tied", "untied", "bleu", force=True)
    assert forced is not None and forced.forced.startswith("Forced: test bleu")


def test_counts_that_were_not_kept_leave_the_p_out(folder: Path) -> None:
    (folder / "tied" / "seed-2" / "documents.npz").unlink()
    one = quality_contrast(load_run(folder), "tied", "untied", "bleu")
    assert one is not None and one.randomisation_ps is None and len(one.seeds) == 3


def test_counts_that_do_not_give_the_recorded_bleu_are_damaged(folder: Path) -> None:
    def edit(record: dict[str, Any]) -> None:
        record["quality"]["test"]["bleu"] += 0.5

    edit_json(folder / "tied" / "seed-1" / "result.json", edit)
    with pytest.raises(DamagedRecord, match="test_bleu gives a BLEU of"):
        quality_contrast(load_run(folder), "tied", "untied", "bleu")


def test_a_finished_translation_without_quality_is_damaged(folder: Path) -> None:
    edit_json(folder / "tied" / "seed-1" / "result.json", lambda record: record.pop("quality"))
    with pytest.raises(DamagedRecord, match=r"`quality\.valid` is missing"):
        load_run(folder)
