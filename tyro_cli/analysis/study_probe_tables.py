"""The probes of a study: agreement across seeds and resemblance, at every point that was probed.

Invariant: the rows of a point are those of its run (`probe_tables`); points are never averaged.
"""

from collections.abc import Callable

from tyro_cli.analysis.columns import Row, Table
from tyro_cli.analysis.probe_tables import agreement_table, resemblance_table
from tyro_cli.analysis.probes import PROBES, ProbeRecord, load_probes
from tyro_cli.analysis.studies import StudyRecords
from tyro_cli.analysis.study_columns import factor_columns, level_values


def study_probe_tables(study: StudyRecords) -> list[Table]:
    """Return both tables; none where no point has been probed.

    Raises:
        DamagedRecord: A `probes.json` does not say what it must.
    """
    name = study.manifest.name
    found = [
        _over_points(study, agreement_table, "agreement", f"Agreement across seeds of {name}"),
        _over_points(
            study,
            resemblance_table,
            "resemblance",
            f"Which untied matrix the tied one of {name} resembles",
        ),
    ]
    return [table for table in found if table is not None]


def _over_points(
    study: StudyRecords, of_run: Callable[[ProbeRecord], Table], name: str, title: str
) -> Table | None:
    """Set the tables of the runs below each other; None where none has a row."""
    rows: list[Row] = []
    notes: dict[str, None] = {}
    last = None
    for point in study.points:
        if (point.run.folder / PROBES).is_file():
            last = of_run(load_probes(point.run.folder))
            rows += [{**level_values(point.levels), **row} for row in last.rows]
            notes |= dict.fromkeys(last.notes)
    if last is None or not rows:
        return None
    return Table(name, title, (*factor_columns(study), *last.columns), tuple(rows), tuple(notes))
