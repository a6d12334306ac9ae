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
    assert tuple(BUILT_IN) == corpora.BUILT_IN + corpora.PARALLEL_BUILT_IN
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


@pytest.fixture
def pairs(wtie, in_empty_folder):
    wtie("init")
    english, german = ["a dog runs", "a taxi", ""], ["ein Hund rennt hier", "ein taxi", "nichts"]
    for split, repeats in (("train", 20), ("valid", 2), ("test", 3)):
        for suffix, lines in (("en", english), ("de", german)):
            text = "".join(f"{line}\n" for line in lines * repeats)
            (in_empty_folder / f"{split}.{suffix}").write_text(text)
    return in_empty_folder / "wtie.yaml"


TRANSLATION = (*WORDS, "task=translation", "data.languages={source: en, target: de}")


def test_info_counts_pairs_and_the_words_of_each_side(wtie, pairs):
    record = json.loads(wtie("data", "info", "--config", pairs, "--json", *TRANSLATION).stdout)
    assert record["languages"] == {"source": "en", "target": "de"}
    train = record["splits"]["train"]
    assert (train["pairs"], train["empty_pairs"]) == (60, 20)
    assert (train["source_words"], train["target_words"]) == (100, 140)
    assert train["target_bytes"] == 20 * len("ein Hund rennt hierein taxinichts")
    shown = wtie("data", "info", "--config", pairs, *TRANSLATION).stdout
    assert "en to de" in shown
    assert "empty pairs" in shown


def test_prepare_says_what_was_dropped_and_what_the_sides_share(wtie, pairs):
    result = wtie("data", "prepare", "--config", pairs, "--json", *TRANSLATION)
    record = json.loads(result.stdout)
    assert record["splits"]["train"]["pairs"] == 40
    assert record["splits"]["train"]["empty_pairs"] == 20
    assert record["overlap"]["shared_rows"] == 1
    shown = wtie("data", "prepare", "--config", pairs, *TRANSLATION)
    assert shown.stderr == ""
    assert "16.7% of the target's tokens occur in the source too" in shown.stdout
    assert "that both sides use: 1 (source 4, target 5)" in shown.stdout
    separate = "data.tokenizer={kind: word, sharing: separate}"
    shown = wtie("data", "prepare", "--config", pairs, *TRANSLATION, separate).stdout
    assert "that both sides use" not in shown
    assert "vocabulary of 8, source 6" in shown


@pytest.mark.parametrize("command", ["info", "prepare"])
def test_unequal_sides_end_in_both_numbers(wtie, pairs, command):
    with (pairs.parent / "valid.en").open("a") as file:
        file.write("one more\n")
    result = wtie("data", command, "--config", pairs, *TRANSLATION)
    assert result.exit_code == 2
    assert "valid.en has 7 lines and valid.de 6" in result.stderr
    assert result.stdout == ""
