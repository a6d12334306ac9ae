"""Help is an interface: its text is fixed, every word has help, and every command is documented."""

import re
from pathlib import Path

import pytest
import typer.main

from tyro_cli.cli.app import app
from tyro_cli.cli.reference import cli_reference_markdown, generated_files


def commands():
    """Yield (words, command) for every command."""

    def walk(command, words):
        if not hasattr(command, "commands"):
            yield words, command
        for name, subcommand in getattr(command, "commands", {}).items():
            yield from walk(subcommand, (*words, name))

    return list(walk(typer.main.get_command(app), ()))


EXPECTED = {
    ("init",), ("train",), ("compare",), ("params",), ("eval",), ("generate",), ("runs", "ls"),
    ("runs", "show"), ("runs", "verify"), ("runs", "tag"), ("runs", "rm"), ("data", "ls"),
    ("data", "info"), ("data", "prepare"), ("schema",), ("sweep",), ("report",), ("translate",),
    ("probe",),
}  # fmt: skip


def test_help_text(wtie, golden):
    result = wtie("--help")
    assert result.exit_code == 0
    golden("help.txt", result.stdout)
    assert result.stderr == ""


def test_train_help_text(wtie, golden):
    golden("train-help.txt", wtie("train", "--help").stdout)


def test_the_commands_are_those_of_the_design():
    assert {words for words, _ in commands()} == EXPECTED


@pytest.mark.parametrize(("words", "command"), commands(), ids=lambda value: str(value))
def test_every_word_of_every_command_has_help(words, command):
    assert command.help
    summary = command.help.splitlines()[0]
    assert summary.endswith(".")
    for parameter in command.params:
        assert parameter.help, f"{words} {parameter.name} has no help"


def test_no_summary_is_cut_off_in_the_list_of_commands(wtie):
    for words in ((), ("runs",), ("data",)):
        assert "..." not in wtie(*words, "--help").stdout.partition("Commands:")[2]


def test_every_command_and_option_is_documented(repository):
    text = (repository / "docs" / "CLI.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (wtie [^\n]+)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    assert set(sections) == {" ".join(("wtie", *words)) for words, _ in commands()}
    for words, command in commands():
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert f"`{parameter.opts[0]}`" in sections[f"wtie {' '.join(words)}"]


def test_the_reference_ends_each_table_row_like_the_others():
    rows = [line for line in cli_reference_markdown().splitlines() if line.startswith("| `")]
    assert rows
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}


@pytest.mark.parametrize("name", generated_files())
def test_generated_docs_are_current(repository, name):
    assert (repository / name).read_text(encoding="utf-8") == generated_files()[name]


@pytest.mark.parametrize(
    ("words", "name"), [((), "wtie.schema.json"), (("--study",), "study.schema.json")]
)
def test_the_command_prints_and_writes_the_schema_of_the_docs(
    wtie, repository, in_empty_folder, words, name
):
    text = (repository / "docs" / name).read_text(encoding="utf-8")
    assert wtie("schema", *words).stdout == text
    assert wtie("schema", *words, "--out", "schema.json").stdout == "wrote schema.json\n"
    slip = wtie("schema", *words, "--out", "wtie.yaml")
    assert (slip.exit_code, "no name of a JSON Schema" in slip.stderr) == (2, True)
    assert not Path("wtie.yaml").exists()
    assert (in_empty_folder / "schema.json").read_text(encoding="utf-8") == text
