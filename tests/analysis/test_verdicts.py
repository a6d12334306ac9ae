import math

import pytest

from tests.analysis.fake_runs import ARM_CHANGES, diverge, make_run, sha256, signatures, values
from tests.analysis.test_contrasts import only, without_words
from tests.analysis.test_simulated_studies import contrast_of
from tyro_cli.analysis.records import load_run
from tyro_cli.analysis.statistics import seeds_needed
from tyro_cli.analysis.verdicts import (
    FamilyPs,
    margin_in_words,
    plan_in_words,
    verdict,
    verdict_of_run,
)
from tyro_cli.errors import NothingMatched, RunFolderError

MARGIN = 0.00995


def verdict_on(tmp_path, differences, **changes):
    run = load_run(make_run(tmp_path, nats_per_word=values(differences), **changes))
    return verdict_of_run(run)["tied"]


@pytest.mark.parametrize(
    ("differences", "kind", "text", "winner"),
    [
        ([-0.04, -0.05, -0.035], "better", "tied better", "tied"),
        ([0.04, 0.05, 0.035], "better", "untied better", "untied"),
        ([-0.004, -0.005, -0.0045], "better-small", "tied better, by less than 1 %", "tied"),
        ([0.004, 0.005, 0.0045], "better-small", "untied better, by less than 1 %", "untied"),
        ([-0.002, 0.001, 0.002], "equivalent", "equivalent within 1 %", None),
        ([0.0, 0.0, 0.0], "equivalent", "equivalent within 1 %", None),
        ([-0.02, 0.03, 0.01], "cannot-tell", "cannot tell", None),
        # 95 % [-0.0128, -0.0052] excludes zero; 90 % [-0.0116, -0.0064] passes the margin.
        ([-0.0075, -0.0085, -0.011], "better", "tied better", "tied"),
        ([-0.02, -0.021], "better", "tied better", "tied"),
        ([-0.02, -0.04], "cannot-tell", "cannot tell", None),
        ([-0.04], "one-pair", "one pair: no interval over seeds", None),
    ],
)
def test_every_verdict_that_the_intervals_decide(tmp_path, differences, kind, text, winner):
    verdict = verdict_on(tmp_path, differences)
    assert (verdict.kind, verdict.text, verdict.winner) == (kind, text, winner)
    assert verdict.sentence.startswith(f"tied against untied: {text}. ")
    assert verdict.final and not verdict.extended
    assert "extended after looking" not in verdict.sentence


def test_better_says_over_what_and_at_which_rate(tmp_path):
    assert verdict_on(tmp_path, [-0.04, -0.05, -0.035]).sentence == (
        "tied against untied: tied better. Test nats per word, tied - untied: -0.0417, "
        "95 % interval [-0.0606, -0.0227] over 3 seeds (perplexity ratio 0.9592), "
        "best-valid checkpoints, shared rate 0.002. Pairs verified: 3/3 identical start."
    )


def test_equivalent_shows_the_interval_that_decided(tmp_path):
    sentence = verdict_on(tmp_path, [-0.002, 0.001, 0.002]).sentence
    assert sentence.endswith(
        "The 90 % interval [-0.0032, +0.0038] lies within the margin of 1 % (0.00995 nats)."
    )


def test_cannot_tell_says_how_many_seeds_would(tmp_path):
    # s = 0.025166, upper bound 0.053275: t(.975, 112) * 0.053275 / sqrt(113) = 0.00993.
    assert verdict_on(tmp_path, [-0.02, 0.03, 0.01]).sentence.endswith(
        "To bring the half-width (0.0625) to the margin of 1 % (0.00995 nats) would take "
        "113 seeds in all, by the upper 80 % bound of the spread."
    )


def test_cannot_tell_does_not_name_an_absurd_number_of_seeds(tmp_path):
    sentence = verdict_on(tmp_path, [-1.0, 1.2, 0.4]).sentence
    assert "would take more than 10,000 seeds, by" in sentence


def test_cannot_tell_at_the_edge_of_the_margin_promises_nothing(tmp_path):
    # Half-width 0.0075, 0.0094 at the upper bound of the spread: within the margin already. But
    # 95 % [-0.0005, +0.0145] holds zero and 90 % [+0.0009, +0.0131] passes the margin.
    differences = [0.007 + 0.0113 * (-1) ** i for i in range(12)]
    verdict = verdict_on(tmp_path, differences)
    assert verdict.kind == "cannot-tell"
    assert "more seeds may not settle it" in verdict.sentence


