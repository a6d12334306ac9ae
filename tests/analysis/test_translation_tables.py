"""Tables of translation quality, and BLEU beside the verdict, from hand-made records."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.fake_claims import claim, finding
from tests.analysis.fake_runs import BYTES_PER_WORD, NATS_PER_WORD, edit_json, make_run
from tests.analysis.fake_studies import make_study, tables_of
from tests.analysis.fake_translations import (
    counts,
    keep_counts,
    make_translation_study,
    quality,
    translate,
)
from tyro_cli.analysis.bleu import randomisation_test
from tyro_cli.analysis.claims import claim_results
from tyro_cli.analysis.records import load_run
from tyro_cli.analysis.statistics import paired_t_interval
from tyro_cli.analysis.studies import load_study_records, study_contrasts
from tyro_cli.analysis.tables import all_tables
from tyro_cli.analysis.translation_tables import quality_contrast
from tyro_cli.analysis.verdicts import verdict_of_run
from tyro_cli.errors import DamagedRecord, RunFolderError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run of two arms and three seeds that translates."""

    made = make_run(tmp_path, edit=translate)
    keep_counts(made)
    return made


def test_scores_of_every_cell_and_their_means(folder: Path) -> None:
    table = all_tables(load_run(folder))["translation"]
    tests = [row for row in table.rows if row["split"] == "test" and row["arm"] == "tied"]
    assert [row["seed"] for row in tests] == ["mean", "0", "1", "2"]
    bleus = [quality("tied", seed)["bleu"] for seed in range(3)]
    assert [row["bleu"] for row in tests[1:]] == bleus
    assert tests[0]["bleu"] == pytest.approx(sum(bleus) / 3)
    assert all(row["copy_bleu"] == 3.25 for row in tests)
    assert any(
        "Test: BLEU `nrefs:1|case:mixed|tok:13a|beam:5`, chrF `" in note for note in table.notes
    )


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
    assert row["pairs_won"] == "3/3" and row["copying"] == 3.25
    [chrf] = [row for row in table.rows if (row["score"], row["split"]) == ("chrF", "test")]
    assert chrf["differences"] == (1.0, 1.0, 1.0) and "randomisation_ps" not in chrf
    assert chrf["copying"] == 17.5


def test_overlap_and_what_was_dropped_stand_in_a_table(folder: Path) -> None:
    table = all_tables(load_run(folder))["overlap"]
    assert table.rows == (
        {
            "shared_target_tokens": 0.625,
            "shared_rows": 400,
            "source_rows": 700,
            "target_rows": 650,
            "source_tokens_per_word": 1.25,
            "target_tokens_per_word": 1.5,
            "pairs": 5000,
            "empty_pairs": 4,
            "long_pairs": 17,
        },
    )
    assert {column.key for column in table.columns} == table.rows[0].keys()


@pytest.mark.parametrize("data", [None, "none", [1], {"overlap": {"shared_rows": "many"}}])
def test_a_manifest_that_says_nothing_of_its_data_has_an_empty_overlap(
    folder: Path, data: object
) -> None:
    edit_json(folder / "manifest.json", lambda record: record.update(data=data))
    assert all_tables(load_run(folder))["overlap"].rows == ({},)


def test_bleu_stands_beside_the_verdict(folder: Path) -> None:
    sentence = verdict_of_run(load_run(folder))["tied"].sentence
    assert "Test BLEU, tied - untied: +" in sentence
    assert "over 3 seeds; higher is better, and it decides nothing." in sentence


def test_one_pair_says_its_randomisation_p(folder: Path) -> None:
    plans = [{"seeds": [0], "arms": ["untied", "tied"], "after_results": False}]
    edit_json(folder / "manifest.json", lambda manifest: manifest.update(plans=plans))
    sentence = verdict_of_run(load_run(folder))["tied"].sentence
    assert "at seed 0 (randomisation p ." in sentence
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


def bleu_gains(bonus: float = 0.0) -> list[float]:
    """BLEU of tied minus untied at each seed, with what a point adds to the tied arm's."""
    return [quality("tied", s)["bleu"] + bonus - quality("untied", s)["bleu"] for s in range(3)]


def test_a_study_shows_bleu_and_chrf_at_every_point(tmp_path: Path) -> None:
    study = load_study_records(make_translation_study(tmp_path))
    tables = tables_of(study)
    rows = {
        (row["level disjoint"], row["score"]): row for row in tables["translation-contrasts"].rows
    }
    assert list(rows) == [("0", "BLEU"), ("0", "chrF"), ("1", "BLEU"), ("1", "chrF")]
    for level, lost in (("0", 0.0), ("1", 2.0)):
        row, expected = rows[level, "BLEU"], bleu_gains(-lost)
        assert row["differences"] == pytest.approx(expected)
        assert row["mean"] == pytest.approx(sum(expected) / 3)
        interval = paired_t_interval(expected, 0.95)
        assert row["interval_95"] == pytest.approx((interval.low, interval.high))
        assert rows[level, "chrF"]["differences"] == (1.0, 1.0, 1.0)
    results = {(row["level disjoint"], row["arm"]): row for row in tables["results"].rows}
    tied = [quality("tied", seed)["bleu"] for seed in range(3)]
    assert results["1", "tied"]["bleu"] == pytest.approx(sum(tied) / 3 - 2.0)
    assert results["0", "untied"]["chrf"] == pytest.approx(51.0)
    assert all((row["copy_bleu"], row["copy_chrf"]) == (3.25, 17.5) for row in results.values())
    assert [row["copying"] for row in rows.values()] == [3.25, 17.5] * 2


