"""`wtie probe`: the matrices of a run's trained cells, measured.

Invariant: what is measured goes into one record, `probes.json`, of which every table is a pure
function; a run, its data and its checkpoints decide it, whoever probes and in whatever order. What
a user asks of words is answered beside it and not kept. Of a cell its verified checkpoint, and of
the data the counts of tokens in train, are all that is read.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tyro_cli.analysis.probes import MATRICES, PROBES, Matrix, ProbeRecord, RoleGradientRecord
from tyro_cli.analysis.records import CellRecord, RunRecords, load_run
from tyro_cli.data.prepared_pairs import PreparedPairs
from tyro_cli.data.preparing import Prepared
from tyro_cli.data.tokenizers import load_tokenizer
from tyro_cli.errors import DamagedRecord, DataError, NothingMatched
from tyro_cli.evaluation.probes.rows import (
    MIN_COUNT,
    NUM_BANDS,
    CountedRows,
    count_tokens,
    counted_rows,
    shuffle_rows,
)
from tyro_cli.evaluation.probes.shape import shape_measures
from tyro_cli.evaluation.probes.spaces import NUM_NEIGHBOURS, Space, compare_spaces, make_space
from tyro_cli.experiments.limits import available_cores
from tyro_cli.experiments.use import data_of, finished_cells, load_cell
from tyro_cli.models.initialization import keyed_seed
from tyro_cli.models.tying import vocabulary_matrices
from tyro_cli.storage.files import write_json
from tyro_cli.storage.records import read_records
from tyro_cli.training.hardware import configure_process
from tyro_cli.training.role_gradients import KIND

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT = 1
DIGITS = 10
"""Significant digits that are kept: the last ones depend on the machine's order of summing."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class ProbedSpace:
    """One matrix of one cell: its counted rows, ready to be compared."""

    cell: CellRecord
    matrix: Matrix
    space: Space

    @property
    def name(self) -> dict[str, Any]:
        """Which matrix it is, as records say it."""
        return {"arm": self.cell.arm, "seed": self.cell.seed, "matrix": self.matrix}


@dataclass(frozen=True)
class OpenedProbe:
    """What is probed, before anything is measured.

    Attributes:
        run: The run.
        cells: Its cells that are probed.
        rows: The rows that count, by side of the data: `target`, and in translation `source`.
        counts: How often each token of a side occurs in train, int64 `[V]`.
    """

    run: RunRecords
    cells: tuple[CellRecord, ...]
    rows: dict[str, CountedRows]
    counts: dict[str, np.ndarray]

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        """The vocabulary of the target side, read where words are asked for, and once."""
        run = self.run
        return load_tokenizer(run.folder / "tokenizer.json", vocab_size=run.manifest.vocab_size)


def check_arms(run: RunRecords, arm: str | None, cells: Sequence[CellRecord]) -> None:
    """Refuse to set tied and untied beside each other where one of them is not there.

    Raises:
        NothingMatched: Neither one arm was asked for nor are there finished cells of both kinds.
    """
    if arm is not None:
        return
    tied = {run.manifest.arms[cell.arm].ledger.tying != "none" for cell in cells}
    if tied == {True, False}:
        return
    missing, tying = ("an untied", "none") if tied == {True} else ("a tied", "in-out")
    raise NothingMatched(
        f"{run.folder}: no cell of {missing} arm is finished, and probes set tied and untied "
        "matrices beside each other",
        f"probe one arm alone with --arm {cells[0].arm}, or train an arm with model.tying: {tying}",
    )


def open_probe(run_folder: Path, arm: str | None = None, seed: int | None = None) -> OpenedProbe:
    """Return the finished cells of a run that are to be probed, and the rows that count.

    Args:
        run_folder: The run.
        arm: Only this arm.
        seed: Only this seed.

    Raises:
        NothingMatched: No finished cell fits, or tied and untied ones are not both there.
        DataError: The corpus cannot be read, or too few of its tokens are frequent.
        RunFolderError: The corpus is not the one that the run was trained on.
    """
    run = load_run(run_folder)
    cells = finished_cells(run, arm, seed)
    check_arms(run, arm, cells)
    counts = _counts_of(data_of(run_folder, cells[0]))
    rows = {
        side: counted_rows(values, keyed_seed("probe rows", side))
        for side, values in counts.items()
    }
    for side, counted in rows.items():
        _check_enough(run_folder, counted, side)
    return OpenedProbe(run, tuple(cells), rows, counts)


def measure(
    opened: OpenedProbe, checkpoint: str = "best", say: Say = lambda text: None
) -> tuple[dict[str, Any], tuple[ProbedSpace, ...]]:
    """Measure the vocabulary matrices of the cells that were opened.

    Args:
        opened: The cells and rows.
        checkpoint: `best` or `last`.
        say: Takes a sentence on what is done.

    Returns:
        `probes.json` of these cells, and every matrix in the order of arms, seeds and matrices.

    Raises:
        StorageError: A checkpoint is damaged or not there.
    """
    run, rows = opened.run, opened.rows
    configure_process("cpu", available_cores(), deterministic=True)
    spaces: list[ProbedSpace] = []
    shapes, cells = [], []
    for cell in opened.cells:
        say(f"probing {cell.arm} seed {cell.seed}")
        matrices, step = _matrices_of(run, cell, checkpoint, rows)
        assert cell.result is not None
        identity = {"arm": cell.arm, "seed": cell.seed, "cell_id": cell.result.cell_id}
        cells.append(identity | {"step": step})
        for matrix, values in matrices.items():
            counted = rows[_side(matrix)]
            one = ProbedSpace(cell, matrix, make_space(values, counted.sample))
            spaces.append(one)
            shapes.append(one.name | {"values": _kept(shape_measures(values, counted.counts))})
    record = {
        "format": FORMAT,
        "name": run.manifest.name,
        "run_id": run.manifest.run_id,
        "checkpoint": checkpoint,
        "settings": {
            "min_count": MIN_COUNT,
            "num_neighbours": NUM_NEIGHBOURS,
            "num_bands": NUM_BANDS,
        },
        "rows": {
            side: {
                "vocab_size": len(opened.counts[side]),
                "counted": len(counted.ids),
                "sampled": len(counted.sample),
            }
            for side, counted in rows.items()
        },
        "cells": cells,
        "shapes": shapes,
        "agreements": list(_agreements(spaces, rows, say)),
        "role_gradients": [course for cell in opened.cells if (course := _course_of(cell))],
    }
    return record, tuple(spaces)


