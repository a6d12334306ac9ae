"""The ways out: two lines on stderr and the documented exit code, whatever went wrong."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from tyro_cli.cli import app as application
from tyro_cli.errors import (
    CellFailed,
    GateFailed,
    Interrupted,
    NothingMatched,
    StorageError,
    UsageError,
)


def raise_from_schema(monkeypatch, error):
    """Make `wtie schema` raise an error inside the command."""

    def fail() -> str:
        raise error

    monkeypatch.setattr("tyro_cli.cli.reference.schema_text", fail)


def test_a_configuration_error_shows_place_line_and_caret(wtie, golden, in_empty_folder):
    wtie("init")
    path = in_empty_folder / "wtie.yaml"
    text = path.read_text().replace("tying: none", "tyng: none").replace("batch_t", "batch-t")
    path.write_text(text)
    result = wtie("train", "--config", "wtie.yaml")
    assert result.exit_code == 2
    assert result.stdout == ""
    golden("configuration-error.txt", result.stderr)


def test_an_unknown_key_on_the_command_line(wtie, golden, in_empty_folder):
    wtie("init")
    result = wtie("params", "--config", "wtie.yaml", "training.budget.tokns=4000")
    assert result.exit_code == 2
    golden("override-error.txt", result.stderr)


def test_a_message_moves_no_cursor(wtie, monkeypatch):
    raise_from_schema(monkeypatch, UsageError("\x1b]0;title\x07 and \x1b[31mred", "\x1b[2J"))
    result = wtie("schema")
    assert "\x1b" not in result.stderr and "\x07" not in result.stderr
    assert "]0;title" in result.stderr


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EACCES, "check who owns it"), (errno.ENAMETOOLONG, "use a shorter name")],
)
def test_a_path_that_may_not_be_looked_at_is_no_bug_of_ours(wtie, monkeypatch, number, remedy):
    raise_from_schema(monkeypatch, OSError(number, os.strerror(number), "a" * 400))
    result = wtie("schema")
    assert result.exit_code == StorageError("").exit_code
    assert result.stderr.startswith(f"error: cannot use {'a' * 300}...: {os.strerror(number)}\n")
    assert f"  fix: {remedy}" in result.stderr


def test_a_name_that_is_too_long_is_told(wtie):
    result = wtie("compare", "n" * 300)
    assert "a bug in wtie" not in result.stderr and "  fix: " in result.stderr


STUDY = """\
name: sizes
experiment: wtie.yaml
factors:
  width: {model.d_model: [64, 128]}
