"""Tables on a terminal: drawn at its width, every value as every other rendering shows it.

A table that is too wide for the terminal is turned, so that each of its rows becomes a column;
nothing is ever cut off. What a table holds belongs to `analysis`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tyro_cli.cli.streams import print_line, result_console, warn
from tyro_cli.errors import NothingMatched, UsageError

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from tyro_cli.analysis.columns import Column, Table
    from tyro_cli.analysis.records import RunRecords
    from tyro_cli.analysis.verdicts import Verdict


@dataclass(frozen=True)
class Compared:
    """What is shown of one run.

    Attributes:
        run: The records.
        tables: The tables by name, in the order shown.
        verdicts: The verdict on every arm but the baseline.
    """

    run: "RunRecords"
    tables: dict[str, "Table"]
    verdicts: dict[str, "Verdict"]

    def as_record(self) -> dict[str, Any]:
        """Return the tables and verdicts as one JSON object."""
        from tyro_cli.analysis.rendering import table_record

        return {
            "run": str(self.run.folder),
            "name": self.run.manifest.name,
            "tables": {name: table_record(table) for name, table in self.tables.items()},
            "verdicts": {arm: verdict.as_record() for arm, verdict in self.verdicts.items()},
        }


def compare_run(
    run: "RunRecords",
    *,
    baseline: str | None = None,
    metric: str | None = None,
    table: str | None = None,
    force: bool = False,
) -> Compared:
    """Compute the tables and verdicts of one run.

    Args:
        run: The records.
        baseline: The arm to compare against; the experiment's own where None.
        metric: The metric of the contrasts; the deciding one where None.
        table: The name of the one table to keep; all where None.
        force: Set numbers of different signature beside each other.

    Raises:
        NothingMatched: No cell is finished, or there is no such arm.
        UsageError: There is no such table or metric.
    """
    from tyro_cli.analysis.tables import all_tables
    from tyro_cli.analysis.verdicts import verdict_of_run

    if all(cell.status == "unfinished" for cell in run.cells.values()):
        raise NothingMatched(
            f"{run.folder}: none of its {len(run.cells)} cells is finished",
            "run the same wtie train command again: it resumes",
        )
    tables = all_tables(run, baseline, metric, force=force)
    if table is not None:
        if table not in tables:
            raise UsageError(f"there is no table {table!r}", f"one of {', '.join(tables)}")
        tables = {table: tables[table]}
    return Compared(run, tables, verdict_of_run(run, baseline, force=force))


def warn_of_missing_cells(run: "RunRecords") -> None:
    """Name on stderr the planned cells that the tables do not hold."""
    missing = [f"{c.arm} seed {c.seed}" for c in run.cells.values() if c.status == "unfinished"]
    if missing:
        warn(
            f"warning: {len(missing)} of {len(run.cells)} cells of {run.folder.name} are "
            f"unfinished ({', '.join(missing)}); the same wtie train command resumes them"
        )


def draw(compared: Compared) -> None:
    """Draw the tables of a run and say its verdicts."""
    print_line(f"{compared.run.manifest.name} ({compared.run.folder})")
    for table in compared.tables.values():
        print_line()
        draw_table(table)
    for verdict in compared.verdicts.values():
        print_line()
        _print_wrapped(f"Verdict: {verdict.sentence}")


def draw_table(table: "Table") -> None:
    """Draw one table with its title above and its notes below."""
    from rich.measure import Measurement

    console = result_console()
    upright = _upright(table)
    fits = Measurement.get(console, console.options.update(max_width=10_000), upright)
    print_line(table.title)
    console.print(upright if fits.maximum <= console.width else _turned(table))
    for note in table.notes:
        _print_wrapped(note.replace("`", ""))


def _columns(table: "Table") -> list["Column"]:
    return [column for column in table.columns if column.on_screen]


def _upright(table: "Table") -> "RichTable":
    from tyro_cli.analysis.rendering import cell_text

    drawn = _empty_table()
    for column in _columns(table):
        drawn.add_column(
            column.header, justify="left" if column.kind == "text" else "right", overflow="fold"
        )
    for row in table.rows:
        drawn.add_row(*(cell_text(column, row) for column in _columns(table)))
    return drawn


def _turned(table: "Table") -> "RichTable":
    """Return the table with one line for each column and one column for each row."""
    from tyro_cli.analysis.rendering import cell_text

    drawn = _empty_table()
    first, *others = _columns(table)
    drawn.add_column(first.header, overflow="fold")
    for row in table.rows:
        drawn.add_column(cell_text(first, row), justify="right", overflow="fold")
    for column in others:
        drawn.add_row(column.header, *(cell_text(column, row) for row in table.rows))
    return drawn


def _empty_table() -> "RichTable":
    from rich import box
    from rich.table import Table as RichTable

    return RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)


def _print_wrapped(text: str) -> None:
    result_console().print(text)
