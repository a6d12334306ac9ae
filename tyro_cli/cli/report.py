"""`wtie report`: one self-contained HTML page of a run, a study or claims, and charts as pictures.

Reads records and writes the page; what stands in it belongs to `reporting`.
"""

from pathlib import Path
from typing import Annotated

import typer

from tyro_cli.cli.options import JsonOption, all_named
from tyro_cli.cli.streams import print_json, print_line
from tyro_cli.errors import UsageError

ENDINGS = (".html", ".htm")
"""How the page's name may end: a slip must not write it over a record."""


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER",
            help="Runs or studies, a page for each; or a folder of studies that make claims, for "
            "one page of all claims.",
            callback=all_named,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The page; by default report.html in the folder. Pictures go to plots/ beside it, "
            "those of FILE.html to FILE-plots/.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Set numbers of different signature beside each other."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained HTML page of a run, a study or claims.

    It opens anywhere, asks no host for anything, and is complete without scripts. Its charts are
    also written as SVG, PNG and Vega-Lite specifications. Needs the extra `report`.
    """
    if output is not None:
        _check_output(output, folders)
    from tyro_cli.reporting.drawing import renderer
    from tyro_cli.reporting.folders import pictures_of, write_report

    renderer()  # before any work is done
    written = []
    for folder in folders:
        page, pictures = write_report(folder, output, force=force)
        written.append(
            {"folder": str(folder), "page": str(page), "pictures": [str(one) for one in pictures]}
        )
        if not as_json:
            charts = sum(one.suffix == ".svg" for one in pictures)
            print_line(f"wrote {page} and {charts} charts in {pictures_of(page)}")
    if as_json:
        print_json(written[0] if len(written) == 1 else written)


def _check_output(output: Path, folders: list[Path]) -> None:
    """Refuse a file that cannot be meant, before anything is read or drawn."""
    if len(folders) > 1:
        raise UsageError(
            f"--output names one file for {len(folders)} pages",
            "leave it out: each page goes to report.html in its own folder",
        )
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder", f"--output {output / 'report.html'}")
    if output.suffix not in ENDINGS:
        raise UsageError(
            f"--output {output} is no name of a page",
            f"end it in .html: --output {output.with_suffix('.html')}",
        )
    if not output.parent.is_dir():
        raise UsageError(
            f"--output {output}: there is no folder {output.parent}",
            f"create it: mkdir -p {output.parent}",
        )
