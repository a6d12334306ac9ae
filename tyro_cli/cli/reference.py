"""Write the generated docs, or check that they are current: `python -m tyro_cli.cli.reference`.

docs/CLI.md comes from the Typer app itself, docs/CONFIG.md, docs/wtie.schema.json and
docs/study.schema.json from the configuration's schema, so none of them can say anything else than
the program does. `make docs` writes them, `make lint` checks them.
"""

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from tyro_cli.errors import WtieError

HEADER = """\
# The command line

Written by `make docs` from the program itself; do not edit.

Results go to stdout, progress and warnings to stderr. `NO_COLOR`, pipes and `TERM=dumb` are
respected by each stream for itself. With `--json` a command prints one document and nothing else.

| exit code | means |
|---:|---|
| 0 | done |
| 1 | a cell of `train` failed or diverged, a file could not be read or written, `runs verify` \
found a problem, or another process holds the run |
| 2 | the command or the configuration is wrong |
| 3 | a `--fail-if` gate closed |
| 4 | a cell of `sweep` failed or diverged; without `--fail-fast` the others were trained |
| 5 | nothing matched: no such run, arm or seed |
| 130, 143 | stopped by SIGINT (Ctrl-C) or SIGTERM |

With `WTIE_DEBUG=1` an unexpected error shows where it came from. `WTIE_CACHE` is the folder of
prepared data (default `$XDG_CACHE_HOME/wtie`, else `~/.cache/wtie`).
"""


def schema_text() -> str:
    """Return docs/wtie.schema.json."""
    from tyro_cli.config.json_schema import experiment_json_schema

    return _json_text(experiment_json_schema())


def study_schema_text() -> str:
    """Return docs/study.schema.json."""
    from tyro_cli.config.json_schema import study_json_schema

    return _json_text(study_json_schema())


def _json_text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def cli_reference_markdown() -> str:
    """Return docs/CLI.md: every command with its usage, arguments and options."""
    from tyro_cli.cli.app import app

    root = typer.main.get_command(app)
    sections = [HEADER]
    for words, command in _commands(root, ("wtie",)):
        sections.append(_section(words, command))
    return "\n".join(sections)


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield words, command
        return
    for name, subcommand in subcommands.items():
        yield from _commands(subcommand, (*words, name))


def _section(words: tuple[str, ...], command: Any) -> str:
    shown = [parameter for parameter in command.params if parameter.name != "help"]
    arguments = [p for p in shown if p.param_type_name == "argument"]
    options = [p for p in shown if p.param_type_name == "option"]
    usage = " ".join([*words, *(["[OPTIONS]"] if options else []), *map(_metavar, arguments)])
    lines = [
        f"## {' '.join(words)}",
        "",
        inspect.cleandoc(command.help or ""),
        "",
        "```",
        usage,
        "```",
        "",
    ]
    if shown:
        lines += ["| word | means | default |", "|---|---|---|"]
        lines += [_row(parameter) for parameter in (*arguments, *options)]
        lines.append("")
    return "\n".join(lines)


def _metavar(argument: Any) -> str:
    metavar = argument.metavar or argument.name.upper()
    return (metavar if argument.required else f"[{metavar}]") + "..." * (argument.nargs == -1)


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        word = f"`{_metavar(parameter)}`"
    else:
        word = ", ".join(f"`{name}`" for name in parameter.opts)
        if not getattr(parameter, "is_flag", False):
            word += f" `{parameter.metavar or parameter.name.upper()}`"
    return f"| {_cell(word)} | {_cell(parameter.help or '')} | {_cell(_default(parameter))} |"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if default is None or default is False or default == [] or default == ():
        return ""
    return f"`{default}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def generated_files() -> dict[str, str]:
    """Return the text of every generated file by its path in the project."""
    from tyro_cli.config.reference import config_reference_markdown

    return {
        "docs/CLI.md": cli_reference_markdown(),
        "docs/CONFIG.md": config_reference_markdown(),
        "docs/wtie.schema.json": schema_text(),
        "docs/study.schema.json": study_schema_text(),
    }


def main(arguments: list[str]) -> int:
    """Write the generated docs; with `--check`, only say which are not current."""
    from tyro_cli.storage.files import write_text

    root = Path(__file__).resolve().parents[2]
    stale = []
    for name, text in generated_files().items():
        path = root / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if arguments == ["--check"]:
            stale.append(name)
        else:
            write_text(path, text)
            sys.stdout.write(f"wrote {name}\n")
    for name in stale:
        sys.stderr.write(f"{name} is not current; run `make docs`\n")
    return 1 if stale else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except WtieError as error:
        sys.exit(f"error: {error.message}")
