import math

import numpy as np
import pytest

from tests.analysis.fake_runs import (
    ARM_CHANGES,
    NATS_PER_WORD,
    diverge,
    edit_json,
    make_run,
    sha256,
    signatures,
)
from tyro_cli.analysis.contrasts import (
    check_metric,
    contrast,
    document_contrast,
)
from tyro_cli.analysis.records import load_run
from tyro_cli.analysis.signatures import mixed_signatures, refuse_mixed_signatures
from tyro_cli.errors import RunFolderError, UsageError


def only(arm, seed, change):
    """Return an edit of the one record of an arm and a seed."""

    def edit(record):
        if (record["arm"], record["seed"]) == (arm, seed):
            change(record)

    return edit


def test_a_contrast_is_arm_minus_baseline_over_pairs(tmp_path):
    one = contrast(load_run(make_run(tmp_path)), "tied", "untied")
    assert one.seeds == (0, 1, 2)
    assert one.arm_values == pytest.approx((4.46, 4.47, 4.475))
    assert one.baseline_values == pytest.approx((4.50, 4.52, 4.51))
    assert one.differences == pytest.approx((-0.04, -0.05, -0.035))
    assert one.mean == pytest.approx(-0.125 / 3)
    assert one.perplexity_ratio == pytest.approx(math.exp(-0.125 / 3))
    assert one.num_won == 3
    assert one.sign_flip.p == 0.25
    assert one.pairs_in_words() == "3/3 identical start"
    assert one.shared_rate and one.learning_rates == (0.002, 0.002)
    assert not one.extended


def test_the_baseline_may_be_another_arm(tmp_path):
    run = load_run(make_run(tmp_path))
    one = contrast(run, "untied", "tied")
    assert one.differences == pytest.approx((0.04, 0.05, 0.035))
    assert one.num_won == 0


def test_metric_split_and_checkpoint_choose_the_values(tmp_path):
    run = load_run(make_run(tmp_path))
    tokens = contrast(run, "tied", "untied", "nats_per_token", "valid", "last")
    factor = 1.02 * 1.005 / 1.5
    assert tokens.differences == pytest.approx(
        tuple(factor * difference for difference in (-0.04, -0.05, -0.035))
    )
    bits = contrast(run, "tied", "untied", "bits_per_byte")
    assert bits.mean == pytest.approx(-0.125 / 3 / math.log(2) / 5)
    assert bits.perplexity_ratio is None
    ppl = contrast(run, "tied", "untied", "word_perplexity")
    assert ppl.arm_values[0] == pytest.approx(math.exp(4.46))


def test_a_pair_that_does_not_match_gets_no_contrast(tmp_path):
    def other_data(record):
        record["pairing"]["batches"][0][1] = sha256("other")

    one = contrast(load_run(make_run(tmp_path, edit=only("tied", 1, other_data))), "tied", "untied")
    assert one.seeds == (0, 2)
    assert one.mismatches == {1: "the batches consumed differ at step 20"}
    assert one.pairs_in_words() == "2/3 identical start, 1/3 not verified"


def test_diverged_and_unfinished_pairs_are_kept_by_name(tmp_path):
    values = {key: value for key, value in NATS_PER_WORD.items() if key != ("untied", 2)}
    folder = make_run(tmp_path, nats_per_word=values, edit=only("tied", 0, diverge))
    one = contrast(load_run(folder), "tied", "untied")
    assert one.seeds == (1,)
    assert one.diverged == {0: "tied at step 33: loss is nan"}
    assert one.unfinished_seeds == (2,)
    assert one.pairs_in_words() == "1/3 identical start, 1/3 diverged, 1/3 unfinished"
    assert one.interval() is None
    assert one.equivalence(0.01) is None


def test_a_diverged_cell_decides_before_its_partner_is_trained(tmp_path):
    values = {key: value for key, value in NATS_PER_WORD.items() if key != ("untied", 0)}
    folder = make_run(tmp_path, nats_per_word=values, edit=only("tied", 0, diverge))
    one = contrast(load_run(folder), "tied", "untied")
    assert set(one.diverged) == {0}
    assert one.unfinished_seeds == ()


def test_seeds_of_one_arm_only_make_no_pair(tmp_path):
    plans = [
        {"seeds": [0, 1], "arms": ["untied", "tied"], "after_results": False},
        {"seeds": [2], "arms": ["tied"], "after_results": True},
    ]
    one = contrast(load_run(make_run(tmp_path, plans=plans)), "tied", "untied")
    assert one.planned_seeds == (0, 1)
    assert one.unpaired_seeds == (2,)
    assert not one.extended, "no pair was added"


@pytest.mark.parametrize(
    ("plans", "extended"),
    [
        ([([0, 1, 2], ["untied", "tied"], False)], False),
        ([([0, 1], ["untied", "tied"], False), ([2], ["untied", "tied"], True)], True),
        ([([0, 1], ["untied", "tied"], False), ([2], ["untied", "tied"], False)], False),
        ([([0, 1, 2], ["untied", "tied"], False), ([0], ["untied", "tied"], True)], False),
        ([([0, 1, 2], ["untied"], False), ([0, 1, 2], ["tied"], True)], False),
        (
            [([0, 1], ["untied", "tied"], False), ([2], ["untied"], True), ([2], ["tied"], True)],
            True,
        ),
    ],
    ids=[
        "one plan",
        "seeds added after results",
        "seeds added before results",
        "nothing added",
        "an arm added",
        "seeds added arm by arm",
    ],
)
def test_extended_means_pairs_added_after_results(tmp_path, plans, extended):
    records = [dict(zip(("seeds", "arms", "after_results"), plan, strict=True)) for plan in plans]
    run = load_run(make_run(tmp_path, plans=records))
    assert contrast(run, "tied", "untied").extended == extended


