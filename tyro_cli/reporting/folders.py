"""From a folder to its report: reads the records of a run or a study and writes the page.

Invariant: files are replaced whole, the page last, so that a page never stands beside pictures of
other records. Pictures of charts that are no longer drawn are removed, by the names we give.
"""

from pathlib import Path

from tyro_cli.analysis.records import load_run
from tyro_cli.errors import RunFolderError
from tyro_cli.reporting.contents import Page
from tyro_cli.reporting.page import build_report
from tyro_cli.reporting.run_page import run_page
from tyro_cli.storage.files import write_bytes, write_text

PICTURES = "plots"
PAGE = "report.html"


def write_report(
    folder: Path, output: Path | None = None, *, force: bool = False
) -> tuple[Path, tuple[Path, ...]]:
    """Write the page of a run or a study, and its pictures beside it.

    Args:
        folder: The folder of the run or the study.
        output: The page; `report.html` in the folder where None.
        force: Set numbers of different signature beside each other.

    Returns:
        The page and the pictures that were written.

    Raises:
        UsageError: The folder holds neither, or vl-convert is not installed.
        DamagedRecord: A record does not say what it must.
        NothingMatched: No cell is finished.
        StorageError: A file cannot be written.
    """
    report = build_report(read_page(folder, force=force))
    page = output if output is not None else folder / PAGE
    pictures = []
    for name, content in report.pictures.items():
        path = page.parent / PICTURES / name
        write_bytes(path, content)
        pictures.append(path)
    write_text(page, report.html)
    return page, tuple(pictures)


def read_page(folder: Path, *, force: bool = False) -> Page:
    """Read the records in a folder and lay out their page."""
    if not (folder / "manifest.json").is_file():
        raise RunFolderError(
            f"{folder} is neither a run nor a study: it has no manifest.json",
            "name a folder that `wtie train` or `wtie sweep` wrote, for example runs/NAME-HASH",
        )
    return run_page(load_run(folder), force=force)