def test_cannot_tell_for_the_sake_of_a_family_does_not_speak_of_an_edge():
    differences = (0.001, -0.001, 0.002, -0.002, 0.0015, -0.0015, 0.001, -0.001)
    family = FamilyPs(better=1.0, equivalent=0.2, size=40, name="a family")
    one = verdict(contrast_of(differences), 0.01, family=family)
    assert one.kind == "cannot-tell"
    assert "what is open is due to the p adjusted by Holm" in one.sentence
    assert "edge" not in one.sentence


def test_a_half_width_within_the_margin_is_not_to_be_brought_there():
    """By the upper bound of the spread it may not stay within."""
    differences = (0.012, 0.012, 0.020, 0.012)
    seeds = seeds_needed(differences, 0.00995)
    sentence = plan_in_words(differences, seeds, 0.00995, "the margin")
    assert "is within the margin already; that it stays there would take" in sentence


def test_one_pair_has_an_interval_over_documents(tmp_path):
    sentence = verdict_on(tmp_path, [-0.04]).sentence
    assert "Test nats per word, tied - untied: -0.0400 at seed 0" in sentence
    assert "Over documents (these two fixed checkpoints, 4 documents): 95 % interval [" in sentence
    assert "it says nothing about other seeds" in sentence
    assert "over 1 seeds" not in sentence


def test_one_pair_without_document_scores_says_so(tmp_path):
    folder = make_run(tmp_path, nats_per_word=values([-0.04]))
    (folder / "tied/seed-0/documents.npz").unlink()
    sentence = verdict_of_run(load_run(folder))["tied"].sentence
    assert "An interval over documents needs two documents with scores." in sentence


def test_one_diverged_pair_withholds_the_verdict(tmp_path):
    verdict = verdict_on(tmp_path, [-0.04, -0.05, -0.035], edit=only("untied", 1, diverge))
    assert (verdict.kind, verdict.winner) == ("withheld", None)
    assert verdict.text == "withheld: 1 of 3 pairs diverged"
    assert "Diverged: seed 1 (untied at step 33: loss is nan)." in verdict.sentence
    assert "The numbers are those of the other pairs and decide nothing." in verdict.sentence


def test_all_pairs_diverged(tmp_path):
    verdict = verdict_on(tmp_path, [-0.04], edit=only("tied", 0, diverge))
    assert verdict.text == "withheld: 1 of 1 pairs diverged"
    assert "nats per word" not in verdict.sentence


def test_unverified_pairs_are_named_and_the_others_decide(tmp_path):
    def other_start(record):
        start = record["pairing"]["initial_parameters"]["final_norm.weight"]
        start["sha256"] = sha256("another")

    verdict = verdict_on(tmp_path, [-0.04, -0.05, -0.035, 9.0], edit=only("tied", 3, other_start))
    assert verdict.text == "tied better"
    assert "over 3 seeds" in verdict.sentence
    assert (
        "No contrast at seed 3, the pair is not verified: "
        "initial values of final_norm.weight differ." in verdict.sentence
    )
    assert "Pairs verified: 3/4 identical start, 1/4 not verified." in verdict.sentence


def test_without_a_verified_pair_the_verdict_is_withheld(tmp_path):
    def other_seed(record):
        record["pairing"]["fingerprint"]["threads"] = 1 + record["parameters"]["tied"]

    verdict = verdict_on(tmp_path, [-0.04, -0.05], edit=other_seed)
    assert (verdict.kind, verdict.text) == ("withheld", "withheld: 2 of 2 pairs not verified")


def test_unfinished_pairs_make_the_verdict_provisional(tmp_path):
    plans = [{"seeds": [0, 1, 2, 3, 4], "arms": ["untied", "tied"], "after_results": False}]
    verdict = verdict_on(tmp_path, [-0.04, -0.05, -0.035], plans=plans)
    assert verdict.text == "tied better"
    assert not verdict.final
    assert "Not final: 2 of 5 pairs unfinished (seeds 3, 4)." in verdict.sentence


def test_nothing_finished_withholds_the_verdict(tmp_path):
    plans = [{"seeds": [0, 1], "arms": ["untied", "tied"], "after_results": False}]
    run = load_run(make_run(tmp_path, nats_per_word={}, plans=plans))
    verdict = verdict_of_run(run)["tied"]
    assert verdict.text == "withheld: 2 of 2 pairs unfinished"


def test_no_common_seed_withholds_the_verdict(tmp_path):
    plans = [
        {"seeds": [0], "arms": ["untied"], "after_results": False},
        {"seeds": [1], "arms": ["tied"], "after_results": False},
    ]
    verdict = verdict_on(tmp_path, [-0.04, -0.05], plans=plans)
    assert verdict.text == "withheld: no seed is planned for both arms"
    assert "Planned for one of the two arms only: seeds 0, 1." in verdict.sentence


