"""The claim of a study file: what it may name, and every slip at its place."""

from pathlib import Path

import pytest

from tests.config.conftest import VALID
from tests.config.test_studies import HEAD, VOCABULARY, load, refused  # noqa: F401
from tyro_cli.config.studies import load_study
from tyro_cli.errors import ConfigurationError

STUDY = (
    HEAD
    + VOCABULARY
    + """\
claim:
  number: 2
  sentence: The saving matters most when the vocabulary is large.
  depends_on: the vocabulary
  findings:
    - name: less
      measure: nats_per_word
      arm: tied
      baseline: untied
      at: {vocabulary: 1024}
      minus: {vocabulary: 512}
      expected: lower
smoke:
  training.budget: {steps: 3}
  seeds: [0]
"""
)


def test_a_claim_is_read(load):  # noqa: F811
    claim = load(STUDY).study.claim
    assert claim.number == 2
    assert claim.findings[0].at == {"vocabulary": 1024}
    assert claim.findings[0].rates == "shared"


PROBED = "measure: linear_cka\n      matrix: input"
SWAPPED = "arm: untied\n      baseline: tied"
TWICE = """\
    - {name: more, measure: nats_per_word, arm: tied, baseline: untied, expected: higher,
       at: {vocabulary: 1024}, minus: {vocabulary: 512}}
    - name: less"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("arm: tied", "arm: tide", "claim.findings[0].arm: the experiment has no arm 'tide'"),
        ("arm: tied", "arm: tide", "did you mean 'tied'?"),
        ("baseline: untied", "baseline: tied", "claim.findings[0].baseline: is the arm itself"),
        ("at: {vocabulary", "at: {vocab", "the study has no factor 'vocab'; did you mean"),
        ("at: {vocabulary: 1024", "at: {vocabulary: 99", "vocabulary has no level 99: it has 512"),
        ("minus: {vocabulary: 512", "minus: {vocabulary: 1024", "names the levels of `at` again"),
        ("at: {vocabulary: 1024}", "at: {}", "for which `at` names no level"),
        ("expected: lower", "expected: less", "claim.findings[0].expected"),
        ("measure: nats_per_word", "measure: bleu", "bleu is for the task translation"),
        ("expected: lower", "expected: lower\n      rates: each-best", "has no tune:"),
        ("measure: nats_per_word", "measure: linear_cka", "linear_cka needs `matrix: input`"),
        ("arm: tied", "arm: tied\n      matrix: input", "does not compare matrices"),
        ("measure: nats_per_word", PROBED, "linear_cka needs 3 seeds or more, the study has 2"),
        ("arm: tied\n      baseline: untied", SWAPPED, "untied ties less than its baseline tied"),
        ("    - name: less", TWICE, "findings[1]: asks what findings[0] asks"),
        ("number: 2", "number: 0", "claim.number"),
        (
            "claim:",
            "exclude: [{vocabulary: 1024}]\nclaim:",
            "claim.findings[0].at: names no point that is left: `exclude` takes them out",
        ),
        (
            "claim:",
            "exclude: [{vocabulary: 512}]\nclaim:",
            "claim.findings[0].minus: names a point that `exclude` takes out",
        ),
        ("expected: lower", "expected: lower\n      margin: 0", "claim.findings[0].margin"),
    ],
)
def test_a_claim_that_does_not_fit_its_study_is_refused(refused, old, new, message):  # noqa: F811
    assert old in STUDY
    text = refused(STUDY.replace(old, new, 1))
    assert message in text
    assert text.startswith("study.yaml:")


def test_a_tied_arm_that_is_not_tied_is_refused(refused):  # noqa: F811
    experiment = VALID.replace("tying: in-out", "tying: none")
    assert "tied and untied are set alike" in refused(STUDY, experiment=experiment)


def test_probes_compare_a_tied_matrix_with_an_untied_one(refused):  # noqa: F811
    study = STUDY.replace("measure: nats_per_word", PROBED)
    both = VALID.replace("untied: {}", "untied: {model: {tying: in-out, d_model: 8}}")
    seeds = {"overrides": ["seeds=[0,1,2]"]}
    assert "and this arm is tied" in refused(study, experiment=both, **seeds)
    neither = VALID.replace("tying: in-out", "d_model: 8")
    assert "is of a tied matrix, and tied has none" in refused(study, experiment=neither, **seeds)


LEDGER = """\
  ledger:
    vocab_size: []
    d_model: [16]
    shapes:
      - shapes/gpt2.json
      - /elsewhere/bert.json
"""


def test_published_models_are_named_by_their_files(load):  # noqa: F811
    claim = load(STUDY.replace("smoke:", LEDGER + "smoke:")).study.claim
    assert claim.ledger.shapes == ("shapes/gpt2.json", "/elsewhere/bert.json")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("/elsewhere/bert", "old/gpt2", "claim.ledger.shapes[1]: an earlier file is called 'gpt2'"),
        ("/elsewhere/bert.json", "[]", "claim.ledger.shapes[1]: must be text"),
        ("/elsewhere/bert.json", "' '", "claim.ledger.shapes[1]: is empty text"),
        ("shapes:", "shape:", "claim.ledger.shape: "),
    ],
)
def test_a_list_of_published_models_is_checked(refused, old, new, message):  # noqa: F811
    text = refused(STUDY.replace("smoke:", LEDGER.replace(old, new) + "smoke:"))
    assert message in text
    assert text.startswith("study.yaml:")


def test_smoke_is_laid_over_the_experiment_below_the_command_line(load, tmp_path):  # noqa: F811
    load(STUDY)
    path = Path("study.yaml")
    first = load_study(path, smoke=True)
    assert first.points[0].loaded.experiment.training.budget.steps == 3
    assert first.seeds == (0,)
    second = load_study(path, ["training.budget.steps=5"], smoke=True)
    assert second.points[0].loaded.experiment.training.budget.steps == 5
    assert load_study(path).seeds != (0,)


def test_smoke_of_a_study_that_has_none_is_refused(load):  # noqa: F811
    load(STUDY.partition("smoke:")[0])
    with pytest.raises(ConfigurationError, match="no small budget"):
        load_study(Path("study.yaml"), smoke=True)


def test_the_experiment_of_these_tests_has_both_arms():
    assert "untied" in VALID and "tied" in VALID
