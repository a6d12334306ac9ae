"""Tokenizers: nothing is lost, training repeats itself, sizes are what was asked for."""

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.texts import NASTY_TEXTS
from tyro_cli.config.schema import TokenizerConfig
from tyro_cli.data import tokenizers as module
from tyro_cli.data.tokenizers import (
    cut_into_pieces,
    decode_tokens,
    encode_documents,
    encode_prompt,
    load_tokenizer,
    train_tokenizer,
)
from tyro_cli.errors import DamagedRecord, DataError, StorageError

LOSSLESS = (("bpe", 320), ("unigram", 320), ("byte", None))


def random_documents(seed: int, num_documents: int = 60) -> list[str]:
    """Return documents of few letters, where equal counts (ties) abound."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abc", k=draw.randint(1, 9))) for _ in range(300)]
    return [" ".join(draw.choices(words, k=40)) + "\n\n" for _ in range(num_documents)]


@pytest.fixture(scope="module", params=LOSSLESS, ids=lambda param: param[0])
def lossless(request: pytest.FixtureRequest):
    kind, vocab_size = request.param
    config = TokenizerConfig(kind=kind, vocab_size=vocab_size)
    return train_tokenizer(config, [*random_documents(0), *NASTY_TEXTS[:6]])


def encoded(tokenizer, text: str) -> list[int]:
    return next(encode_documents(tokenizer, [text])).tolist()


@pytest.mark.parametrize("text", NASTY_TEXTS)
def test_decoding_gives_the_text_back(lossless, text: str) -> None:
    ids = encoded(lossless, text)
    assert decode_tokens(lossless, ids) == text
    assert module.EOS_ID not in ids  # also where the text spells <eos>


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_decoding_gives_any_text_back(lossless, text: str) -> None:
    assert decode_tokens(lossless, encoded(lossless, text)) == text


def test_saved_and_loaded_it_encodes_the_same(lossless, tmp_path: Path) -> None:
    lossless.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    for text in NASTY_TEXTS:
        assert encoded(loaded, text) == encoded(lossless, text)
        assert encode_prompt(loaded, text) == loaded.encode(text).ids
    assert loaded.to_str() == lossless.to_str()


def test_eos_is_id_0_and_the_size_is_what_was_asked_for(lossless) -> None:
    assert lossless.token_to_id("<eos>") == 0
    assert lossless.get_vocab_size() in (320, 257)
    assert sorted(lossless.get_vocab().values()) == list(range(lossless.get_vocab_size()))


def test_byte_ids_are_the_bytes_and_the_library_agrees() -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind="byte"), ["unused"])
    for text in NASTY_TEXTS:
        ids = encoded(tokenizer, text)
        assert ids == [byte + 1 for byte in text.encode("utf-8")]
        assert tokenizer.encode(text).ids == ids


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("seed", range(3))
def test_training_repeats_itself_byte_for_byte(kind: str, seed: int) -> None:
    """The library seeds each of its hash maps anew; the files must not show it."""
    config = TokenizerConfig(kind=kind, vocab_size=500)
    documents = random_documents(seed)
    files = {train_tokenizer(config, documents).to_str() for _ in range(4)}
    assert len(files) == 1


def test_unigram_learns_the_words_of_the_text() -> None:
    documents = ["the cat and the dog and the bird \n"] * 50
    tokenizer = train_tokenizer(TokenizerConfig(kind="unigram", vocab_size=270), documents)
    tokens = [tokenizer.id_to_token(token) for token in encoded(tokenizer, documents[0])]
    assert tokens[1:7] == [
        "\u0120cat",
        "\u0120and",
        "\u0120the",
        "\u0120dog",
        "\u0120and",
        "\u0120the",
    ]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_vocabulary_that_the_corpus_cannot_support_names_both_numbers(kind: str) -> None:
    with pytest.raises(DataError, match=r"at most 26\d, .* asks for 5,000") as caught:
        train_tokenizer(TokenizerConfig(kind=kind, vocab_size=5000), ["abab abab"] * 9)
    assert "vocab_size" in caught.value.remedy


def test_word_has_one_eos_a_line_and_equal_counts_by_spelling() -> None:
    documents = ["b a\n\n c b\n", "\tb  a"]
    tokenizer = train_tokenizer(TokenizerConfig(kind="word"), documents)
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    assert vocabulary == ["<eos>", "b", "a", "c", "<unk>"]
    first, second = encode_documents(tokenizer, documents)
    assert first.tolist() == [1, 2, 0, 0, 3, 1, 0]
    assert second.tolist() == [1, 2, 0]  # the unfinished line ends too


def test_literal_unk_and_eos_are_words_like_any_other() -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind="word"), ["<unk> a <unk> <eos>x <eos>\n"])
    assert tokenizer.get_vocab_size() == 4  # <eos>, <unk>, <eos>x, a
    assert encoded(tokenizer, "<unk> <eos>x <eos> never\n") == [
        1,
        tokenizer.token_to_id("<eos>x"),
        0,
        1,
        0,
    ]


def test_words_are_what_str_split_separates_for_every_character() -> None:
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    text = "".join(f"w{character}w" for character in characters if character != "\n")
    tokenizer = train_tokenizer(TokenizerConfig(kind="word"), [text])
    ids = encoded(tokenizer, text)[:-1]
    assert [tokenizer.id_to_token(token) for token in ids] == text.split()


def test_word_vocabulary_size_must_equal_the_count() -> None:
    assert train_tokenizer(TokenizerConfig(kind="word", vocab_size=4), ["a b\n"])
    with pytest.raises(DataError, match=r"word vocabulary of 4 .* says 5"):
        train_tokenizer(TokenizerConfig(kind="word", vocab_size=5), ["a b\n"])


@pytest.mark.parametrize("kind", ["bpe", "unigram", "word"])
def test_a_stop_is_heard_between_slices(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE_CHARACTERS", 100)
    polls = 0

    def should_stop() -> None:
        nonlocal polls
        polls += 1
        if polls == 3:
            raise KeyboardInterrupt

    config = TokenizerConfig(kind=kind, vocab_size=None if kind == "word" else 300)
    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(config, random_documents(0), should_stop=should_stop)
    assert polls == 3
    tokenizer = train_tokenizer(config, random_documents(0))
    polls = 0
    with pytest.raises(KeyboardInterrupt):
        list(encode_documents(tokenizer, random_documents(0), should_stop=should_stop))


@pytest.mark.parametrize("kind", ["bpe", "unigram", "word", "byte"])
def test_slices_change_no_token(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = random_documents(1)
    config = TokenizerConfig(kind=kind, vocab_size=300 if kind in ("bpe", "unigram") else None)
    tokenizer = train_tokenizer(config, documents)
    whole = [ids.tolist() for ids in encode_documents(tokenizer, documents)]
    monkeypatch.setattr(module, "SLICE_CHARACTERS", 1000)
    sliced = [ids.tolist() for ids in encode_documents(tokenizer, documents)]
    assert sliced == whole
    assert len(whole) == len(documents)


@given(text=st.text(st.sampled_from("ab \n\t"), max_size=200), size=st.integers(1, 20))
def test_pieces_concatenate_and_cut_no_run_of_whitespace(text: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PIECE_CHARACTERS", size)
        pieces = list(cut_into_pieces(text))
    assert "".join(pieces) == text
    for piece, following in pairwise(pieces):
        assert len(piece) > size
        assert piece.endswith("\n")
        assert not following[0].isspace()


def test_a_long_document_is_cut_into_pieces_without_a_trace_in_its_text() -> None:
    document = "some words of a line\n" * 10_000
    tokenizer = train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=270), [document])
    assert len(list(cut_into_pieces(document))) > 5
    ids = encoded(tokenizer, document)
    assert decode_tokens(tokenizer, ids) == document
    np.testing.assert_array_equal(ids, tokenizer.encode(document).ids)


def test_prompt_with_words_outside_the_vocabulary_names_them() -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind="word"), ["a b\n"])
    assert encode_prompt(tokenizer, "a\nb") == [1, 0, 2]
    with pytest.raises(DataError, match="'x', 'y'") as caught:
        encode_prompt(tokenizer, "a x y x")
    assert "<unk>" in caught.value.remedy


def test_prompt_that_is_no_text_is_refused(lossless) -> None:
    with pytest.raises(DataError, match="character 3"):
        encode_prompt(lossless, "ab\udcff")


def test_empty_prompt_is_the_eos_of_a_new_text(lossless) -> None:
    assert encode_prompt(lossless, "") == [0]


def test_word_tokens_decode_to_lines() -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind="word"), ["a b\n"])
    assert decode_tokens(tokenizer, [1, 2, 0, 0, 1]) == "a b \n \n a"


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(StorageError, match="no such file"):
        load_tokenizer(path)
    path.write_text('{"version": "1.0"}')
    with pytest.raises(DamagedRecord, match="not a tokenizer"):
        load_tokenizer(path)


def changed(content: Any, path: str, value: Any) -> Any:
    """Return a copy of nested maps with the value at a path replaced or added."""
    copy = json.loads(json.dumps(content))
    *parents, key = path.split(".")
    place = copy
    for parent in parents:
        place = place[parent]
    place[key] = value
    return copy


ANY_KIND = {
    "padding to a terabyte": (
        "padding",
        {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None,
         "pad_id": 0, "pad_type_id": 0, "pad_token": "x"},
    ),
    "truncation that panics": (
        "truncation",
        {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5},
    ),
    "a character map of its own": (
        "normalizer", {"type": "Precompiled", "precompiled_charsmap": "/////wAAAAA="}
    ),
    "an expression that never ends": (
        "pre_tokenizer",
        {"type": "Split", "pattern": {"Regex": "(a|aa)+$"}, "behavior": "Isolated",
         "invert": False},
    ),
    "pieces of no length": ("pre_tokenizer", {"type": "FixedLength", "length": 0}),
    "a part of no name": ("model.\n", 1),
    "an id far away": ("model.vocab", {"<eos>": 0, "<unk>": 2**32 - 1}),
    "an id that is no number": ("model.vocab", {"<eos>": 0, "<unk>": True}),
    "no vocabulary": ("model.vocab", None),
    "an empty vocabulary": ("model.vocab", []),
    "a model of another kind": ("model.type", "WordPiece"),
    "no kind": ("model.type", None),
    "no model": ("model", None),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["byte", "bpe", "unigram", "word"])
def test_a_tokenizer_of_a_stranger_is_refused_before_the_library_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    config = TokenizerConfig(kind=kind, vocab_size={"bpe": 320, "unigram": 320}.get(kind))
    content = json.loads(train_tokenizer(config, random_documents(0)).to_str())
    path = tmp_path / "tokenizer.json"
    for name, (part, value) in ANY_KIND.items():
        path.write_text(json.dumps(changed(content, part, value)))
        with monkeypatch.context() as patch, pytest.raises(DamagedRecord) as caught:
            patch.setattr("tokenizers.Tokenizer.from_str", None)
            load_tokenizer(path)
        assert str(path) in caught.value.message, name
        assert caught.value.remedy


@pytest.mark.parametrize("kind", ["byte", "unigram", "word"])
def test_a_vocabulary_that_cannot_encode_every_text_is_refused(tmp_path: Path, kind: Any) -> None:
    config = TokenizerConfig(kind=kind, vocab_size=320 if kind == "unigram" else None)
    content = json.loads(train_tokenizer(config, random_documents(0)).to_str())
    path = tmp_path / "tokenizer.json"
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):
        spoiled = [
            [row for row in vocabulary if row[0] != "a"],
            [*vocabulary, vocabulary[1]],
            vocabulary[::-1],
        ]
    else:
        last = max(vocabulary, key=vocabulary.__getitem__)
        first = {last: 0, "<eos>": vocabulary[last]}
        spoiled = [
            {t: n for t, n in vocabulary.items() if t not in ("<unk>", last)},
            vocabulary | first,
        ]
    for new in spoiled:
        path.write_text(json.dumps(changed(content, "model.vocab", new)))
        with pytest.raises(DamagedRecord, match=r"model\.vocab"):
            load_tokenizer(path)


def test_merges_that_do_not_fit_the_vocabulary_are_refused(lossless, tmp_path: Path) -> None:
    content = json.loads(lossless.to_str())
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(changed(content, "model.merges", [["a", "<no such token>"]])))
    with pytest.raises(DamagedRecord, match="not a tokenizer of ours"):
        load_tokenizer(path)


def test_what_another_version_of_the_library_leaves_out_is_taken(lossless, tmp_path: Path) -> None:
    content = json.loads(lossless.to_str())
    del content["model"]["byte_fallback"]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    assert load_tokenizer(path).to_str() == lossless.to_str()


def test_a_tokenizer_of_another_size_than_the_models_is_refused(lossless, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    lossless.save(str(path))
    size = lossless.get_vocab_size()
    assert load_tokenizer(path, vocab_size=size).get_vocab_size() == size
    with pytest.raises(DamagedRecord, match=f"it has {size} tokens, the models have 61"):
        load_tokenizer(path, vocab_size=61)
