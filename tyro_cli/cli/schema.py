"""`wtie schema`: the JSON Schema of a configuration, which editors complete and check from."""

from pathlib import Path
from typing import Annotated

import typer

from tyro_cli.cli.streams import print_line, print_text
from tyro_cli.errors import UsageError


def schema(
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write it there instead of to stdout."),
    ] = None,
    study: Annotated[
        bool, typer.Option("--study", help="The one of a study file, not of an experiment.")
    ] = False,
) -> None:
    """Print the JSON Schema of a configuration, or of a study."""
    from tyro_cli.cli.reference import schema_text, study_schema_text
    from tyro_cli.storage.files import write_text

    text = study_schema_text() if study else schema_text()
    if out is None:
        print_text(text)
        return
    if out.suffix != ".json":
        raise UsageError(
            f"--out {out} is no name of a JSON Schema",
            "end it in .json, so that a slip of the keyboard writes over no experiment",
        )
    write_text(out, text)
    print_line(f"wrote {out}")
