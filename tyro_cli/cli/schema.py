"""`wtie schema`: the JSON Schema of a configuration, which editors complete and check from."""

from pathlib import Path
from typing import Annotated

import typer

from tyro_cli.cli.streams import print_line, print_text


def schema(
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write it there instead of to stdout."),
    ] = None,
) -> None:
    """Print the JSON Schema of a configuration."""
    from tyro_cli.cli.reference import schema_text
    from tyro_cli.storage.files import write_text

    if out is None:
        print_text(schema_text())
        return
    write_text(out, schema_text())
    print_line(f"wrote {out}")