def without_words(record):
    for checkpoint in record["evaluations"].values():
        for split in ("valid", "test"):
            checkpoint[split] |= {"unknown_words": 3, "nats_per_word": None}
            checkpoint[split] |= {"word_perplexity": None, "bits_per_byte": None}


def test_a_metric_that_is_not_available_in_one_cell_has_no_values(tmp_path):
    folder = make_run(tmp_path, edit=only("tied", 2, without_words))
    one = contrast(load_run(folder), "tied", "untied")
    assert one.seeds == ()
    assert one.unavailable == "nats_per_word is n/a"
    assert one.pairs_in_words() == "3/3 identical start"


def test_values_of_different_signature_are_refused_unless_forced(tmp_path):
    def other_stride(record):
        record["signatures"]["test"] = signatures("test", stride=8)

    run = load_run(make_run(tmp_path, edit=only("tied", 1, other_stride)))
    with pytest.raises(RunFolderError) as caught:
        contrast(run, "tied", "untied")
    assert "the signatures differ in stride" in caught.value.message
    assert "stride:4" in caught.value.message and "stride:8" in caught.value.message
    assert "--force" in caught.value.remedy
    assert contrast(run, "tied", "untied", split="valid").mean is not None, "metric by metric"
    forced = contrast(run, "tied", "untied", force=True)
    assert forced.seeds == (0, 1, 2)
    assert forced.forced.startswith("Forced: test nats_per_word has different signatures: ")


@pytest.mark.parametrize(
    ("signatures", "says"),
    [
        ({}, ""),
        ({"a": "x|ctx:8"}, ""),
        ({"a": "x|ctx:8", "b": "x|ctx:8"}, ""),
        ({"a": "x|ctx:8|tok:bpe-1", "b": "x|ctx:9|tok:bpe-2"}, "the signatures differ in ctx, tok"),
        ({"a": "x|ctx:8", "b": "y|ctx:8"}, "the signatures differ in metric"),
        ({"a": "x|ctx:8", "b": "x|ctx:8|unknown:3/9"}, "the signatures differ in unknown"),
        ({"a": "x|ctx:8", "b": ""}, "a signature is missing"),
        ({"a": "", "b": ""}, "none is recorded"),
    ],
)
def test_mixed_signatures_name_what_differs(signatures, says):
    assert mixed_signatures(signatures).startswith(says)
    assert bool(mixed_signatures(signatures)) == bool(says)
    if says:
        with pytest.raises(RunFolderError, match="bits was not computed in one way"):
            refuse_mixed_signatures("bits", signatures)
    else:
        assert refuse_mixed_signatures("bits", signatures) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"optimizer": {"learning_rate": 0.004}}},
        {"training": {"optimizer": {"roles": {"embedding": {"rate": 2.0}}}}},
    ],
)
def test_rates_are_shared_only_if_no_role_differs(tmp_path, changes):
    arms = ARM_CHANGES | {"tied": {"model": {"tying": "in-out"}} | changes}
    assert not contrast(load_run(make_run(tmp_path, arms=arms)), "tied", "untied").shared_rate


def test_a_resume_on_another_machine_is_kept_by_name(tmp_path):
    def drift(record):
        record["pairing"]["numeric_drift"] = [{"step": 20, "changed": ["threads 1 -> 2"]}]

    run = load_run(make_run(tmp_path, edit=only("tied", 1, drift)))
    assert contrast(run, "tied", "untied").drifted == ("tied seed 1",)


def test_the_document_contrast_is_that_of_the_records(tmp_path):
    run = load_run(make_run(tmp_path))
    over = document_contrast(run, "tied", "untied", 1, "nats_per_word")
    assert over.difference == pytest.approx(-0.05)
    assert over.num_documents == 4
    tokens = document_contrast(run, "tied", "untied", 1, "nats_per_token", "valid")
    assert tokens.difference == pytest.approx(-0.05 * 1.02 / 1.5)


def test_other_documents_have_no_document_contrast(tmp_path):
    run = load_run(make_run(tmp_path))
    path = run.cells["tied", 0].folder / "documents.npz"
    with np.load(path) as content:
        arrays = dict(content)
    arrays["test_words"] = np.array([50, 100, 200, 150])
    np.savez(path, **arrays)
    assert document_contrast(run, "tied", "untied", 0, "nats_per_word") is None
    path.unlink()
    assert document_contrast(run, "tied", "untied", 0, "nats_per_word") is None


def test_an_unknown_metric_lists_the_known_ones():
    assert check_metric("bits_per_byte") == "bits_per_byte"
    with pytest.raises(UsageError, match="no metric 'bleu'") as caught:
        check_metric("bleu")
    assert "nats_per_word" in caught.value.remedy


def test_the_manifest_of_an_arm_solved_by_match_has_the_same_data(tmp_path):
    def narrower(record):
        if record["arm"] == "tied":
            name = "blocks.0.feed_forward.down.weight"
            record["pairing"]["initial_parameters"][name] = {
                "shape": [16, 64],
                "sha256": sha256("wide"),
            }

    folder = make_run(tmp_path, edit=narrower)
    edit_json(folder / "manifest.json", lambda manifest: manifest)
    assert contrast(load_run(folder), "tied", "untied").pairs_in_words() == "3/3 same data"
