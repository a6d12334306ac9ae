"""Trials of a search, hand-made, added to the folder of a hand-made run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.analysis.fake_runs import (
    ARM_CHANGES,
    MANIFEST_PATH,
    diverge,
    documents,
    edit_json,
    merged,
    result,
    values,
    write,
)
from tyro_cli.config.tuning import named_setting

RATE = "training.optimizer.learning_rate"
OWN_RATE = 0.002
SHARED_DIFFERENCES = (-0.04, -0.05, -0.045)
"""Of the contrast at the shared setting: tied is better."""

DIVERGED = "diverged"

TRIALS: dict[tuple[str, float], tuple[float, float]] = {
    ("untied", 0.001): (4.70, 4.72),
    ("untied", 0.002): (4.50, 4.52),
    ("untied", 0.004): (4.40, 4.42),
    ("tied", 0.001): (4.60, 4.62),
    ("tied", 0.002): (4.45, 4.47),
    ("tied", 0.004): (4.55, 4.57),
}
"""Test nats per word of each trial at its two seeds (valid is 1.02 of it): untied is best at the
highest rate, tied at the experiment's own."""

TUNED: dict[tuple[str, float], tuple[float, ...]] = {("untied", 0.004): (4.40, 4.41, 4.42)}
"""The cells at each arm's best that are not those at the shared setting, for seeds 0, 1 and 2."""


def name_of(rate: float, own: float = OWN_RATE) -> str:
    return named_setting({RATE: rate}, {RATE: own}).name


def add_search(
    folder: Path,
    trials: Mapping[tuple[str, float], Sequence[float] | str | None] = TRIALS,
    tuned: Mapping[tuple[str, float], Sequence[float]] = TUNED,
    *,
    arms: Mapping[str, Mapping[str, Any]] = ARM_CHANGES,
    plans: list[dict[str, Any]] | None = None,
    **changes: Any,
) -> Path:
    """Give a run a search; return its folder.

    Args:
        folder: The run.
        trials: For an arm and a rate the test nats per word at seeds 100 and 101; `diverged` where
            the last of them did, None where they are still to be trained.
        tuned: For an arm and a rate the same at the run's own seeds, from 0.
        arms: The settings that each arm changes.
        plans: How the search was planned; by default at once, before any result.
        **changes: Of the search's record.
    """
    rates = list(dict.fromkeys(rate for _, rate in trials))
    names = [name_of(rate) for rate in rates]
    record = {
        "shared": "own",
        "budget": None,
        "settings": [{"name": name_of(rate), "values": {RATE: rate}} for rate in rates],
        "seeds": [100, 101],
    } | changes
    plan = {"settings": names, "seeds": [100, 101], "shared": record["shared"]}
    record["plans"] = plans or [plan | {"after_results": False}]
    edit_json(folder / MANIFEST_PATH, lambda manifest: manifest.update(tuning=record))
    for (arm, rate), nats in trials.items():
        for index, seed in enumerate(record["seeds"] if nats is not None else ()):
            one = 4.5 if isinstance(nats, str) else nats[index]
            cell = folder / "trials" / arm / name_of(rate) / f"seed-{seed}"
            write_cell(
                cell, arm, seed, arms[arm], rate, one, is_diverged=nats == DIVERGED and index
            )
    for (arm, rate), nats_by_seed in tuned.items():
        for seed, one in enumerate(nats_by_seed):
            cell = folder / "tuned" / arm / name_of(rate) / f"seed-{seed}"
            write_cell(cell, arm, seed, arms[arm], rate, one)
    return folder


def write_cell(
    cell: Path,
    arm: str,
    seed: int,
    changes: Mapping[str, Any],
    rate: float,
    nats: float,
    *,
    is_diverged: bool | int = False,
) -> None:
    tuned = merged(changes, {"training": {"optimizer": {"learning_rate": rate}}})
    record = result(arm, seed, tuned, nats)
    if is_diverged:
        diverge(record)
    cell.mkdir(parents=True)
    write(cell / "result.json", record)
    if not is_diverged:
        np.savez(cell / "documents.npz", **documents(record))


def shared_values() -> dict[tuple[str, int], float]:
    """Test nats per word at the shared setting."""
    return values(SHARED_DIFFERENCES)