def test_a_study_shows_the_overlap_at_every_point(tmp_path: Path) -> None:
    folder = make_translation_study(tmp_path)

    def separate(record: dict[str, Any]) -> None:
        record["data"]["overlap"] |= {"shared_rows": None, "shared_target_tokens": 0.0}

    edit_json(tmp_path / "tiny-00000001" / "manifest.json", separate)
    rows = tables_of(load_study_records(folder))["overlap"].rows
    assert [row["level disjoint"] for row in rows] == ["0", "1"]
    assert [row["shared_target_tokens"] for row in rows] == [0.625, 0.0]
    assert [row["shared_rows"] for row in rows] == [400, None]


def test_a_study_shows_how_a_contrast_changes_along_a_factor(tmp_path: Path) -> None:
    table = tables_of(load_study_records(make_translation_study(tmp_path)))["interactions"]
    places = [(row["level disjoint"], row["since"], row["arm"]) for row in table.rows]
    assert places == [("1", "disjoint 0", "tied")] * 2
    bits, bleu = table.rows
    assert (bits["measure"], bleu["measure"]) == ("bits/byte", "BLEU")
    lost = 0.3 / BYTES_PER_WORD / math.log(2)
    assert bits["differences"] == pytest.approx([lost] * 3)
    assert bits["mean"] == pytest.approx(lost)
    assert bleu["differences"] == pytest.approx([-2.0] * 3) and bleu["seeds"] == "0, 1, 2"
    assert bleu["interval_95"] == pytest.approx((-2.0, -2.0))


def test_a_change_is_shown_between_the_same_sentences_alone(tmp_path: Path) -> None:
    folder = make_translation_study(tmp_path)
    for path in (tmp_path / "tiny-00000001").rglob("result.json"):
        edit_json(path, lambda record: record["quality"]["test"].update(sentences=29))
    for path in (tmp_path / "tiny-00000001").rglob("documents.npz"):
        path.unlink()
    table = tables_of(load_study_records(folder))["interactions"]
    assert len(table.rows) == 2 and not any("mean" in row for row in table.rows)
    assert any(note.startswith("Left empty where other") for note in table.notes)


def test_bleu_stands_beside_every_verdict_of_a_study(tmp_path: Path) -> None:
    study = load_study_records(make_translation_study(tmp_path))
    for one, lost in zip(study_contrasts(study), (0.0, 2.0), strict=True):
        mean = sum(bleu_gains(-lost)) / 3
        assert f"Test BLEU, tied - untied: {mean:+.2f}, 95 % interval [" in one.verdict.sentence
        assert "it decides nothing" in one.verdict.sentence


def test_scores_of_other_sentences_do_not_stand_in_one_column(tmp_path: Path) -> None:
    folder = make_translation_study(tmp_path)
    for path in (tmp_path / "tiny-00000001").rglob("result.json"):
        edit_json(path, lambda record: record["quality"]["test"].update(copy_bleu=4.0))
    table = tables_of(load_study_records(folder))["results"]
    keys = [column.key for column in table.columns]
    assert "bleu" not in keys and "copy_bleu" not in keys
    assert "chrf" in keys and "copy_chrf" in keys
    assert any(note.startswith("Left out: BLEU does not compare") for note in table.notes)


def test_bleu_of_two_versions_is_left_out_and_refuses_nothing(folder: Path) -> None:
    path = folder / "tied" / "seed-1" / "result.json"

    def by_another_version(record):
        for one in record["quality"].values():
            one["signatures"]["bleu"] += "|version:9.9.9"

    edit_json(path, by_another_version)
    run = load_run(folder)
    tables = all_tables(run)
    assert "bleu" not in [column.key for column in tables["translation"].columns]
    assert {row["score"] for row in tables["translation-contrasts"].rows} == {"chrF"}
    for name in ("translation", "translation-contrasts"):
        assert any(n.startswith("Left out: BLEU does not") for n in tables[name].notes)
    sentence = verdict_of_run(run)["tied"].sentence
    assert "Test BLEU is left out: it was not computed in one way." in sentence
    forced = all_tables(run, force=True)
    assert {row["score"] for row in forced["translation-contrasts"].rows} == {"BLEU", "chrF"}


def test_a_study_that_does_not_translate_has_no_such_table(tmp_path: Path) -> None:
    tables = tables_of(load_study_records(make_study(tmp_path, {(512,): NATS_PER_WORD})))
    assert "translation-contrasts" not in tables and "overlap" not in tables
    assert "interactions" not in tables
    assert "bleu" not in [column.key for column in tables["results"].columns]


def test_a_claim_reads_the_change_in_bleu_and_in_bits(tmp_path: Path) -> None:
    places: dict[str, Any] = {"at": {"disjoint": 1}, "minus": {"disjoint": 0}}
    findings = [
        finding("higher", "bits_per_byte", margin=0.0027, **places),
        finding("lower", "bleu", **places),
    ]
    study = load_study_records(make_translation_study(tmp_path, claim=claim(*findings)))
    [one] = claim_results([study])
    bits, bleu = one.findings
    # The same words and bytes are scored at both places: a constant lies between nats and bits.
    assert bits.differences == pytest.approx([0.3 / BYTES_PER_WORD / math.log(2)] * 3)
    assert bleu.differences == pytest.approx([-2.0] * 3)
    assert one.word == "supported"
