"""What every table of a study begins and ends with: its factors, and what is not there yet."""

from collections.abc import Mapping
from typing import Any

from tyro_cli.analysis.columns import CellValue, Column
from tyro_cli.analysis.studies import StudyRecords
from tyro_cli.config.grid import level_text


def factor_columns(study: StudyRecords) -> tuple[Column, ...]:
    """Return a column for each factor, in the order of the study file."""
    return tuple(Column(f"level {name}", name) for name in study.factors)


def level_values(levels: Mapping[str, Any]) -> dict[str, CellValue]:
    """Return the values of `factor_columns` at one point."""
    return {f"level {name}": level_text(level) for name, level in levels.items()}


def missing_notes(study: StudyRecords) -> list[str]:
    """Name what is planned and not there yet."""
    unfinished = sum(
        cell.status == "unfinished" for point in study.points for cell in point.run.cells.values()
    )
    notes = []
    if study.missing:
        notes.append(f"Points without a run folder yet: {len(study.missing)}.")
    if unfinished:
        notes.append(f"Not final: {unfinished} cells are unfinished.")
    return notes
