"""Which results are the same: what changes an identity and what must not."""

from pathlib import Path
from typing import Any

import pytest

from tests.experiments.small_experiments import ARMS, BASE, load, prepared_data
from tyro_cli.analysis.records import differing_settings
from tyro_cli.config.schema import Settings
from tyro_cli.experiments import identity
from tyro_cli.experiments.identity import cell_id, run_id, settings_sha256
from tyro_cli.experiments.plan import plan_experiment

CONTENT = "c" * 64


def settings(**changes: Any) -> Settings:
    """Settings with single values changed: `a__b__c=1` is the key a.b.c."""
    record: dict[str, Any] = {
        "task": "language-modeling",
        "data": {
            "corpus": "kjv",
            "tokenizer": {"kind": "bpe", "vocab_size": 512},
            "context_length": 8,
        },
        "model": {"d_model": 16, "num_layers": 2, "num_heads": 4},
        "training": {
            "budget": {"steps": 4},
            "batch_tokens": 32,
            "optimizer": {"learning_rate": 2e-3},
        },
        "evaluation": {},
    }
    for dotted, value in changes.items():
        *parents, key = dotted.split("__")
        place = record
        for parent in parents:
            place = place.setdefault(parent, {})
        place[key] = value
    return Settings.model_validate(record)


def identify(one: Settings, seed: int = 0, precision: str = "fp32") -> str:
    return cell_id(one, seed, CONTENT, precision)


OTHER = {
    "data__format": "wikitext",
    "data__tokenizer": {"kind": "unigram", "vocab_size": 512},
    "data__tokenizer__vocab_size": 513,
    "data__context_length": 16,
    "data__train_fraction": 0.5,
    "model__family": "gpt2",
    "model__d_model": 32,
    "model__num_layers": 3,
    "model__num_heads": 2,
    "model__d_ff": 64,
    "model__dropout": 0.1,
    "model__tying": "in-out",
    "model__tied_role": "embedding",
    "model__embedding_scale": "sqrt_d",
    "model__head_scale": "inverse_sqrt_d",
    "model__embedding_std": 0.01,
    "model__positions": "sinusoidal",
    "model__norm_place": "post",
    "model__final_norm": False,
    "training__budget": {"steps": 5},
    "training__batch_tokens": 64,
    "training__micro_batch_tokens": 16,
    "training__optimizer__learning_rate": 1e-3,
    "training__optimizer__weight_decay": 0.0,
    "training__optimizer__beta1": 0.8,
    "training__optimizer__beta2": 0.99,
    "training__optimizer__epsilon": 1e-6,
    "training__optimizer__roles": {"head": {"rate": 0.5}},
    "training__schedule": {"kind": "constant"},
    "training__schedule__warmup_fraction": 0.1,
    "training__schedule__final_fraction": 0.0,
    "training__gradient_clip": None,
    "training__deterministic": False,
    "training__compile": True,
    "training__early_stopping": {"patience": 3},
    "training__checkpoint_every_steps": 2,
    "evaluation__every_steps": 2,
    "evaluation__stride": 8,
}

OTHER_TRANSLATION = {
    "data__tokenizer__sharing": "separate",
    "data__unusable_pairs": "refuse",
    "data__target_script": {"disjoint_fraction": 0.5},
    "model__num_encoder_layers": 1,
    "model__tying": "three-way",
    "training__label_smoothing": 0.1,
    "evaluation__beam_size": 1,
    "evaluation__length_penalty": 0.0,
}


@pytest.mark.parametrize("key", OTHER)
def test_any_setting_changes_the_identity(key: str) -> None:
    changed = settings(**{key: OTHER[key]})
    assert identify(changed) != identify(settings())
    assert run_id(changed, CONTENT, "fp32") != run_id(settings(), CONTENT, "fp32")
    assert settings_sha256(changed, "fp32") != settings_sha256(settings(), "fp32")


def translation(**changes: Any) -> Settings:
    return settings(task="translation", training__batch_tokens=64, **changes)


@pytest.mark.parametrize("key", OTHER_TRANSLATION)
def test_any_setting_of_translation_changes_the_identity(key: str) -> None:
    assert identify(translation(**{key: OTHER_TRANSLATION[key]})) != identify(translation())
    assert identify(translation()) != identify(settings(training__batch_tokens=64))


@pytest.mark.parametrize(
    "same",
    [
        {"data__tokenizer__sharing": "joint"},
        {"data__unusable_pairs": "drop"},
        {"data__target_script": {"disjoint_fraction": 0.0}},
        {"data__languages": {"source": "en", "target": "de"}},
        {"model__num_encoder_layers": 2},
        {"training__label_smoothing": 0.0},
        {"model__positions": "rotary"},
        {"evaluation__beam_size": 5},
        {"evaluation__length_penalty": 1.0},
        {"evaluation__role_gradients_every_steps": 7},
    ],
    ids=lambda same: next(iter(same)),
)
def test_what_leaving_a_key_of_translation_out_means(same: dict[str, Any]) -> None:
    assert identify(translation(**same)) == identify(translation())


def test_the_table_above_names_every_setting() -> None:
    """A key that is added to the schema must be looked at here."""
    record = settings().model_dump()
    covered = {tuple(key.split("__")[:2]) for key in (*OTHER, *OTHER_TRANSLATION)}
    in_no_hash = {("data", key) for key in ("corpus", "splits", "languages", "synthetic")}
    in_no_hash |= {("evaluation", "role_gradients_every_steps")}
    resolved = {("training", "precision")}
    present = {
        (section, key)
        for section in ("data", "model", "training", "evaluation")
        for key in record[section]
    }
    assert present == covered | in_no_hash | resolved


def test_seed_content_precision_and_protocol_change_the_identity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = [
        identify(settings()),
        identify(settings(), seed=1),
        identify(settings(), precision="bf16"),
        cell_id(settings(), 0, "d" * 64, "fp32"),
    ]
    monkeypatch.setattr(identity, "PROTOCOL", identity.PROTOCOL + 1)
    ids.append(identify(settings()))
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "same",
    [
        {"data__corpus": "elsewhere/kjv"},
        {"data__splits": {"train": "first", "valid": "second", "test": "third"}},
        {"model__d_ff": 48},
        {"model__dropout": {"embedding": 0.0, "residual": 0.0, "output": 0.0}},
        {"model__embedding_std": 0.02},
        {"training__micro_batch_tokens": 32},
        {"training__precision": "fp32"},
        {"evaluation__stride": 4},
        {"training__optimizer__learning_rate": 0.002},
        {"evaluation__role_gradients_every_steps": 7},
    ],
    ids=lambda same: next(iter(same)),
)
def test_the_same_data_elsewhere_and_another_way_to_write_it_are_the_same(
    same: dict[str, Any],
) -> None:
    assert identify(settings(**same)) == identify(settings())
    assert run_id(settings(**same), CONTENT, "fp32") == run_id(settings(), CONTENT, "fp32")


def test_a_key_that_only_measures_is_in_no_record_where_it_is_not_given() -> None:
    key = "role_gradients_every_steps"
    measured = settings(**{f"evaluation__{key}": 7})
    assert settings_sha256(measured, "fp32") == settings_sha256(settings(), "fp32")
    assert measured.as_record()["evaluation"].pop(key) == 7
    assert key not in settings().as_record()["evaluation"]
    assert differing_settings(measured.as_record(), settings().as_record()) == ()
    assert Settings.model_validate(measured.as_record()) == measured


def test_auto_precision_is_what_it_came_to() -> None:
    auto, bf16 = settings(), settings(training__precision="bf16")
    assert identify(auto, precision="bf16") == identify(bf16, precision="bf16")
    assert identify(auto, precision="bf16") != identify(auto, precision="fp32")


def test_the_size_of_a_word_vocabulary_follows_from_the_corpus() -> None:
    word = settings(data__tokenizer={"kind": "word"})
    assert identify(word) == identify(settings(data__tokenizer={"kind": "word", "vocab_size": 99}))
    assert identify(word) != identify(settings(data__tokenizer={"kind": "byte"}))


def test_an_identity_never_changes_by_accident() -> None:
    """If this fails, cells on users' disks would be trained again: raise PROTOCOL or undo it."""
    assert identify(settings()) == GOLDEN_CELL
    assert run_id(settings(), CONTENT, "fp32") == GOLDEN_RUN


GOLDEN_CELL = "e16f295ec2d83222da816b0f19b7146d412f08212b342d93a121d95fc3192402"
GOLDEN_RUN = "c9a473c89672c2fa49df0729c43ebe0addc04e8a2ab1d867e3a8c2a4413f03d8"


def test_arms_seeds_name_baseline_and_margin_are_not_in_the_runs_identity(tmp_path: Path) -> None:
    def identify_run(arms: str = ARMS, *overrides: str, base: str = BASE) -> str:
        loaded = load(tmp_path, arms, *overrides, base=base)
        data = prepared_data(tmp_path)
        return plan_experiment(loaded, data, precision="fp32", runs_root=tmp_path / "runs").run_id

    before = identify_run()
    more = ARMS.replace("baseline", "  third: {model: {tied_role: embedding}}\nbaseline")
    assert identify_run(more + "allow_differences: [model.tied_role]\n") == before
    assert identify_run(ARMS, "seeds=0-9") == before
    assert identify_run(ARMS, "baseline=tied") == before
    assert identify_run(ARMS, "analysis.margin=0.05") == before
    assert identify_run(ARMS, "name=other") == before
    assert identify_run(ARMS, "training.batch_tokens=64") != before
