"""Each sync, rename and verification of the storage room is removed in turn: some test fails.

The lines are found in the source, so a new one is mutated too. A mutated copy of the package is
tested by the room's own tests.
"""

import ast
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# A removed refusal can make a test wait for ever. The limit is one test's, each of which takes a
# second or two, so that a busy machine is not taken for a test that misses something.
HANGING_SECONDS = 60
ROOM = REPOSITORY / "tyro_cli" / "storage"

# What the room exists for, beside every refusal: making durable, making visible, owning, and
# looking before trusting.
CALLS = {
    "flush",
    "fsync",
    "sync_file",
    "sync_folder",
    "replace",
    "rename",
    "verify_manifest",
    "write_manifest",
    "remove_leftovers",
    "remove_whole",
    "truncate_records",
    "write_bytes",
    "ftruncate",
    "unlink",
    "acquire",
    "release",
    "check_name",
}


@dataclass(frozen=True)
class Mutation:
    """A statement that is replaced by one that does nothing."""

    file: str
    first: int
    last: int
    indent: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.first}: {self.text}"


def mutations() -> list[Mutation]:
    """Find the statements to remove."""
    found = []
    for path in sorted(ROOM.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if _is_safeguard(node):
                assert isinstance(node, ast.stmt) and node.end_lineno is not None
                text = " ".join((ast.get_source_segment(source, node) or "").split())
                found.append(
                    Mutation(path.name, node.lineno, node.end_lineno, node.col_offset, text[:60])
                )
    return sorted(found, key=lambda mutation: (mutation.file, mutation.first))


def _is_safeguard(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return _name(node.value.func) in CALLS
    return isinstance(node, ast.Raise)


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def mutated(source: str, mutation: Mutation) -> str:
    """Return the source with a statement replaced by `pass`."""
    lines = source.splitlines(keepends=True)
    lines[mutation.first - 1 : mutation.last] = [" " * mutation.indent + "pass\n"]
    return "".join(lines)


def test_there_is_something_to_remove():
    found = mutations()
    assert len(found) > 35
    names = {mutation.text.split("(")[0].split(".")[-1] for mutation in found}
    assert {"fsync", "sync_folder", "replace", "rename", "verify_manifest"} <= names
    for mutation in found:
        ast.parse(mutated((ROOM / mutation.file).read_text(encoding="utf-8"), mutation))


@pytest.mark.slow
@pytest.mark.parametrize("mutation", mutations(), ids=str)
def test_a_safeguard_that_is_removed_is_missed(tmp_path, injected, mutation):
    for part in ("tyro_cli", "tests"):  # with what is compiled; but for what is being compiled
        shutil.copytree(
            REPOSITORY / part, tmp_path / part, ignore=shutil.ignore_patterns("*.pyc.*")
        )
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    target = tmp_path / "tyro_cli" / "storage" / mutation.file
    target.write_text(mutated(target.read_text(encoding="utf-8"), mutation), encoding="utf-8")
    own = f"tests/storage/test_{Path(mutation.file).stem}.py"
    chosen = own if (tmp_path / own).exists() else "tests/storage"
    code, said = run_tests(tmp_path, chosen)
    if code == 0 and chosen == own:  # what its own tests overlook, those of another module may not
        code, said = run_tests(tmp_path, "tests/storage", f"--ignore={own}")
    assert code in (1, 2), f"nothing notices it:\n{said}"
    injected("safeguards removed, each noticed by a test")


def run_tests(root: Path, *tests: str) -> tuple[int, str]:
    """Run tests of a copy until one fails or hangs; return the exit code and what was said."""
    outcome = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
            *("-o", f"faulthandler_timeout={HANGING_SECONDS}"),
            *("-o", "faulthandler_exit_on_timeout=true"),  # with exit code 1
            *tests,
        ],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    return outcome.returncode, outcome.stdout[-1000:]
