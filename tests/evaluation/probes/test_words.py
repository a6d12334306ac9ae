"""Words against a vocabulary, and files of rated pairs that anyone may have written."""

import numpy as np
import pytest

from tyro_cli.config.schema import TokenizerConfig
from tyro_cli.data.tokenizers import train_tokenizer
from tyro_cli.errors import DataError
from tyro_cli.evaluation.probes import words
from tyro_cli.evaluation.probes.words import (
    RatedPair,
    pair_cosines,
    read_rated_pairs,
    row_of_word,
    row_that_counts,
    shown_token,
    spearman,
)

TEXT = ["the king saw the queen and the king was glad\n" * 50]


@pytest.fixture(scope="module")
def bpe():
    return train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=272), TEXT)


@pytest.fixture(scope="module")
def word():
    return train_tokenizer(TokenizerConfig(kind="word"), TEXT)


def counts_of(tokenizer, text: str = TEXT[0]) -> np.ndarray:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return np.bincount(ids, minlength=tokenizer.get_vocab_size())


def test_a_word_with_a_space_in_front_is_covered(bpe) -> None:
    token = row_of_word(bpe, "king", counts_of(bpe))
    assert token is not None
    assert bpe.decode([token]) == " king"
    assert shown_token(bpe, token) == "\N{OPEN BOX}king"


def test_a_token_is_shown_without_what_cannot_be_printed(bpe, word) -> None:
    byte = {character: bpe.token_to_id(character) for character in "\u0120\u010aka\u00c3"}
    assert shown_token(bpe, byte["\u0120"]) == "\N{OPEN BOX}"
    assert shown_token(bpe, byte["\u010a"]) == "\u010a"  # the end of a line, as its byte
    assert shown_token(bpe, byte["\u00c3"]) == "\u00c3"  # half a character
    assert shown_token(bpe, byte["k"]) == "k"
    assert shown_token(word, word.token_to_id("<eos>")) == "<eos>"


def test_of_two_ways_to_write_a_word_the_frequent_one_is_taken(bpe) -> None:
    whole = [ids[0] for ids in words.pieces_of(bpe, "the") if len(ids) == 1]
    assert len(whole) == 2
    for favoured in whole:
        counts = np.zeros(bpe.get_vocab_size(), dtype=np.int64)
        counts[favoured] = 7
        assert row_of_word(bpe, "the", counts) == favoured


def test_a_word_that_is_split_is_not_covered(bpe) -> None:
    assert row_of_word(bpe, "kingdom", counts_of(bpe)) is None
    for text, pieces in (("kingdom", "\N{OPEN BOX}king d o m"), ("zoo", "\N{OPEN BOX} z o o")):
        with pytest.raises(DataError) as raised:
            row_that_counts(bpe, text, counts_of(bpe), np.arange(bpe.get_vocab_size()))
        told = f"{text!r} is no token of the vocabulary: it is split into {pieces}"
        assert raised.value.message == told


def test_an_empty_word_is_not_the_space_in_front_of_it(bpe, word) -> None:
    for tokenizer in (bpe, word):
        with pytest.raises(DataError, match="the word '' is empty") as raised:
            row_that_counts(tokenizer, "", counts_of(tokenizer), np.arange(9))
        assert raised.value.remedy.startswith("give a word that is one token")


def test_a_word_outside_a_word_vocabulary(word) -> None:
    assert row_of_word(word, "king", counts_of(word)) == word.token_to_id("king")
    for text in ("knight", "two words", "\udcff"):
        assert row_of_word(word, text, counts_of(word)) is None
        with pytest.raises(DataError, match="is no token of the vocabulary") as raised:
            row_that_counts(word, text, counts_of(word), np.arange(9))
        assert raised.value.remedy.startswith("give a word that is one token")


