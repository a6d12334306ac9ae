"""What a command imports before it has something to do: nothing that takes long.

Times differ from machine to machine, so the modules are looked at instead.
"""

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "datasets", "tokenizers", "scipy", "pythonbible", "pandas", "pyarrow"}

PROGRAM = """
import json, sys
from tyro_cli.cli.app import main
code = main(json.loads(sys.argv[1]))
sys.stdout.flush()
print("\\n" + json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def modules_after(*words: str, cwd) -> tuple[int, set[str]]:
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    code, modules = json.loads(finished.stdout.splitlines()[-1])
    return code, set(modules)


@pytest.fixture
def broken_file(tmp_path, wtie):
    wtie("init", tmp_path)
    path = tmp_path / "wtie.yaml"
    path.write_text(path.read_text().replace("tying: none", "tyng: none"))
    return path


@pytest.mark.parametrize("words", [("--help",), ("train", "--help"), ("schema",), ("nonsense",)])
def test_nothing_heavy_on_the_way_to_help(tmp_path, words):
    _, modules = modules_after(*words, cwd=tmp_path)
    assert not modules & HEAVY


def test_help_needs_neither_numpy_nor_rich_nor_pydantic(tmp_path):
    code, modules = modules_after("--help", cwd=tmp_path)
    assert code == 0
    assert not modules & {"numpy", "rich", "pydantic", "yaml"}


@pytest.mark.parametrize("command", ["train", "params"])
def test_a_configuration_error_imports_nothing_heavy(broken_file, command):
    code, modules = modules_after(command, "--config", str(broken_file), cwd=broken_file.parent)
    assert code == 2
    assert not modules & (HEAVY | {"numpy", "rich"})


def test_a_dry_run_of_a_broken_file_imports_nothing_heavy(broken_file):
    code, modules = modules_after(
        "train", "--dry-run", "--config", str(broken_file), cwd=broken_file.parent
    )
    assert code == 2
    assert not modules & HEAVY


def test_the_library_is_found_as_a_module(tmp_path, repository):
    finished = subprocess.run(
        [sys.executable, "-m", "tyro_cli", "--version"],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 0
    assert finished.stdout.startswith("wtie ")
