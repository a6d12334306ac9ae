"""What the commands show of a run, on a terminal and as JSON.

Invariant: `train` and `compare` show the same tables and verdicts of the same records. Layout and
content belong to `analysis`; here they meet a terminal's width and colour.
"""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tyro_cli.cli.streams import print_bold, print_line, printable, result_console, warn
from tyro_cli.errors import NothingMatched, UsageError

if TYPE_CHECKING:
    from tyro_cli.analysis.columns import Table
    from tyro_cli.analysis.records import RunRecords
    from tyro_cli.analysis.search_tables import TunedVerdict
    from tyro_cli.analysis.studies import StudyRecords
    from tyro_cli.analysis.verdicts import Verdict


@dataclass(frozen=True)
class Compared:
    """What is shown of one run.

    Attributes:
        run: The records.
        tables: The tables by name, in the order shown.
        verdicts: The verdict on every arm but the baseline.
        tuned: What a search makes of these verdicts; empty without one.
    """

    run: "RunRecords"
    tables: dict[str, "Table"]
    verdicts: dict[str, "Verdict"]
    tuned: dict[str, "TunedVerdict"]

    def as_record(self) -> dict[str, Any]:
        """Return the tables and verdicts as one JSON object."""
        from tyro_cli.analysis.rendering import table_record

        tuned = {
            arm: {
                "verdict": None if one.verdict is None else one.verdict.as_record(),
                "sign_survives": one.survives,
                "sentence": one.sentence,
            }
            for arm, one in self.tuned.items()
        }
        return {
            "run": str(self.run.folder),
            "name": self.run.manifest.name,
            "tables": {name: table_record(table) for name, table in self.tables.items()},
            "verdicts": {arm: verdict.as_record() for arm, verdict in self.verdicts.items()},
        } | ({"each_at_its_best": tuned} if tuned else {})


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
    from tyro_cli.analysis.search_tables import tuned_verdicts
    from tyro_cli.analysis.tables import all_tables
    from tyro_cli.analysis.verdicts import verdict_of_run

    if all(cell.status == "unfinished" for cell in run.cells.values()):
        raise NothingMatched(
            f"{run.folder}: none of its {len(run.cells)} cells is finished",
            "run the same wtie train command again: it resumes",
        )
    tables = _kept(all_tables(run, baseline, metric, force=force), table)
    verdicts = verdict_of_run(run, baseline, force=force)
    if run.search is None:
        return Compared(run, tables, verdicts, {})
    tuned = tuned_verdicts(run, run.baseline(baseline), force=force)
    return Compared(run, tables, verdicts, tuned)


def warn_of_missing_cells(run: "RunRecords") -> None:
    """Name on stderr the planned cells that the tables do not hold."""
    from tyro_cli.analysis.search_tables import every_cell, unfinished_cells

    missing = unfinished_cells(run)
    if not missing:
        return
    warn(
        f"warning: {len(missing)} of {len(every_cell(run))} cells of {run.folder.name} are "
        f"unfinished ({', '.join(missing)}); the same wtie train command resumes them"
    )


def draw(compared: Compared) -> None:
    """Draw the tables of a run and say its verdicts."""
    for table in compared.tables.values():
        draw_table(table)
        print_line()
    print_line(f"run: {compared.run.folder}")
    for verdict in compared.verdicts.values():
        text = f"Verdict on {verdict.arm} against {verdict.baseline}: {verdict.text}"
        saved = _saving(compared.run, verdict.arm, verdict.baseline)
        print_bold(f"{text}; {saved}")
        if verdict.arm in compared.tuned:
            tuned = compared.tuned[verdict.arm].text
            print_bold(f"  each arm at its best: {tuned}")


def _saving(run: "RunRecords", arm: str, baseline: str) -> str:
    """Say how many parameters an arm has fewer or more than the baseline."""
    own, other = (run.manifest.arms[name].ledger.total for name in (arm, baseline))
    if own == other:
        return "as many parameters"
    sign = "fewer" if own < other else "more"
    return f"{abs(other - own):,} parameters {sign} ({abs(other - own) / other:.1%})"


@dataclass(frozen=True)
class ComparedStudy:
    """What is shown of one study.

    Attributes:
        study: The records.
        tables: The tables by name, in the order shown.
        verdicts: The verdict on every arm but the baseline at every point, by point and arm.
    """

    study: "StudyRecords"
    tables: dict[str, "Table"]
    verdicts: dict[str, "Verdict"]

    def as_record(self) -> dict[str, Any]:
        """Return the tables and verdicts as one JSON object."""
        from tyro_cli.analysis.rendering import table_record

        return {
            "study": str(self.study.folder),
            "name": self.study.manifest.name,
            "tables": {name: table_record(table) for name, table in self.tables.items()},
            "verdicts": {where: verdict.as_record() for where, verdict in self.verdicts.items()},
        }


def compare_study(
    study: "StudyRecords", *, table: str | None = None, force: bool = False
) -> ComparedStudy:
    """Compute the tables and verdicts of one study.

    Args:
        study: The records.
        table: The name of the one table to keep; all where None.
        force: Set numbers of different signature beside each other.

    Raises:
        UsageError: There is no such table.
    """
    from tyro_cli.analysis.studies import study_contrasts
    from tyro_cli.analysis.study_tables import study_tables

    contrasts = study_contrasts(study, force=force)
    tables = study_tables(study, contrasts, force=force)
    verdicts = {f"{one.where}, {one.contrast.arm}": one.verdict for one in contrasts}
    return ComparedStudy(study, _kept(tables, table), verdicts)


def _kept(tables: dict[str, "Table"], name: str | None) -> dict[str, "Table"]:
    if name is None:
        return tables
    if name not in tables:
        raise UsageError(f"there is no table {name!r}", f"one of {', '.join(tables)}")
    return {name: tables[name]}


def draw_study(compared: ComparedStudy) -> None:
    """Draw the tables of a study, and say where it lies and what its claim comes to."""
    from tyro_cli.analysis.claims import claim_results, word_of

    for table in compared.tables.values():
        draw_table(table)
        print_line()
    print_line(f"study: {compared.study.folder}")
    for one in claim_results([compared.study]):
        page = f"wtie report {compared.study.folder.parent}"
        parts = one.claim.parts
        by = "this study" if parts == 1 else f"this study alone, one of {parts}"
        word = word_of([finding.outcome for finding in one.findings], one.claim.depends_on)
        print_line(f"claim {one.claim.number}, by {by}: {word}; its page: {page}")


def draw_table(table: "Table") -> None:
    """Draw one table at the width of the terminal; what does not fit follows below."""
    from tyro_cli.analysis.rendering import to_plain

    console = result_console()
    title, _, rest = to_plain(table, console.width).partition("\n")
    print_bold(title)
    console.print(printable(rest, sys.stdout), end="", soft_wrap=True)
