"""How fast each arm of a study trained at each point, and in what memory.

Invariant: the only table of a study that holds times. It stands in the report and not among the
tables that `wtie sweep` writes, which are the same, byte for byte, wherever the study is repeated.
"""

from statistics import fmean

from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.analysis.formats import Performance
from tyro_cli.analysis.studies import StudyRecords
from tyro_cli.analysis.study_columns import factor_columns, level_values, missing_notes
from tyro_cli.analysis.tables import processors_of

AVERAGED = (
    Column("train_tokens_per_second", "tokens/s", "number", 0),
    Column("seconds", "seconds a cell", "number", 0),
    Column("peak_memory_bytes", "peak memory", "bytes"),
)


def study_performance_table(study: StudyRecords) -> Table:
    """Return points by arms: means over the cells that were measured."""
    rows: list[Row] = []
    for point in study.points:
        for arm in study.manifest.arms:
            cells = [cell for cell in point.run.cells_of(arm) if cell.performance is not None]
            row: dict[str, CellValue] = {
                **level_values(point.levels),
                "arm": arm,
                "cells": len(cells),
                "processor": ", ".join(processors_of(point.run, cells)),
            }
            measured = [cell.performance for cell in cells if cell.performance is not None]
            rows.append(row | _means(measured))
    return Table(
        "performance",
        f"Performance of the study {study.manifest.name}",
        (
            *factor_columns(study),
            Column("arm", "arm"),
            Column("cells", "cells", "integer"),
            *AVERAGED,
            Column("processor", "processor"),
        ),
        tuple(rows),
        (
            "Means over cells, as measured on the machine that trained each. Tokens a second in "
            "training; seconds of training and evaluation; the most memory that the process of a "
            "cell held, the program itself included. Compare arms at one point: points may differ "
            "in processor and in what else the machine did.",
            *missing_notes(study),
        ),
    )


def _means(measured: list[Performance]) -> dict[str, CellValue]:
    """Return the mean of every column; none or zero says that a cell did not record it."""
    found = {
        column.key: [value for one in measured if (value := getattr(one, column.key))]
        for column in AVERAGED
    }
    return {key: fmean(values) for key, values in found.items() if values}
