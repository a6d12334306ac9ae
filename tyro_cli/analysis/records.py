"""The records of a run, read and checked: what every contrast and table is computed from.

Invariant: what leaves this module is complete, finite and consistent. The files are untrusted: a
missing field, a wrong type, a number that is not finite or a sum that does not add up is a
`DamagedRecord` that names the file and the field. Keys this version does not know are ignored.
Which cells belong to a run is what its manifest planned; a planned cell without a result is
unfinished. What the numbers mean together is left to `pairs`, `contrasts` and `tables`.
"""

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import ValidationError

from tyro_cli.analysis.bleu import NUM_COUNTS, Counts, corpus_bleu
from tyro_cli.analysis.formats import (
    FORMAT,
    SUM_TOLERANCE,
    CellResult,
    Manifest,
    Performance,
    Record,
    Split,
)
from tyro_cli.errors import DamagedRecord, NothingMatched, RunFolderError, UsageError
from tyro_cli.storage.files import read_json
from tyro_cli.storage.names import inside

Status = Literal["done", "diverged", "unfinished"]
DocumentUnit = Literal["words", "tokens"]

MAX_DOCUMENTS_BYTES = 128 * 2**20
"""Largest uncompressed documents.npz that is read: two million documents, far beyond any corpus."""

REMEDY = (
    "Restore the file from a copy, or move the cell's folder aside and train the cell again with "
    "the same command."
)


MANIFEST_REMEDY = (
    "Restore the file from a copy, or train the run again with `wtie train --fresh`, which moves "
    "the folder aside."
)


