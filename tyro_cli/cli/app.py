"""The `wtie` command: every command group in one Typer app, and the way out of it.

A command parses its words, calls the library and prints; whatever goes wrong ends here, in `main`,
as two lines on stderr and an exit code. This module and the command modules import nothing heavy
(torch, datasets, tokenizers, scipy): each command imports what it calls when it is called.
"""

import os
import signal
import sys
import traceback
from typing import Annotated

import typer

from tyro_cli import __version__
from tyro_cli.cli import (
    compare,
    data,
    init,
    params,
    probe,
    report,
    runs,
    schema,
    sweep,
    train,
    use,
)
from tyro_cli.cli.streams import printable
from tyro_cli.errors import Interrupted, WtieError
from tyro_cli.storage.system import refusal_of

EXIT_CODES = """\
Exit codes: 0 done, 1 a cell failed, 2 usage or configuration, 3 a --fail-if gate,
4 cells of a sweep failed, 5 nothing matched, 130 and 143 for signals.
"""

INTERRUPTED = 128 + signal.SIGINT

app = typer.Typer(
    name="wtie",
    # Plain text: the same help on every terminal, and no rich on the way to it.
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["--help", "-h"]},
)

app.command("init")(init.init)
app.command("train")(train.train)
app.command("compare")(compare.compare)
app.command("sweep")(sweep.sweep)
app.command("report")(report.report)
app.command("params")(params.params)
app.command("eval")(use.evaluate)
app.command("generate")(use.generate)
app.command("translate")(use.translate)
app.command("probe")(probe.probe)
app.add_typer(runs.app, name="runs")
app.add_typer(data.app, name="data")
app.command("schema")(schema.schema)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wtie {__version__}")
        raise typer.Exit


@app.callback()
def wtie(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Train paired Transformers that differ in nothing but the tie, and compare them.

    Does sharing one matrix between the input embedding and the output softmax help, on your own
    text and at your own size, and what does it save? Start with: wtie init
    """


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: The words after `wtie`; those of the process when None.
    """
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _drop_stdout()  # whoever read our output has had enough: no message
        return 1
    except OSError as error:
        _drop_stdout()
        typer.echo(f"error: cannot write to standard output: {error.strerror}", err=True)
        typer.echo("  fix: free some space where it goes, or send it elsewhere", err=True)
        return 1


def _drop_stdout() -> None:
    """Send what is still buffered to nowhere, so that there is no second try at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str] | None) -> int:
    try:
        code = app(arguments, prog_name="wtie", standalone_mode=False)
    except WtieError as error:
        _print_error(error)
        return error.exit_code
    except typer.TyperException as error:
        show = getattr(error, "show", None)
        if show is not None:
            show()
        else:
            typer.echo(f"Error: {error.format_message()}", err=True)
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("stopped", err=True)
        return INTERRUPTED
    except Exception as error:
        # A file that cannot be written has a name, and `storage` has told of it; a stream has none.
        if isinstance(error, OSError) and error.filename is None:
            raise
        if isinstance(error, OSError) and (refusal := refusal_of(error)) is not None:
            _print_error(refusal)
            return refusal.exit_code
        _print_bug(error)
        return 1
    if code == INTERRUPTED:
        typer.echo("stopped", err=True)  # Typer has made an exit code of the KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _print_error(error: WtieError) -> None:
    is_stop = isinstance(error, Interrupted)
    lines = [error.message if is_stop else f"error: {error.message}"]
    if error.remedy:
        lines.append(f"  {error.remedy}" if is_stop else f"  fix: {error.remedy}")
    _say(*lines)


def _say(*lines: str) -> None:
    """Write lines to stderr; what they quote may move no cursor and change no colour."""
    sys.stdout.flush()
    for line in lines:
        typer.echo(printable(line, sys.stderr), err=True)


def _print_bug(error: Exception) -> None:
    _say(f"error: this is a bug in wtie: {type(error).__name__}: {error}")
    if os.environ.get("WTIE_DEBUG"):
        traceback.print_exception(error)
    else:
        _say("  fix: run it again with WTIE_DEBUG=1 and report what it prints")
