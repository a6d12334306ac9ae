"""From a folder to its report: reads the records of a run, a study or claims and writes the page.

Invariant: files are replaced whole, the page last, and pages of different names in one folder have
pictures of their own.
"""

from pathlib import Path

from tyro_cli.analysis.claims import claim_results
from tyro_cli.analysis.records import load_run
from tyro_cli.analysis.studies import is_study, load_study_records, studies_in
from tyro_cli.errors import RunFolderError, UsageError
from tyro_cli.reporting.claims_page import claims_page
from tyro_cli.reporting.page import MAX_PAGE_BYTES, Report, build_report
from tyro_cli.reporting.provenance import folder_name
from tyro_cli.reporting.run_page import run_page
from tyro_cli.reporting.study_page import study_page
from tyro_cli.storage.files import write_bytes, write_text

PICTURES = "plots"
PAGE = "report.html"


def pictures_of(page: Path) -> Path:
    """Return the folder for the pictures of a page."""
    return page.parent / (PICTURES if page.name == PAGE else f"{page.stem}-{PICTURES}")


def write_report(
    folder: Path, output: Path | None = None, *, force: bool = False
) -> tuple[Path, tuple[Path, ...]]:
    """Write the page of a run or a study, and its pictures beside it.

    Args:
        folder: The folder of the run or the study, or one in which studies that make claims lie.
        output: The page; `report.html` in the folder where None.
        force: Set numbers of different signature beside each other.

    Returns:
        The page and the pictures that were written.

    Raises:
        UsageError: `force` is set for claims, or vl-convert is not installed.
        RunFolderError: The folder holds neither, or numbers have different signatures.
        DamagedRecord: A record does not say what it must.
        NothingMatched: No cell is finished.
        StorageError: A file cannot be written.
    """
    report = read_report(folder, force=force)
    page = output if output is not None else folder / PAGE
    pictures = []
    for name, content in report.pictures.items():
        path = pictures_of(page) / name
        write_bytes(path, content)
        pictures.append(path)
    write_text(page, report.html)
    return page, tuple(pictures)


def read_report(folder: Path, *, force: bool = False) -> Report:
    """Read the records in a folder, lay out their page and draw it.

    A study's page leaves out what stands on the pages of its runs where it would grow too large,
    and any page its largest charts.
    """
    if is_study(folder):
        study = load_study_records(folder)
        report = build_report(study_page(study, force=force), whole=True)
        if len(report.html.encode("utf-8")) <= MAX_PAGE_BYTES:
            return report
        return build_report(study_page(study, force=force, with_points=False))
    if claims := claim_results(studies_in(folder)):
        if force:
            raise UsageError(
                f"{folder} holds studies that make claims, and claims are decided without --force",
                "leave --force out; it is for the page of one run or study",
            )
        return build_report(claims_page(claims, folder_name(folder)))
    if not (folder / "manifest.json").is_file():
        raise RunFolderError(
            f"{folder} is neither a run nor a study, and holds no study that makes a claim",
            "name a folder that `wtie train` or `wtie sweep` wrote, for example runs/NAME-HASH",
        )
    return build_report(run_page(load_run(folder), force=force))
