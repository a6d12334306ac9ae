"""Rules of the house: nothing in the package runs what it reads, and each rule can fail."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest

# Rules that no linter knows. An argument may be spelled out as False; a name has no other use.
FORBIDDEN_ARGUMENTS = {"trust_remote_code", "allow_pickle"}
FORBIDDEN_NAMES = {"eval", "exec", "__import__", "create_subprocess_shell"}
SILENCED = re.compile(r"#\s*noqa(?!: E501\b)|#\s*ruff:\s*noqa")


def modules(root):
    return sorted((root / "tyro_cli").rglob("*.py"))


def foreign_code(source):
    """Return the lines of a module that could run foreign code, or that silence a linter."""
    found = [n for n, line in enumerate(source.splitlines(), 1) if SILENCED.search(line)]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg in FORBIDDEN_ARGUMENTS:
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                found.append(node.value.lineno)
        elif isinstance(node, ast.Constant) and node.value in FORBIDDEN_ARGUMENTS:
            found.append(node.lineno)  # as in f(**{"trust_remote_code": True})
        elif isinstance(node, ast.Name) and node.id in FORBIDDEN_NAMES:
            found.append(node.lineno)
        elif isinstance(node, ast.Attribute) and node.attr in FORBIDDEN_NAMES - {"eval"}:
            found.append(node.lineno)  # model.eval() is something else
    return found


def test_nothing_in_the_package_runs_foreign_code(repository):
    for path in modules(repository):
        assert foreign_code(path.read_text(encoding="utf-8")) == [], path


@pytest.mark.parametrize(
    "line",
    [
        "load_dataset('a', trust_remote_code=True)",
        "load_dataset('a', trust_remote_code=trusted)",
        "load_dataset('a', **{'trust_remote_code': True})",
        "np.load('a', allow_pickle=True)",
        "run = eval",
        "run = exec",
        "__import__(name)",
        "asyncio.create_subprocess_shell('a')",
        "x = torch.load('a')  # noqa",
        "x = torch.load('a')  # noqa: TID251",
    ],
)
def test_each_of_these_is_foreign_code(line):
    assert foreign_code(line) == [1]


def test_these_are_not_foreign_code():
    assert foreign_code("np.load(path, allow_pickle=False)\nmodel.eval()\n") == []


# What the linter must catch, each way to write it, and the rule that catches it.
FORBIDDEN_LINES = {
    "import pickle": "TID251",
    "import pickle as harmless": "TID251",
    "from pickle import loads": "TID251",
    "import _pickle": "TID251",
    "import cloudpickle": "TID251",
    "import dill": "TID251",
    "import joblib": "TID251",
    "import marshal": "TID251",
    "import shelve": "TID251",
    "import torch; torch.load('a')": "TID251",
    "import torch as t; t.load('a')": "TID251",
    "from torch import load": "TID251",
    "from torch.serialization import load": "TID251",
    "import torch; torch.save(1, 'a')": "TID251",
    "eval('1')": "S307",
    "import builtins; builtins.eval('1')": "S307",
    "exec('1')": "S102",
    "import yaml; yaml.load('a', Loader=yaml.SafeLoader)": "TID251",
    "from yaml import load": "TID251",
    "import yaml; yaml.load_all('a', Loader=None)": "TID251",
    "import yaml; yaml.full_load('a')": "TID251",
    "import yaml; yaml.full_load_all('a')": "TID251",
    "import yaml; yaml.unsafe_load('a')": "TID251",
    "import yaml; yaml.unsafe_load_all('a')": "TID251",
    "from yaml import Loader": "TID251",
    "from yaml import FullLoader": "TID251",
    "from yaml import UnsafeLoader": "TID251",
    "import subprocess; subprocess.run('a', shell=True)": "S602",
    "import subprocess; subprocess.Popen('a', shell=True)": "S602",
    "import subprocess; subprocess.getoutput('a')": "S605",
    "import os; os.system('a')": "S605",
    "import os; os.popen('a')": "S605",
    "run('a', shell=True)": "S604",
}


def lint(repository, room, source):
    """Return the rules that a module would break if it stood in a room of the package."""
    words = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise"]
    name = f"tyro_cli/{room}/stranger.py"
    outcome = subprocess.run(
        [*words, "--stdin-filename", name, "-"],
        cwd=repository, input=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert outcome.returncode in (0, 1), outcome.stderr
    return set(re.findall(r"^\S+:\d+:\d+: ([A-Z]+[0-9]+)", outcome.stdout, re.MULTILINE))


def test_the_linter_catches_each_way_to_run_foreign_code(repository):
    # `experiments` is the room with the most freedom; what it may not do, none may.
    missed = {
        line: rule
        for line, rule in FORBIDDEN_LINES.items()
        if rule not in lint(repository, "experiments", f"def run():\n    {line}\n")
    }
    assert missed == {}


def test_the_linter_lets_safe_reading_pass(repository):
    source = "import subprocess\nimport yaml\n\nyaml.safe_load('a')\nsubprocess.run(['a'])\n"
    assert not lint(repository, "experiments", source) & {"TID251", "S602", "S604", "S605"}


def test_no_rule_is_switched_off_for_a_room(repository):
    content = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    ignored = content["tool"]["ruff"]["lint"]["per-file-ignores"]
    for pattern, rules in ignored.items():
        allowed = {"TID253"} if pattern.startswith("tyro_cli/") else {"TID253", "D"}
        assert set(rules) <= allowed, pattern


def test_every_room_has_a_docstring_and_no_code_in_its_init(repository):
    for path in (repository / "tyro_cli").glob("*/__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1, f"{path} holds more than a docstring"
        assert ast.get_docstring(ast.Module(body, [])), f"{path} has no docstring"


def test_every_pinned_version_is_exact_and_public(repository):
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins == sorted(pins, key=str.lower)
    for pin in pins:
        name, equals, version = pin.partition("==")
        assert name, pin
        assert equals, pin
        assert version, pin
        assert "+" not in version, f"{pin}: a local build cannot be installed elsewhere"
