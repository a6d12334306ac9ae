"""Results on stdout, the rest on stderr; one JSON document; terminals that cannot draw."""

import json
import os
import pty
import subprocess
import sys
import threading

import pytest

from tests.end_to_end.workplace import COMMAND_SECONDS

ESCAPE = "\x1b"


@pytest.mark.parametrize(
    "words",
    [
        ("compare", "--json"),
        ("compare", "--format", "json"),
        ("params", "--config", "a.yaml", "--json"),
        ("runs", "ls", "--json"),
        ("data", "ls", "--json"),
        ("schema",),
        pytest.param(("train", "--config", "a.yaml", "--json"), marks=pytest.mark.slow),
        pytest.param(
            ("train", "--config", "a.yaml", "--dry-run", "--json"), marks=pytest.mark.slow
        ),
    ],
    ids=" ".join,
)
def test_json_is_one_document_and_nothing_else(trained, words):
    finished = trained.wtie(*words)
    assert finished.exit_code == 0, finished.stderr
    json.loads(finished.stdout)  # fails on a second document, or on a word before or after
    assert ESCAPE not in finished.stdout + finished.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["runs show", "eval", "generate"])
def test_json_of_the_commands_on_a_run(trained, command):
    words = {
        "runs show": ("runs", "show", trained.run_folder()),
        "eval": ("eval", trained.run_folder()),
        "generate": ("generate", trained.run_folder(), "--prompt", "ba", "--max-tokens", "4"),
    }[command]
    finished = trained.wtie(*words, "--json")
    assert finished.exit_code == 0, finished.stderr
    json.loads(finished.stdout)
    assert finished.stderr == ""


def test_progress_is_on_stderr_and_tables_are_on_stdout(trained):
    assert "untied/seed-0: step 4/12" in trained.first.stderr
    assert "step 4/12" not in trained.first.stdout
    assert "Verdict" not in trained.first.stderr
    assert ESCAPE not in trained.first.stdout + trained.first.stderr


def on_a_terminal(place, *words, **environment) -> str:
    """Return what a command shows on a terminal, stdout and stderr together."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the terminal has no one left
                return
            if not piece:
                return
            shown.append(piece)

    process = subprocess.Popen(
        [sys.executable, "-m", "tyro_cli", *map(str, words)],
        cwd=place.folder,
        env={k: v for k, v in place.environment.items() if k != "NO_COLOR"} | environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert process.wait(COMMAND_SECONDS) == 0
    reader.join(COMMAND_SECONDS)
    os.close(ours)
    return b"".join(shown).decode()


def test_a_dumb_terminal_gets_no_escapes(trained):
    plain = on_a_terminal(trained, "compare", TERM="dumb", COLUMNS="100")
    assert "Verdict on tied" in plain
    assert ESCAPE not in plain


def test_no_color_is_respected_on_a_terminal(trained):
    shown = on_a_terminal(trained, "compare", TERM="xterm-256color", NO_COLOR="1", COLUMNS="100")
    for color in range(30, 39):
        assert f"{ESCAPE}[{color}" not in shown
    assert f"{ESCAPE}[38" not in shown
    assert "Verdict on tied" in shown


@pytest.mark.slow
def test_training_draws_a_table_on_a_terminal_and_lines_on_a_dumb_one(place):
    words = ("train", "--config", "a.yaml")
    dumb = on_a_terminal(place, *words, "name=dumb", TERM="dumb", COLUMNS="100")
    assert ESCAPE not in dumb
    assert "untied/seed-0: step 4/12" in dumb
    drawn = on_a_terminal(place, *words, "name=drawn", TERM="xterm", COLUMNS="100")
    assert ESCAPE in drawn
    assert "tokens/s" in drawn
    assert "Verdict on tied" in drawn
    # The cursor that the live table hides is shown again.
    assert drawn.count(f"{ESCAPE}[?25l") == drawn.count(f"{ESCAPE}[?25h")