"""


@pytest.mark.parametrize("words", [("train",), ("params",), ("data", "info"), ("data", "prepare")])
def test_a_study_is_sent_to_sweep(wtie, in_empty_folder, words):
    (in_empty_folder / "sizes.yaml").write_text(STUDY)
    result = wtie(*words, "--config", "sizes.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: sizes.yaml:3:1: factors: the file is a study, not an experiment\n"
        "    3 | factors:\n"
        "      | ^^^^^^^\n"
        "  fix: `wtie sweep --config sizes.yaml` runs it\n"
    )


def test_an_experiment_is_sent_to_train(wtie, in_empty_folder):
    wtie("init")
    result = wtie("sweep", "--config", "wtie.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    first, *_, last = result.stderr.splitlines()
    assert first.startswith("error: wtie.yaml:")
    assert first.endswith(": task: the file is an experiment, not a study")
    assert last == "  fix: `wtie train --config wtie.yaml` runs it"
    assert [path.name for path in in_empty_folder.iterdir()] == ["wtie.yaml"]


def test_a_missing_file(wtie, in_empty_folder):
    result = wtie("train", "--config", "nowhere.yaml")
    assert result.exit_code == 2
    assert "nowhere.yaml" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("train",),
        ("train", "--nonsense"),
        ("generate", "runs/x"),
        ("generate", "runs/x", "--prompt", "a", "--temperature", "-1"),
        ("compare", "--format", "xml"),
        ("compare", "--fail-if", "better"),
        ("eval", "runs/x", "--checkpoint", "newest"),
        ("train", "--config", "a.yaml", "--device", "tpu"),
        ("train", "--config", "a.yaml", "--workers", "0"),
        ("train", "--config", "a.yaml", "--workers", "many"),
        ("train", "--config", "a.yaml", "--threads", "-1"),
        ("train", "--config", "a.yaml", "--seeds", "3-1"),
        ("train", "--config", "a.yaml", "--arms", "tied,,untied"),
        ("train", "--config", "a.yaml", "--arms", "tied,tied"),
        ("train", "--config", "a.yaml", "tokens"),
        ("train", "--config", "a.yaml", "=3"),
        ("params",),
        ("params", "--config", "a.yaml", "--hf", "config.json"),
        ("params", "--hf", "config.json"),
    ],
)
def test_usage_errors_exit_2_and_write_nothing(wtie, in_empty_folder, words):
    result = wtie(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr
    assert "bug" not in result.stderr
    assert list(in_empty_folder.iterdir()) == []


def test_a_configuration_without_its_option(wtie, in_empty_folder):
    result = wtie("train", "--config", "a.yaml", "b.yaml")
    assert result.stderr == (
        "error: 'b.yaml' is not key=value\n  fix: name a configuration with --config b.yaml\n"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CellFailed("tied seed 0: no"), 1),
        (StorageError("disk full"), 1),
        (UsageError("wrong"), 2),
        (GateFailed("closed"), 3),
        (NothingMatched("none"), 5),
    ],
)
def test_exit_codes(wtie, monkeypatch, error, code):
    error.remedy = "do this"
    raise_from_schema(monkeypatch, error)
    result = wtie("schema")
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr == f"error: {error.message}\n  fix: do this\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_names_the_command_that_resumes(wtie, monkeypatch, number, code):
    raise_from_schema(monkeypatch, Interrupted(number, "go on with: wtie train"))
    result = wtie("schema")
    assert result.exit_code == code
    name = signal.Signals(number).name
    assert result.stderr == f"stopped by {name}\n  go on with: wtie train\n"


def test_ctrl_c_outside_training_is_quiet(wtie, monkeypatch):
    raise_from_schema(monkeypatch, KeyboardInterrupt())
    result = wtie("schema")
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr


def test_a_bug_is_called_one(wtie, monkeypatch):
    raise_from_schema(monkeypatch, ZeroDivisionError("by zero"))
    result = wtie("schema")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: this is a bug in wtie: ZeroDivisionError: by zero\n"
        "  fix: run it again with WTIE_DEBUG=1 and report what it prints\n"
    )


def test_a_bug_shows_its_traceback_on_demand(wtie, monkeypatch):
    monkeypatch.setenv("WTIE_DEBUG", "1")
    raise_from_schema(monkeypatch, ZeroDivisionError("by zero"))
    result = wtie("schema")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


def test_a_full_disk_is_an_error_and_leaves_nothing(wtie, in_empty_folder, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = wtie("schema", "--out", "schema.json")
    assert result.exit_code == 1
    assert "schema.json" in result.stderr
    assert "bug" not in result.stderr
    assert list(in_empty_folder.iterdir()) == []


def test_a_reader_that_has_enough_ends_it_quietly(tmp_path):
    program = "import sys; from tyro_cli.cli.app import main; sys.exit(main(['schema']))"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        errors = process.stderr.read()
        process.wait(timeout=60)
    assert errors == b""
    assert process.returncode == 1


def test_main_reads_the_words_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["wtie", "--version"])
    assert application.main() == 0
    assert capsys.readouterr().out.startswith("wtie 0.")


def test_a_ctrl_c_inside_any_command_is_answered(wtie, monkeypatch):
    raise_from_schema(monkeypatch, KeyboardInterrupt())
    result = wtie("schema")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "stopped\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("words", [("schema",), ("data", "ls")], ids=" ".join)
def test_a_full_disk_behind_stdout_is_told_in_words(tmp_path, words):
    with open("/dev/full", "w") as full:
        finished = subprocess.run(
            [sys.executable, "-m", "tyro_cli", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert finished.returncode == 1
    assert finished.stderr == (
        "error: cannot write to standard output: No space left on device\n"
        "  fix: free some space where it goes, or send it elsewhere\n"
    )


def test_a_ctrl_c_while_the_program_is_imported_is_no_traceback(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    finished = subprocess.run(
        [sys.executable, "-c", "import sys; from tyro_cli.__main__ import main; sys.exit(main())"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (finished.returncode, finished.stderr) == (130, "stopped\n")
