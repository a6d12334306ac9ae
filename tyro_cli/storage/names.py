"""Names that become folders and files, checked before anything is written.

Invariant: a checked name is one plain path part of harmless characters, and a path from `inside`
lies below its root without passing a symbolic link. What the names stand for is the caller's
matter; so is the root itself, which the user chose and which may be a link.
"""

import re
from pathlib import Path

from tyro_cli.errors import RunFolderError, UsageError
from tyro_cli.storage.system import storage_errors

MAX_NAME_LENGTH = 100
_ALLOWED = re.compile(r"[A-Za-z0-9._-]+")


def check_name(name: str, what: str = "name") -> str:
    """Return the name if it can be one part of a path.

    Args:
        name: The name to check.
        what: What it names, for the message, such as `arm name`.

    Raises:
        UsageError: The name is empty, too long, hidden, or has a character that is not allowed.
    """
    if not name:
        problem = "is empty"
    elif len(name) > MAX_NAME_LENGTH:
        problem = f"has {len(name)} characters; at most {MAX_NAME_LENGTH} are allowed"
    elif not _ALLOWED.fullmatch(name):
        problem = "has a character that is not allowed"
    elif name.startswith("."):
        problem = "starts with a dot"
    elif ".." in name:
        problem = "has two dots in a row"
    else:
        return name
    shown = repr(name if len(name) <= MAX_NAME_LENGTH else name[:MAX_NAME_LENGTH] + "...")
    remedy = "use letters, digits, '.', '_' and '-', and begin with anything but a dot"
    raise UsageError(
        f"{what} {shown} {problem}", "shorten it" if len(name) > MAX_NAME_LENGTH else remedy
    )


def inside(root: Path, *parts: str) -> Path:
    """Join checked names onto a root, refusing every way out of it.

    Args:
        root: The folder that must not be left; it may be a symbolic link itself.
        *parts: One name for each level below it; what they name need not exist.

    Raises:
        UsageError: A part is not a plain name.
        RunFolderError: A part is a symbolic link.
        StorageError: The system refused.
    """
    path = root
    for part in parts:
        path = path / check_name(part, f"the name below {path}")
        with storage_errors(path, "look at"):
            is_link = path.is_symlink()
        if is_link:
            raise RunFolderError(
                f"{path} is a symbolic link, which could lead out of {root}",
                "put the real file or folder in its place",
            )
    return path
