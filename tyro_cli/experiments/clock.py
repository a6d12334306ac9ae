"""What a cell took, in seconds and bytes: its `performance.json`.

Numbers that differ from run to run lie there and not in the result. None of them decides anything,
so where the record of an earlier process is damaged, it is begun anew.
"""

import os
import resource
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tyro_cli.errors import DamagedRecord
from tyro_cli.experiments.environment import accelerator_name
from tyro_cli.storage.files import read_json, write_json
from tyro_cli.training.loop import Trainer

_IMPORTED = time.time()


class CellClock:
    """Seconds, bytes and processors of a cell, over all the processes that worked on it.

    What a process took that was killed is lost; the start-up is that of the last process.
    """

    def __init__(self, path: Path, device: str) -> None:
        self.path = path
        self.started = time.perf_counter()
        self.sums = {
            "train_seconds": 0.0,
            "train_tokens": 0,
            "evaluation_seconds": 0.0,
            "final_evaluation_seconds": 0.0,
            "start_up_seconds": 0.0,
            "peak_memory_bytes": 0,
        }
        self.processors: list[str] = []
        if path.exists():
            with suppress(DamagedRecord):  # lost times are no reason to lose the cell
                earlier = read_json(path)
                self.sums |= _numbers(earlier, self.sums)
                self.processors = _names(earlier)
        self.processors = list(dict.fromkeys([*self.processors, accelerator_name(device)]))
        self.sums["start_up_seconds"] = time.time() - _process_start_seconds()
        self.final_started: float | None = None

    def add(self, source: Trainer) -> None:
        """Add what training took in this process; once."""
        if self.final_started is not None:
            return
        self.sums["train_seconds"] += source.train_seconds
        self.sums["train_tokens"] += source.train_tokens
        self.sums["evaluation_seconds"] += source.evaluation_seconds
        self.final_started = time.perf_counter()

    def write(self, final: bool = False) -> None:
        """Write `performance.json`."""
        if final and self.final_started is not None:
            self.sums["final_evaluation_seconds"] = time.perf_counter() - self.final_started
        self.sums["peak_memory_bytes"] = max(_peak_memory_bytes(), self.sums["peak_memory_bytes"])
        seconds = self.sums["train_seconds"]
        rate = self.sums["train_tokens"] / seconds if seconds else None
        record = self.sums | {"train_tokens_per_second": rate, "processors": self.processors}
        write_json(self.path, record)


def _numbers(record: object, wanted: Iterable[str]) -> dict[str, Any]:
    """Return the wanted numbers of a record that anyone may have written."""
    values = record if isinstance(record, dict) else {}
    return {key: values[key] for key in wanted if type(values.get(key)) in (int, float)}


def _names(record: object) -> list[str]:
    """Return the processors of such a record."""
    names = record.get("processors") if isinstance(record, dict) else None
    return [one for one in names if isinstance(one, str)] if isinstance(names, list) else []


def _peak_memory_bytes() -> int:
    """Return the most memory that this process ever held."""
    with suppress(OSError):  # Linux; there `ru_maxrss` also counts what our parent once held
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _process_start_seconds() -> float:
    """Return when this process was told to start, in seconds since the epoch."""
    return float(os.environ.get("WTIE_STARTED", _IMPORTED))
