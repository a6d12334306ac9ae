"""`wtie data`: what there is, what it holds, and tokens made once."""

import json

import pytest

from tyro_cli.cli.data import BUILT_IN
from tyro_cli.data import corpora


@pytest.fixture
def config(wtie, in_empty_folder):
    wtie("init")
    for split, repeats in (("train", 200), ("valid", 20), ("test", 30)):
        text = "one two three\n\nfour five\n\n" * repeats
        (in_empty_folder / f"{split}.txt").write_text(text)
    return in_empty_folder / "wtie.yaml"


WORDS = ("data.corpus=.", "data.tokenizer={kind: word}")


def test_every_built_in_corpus_is_listed(wtie):
    assert tuple(BUILT_IN) == corpora.BUILT_IN
    assert "kjv" in wtie("data", "ls").stdout


def test_info_counts_documents_words_and_bytes(wtie, config):
    record = json.loads(wtie("data", "info", "--config", config, "--json", *WORDS).stdout)
    train = record["splits"]["train"]
    assert (train["documents"], train["words"], train["bytes"]) == (400, 1000, 200 * 26)
    assert "400" in wtie("data", "info", "--config", config, *WORDS).stdout


def test_prepare_works_once_and_is_listed(wtie, config):
    first = wtie("data", "prepare", "--config", config, "--json", *WORDS)
    second = wtie("data", "prepare", "--config", config, "--json", *WORDS)
    record = json.loads(first.stdout)
    assert json.loads(second.stdout) == record
    assert "tokenizing" in first.stderr
    assert second.stderr == ""
    assert record["vocab_size"] == 7  # five words, <eos> and <unk>
    listed = json.loads(wtie("data", "ls", "--json").stdout)
    assert len(listed["prepared_bytes"]) == 1
    assert "vocabulary of 7" in wtie("data", "prepare", "--config", config, *WORDS).stdout


@pytest.mark.parametrize("command", ["info", "prepare"])
def test_a_missing_split_is_named_and_nothing_is_kept(wtie, config, command):
    (config.parent / "valid.txt").unlink()
    result = wtie("data", command, "--config", config, *WORDS)
    assert result.exit_code == 2
    assert "valid" in result.stderr
    assert result.stdout == ""
    assert json.loads(wtie("data", "ls", "--json").stdout)["prepared_bytes"] == {}


def test_text_that_is_not_utf8_is_placed(wtie, config):
    (config.parent / "test.txt").write_bytes(b"good \xff bad")
    result = wtie("data", "info", "--config", config, *WORDS)
    assert result.exit_code == 2
    assert "test.txt" in result.stderr
    assert "5" in result.stderr
