"""The per-document sums of a cell: `documents.npz`, read as plain arrays.

Invariant: what leaves this module is finite and of the expected kind; no object is ever built from
the file. Whether the sums are those of the result is left to `records`.
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tyro_cli.analysis.bleu import Counts
from tyro_cli.analysis.formats import Split
from tyro_cli.errors import DamagedRecord
from tyro_cli.evaluation.quality import BLEU_COUNTS

DocumentUnit = Literal["words", "tokens"]

MAX_DOCUMENTS_BYTES = 128 * 2**20
"""Largest uncompressed documents.npz that is read: two million documents, far beyond any corpus."""

REMEDY = (
    "Restore the file from a copy, or move the cell's folder aside and train the cell again with "
    "the same command."
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


def damaged(path: Path, problem: str, remedy: str = REMEDY) -> DamagedRecord:
    """Return the error for a damaged file of a run."""
    return DamagedRecord(f"{path}: {problem}", remedy)


def read_document_scores(path: Path, split: Split) -> DocumentScores:
    """Read one split's sums by document."""
    names = ("nats", "tokens", "words", "bytes")
    read = _read_arrays(path, [f"{split}_{name}" for name in names])
    arrays = {name: read[f"{split}_{name}"] for name in names}
    for name, array in arrays.items():
        is_nats = name == "nats"
        if array.ndim != 1 or array.shape != arrays["nats"].shape:
            raise damaged(path, f"{split}_{name}: one number for each document is expected")
        if array.dtype != (np.float64 if is_nats else np.int64):
            raise damaged(path, f"{split}_{name}: {array.dtype} is not the expected kind")
        if not np.isfinite(array).all() or (array < 0).any():
            raise damaged(path, f"{split}_{name}: it holds numbers below zero or not finite")
    return DocumentScores(**arrays)


def read_bleu_counts(path: Path, split: Split, sentences: int) -> Counts:
    """Read one split's counts of n-grams by sentence, `[sentences, BLEU_COUNTS]`."""
    name = f"{split}_bleu"
    counts = _read_arrays(path, [name])[name]
    if counts.shape != (sentences, BLEU_COUNTS) or counts.dtype != np.int64:
        raise damaged(path, f"{name}: {BLEU_COUNTS} counts for each sentence are expected")
    if (counts < 0).any():
        raise damaged(path, f"{name}: it holds counts below zero")
    return counts


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Read arrays by name; `allow_pickle=False` means that no object is ever built."""
    if not path.is_file():
        raise damaged(path, "the file is missing")
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_DOCUMENTS_BYTES:
                raise damaged(
                    path, f"it holds more than {MAX_DOCUMENTS_BYTES >> 20} MiB of numbers"
                )
        with np.load(path, allow_pickle=False) as content:
            for name in names:
                if name not in content:
                    raise damaged(path, f"{name}: the array is missing")
                array = content[name]
                if not isinstance(array, np.ndarray):  # bytes, where a member is no array
                    raise damaged(path, f"{name}: it is no array")
                arrays[name] = array
    except (
        *(OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error),
        RuntimeError,  # an encrypted member, or one compressed in a way that is not known
    ) as error:
        raise damaged(path, f"it cannot be read as arrays ({error})") from error
    return arrays