def test_extended_after_looking(tmp_path):
    plans = [
        {"seeds": [0, 1], "arms": ["untied", "tied"], "after_results": False},
        {"seeds": [2], "arms": ["untied", "tied"], "after_results": True},
    ]
    verdict = verdict_on(tmp_path, [-0.04, -0.05, -0.035], plans=plans)
    assert verdict.extended
    assert verdict.sentence.endswith("extended after looking.")


def test_tokens_decide_where_words_are_not_available(tmp_path):
    verdict = verdict_on(tmp_path, [-0.04, -0.05, -0.035], edit=without_words)
    assert (verdict.text, verdict.metric) == ("tied better", "nats_per_token")
    assert "Test nats per token, tied - untied: -0.0278" in verdict.sentence
    assert "Words are n/a in these records, so nats per token decide" in verdict.sentence


def test_tokens_of_two_tokenizers_decide_nothing(tmp_path):
    def edit(record):
        without_words(record)
        if record["parameters"]["tied"]:
            other = signatures("test")["nats_per_token"].replace("bpe-61", "unigram-61")
            record["signatures"]["test"]["nats_per_token"] = other

    with pytest.raises(RunFolderError, match="the signatures differ in tok"):
        verdict_on(tmp_path, [-0.04, -0.05, -0.035], edit=edit)


def test_rates_that_differ_are_said(tmp_path):
    arms = ARM_CHANGES | {
        "tied": {
            "model": {"tying": "in-out"},
            "training": {"optimizer": {"learning_rate": 0.004}},
        }
    }
    verdict = verdict_on(tmp_path, [-0.04, -0.05, -0.035], arms=arms)
    assert "rates 0.004 for tied and 0.002 for untied" in verdict.sentence
    assert "shared rate" not in verdict.sentence


def test_roles_that_differ_are_said(tmp_path):
    tied = {
        "model": {"tying": "in-out"},
        "training": {"optimizer": {"roles": {"head": {"rate": 3.0}}}},
    }
    verdict = verdict_on(tmp_path, [-0.04, -0.05], arms=ARM_CHANGES | {"tied": tied})
    assert "rate 0.002 with other multipliers by role" in verdict.sentence


def test_drift_is_said(tmp_path):
    def drift(record):
        record["pairing"]["numeric_drift"] = [{"step": 20, "changed": ["threads 1 -> 2"]}]

    verdict = verdict_on(tmp_path, [-0.04, -0.05], edit=only("tied", 1, drift))
    assert "Resumed under another numeric fingerprint: tied seed 1." in verdict.sentence


def test_the_margin_is_relative_perplexity(tmp_path):
    verdict = verdict_on(tmp_path, [-0.03, -0.031, -0.032], margin=0.05)
    assert verdict.text == "tied better, by less than 5 %"
    assert "(0.04879 nats)" in verdict.sentence
    assert [margin_in_words(margin) for margin in (0.01, 0.07, 0.0025)] == ["1 %", "7 %", "0.25 %"]
    assert math.log1p(0.01) == pytest.approx(MARGIN, abs=1e-6)


def test_another_baseline_turns_the_sign(tmp_path):
    run = load_run(make_run(tmp_path))
    verdicts = verdict_of_run(run, "tied")
    assert list(verdicts) == ["untied"]
    assert verdicts["untied"].text == "tied better"
    assert "untied - tied: +0.0417" in verdicts["untied"].sentence
    with pytest.raises(NothingMatched):
        verdict_of_run(run, "other")


def test_one_arm_has_no_verdict(tmp_path):
    arms = {"untied": {}}
    run = load_run(make_run(tmp_path, arms=arms, nats_per_word={("untied", 0): 4.5}))
    assert verdict_of_run(run) == {}


def test_every_other_arm_has_its_own_verdict(tmp_path):
    arms = ARM_CHANGES | {
        "tied-embedding": {"model": {"tying": "in-out", "tied_role": "embedding"}}
    }
    nats = values([-0.04, -0.05, -0.035]) | {
        ("tied-embedding", seed): 4.5 + 0.01 * seed + difference
        for seed, difference in enumerate((0.04, 0.05, 0.035))
    }
    verdicts = verdict_of_run(load_run(make_run(tmp_path, arms=arms, nats_per_word=nats)))
    assert {arm: verdict.text for arm, verdict in verdicts.items()} == {
        "tied": "tied better",
        "tied-embedding": "untied better",
    }
    assert verdicts["tied"].as_record()["winner"] == "tied"
