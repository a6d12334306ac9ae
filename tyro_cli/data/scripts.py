"""A script that no side of a corpus uses, and the writing of some target words in it.

Invariant: `restore(script.write(text)) == text` for every text that `check_unused` passes; only
letters change. Letter c becomes the character `OFFSET` places further on: an ideograph of CJK
Extension B. They are letters to Unicode, which a private-use range is not, so that tokenizers cut
words at the same places. Capital and small letters stay different letters. What is tokenized, and
when quality is computed on restored text, is left to others.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache

from tyro_cli.errors import DataError

OFFSET = 0x20000
_END = 0x2A6E0  # of CJK Extension B
_NUM_LETTERS = _END - OFFSET
_WITHOUT_COUNTERPART = re.compile(f"[{chr(_NUM_LETTERS)}-\U0010ffff]")


class DisjointScript:
    """Which words of a target are written in the disjoint script.

    A word is a run of letters, with the marks that belong to them; words that differ in case alone
    are one type. The types are ordered by a hash of their spelling and the first of them are taken,
    so those of a smaller fraction are among those of a larger one, and a word that the training
    split does not have is decided in the same way.

    Args:
        train_target: Target sentences of the whole training split.
        fraction: Fraction of their word types to take, 0 to 1.
    """

    def __init__(self, train_target: Iterable[str], fraction: float) -> None:
        assert 0 <= fraction <= 1
        types = {word.casefold() for sentence in train_target for word in _word().findall(sentence)}
        ranks = sorted(map(_rank, types))
        num_taken = round(fraction * len(ranks))
        if fraction > 0 and num_taken == len(ranks):
            self._first_kept = 2**64
        else:
            self._first_kept = ranks[num_taken] if num_taken > 0 else 0

    def write(self, text: str) -> str:
        """Return the text with the chosen words in the disjoint script."""
        return _word().sub(lambda match: self._write_word(match[0]), text)

    def _write_word(self, word: str) -> str:
        return word.translate(_letters()) if _rank(word.casefold()) < self._first_kept else word


def restore(text: str) -> str:
    """Return the text with every word in its own script again."""
    return text.translate(_restored_letters())


def check_unused(sentences: Iterable[str], side: str) -> None:
    """Refuse text that the transform could not restore.

    Args:
        sentences: All sentences of a side.
        side: What the error calls them.

    Raises:
        DataError: The text uses the disjoint script, or letters that have no counterpart in it.
    """
    for sentence in sentences:
        for character in _WITHOUT_COUNTERPART.findall(sentence):
            if OFFSET <= ord(character) < _END:
                problem = "is of the script that data.target_script writes words in"
            elif character.isalpha():
                problem = "has no counterpart in the script that data.target_script writes words in"
            else:
                continue
            raise DataError(
                f"{side}: the letter {character} (U+{ord(character):04X}) {problem}",
                "take out data.target_script, or the sentences with such letters",
            )


def _rank(word_type: str) -> int:
    return int.from_bytes(hashlib.sha256(word_type.encode("utf-8")).digest()[:8], "big")


@cache
def _word() -> re.Pattern[str]:
    """Return the pattern of a word; `re` has no name for marks, so they are listed."""
    marks = (chr(code) for code in range(0x300, 0x20000))
    combining = "".join(mark for mark in marks if unicodedata.category(mark)[0] == "M")
    return re.compile(rf"[^\W\d_](?:[^\W\d_]|[{re.escape(combining)}])*")


@cache
def _letters() -> Mapping[int, int]:
    return {code: code + OFFSET for code in range(_NUM_LETTERS) if chr(code).isalpha()}


@cache
def _restored_letters() -> Mapping[int, int]:
    return {disjoint: code for code, disjoint in _letters().items()}
