"""Rules of the house that no linter knows: nothing in the package runs what it reads."""

import ast

import pytest

FORBIDDEN_KEYWORDS = {"trust_remote_code", "allow_pickle"}


def modules(root):
    return sorted((root / "tyro_cli").rglob("*.py"))


@pytest.mark.parametrize("keyword", sorted(FORBIDDEN_KEYWORDS))
def test_no_call_allows_foreign_code(repository, keyword):
    for path in modules(repository):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == keyword:
                value = node.value
                assert isinstance(value, ast.Constant), f"{path}:{value.lineno}: {keyword}"
                assert value.value is False, f"{path}:{value.lineno}: {keyword}"


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