def write_probes(run_folder: Path, record: dict[str, Any]) -> ProbeRecord:
    """Write `probes.json` into a run folder and return what the tables are made from.

    Raises:
        StorageError: The system refused.
    """
    checked = ProbeRecord.model_validate(record)
    write_json(run_folder / PROBES, record)
    return checked


def _counts_of(prepared: Prepared) -> dict[str, np.ndarray]:
    """Return how often each token occurs in train, by side."""
    if isinstance(prepared, PreparedPairs):
        train = prepared.splits["train"]
        return {
            "target": count_tokens(train.target, prepared.vocab_size),
            "source": count_tokens(train.source, prepared.source_vocab_size),
        }
    return {"target": count_tokens(prepared.splits["train"].tokens, prepared.vocab_size)}


def _check_enough(run_folder: Path, rows: CountedRows, side: str) -> None:
    if len(rows.ids) > NUM_NEIGHBOURS + 1:
        return
    raise DataError(
        f"{run_folder}: only {len(rows.ids)} {side} tokens occur {MIN_COUNT} times or more in "
        f"train, and a probe needs {NUM_NEIGHBOURS + 2}",
        "probe a run with more text, or with a smaller vocabulary",
    )


def _side(matrix: Matrix) -> str:
    return "source" if matrix == "source" else "target"


def _matrices_of(
    run: RunRecords, cell: CellRecord, checkpoint: str, rows: dict[str, CountedRows]
) -> tuple[dict[Matrix, np.ndarray], int]:
    """Return the counted rows of each of a cell's matrices, float32, and the step."""
    _, model, step = load_cell(run, cell, checkpoint)
    own = vocabulary_matrices(model)
    found = {
        matrix: own[matrix].detach().numpy()[rows[_side(matrix)].ids]
        for matrix in MATRICES
        if matrix in own
    }
    for matrix, values in found.items():
        if not np.isfinite(values).all():
            raise DamagedRecord(
                f"{cell.folder}: the {matrix} matrix holds numbers that are not finite",
                "train the cell again, or probe the other checkpoint with --checkpoint",
            )
    return found, step


def _agreements(
    spaces: Sequence[ProbedSpace], rows: dict[str, CountedRows], say: Say
) -> Iterable[dict[str, Any]]:
    """Yield how alike the spaces are that are compared, and how alike when shuffled."""
    wanted = [pair for pair in combinations(spaces, 2) if _are_compared(*pair)]
    if wanted:
        say(f"comparing {len(wanted)} pairs of matrices")
    for first, second in wanted:
        counted = rows[_side(first.matrix)]
        order = shuffle_rows(counted, keyed_seed("probe null", *_parts(first), *_parts(second)))
        yield {
            "first": first.name,
            "second": second.name,
            "observed": _kept(compare_spaces(first.space, second.space)),
            "shuffled": _kept(compare_spaces(first.space, second.space, order)),
        }


def _are_compared(first: ProbedSpace, second: ProbedSpace) -> bool:
    """Say whether two are one matrix of two seeds, or a tied and an untied one."""
    if first.cell.arm == second.cell.arm:
        return first.matrix == second.matrix
    matrices = {first.matrix, second.matrix}
    return "tied" in matrices and bool(matrices & {"input", "output"})


def _parts(one: ProbedSpace) -> tuple[str, int, str]:
    return one.cell.arm, one.cell.seed, one.matrix


def _course_of(cell: CellRecord) -> dict[str, Any] | None:
    """Return the first, middle and last record of a cell's gradients; None where it has none.

    Raises:
        DamagedRecord: One of them does not say what it must.
    """
    path = cell.folder / "metrics.jsonl"
    if not path.is_file():
        return None
    records = [record for record in read_records(path) if record.get("kind") == KIND]
    if not records:
        return None
    chosen = [records[0], records[len(records) // 2], records[-1]]
    try:
        course = [RoleGradientRecord.model_validate(record) for record in chosen]
    except ValueError as error:
        raise DamagedRecord(
            f"{path}: a record of the kind {KIND} does not say what it must",
            "restore the file from a copy, or train the cell again",
        ) from error
    return {
        "arm": cell.arm,
        "seed": cell.seed,
        "records": [one.model_dump(mode="json", exclude_unset=True) for one in course],
    }


def _kept(values: dict[str, float | None]) -> dict[str, float | None]:
    """Return the values as a record keeps them: rounded, and None where not finite."""
    return {
        key: float(f"{value:.{DIGITS}g}") if value is not None and math.isfinite(value) else None
        for key, value in values.items()
    }