def test_a_rare_word_says_how_rare_it_is(word) -> None:
    counts = counts_of(word)
    token = word.token_to_id("glad")
    ids = np.delete(np.arange(word.get_vocab_size()), token)
    with pytest.raises(DataError, match="'glad' occurs 50 times in train"):
        row_that_counts(word, "glad", counts, ids)
    assert row_that_counts(word, "king", counts, ids) == np.searchsorted(
        ids, word.token_to_id("king")
    )


@pytest.mark.parametrize(
    "text",
    [
        "king\tqueen\t8.5\nman\twoman\t7\n",
        "word1\tword2\tscore\nking\tqueen\t8.5\nman\twoman\t7",
        "king,queen,8.5\r\nman,woman,7\r\n",
        "word1, word2, score\nking, queen, 8.5\n\nman, woman, 7\n",
        "Word 1,Word 2,Human (mean)\nking,queen,8.5\nman,woman,7\n",
        "word_1\tword_2\tSimLex999\nking\tqueen\t8.5\nman\twoman\t7\n",
        '\ufeffking,queen,8.5\n"man",woman,7\n',
    ],
)
def test_pairs_with_tabs_or_commas_and_with_a_header_or_none(tmp_path, text: str) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text(text, encoding="utf-8", newline="")
    assert read_rated_pairs(path) == [
        RatedPair("king", "queen", 8.5),
        RatedPair("man", "woman", 7.0),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it holds no pair"),
        (b"word1,word2,score\n", "it holds no pair"),
        (b"king,queen,high\nman,woman,7\n", "line 1: the score 'high' is no number"),
        (b"a,b,1\nword1,word2,score\n", "line 2: the score 'score' is no number"),
        (b"a,b\n", "line 1: 2 columns, not 3"),
        (b"a b 3\n", "line 1: 1 column, not 3"),
        (b"a,b,1\nc,d,1,9\n", "line 2: 4 columns, not 3"),
        (b"a,b,1\nc,d,high\n", "line 2: the score 'high' is no number"),
        (b"a,b,1\nc,d,nan\n", "line 2: the score 'nan' is no number"),
        (b"a,b,1\n,d,2\n", "line 2: a word is empty"),
        (b"a,b,1\n\xff,d,2\n", "not valid UTF-8 at byte 6"),
        (b"a,b,1\n" + b"x" * 200_000 + b",d,2\n", "line 2: field larger than field limit"),
    ],
)
def test_a_file_that_is_none_of_pairs(tmp_path, content: bytes, told: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        read_rated_pairs(path)
    assert told in raised.value.message
    assert raised.value.message.startswith(str(path))
    assert raised.value.remedy


def test_a_first_line_that_is_no_header_says_what_one_is(tmp_path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("king,queen,high\nman,woman,7\n")
    with pytest.raises(DataError, match="line 1") as raised:
        read_rated_pairs(path)
    assert raised.value.remedy.endswith("a header, if any, begins with word1 and word2")


def test_a_file_that_is_not_there_or_too_large(tmp_path, monkeypatch) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_rated_pairs(tmp_path / "nowhere.csv")
    monkeypatch.setattr(words, "MAX_PAIRS_BYTES", 2**20)
    (tmp_path / "large.csv").write_bytes(b"a,b,1\n" * 2**18)
    with pytest.raises(DataError, match="larger than 1 MiB"):
        read_rated_pairs(tmp_path / "large.csv")


def test_spearman_by_hand() -> None:
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 90, 91])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([4.0, 3, 2, 1])) == pytest.approx(-1)
    assert spearman(np.array([1.0, 2, 3]), np.array([2.0, 1, 3])) == pytest.approx(0.5)
    assert spearman(np.array([1.0, 2, 3]), np.array([5.0, 5, 5])) is None


def test_cosines_of_pairs() -> None:
    points = np.array([[1.0, 0], [1, 1], [0, 0]])
    cosines = pair_cosines(points, np.array([[0, 1], [0, 0], [1, 2]]))
    assert cosines == pytest.approx([np.sqrt(0.5), 1, 0])
