"""Where words go: results to stdout, everything else to stderr, each with its own manners.

Every stream decides for itself about colour and width: `NO_COLOR`, `TERM=dumb` and a pipe are
respected by the one that they concern. Nothing printed here is ever markup, so a corpus, a path or
a name cannot change how a line looks. rich is imported only when something is drawn.
"""

import json
import os
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 120  # columns of a stream that is not a terminal and where COLUMNS says nothing


def print_line(text: str = "") -> None:
    """Print one result line to stdout, as it is."""
    sys.stdout.write(printable(text, sys.stdout) + "\n")


def print_text(text: str) -> None:
    """Print a document to stdout, ended by exactly one line end."""
    print_line(text.rstrip("\n"))


def print_json(value: Any) -> None:
    """Print the one document of a `--json` command to stdout.

    Where the stream speaks no UTF-8, or a name is no Unicode, characters stand as JSON's escapes.
    """
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    if printable(text, sys.stdout) != text:
        text = json.dumps(value, indent=2, allow_nan=False)
    print_line(text)


def print_bold(text: str) -> None:
    """Print a result line in bold, where stdout shows that."""
    result_console().print(printable(text, sys.stdout), style="bold", soft_wrap=True)


def warn(text: str) -> None:
    """Print one line of progress or warning to stderr."""
    sys.stderr.write(printable(text, sys.stderr) + "\n")
    sys.stderr.flush()


def printable(text: str, stream: Any) -> str:
    """Return the text as the stream can show it, and without control characters.

    A terminal that speaks only ASCII is no reason to fail, and text from a corpus, a model or a
    record must not move the cursor or change a colour.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = "".join(
        character
        if character in "\n\t" or unicodedata.category(character) != "Cc"
        else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def result_console() -> "Console":
    """Return a rich console for results, on stdout."""
    return _console(stderr=False)


def progress_console() -> "Console":
    """Return a rich console for progress and warnings, on stderr."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    is_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    return Console(
        stderr=stderr,
        width=width,
        force_terminal=is_terminal,
        no_color=True if os.environ.get("NO_COLOR") else None,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )
