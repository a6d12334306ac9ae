"""Streams: each with its own colour and width, and no text that can break one."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from tyro_cli.cli import streams


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def styled(monkeypatch):
    """Print styled text on each stream, of which only stderr is a terminal."""
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm-256color")

    def print_on_both() -> tuple[str, str]:
        out, errors = io.StringIO(), Terminal()
        with redirect_stdout(out), redirect_stderr(errors):
            streams.result_console().print("text", style="bold red")
            streams.progress_console().print("text", style="bold red")
        return out.getvalue(), errors.getvalue()

    return print_on_both


def test_each_stream_decides_for_itself(styled):
    out, errors = styled()
    assert out == "text\n"
    assert "\x1b[1;31m" in errors


def test_no_color_is_respected(styled, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in styled()[1]


def test_a_dumb_terminal_gets_no_control_codes(styled, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert styled()[1] == "text\n"


def test_names_are_never_markup(capsys):
    streams.result_console().print("[red]arm[/red] :smile:")
    assert capsys.readouterr().out == "[red]arm[/red] :smile:\n"


def test_an_ascii_terminal_is_no_reason_to_fail():
    ascii_stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert streams.printable("naïve", ascii_stream) == "na\\xefve"


@pytest.mark.parametrize("text", ["café", "\N{GRINNING FACE}", "\udce9"])
def test_json_stays_json_whatever_the_stream_speaks(monkeypatch, text):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    streams.print_json({"name": text})
    sys.stdout.flush()
    assert json.loads(raw.getvalue()) == {"name": text}


def test_json_is_one_document_without_nan(capsys):
    streams.print_json({"arm": "é", "value": None})
    assert capsys.readouterr().out == '{\n  "arm": "é",\n  "value": null\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        streams.print_json(float("nan"))
