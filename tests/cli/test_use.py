"""`wtie eval` and `wtie generate` between their words and what they print."""

import json

import pytest

from tyro_cli.experiments import use

SIGNATURE = "word_ppl|corpus:0a1b2c|split:test|ctx:8|stride:4|prec:fp32|protocol:1"
RECORD = {
    "arm": "tied",
    "seed": 0,
    "step": 40,
    "split": "test",
    "nats_per_token": 2.5,
    "token_perplexity": 12.182493960703473,
    "word_perplexity": None,
    "bits_per_byte": 1.25,
    "signature": SIGNATURE,
}


@pytest.fixture
def asked(monkeypatch):
    """Answer for the library, and keep what was asked of it."""
    request = {}

    def evaluate_run(run_folder, **words):
        request.update(words, run=run_folder)
        return [RECORD]

    def generate_text(run_folder, **words):
        request.update(words, run=run_folder)
        return iter(["the ", "beginning\x1b"])

    monkeypatch.setattr(use, "evaluate_run", evaluate_run)
    monkeypatch.setattr(use, "generate_text", generate_text)
    return request


def test_eval_prints_scores_and_signature(wtie, asked):
    result = wtie("eval", "runs/x", "--arm", "tied", "--seed", "0")
    assert result.exit_code == 0
    assert "12.18" in result.stdout
    assert "n/a" in result.stdout
    assert SIGNATURE in result.stdout
    assert (asked["arm"], asked["seed"], asked["checkpoint"]) == ("tied", 0, "best")


def test_eval_json_has_every_number(wtie, asked):
    assert json.loads(wtie("eval", "runs/x", "--json").stdout) == [RECORD]


def test_generate_prints_the_text(wtie, asked):
    result = wtie("generate", "runs/x", "--prompt", "In", "--max-tokens", "3", "--top-k", "5")
    assert result.exit_code == 0
    assert result.stdout == "the beginning\N{REPLACEMENT CHARACTER}\n"
    assert (asked["prompt"], asked["max_tokens"], asked["top_k"]) == ("In", 3, 5)


def test_a_random_seed_that_no_generator_takes_is_refused(wtie, asked):
    result = wtie("generate", "runs/a", "--prompt", "x", "--random-seed", str(2**64))
    assert result.exit_code == 2
    assert "--random-seed" in result.stderr
    assert not asked


def test_generate_json(wtie, asked):
    record = json.loads(wtie("generate", "runs/x", "--prompt", "In", "--json").stdout)
    assert record == {"prompt": "In", "text": "the beginning\x1b"}
