"""Where a corpus lies: the folder that the configuration names, and what is in it.

Invariant: whatever a user writes for a folder, and whatever the system says of it, becomes a
`DataError` that names it.
"""

from pathlib import Path

from tyro_cli.errors import DataError


def folder_of(corpus: str, folder: str) -> Path:
    """Return a folder as a shell would read it: from the current directory on, `~` the home folder.

    Args:
        corpus: The whole of `data.corpus`, for the message.
        folder: The part that names the folder, which need not be there.

    Raises:
        DataError: It can be no folder, or may not be looked at.
    """
    try:
        path = Path.cwd() / Path(folder).expanduser()
        path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise DataError(f"data.corpus {corpus!r}: {reason}", "check the path") from error
    return path


def existing_folder(corpus: str, otherwise: str) -> Path:
    """Return the folder that a corpus names.

    Args:
        corpus: All of `data.corpus`.
        otherwise: What to do where it is none, in words.

    Raises:
        DataError: There is no such folder.
    """
    folder = folder_of(corpus, corpus)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise DataError(f"data.corpus {corpus!r}: {what} ({folder})", otherwise)
    return folder


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, by name.

    Raises:
        DataError: It may not be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        reason = f"{folder}: cannot be listed: {error.strerror or error}"
        raise DataError(reason, "check its permissions") from error


def unreadable(path: Path, error: OSError) -> DataError:
    """Return the error for a file of a corpus that the system does not give."""
    remedy = (
        "check the path, which is taken from the current directory"
        if isinstance(error, FileNotFoundError)
        else "check that it is a file, and its permissions"
    )
    return DataError(f"{path}: cannot be read: {error.strerror or error}", remedy)
