"""The confound guard: what it refuses, what it lets through, and what it says differs."""

from pathlib import Path

import pytest

from tests.experiments.small_experiments import load
from tyro_cli.errors import ConfigurationError
from tyro_cli.experiments.confounds import check_confounds


def arms(*lines: str, allow: str = "", baseline: str = "untied") -> str:
    body = "".join(f"  {line}\n" for line in lines)
    return f"arms:\n{body}baseline: {baseline}\nseeds: [0]\n{allow}"


TIED = "tied: {model: {tying: in-out}}"


def test_the_tie_may_differ_and_is_returned(tmp_path: Path) -> None:
    assert check_confounds(load(tmp_path, arms("untied: {}", TIED))) == {
        "untied": {},
        "tied": {"model.tying": ["none", "in-out"]},
    }


def test_an_undeclared_difference_is_refused_at_the_arms_own_line(tmp_path: Path) -> None:
    loaded = load(tmp_path, arms("untied: {}", "tied: {model: {tying: in-out, dropout: 0.1}}"))
    with pytest.raises(ConfigurationError) as caught:
        check_confounds(loaded)
    first, line, *_ = caught.value.message.splitlines()
    assert first.startswith(f"{tmp_path}/experiment.yaml:14:")
    assert "arms.tied.model.dropout.embedding" in first
    assert "the arms 'untied' and 'tied' differ in" in first
    assert "(0.0 and 0.1)" in first
    assert "tied: {model: {tying: in-out, dropout: 0.1}}" in line
    assert "allow_differences" in caught.value.remedy


def test_every_undeclared_key_is_named(tmp_path: Path) -> None:
    change = "tied: {model: {num_heads: 2}, training: {optimizer: {learning_rate: 1e-3}}}"
    with pytest.raises(ConfigurationError) as caught:
        check_confounds(load(tmp_path, arms("untied: {}", change)))
    assert "model.num_heads (4 and 2)" in caught.value.message
    assert "training.optimizer.learning_rate (0.002 and 0.001)" in caught.value.message
    assert caught.value.remedy.endswith("[model.num_heads, training.optimizer.learning_rate]")


def test_a_difference_written_in_the_baseline_counts_as_well(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"model\.num_heads"):
        check_confounds(load(tmp_path, arms("untied: {model: {num_heads: 2}}", TIED)))


def test_what_both_arms_change_alike_is_no_difference(tmp_path: Path) -> None:
    same = "model: {num_heads: 2"
    found = check_confounds(
        load(tmp_path, arms(f"untied: {{{same}}}}}", f"tied: {{{same}, tying: in-out}}}}"))
    )
    assert found["tied"] == {"model.tying": ["none", "in-out"]}


@pytest.mark.parametrize("key", ["training.optimizer.learning_rate", "training.optimizer"])
def test_a_declared_key_or_its_section_may_differ(tmp_path: Path, key: str) -> None:
    change = "tied: {model: {tying: in-out}, training: {optimizer: {learning_rate: 1e-3}}}"
    found = check_confounds(
        load(tmp_path, arms("untied: {}", change, allow=f"allow_differences: [{key}]\n"))
    )
    assert found["tied"]["training.optimizer.learning_rate"] == [0.002, 0.001]


def test_a_key_does_not_allow_one_that_begins_alike(tmp_path: Path) -> None:
    change = "tied: {model: {tied_role: embedding, tying: in-out, embedding_std: 0.1}}"
    allow = "allow_differences: [model.tied_role, model.embedding_scale]\n"
    with pytest.raises(ConfigurationError, match=r"model\.embedding_std"):
        check_confounds(load(tmp_path, arms("untied: {}", change, allow=allow)))


@pytest.mark.parametrize("by", ["d_ff", "d_model", "num_layers"])
def test_a_match_declares_its_key(tmp_path: Path, by: str) -> None:
    wide = f"wide: {{model: {{tying: in-out}}, match: {{parameters_of: untied, by: {by}}}}}"
    found = check_confounds(load(tmp_path, arms("untied: {}", wide)))
    assert list(found["wide"]) == ["model.tying"]


def test_a_match_declares_no_other_key(tmp_path: Path) -> None:
    wide = "wide: {model: {num_heads: 2}, match: {parameters_of: untied, by: d_ff}}"
    with pytest.raises(ConfigurationError, match=r"model\.num_heads"):
        check_confounds(load(tmp_path, arms("untied: {}", wide)))


@pytest.mark.parametrize(
    "written",
    [
        "d_ff: 48",
        "dropout: {embedding: 0.0, residual: 0.0, output: 0.0}",
        "embedding_std: 0.02",
    ],
)
def test_a_default_written_out_is_no_difference(tmp_path: Path, written: str) -> None:
    change = f"tied: {{model: {{tying: in-out, {written}}}}}"
    found = check_confounds(load(tmp_path, arms("untied: {}", change)))
    assert list(found["tied"]) == ["model.tying"]


def test_what_follows_from_a_declared_key_needs_no_declaration_but_is_told(
    tmp_path: Path,
) -> None:
    change = "tied: {model: {tying: in-out, d_model: 32}}"
    allow = "allow_differences: [model.d_model]\n"
    found = check_confounds(load(tmp_path, arms("untied: {}", change, allow=allow)))
    assert found["tied"] == {
        "model.d_model": [16, 32],
        "model.d_ff": [48, 96],
        "model.tying": ["none", "in-out"],
    }


def test_a_section_that_one_arm_lacks_is_a_difference(tmp_path: Path) -> None:
    change = "tied: {model: {tying: in-out}, training: {early_stopping: {patience: 2}}}"
    with pytest.raises(ConfigurationError, match=r"training\.early_stopping\.patience"):
        check_confounds(load(tmp_path, arms("untied: {}", change)))
