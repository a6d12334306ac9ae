"""`wtie init`: a commented configuration to start from.

Never writes over a file.
"""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from tyro_cli.cli.streams import print_line
from tyro_cli.errors import UsageError

FILE_NAME = "wtie.yaml"


def template() -> str:
    """Return the text of the configuration that `wtie init` writes."""
    from importlib import resources

    return resources.files("tyro_cli.cli").joinpath("template.yaml").read_text(encoding="utf-8")


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to write it; created where needed.")
    ] = Path(),
) -> None:
    """Write a commented configuration, wtie.yaml, to start from."""
    from tyro_cli.errors import StorageError
    from tyro_cli.storage.files import write_text

    path = folder / FILE_NAME
    if path.exists() or path.is_symlink():
        raise UsageError(
            f"{path} is already there, and nothing is written over it",
            "edit it, or name another folder: wtie init DIR",
        )
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is in the way: it is not a folder", "name another folder")
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot create the folder {folder}: {error.strerror}", "name another folder"
        ) from error
    try:
        write_text(path, template())
    except StorageError:
        if is_new:
            with suppress(OSError):
                folder.rmdir()  # nothing else is in it
        raise
    print_line(f"wrote {path}")
    print_line(f"count it: wtie params --config {path}")
    print_line(f"train it: wtie train --config {path}")
