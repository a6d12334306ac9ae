"""Every command in the README is one that the program takes."""

import re
import shlex

import pytest
import typer.main

from tests.end_to_end.workplace import REPOSITORY
from tyro_cli.cli.app import app

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```[a-z]*\n(.*?)^```$", README, re.M | re.S)
COMMANDS = [
    line.partition("#")[0].partition(" < ")[0].strip()
    for block in BLOCKS
    for line in block.splitlines()
    if line.startswith("wtie ")
]


def test_there_are_commands():
    assert len(COMMANDS) > 8


@pytest.mark.parametrize("command", COMMANDS)
def test_the_program_takes_the_words(command, in_folder_with_configurations):
    words = shlex.split(command)[1:]
    if words == ["--help"]:
        return
    group = typer.main.get_command(app)
    while hasattr(group, "commands"):
        group = group.commands[words.pop(0)]
    context = group.make_context("wtie", list(words))
    format_ = context.params.get("format_")
    if format_ is not None:
        from tyro_cli.cli.compare import FORMATS

        assert set(format_.split(",")) <= set(FORMATS)
    config = context.params.get("config")
    if config is not None and config.name != "wtie.yaml":
        assert config.is_file()


@pytest.fixture
def in_folder_with_configurations(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def test_every_make_target_that_it_names_exists():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.M), target
