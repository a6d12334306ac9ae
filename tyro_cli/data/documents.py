"""Documents: where the text of a split is cut, and how its words are counted.

Invariant: the documents of a text, concatenated, are exactly that text, and each holds at least
one word. The cut depends on the text and on `data.format` alone, so the same text from another
place has the same documents. Tokens are left to `tokenizers`.
"""

import re
from typing import Literal

TextFormat = Literal["plain", "wikitext"]

# WikiText's article title, between blank lines: " = Title = ". Its sections are " = = Title = = ".
# Without the blank lines, 31 lines of WikiText-2 that only look like titles (" = Played , W = ")
# would count; with them its articles are 600, 60 and 60, as published.
_ARTICLE_TITLE = re.compile(r"^[ \t]*= (?!= )[^\n]*\S =[ \t\r]*$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")


def split_documents(text: str, text_format: TextFormat) -> tuple[str, ...]:
    """Cut a text into its documents.

    Args:
        text: A whole split; not blank.
        text_format: `wikitext`: an article starts at its title line. `plain`: blocks between
            blank lines; the blank lines belong to the block before them. The chapters of the
            built-in corpora are such blocks.

    Returns:
        The documents in order. Text before the first start belongs to a document of its own, or
        to the first one where it is blank.
    """
    if text_format == "wikitext":
        starts = [
            match.start()
            for match in _ARTICLE_TITLE.finditer(text)
            if _is_between_blank_lines(text, match.start(), match.end())
        ]
    else:
        starts = [match.end() for match in _BLANK_LINES.finditer(text)]
    if starts and not text[: starts[0]].strip():
        starts[0] = 0
    if starts and not text[starts[-1] :].strip():
        starts.pop()
    if not starts or starts[0] != 0:
        starts.insert(0, 0)
    ends = [*starts[1:], len(text)]
    return tuple(text[start:end] for start, end in zip(starts, ends, strict=True))


def count_lines(text: str) -> int:
    r"""Return the lines of a text: its `\n`, and one more where it does not end in one."""
    return text.count("\n") + (not text.endswith("\n") and text != "")


def count_words(text: str, text_format: TextFormat) -> int:
    """Return the words of a text: separated by whitespace, and in `wikitext` one `<eos>` a line.

    WikiText's literature counts the `<eos>` of each line as a word, whatever the tokenizer.
    """
    return len(text.split()) + (count_lines(text) if text_format == "wikitext" else 0)


def _is_between_blank_lines(text: str, start: int, end: int) -> bool:
    """Say whether the lines before and after `text[start:end]` are blank or missing."""
    before = text[text.rfind("\n", 0, max(0, start - 1)) + 1 : start]
    next_end = text.find("\n", end + 1)
    after = text[end : next_end if next_end >= 0 else len(text)]
    return not before.strip() and not after.strip()
