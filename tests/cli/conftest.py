"""Run `wtie` as a user does: words in, streams and an exit code out."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tyro_cli.cli.app import main

GOLDEN = Path(__file__).parent.parent / "golden" / "cli"


@dataclass(frozen=True)
class Result:
    """What one command left."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def wtie(capsys, monkeypatch):
    """Run one command in this process, through the program's own way out."""

    def run(*words: object, columns: int | None = None) -> Result:
        if columns is not None:
            monkeypatch.setenv("COLUMNS", str(columns))
        capsys.readouterr()
        exit_code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Result(exit_code, captured.out, captured.err)

    return run


@pytest.fixture
def golden():
    """Compare with an exact text kept in tests/golden/cli; WTIE_GOLDEN=write keeps the new one."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("WTIE_GOLDEN") == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def in_empty_folder(tmp_path, monkeypatch) -> Path:
    """Work in an empty folder, so that messages show short paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
