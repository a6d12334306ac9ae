"""What a worker is told: one cell, everything resolved.

A spec crosses a process boundary as JSON, so it holds plain values only; it refers to token arrays
and to the cell's folder by path.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tyro_cli.config.schema import Settings
from tyro_cli.errors import DamagedRecord
from tyro_cli.storage.files import move_aside, read_json


@dataclass(frozen=True)
class CellSpec:
    """One cell, ready to be trained.

    Attributes:
        cell_id: Identity by content (64 hex digits).
        arm: Name of the arm.
        seed: The replicate.
        settings: The arm's resolved settings, as plain values.
        folder: The cell's folder.
        prepared_folder: Token arrays, as `data.prepared.open_prepared` takes them.
        total_steps: Updates that the budget allows.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.
        threads: Threads of one worker.
        allow_numeric_drift: Resume under another numeric fingerprint, and record it.
        is_trial: Whether it is a trial of a search, which is not shown test.
        point: In a study, the point of the grid in a word; in a search, the setting; else empty.
        processes: How many train the cell together, started by torchrun.
        meeting: Where these processes meet; empty for one.
    """

    cell_id: str
    arm: str
    seed: int
    settings: dict[str, Any]
    folder: str
    prepared_folder: str
    total_steps: int
    device: str
    precision: str
    threads: int
    allow_numeric_drift: bool = False
    is_trial: bool = False
    point: str = ""
    processes: int = 1
    meeting: str = ""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the finished model is scored on."""
        return ("valid",) if self.is_trial else ("valid", "test")

    @property
    def name(self) -> str:
        """`ARM/seed-N`, in a study behind its point: how the cell is called on the screen."""
        name = f"{self.arm}/seed-{self.seed}"
        return f"{self.point}/{name}" if self.point else name

    def resolved_settings(self) -> Settings:
        """Return the settings as a validated model."""
        return Settings.model_validate(self.settings)

    def as_record(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def read_result(folder: Path, cell_id: str) -> dict[str, Any] | None:
    """Return the result of a finished cell, or None where it is not done.

    A cell is done when its `result.json` parses and its id matches; that includes `diverged`.
    """
    path = folder / "result.json"
    if not path.exists():
        return None
    try:
        result = read_json(path)
    except DamagedRecord:
        return None
    if isinstance(result, dict) and result.get("cell_id") == cell_id:
        return result
    return None


def set_aside_foreign_result(folder: Path, cell_id: str) -> str:
    """Rename a `result.json` that is damaged or another cell's, before the cell writes its own.

    The caller owns the run.

    Returns:
        What was done, in words; empty where there is nothing in the way.
    """
    path = folder / "result.json"
    if not os.path.lexists(path) or read_result(folder, cell_id) is not None:
        return ""
    return f"{path} is damaged or belongs to another cell; it is kept as {move_aside(path).name}"