@dataclass(frozen=True)
class DocumentScores:
    """Per-document sums of one split at the best-valid checkpoint; all arrays have one length."""

    nats: np.ndarray[Any, np.dtype[np.float64]]
    tokens: np.ndarray[Any, np.dtype[np.int64]]
    words: np.ndarray[Any, np.dtype[np.int64]]
    bytes: np.ndarray[Any, np.dtype[np.int64]]

    def counts(self, unit: DocumentUnit) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the number of words or tokens of each document."""
        return self.words if unit == "words" else self.tokens


@dataclass(frozen=True)
class CellRecord:
    """One planned cell: its result, or that it has none yet."""

    arm: str
    seed: int
    folder: Path
    status: Status
    result: CellResult | None
    performance: Performance | None

    @property
    def has_document_scores(self) -> bool:
        """Whether per-document scores were kept (a run published as tables may leave them out)."""
        return (self.folder / "documents.npz").is_file()

    def document_scores(self, split: Split) -> DocumentScores:
        """Read the per-document sums of one split (they are not kept in memory).

        Raises:
            DamagedRecord: The file is missing, is no plain array file, or does not sum to the
                result.
        """
        assert self.result is not None, "only a cell with a result has document scores"
        path = self.folder / "documents.npz"
        scores = _read_document_scores(path, split)
        expected = self.result.scores(split, "best")
        sums: dict[str, tuple[float, float]] = {
            "nats": (float(scores.nats.sum()), expected.nats),
            "tokens": (int(scores.tokens.sum()), expected.tokens),
            "words": (int(scores.words.sum()), expected.words),
            "bytes": (int(scores.bytes.sum()), expected.bytes),
        }
        for name, (found, recorded) in sums.items():
            if not math.isclose(found, recorded, rel_tol=SUM_TOLERANCE if name == "nats" else 0):
                raise _damaged(
                    path, f"{split}_{name} sums to {found}, but result.json says {recorded}"
                )
        return scores

    def bleu_counts(self, split: Split) -> Counts | None:
        """Read each sentence's counts of n-grams, or None where none were kept.

        Raises:
            DamagedRecord: The file is damaged, or its counts do not give the recorded BLEU.
        """
        assert self.result is not None and self.result.quality is not None
        path, name = self.folder / "documents.npz", f"{split}_bleu"
        if not path.is_file():
            return None
        counts = _read_arrays(path, (name,))[name]
        quality = self.result.quality[split]
        if counts.shape != (quality.sentences, NUM_COUNTS) or counts.dtype != np.int64:
            raise _damaged(path, f"{name}: {NUM_COUNTS} counts for each sentence are expected")
        if (counts < 0).any():
            raise _damaged(path, f"{name}: it holds counts below zero")
        found = float(corpus_bleu(counts.sum(axis=0)))
        if not math.isclose(found, quality.bleu, abs_tol=1e-6):
            raise _damaged(
                path, f"{name} gives a BLEU of {found}, but result.json says {quality.bleu}"
            )
        return counts


@dataclass(frozen=True)
class RunRecords:
    """One run folder: its manifest, and every planned cell in the order of arms and seeds."""

    folder: Path
    manifest: Manifest
    cells: Mapping[tuple[str, int], CellRecord]

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms in the order of the experiment file."""
        arms = self.manifest.arms
        return tuple(sorted(arms, key=lambda name: (arms[name].order, name)))

    @property
    def translates(self) -> bool:
        """Whether the run's cells translate."""
        return self.manifest.task == "translation"

    @property
    def units(self) -> str:
        """What per-document sums are kept of, in a word."""
        return "sentences" if self.translates else "documents"

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Return the seeds planned for an arm, ascending."""
        return tuple(sorted(seed for name, seed in self.cells if name == arm))

    def cells_of(self, arm: str) -> Iterator[CellRecord]:
        """Yield the planned cells of an arm by ascending seed."""
        for seed in self.seeds_of(arm):
            yield self.cells[arm, seed]

    def results(self) -> Iterator[CellResult]:
        """Yield the result of every cell that is done, by arm and seed."""
        for arm in self.arms:
            for cell in self.cells_of(arm):
                if cell.status == "done" and cell.result is not None:
                    yield cell.result

    def baseline(self, asked_for: str | None = None) -> str:
        """Return the baseline arm: the one asked for, or the experiment's own.

        Raises:
            NothingMatched: The run has no such arm.
        """
        if asked_for is None:
            return self.manifest.baseline
        if asked_for not in self.manifest.arms:
            raise NothingMatched(
                f"{self.folder.name} has no arm {asked_for!r}",
                f"Its arms are: {', '.join(self.arms)}.",
            )
        return asked_for


def load_run(folder: Path) -> RunRecords:
    """Read the manifest and every planned cell of a run folder.

    Raises:
        RunFolderError: The folder is not a run folder.
        DamagedRecord: A file in it does not say what it must.
    """
    manifest = read_manifest(folder)
    cells = {
        (arm, seed): read_cell(folder, manifest, arm, seed) for arm, seed in planned_cells(manifest)
    }
    return RunRecords(folder=folder, manifest=manifest, cells=cells)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a run folder.

    Raises:
        RunFolderError: The folder is not a run folder.
        DamagedRecord: The manifest does not say what it must.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise RunFolderError(
            f"{folder} is not a run folder: it has no manifest.json",
            "Name a folder that `wtie train` wrote, for example runs/NAME-HASH; "
            "`wtie runs ls` lists them.",
        )
    return parse_record(Manifest, path, MANIFEST_REMEDY)


def planned_cells(manifest: Manifest) -> list[tuple[str, int]]:
    """Return every planned cell, (arm, seed), in the order of arms and seeds."""
    planned = {(arm, seed) for plan in manifest.plans for arm in plan.arms for seed in plan.seeds}
    order = {name: (arm.order, name) for name, arm in manifest.arms.items()}
    return sorted(planned, key=lambda cell: (order[cell[0]], cell[1]))


def read_cell(folder: Path, manifest: Manifest, arm: str, seed: int) -> CellRecord:
    """Read the records of one planned cell.

    Raises:
        DamagedRecord: A file of it does not say what it must, or is the record of another cell.
    """
    try:
        cell_folder = inside(folder, arm, f"seed-{seed}")
    except UsageError as error:
        problem = f"arms.{arm}: {error.message}"
        raise _damaged(folder / "manifest.json", problem, error.remedy) from error
    result_path = cell_folder / "result.json"
    if not result_path.is_file():
        return CellRecord(arm, seed, cell_folder, "unfinished", None, None)
    result = parse_record(CellResult, result_path)
    _check_place(result_path, result, manifest, arm, seed)
    performance_path = cell_folder / "performance.json"
    performance = (
        parse_record(Performance, performance_path) if performance_path.is_file() else None
    )
    return CellRecord(arm, seed, cell_folder, result.status, result, performance)


def _check_place(path: Path, result: CellResult, manifest: Manifest, arm: str, seed: int) -> None:
    """Refuse the record of another cell: it would decide the verdict with a wrong number."""
    if (result.arm, result.seed) != (arm, seed):
        raise _damaged(
            path,
            f"arm, seed: it is the record of {result.arm}, seed {result.seed}, "
            f"in the folder of {arm}, seed {seed}",
        )
    if result.vocab_size != manifest.vocab_size:
        raise _damaged(
            path,
            f"vocab_size: {result.vocab_size:,}, but manifest.json says {manifest.vocab_size:,}",
        )
    planned = manifest.arms[arm]
    for name in differing_settings(planned.settings, result.settings):
        if name.split(".")[0] == "model":
            raise _damaged(
                path,
                f"settings.{name}: {setting(result.settings, name)!r}, but manifest.json says "
                f"{setting(planned.settings, name)!r} for the arm {arm}",
            )
    for name in ("total", "unique_storage"):
        counted = getattr(result.parameters, name)
        if counted != planned.ledger.total:
            raise _damaged(
                path,
                f"parameters.{name}: {counted:,}, but the ledger of the arm {arm} in "
                f"manifest.json has {planned.ledger.total:,}",
            )


def setting(settings: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, or None where there is none."""
    value: Any = settings
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def differing_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the dotted paths of the settings in which two arms differ, sorted."""
    flat_first, flat_second = dict(_flatten(first)), dict(_flatten(second))
    absent = object()
    return tuple(
        path
        for path in sorted(flat_first.keys() | flat_second.keys())
        if flat_first.get(path, absent) != flat_second.get(path, absent)
    )


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{path}.")
        else:
            yield path, value


RecordType = TypeVar("RecordType", bound=Record)


def parse_record(record: type[RecordType], path: Path, remedy: str = REMEDY) -> RecordType:
    """Read a file as a record; the remedy is for a file that is damaged.

    Raises:
        DamagedRecord: It does not say what it must.
    """
    try:
        content = read_json(path)
    except DamagedRecord as error:
        raise DamagedRecord(error.message, remedy) from error
    if not isinstance(content, dict):
        raise _damaged(path, "it must hold one JSON object", remedy)
    version = content.get("format", FORMAT)
    if type(version) is int and version > FORMAT:
        raise _damaged(
            path,
            f"format: {version}, but this version of wtie reads format {FORMAT}",
            "Read it with the version of wtie that wrote it, or a newer one.",
        )
    try:
        return record.model_validate(content)
    except ValidationError as error:
        raise _damaged(path, _first_problem(error), remedy) from error


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    field = ".".join(str(part) for part in problems[0]["loc"]) or "record"
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    text = problems[0]["msg"].removeprefix("Value error, ")
    return f"{field}: {text[:1].lower()}{text[1:]}{more}"


def _damaged(path: Path, problem: str, remedy: str = REMEDY) -> DamagedRecord:
    return DamagedRecord(f"{path}: {problem}", remedy)


def _read_document_scores(path: Path, split: Split) -> DocumentScores:
    """Read one split's four arrays."""
    names = ("nats", "tokens", "words", "bytes")
    read = _read_arrays(path, tuple(f"{split}_{name}" for name in names))
    arrays = {name: read[f"{split}_{name}"] for name in names}
    for name, array in arrays.items():
        is_nats = name == "nats"
        if array.ndim != 1 or array.shape != arrays["nats"].shape:
            raise _damaged(path, f"{split}_{name}: one number for each document is expected")
        if array.dtype != (np.float64 if is_nats else np.int64):
            raise _damaged(path, f"{split}_{name}: {array.dtype} is not the expected kind")
        if not np.isfinite(array).all() or (array < 0).any():
            raise _damaged(path, f"{split}_{name}: it holds numbers below zero or not finite")
    return DocumentScores(**arrays)


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Read arrays by name; `allow_pickle=False` means that no object is ever built."""
    if not path.is_file():
        raise _damaged(path, "the file is missing")
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_DOCUMENTS_BYTES:
                raise _damaged(
                    path, f"it holds more than {MAX_DOCUMENTS_BYTES >> 20} MiB of numbers"
                )
        with np.load(path, allow_pickle=False) as content:
            for name in names:
                if name not in content:
                    raise _damaged(path, f"{name}: the array is missing")
                arrays[name] = content[name]
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, f"it cannot be read as arrays ({error})") from error
    return arrays
