"""Words as a user writes them against the rows of a matrix: neighbours, and rated pairs.

A word has a row where the vocabulary has it as one token; with `bpe` and `unigram` the token with a
space in front, as a word stands inside a text, counts too. A word that is split has no row of its
own and is not covered: adding up its pieces would measure something else. Files of pairs are
untrusted: their size is bounded, and every fault is told with its line.
"""

import csv
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tyro_cli.data.corpora import decode_text
from tyro_cli.data.places import unreadable
from tyro_cli.data.tokenizers import decode_tokens, is_word_tokenizer
from tyro_cli.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_PAIRS_BYTES = 16 * 2**20  # the usual files have a few thousand pairs in 100 kB
MIN_COVERED = 3
"""Fewest pairs that a rank correlation is computed of: with two it is 1 or -1."""

_SPACE = "\N{OPEN BOX}"
_SPACE_BYTE = "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}"  # how a vocabulary of bytes writes it
_NAME_OF_WORDS = re.compile(r"word[ _]?[12]", re.IGNORECASE)


@dataclass(frozen=True)
class RatedPair:
    """Two words and how alike people find them."""

    first: str
    second: str
    score: float


def pieces_of(tokenizer: "Tokenizer", word: str) -> list[list[int]]:
    """Return the ways to write a word in tokens: as it is, and with a space in front."""
    if any("\ud800" <= character <= "\udfff" for character in word):
        return []  # bytes of a command line that are no text
    if is_word_tokenizer(tokenizer):
        token = tokenizer.token_to_id(word)
        return [] if token is None else [[token]]
    texts = (word, f" {word}")
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def row_of_word(tokenizer: "Tokenizer", word: str, counts_V: np.ndarray) -> int | None:
    """Return the token that a word is, of two ways to write it the more frequent one in train.

    Args:
        tokenizer: The vocabulary.
        word: The word.
        counts_V: How often each token occurs in train.
    """
    whole = [ids[0] for ids in pieces_of(tokenizer, word) if len(ids) == 1]
    return max(whole, key=lambda token: (int(counts_V[token]), -token), default=None)


def row_that_counts(
    tokenizer: "Tokenizer", word: str, counts_V: np.ndarray, ids_R: np.ndarray
) -> int:
    """Return the place of a word among the counted rows.

    Raises:
        DataError: It has none; the message says why.
    """
    remedy = "give a word that is one token: a frequent one, spelled as in the training text"
    if not word:
        raise DataError(f"the word {word!r} is empty", remedy)
    token = row_of_word(tokenizer, word, counts_V)
    if token is None:
        pieces = [ids for ids in pieces_of(tokenizer, word) if ids]
        shown = " ".join(shown_token(tokenizer, one) for one in pieces[-1]) if pieces else ""
        raise DataError(
            f"{word!r} is no token of the vocabulary"
            + (f": it is split into {shown}" * bool(shown)),
            remedy,
        )
    place = int(np.searchsorted(ids_R, token))
    if place == len(ids_R) or ids_R[place] != token:
        raise DataError(
            f"{word!r} occurs {int(counts_V[token]):,} times in train, too seldom for its row to "
            "count",
            "give a more frequent word",
        )
    return place


def shown_token(tokenizer: "Tokenizer", token: int) -> str:
    """Return a token for readers, a space in it as an open box.

    What is no printable text is shown as the vocabulary writes its bytes.
    """
    text = decode_tokens(tokenizer, [token])
    if not text.isprintable() or "\N{REPLACEMENT CHARACTER}" in text:
        text = str(tokenizer.id_to_token(token)).replace(_SPACE_BYTE, " ")
    return text.replace(" ", _SPACE)


def read_rated_pairs(path: Path) -> list[RatedPair]:
    """Read a file of word pairs: three columns, tab- or comma-separated, a header or none.

    A header is a first line that calls its first two columns word1 and word2 and has no score, so
    no pair is taken for one.

    Raises:
        DataError: It cannot be read, is larger than `MAX_PAIRS_BYTES`, is not UTF-8, or a line of
            it is not two words and a number.
    """
    columns = (
        "three columns, word1, word2 and score, separated by tabs or by commas; a header, if any, "
        "begins with word1 and word2"
    )
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PAIRS_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(content) > MAX_PAIRS_BYTES:
        raise DataError(f"{path}: larger than {MAX_PAIRS_BYTES // 2**20} MiB", f"give {columns}")
    text = decode_text(content, path).removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    pairs = []
    lines = io.StringIO(text)
    if delimiter == "\t":
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}", f"give {columns}") from error
    rows = [(number, row) for number, row in rows if any(row)]
    for index, (number, row) in enumerate(rows):
        if len(row) != 3:
            raise DataError(
                f"{path}, line {number}: {len(row)} column{'s' * (len(row) != 1)}, not 3",
                f"give {columns}",
            )
        score = _finite(row[2])
        if score is None and index == 0 and all(map(_NAME_OF_WORDS.fullmatch, row[:2])):
            continue  # the header
        if score is None or not (row[0] and row[1]):
            wrong = (
                f"the score {row[2][:40]!r} is no number" if score is None else "a word is empty"
            )
            raise DataError(f"{path}, line {number}: {wrong}", f"give {columns}")
        pairs.append(RatedPair(row[0], row[1], score))
    if not pairs:
        raise DataError(f"{path}: it holds no pair", f"give {columns}")
    return pairs


def spearman(values: np.ndarray, others: np.ndarray) -> float | None:
    """Return Spearman's rank correlation; None where either side is constant."""
    from scipy.stats import rankdata

    first, second = rankdata(values), rankdata(others)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def pair_cosines(rows_RD: np.ndarray, places_P2: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows, float64 `[P]`; 0 where a row is all zeros."""
    first, second = (np.asarray(rows_RD[places_P2[:, side]], dtype=np.float64) for side in (0, 1))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / np.where(norms > 0, norms, 1.0)


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
