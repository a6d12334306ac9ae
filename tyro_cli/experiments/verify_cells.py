"""The cells that a run's manifest plans, setting by setting, for `wtie runs verify`.

Invariant: every cell that a table may be made from is among them, and nothing of them is read but
what decides which setting is best.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro_cli.analysis.formats import Manifest
from tyro_cli.analysis.records import cell_parts, planned_cells, read_search
from tyro_cli.errors import WtieError


@dataclass(frozen=True)
class PlannedCell:
    """A cell that a run plans: where it lies, and what its setting changes in the arm."""

    arm: str
    seed: int
    parts: tuple[str, ...]
    values: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def place(self) -> str:
        """Its folder, relative to the run."""
        return "/".join(self.parts)


def planned_groups(folder: Path, manifest: Manifest) -> Iterator[list[PlannedCell]]:
    """Yield the cells of each setting: the experiment's own, each trial's, and each arm's best.

    A cell may stand in several groups.

    Args:
        folder: The run.
        manifest: Its manifest.
    """
    planned, tuning = planned_cells(manifest), manifest.tuning
    if tuning is None or tuning.shared == "own":
        yield [PlannedCell(arm, seed, cell_parts(arm, seed)) for arm, seed in planned]
    if tuning is None:
        return
    arms = tuple(dict.fromkeys(arm for arm, _ in planned))
    budget = {} if tuning.budget is None else {"training.budget": tuning.budget}
    for setting in tuning.settings:
        values = {**setting.values, **budget}
        yield [
            PlannedCell(arm, seed, cell_parts(arm, seed, setting.name, is_trial=True), values)
            for arm in arms
            for seed in tuning.seeds
        ]
    try:
        search = read_search(folder, manifest)
    except WtieError:
        return  # What is wrong with a trial is found at the trial.
    assert search is not None
    for names in (dict.fromkeys(arms, search.shared), search.best):
        settings = {arm: search.setting(names[arm] or "") for arm in arms}
        yield [
            PlannedCell(arm, seed, cell_parts(arm, seed, at.name), at.values)
            for arm, seed in planned
            if (at := settings[arm]) is not None
        ]
