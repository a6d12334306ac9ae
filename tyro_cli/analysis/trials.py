"""The trials of a search, and which setting is best for each arm.

Invariant: an arm's best is the trial with the lowest valid loss, by a rule that looks at nothing
else: not at test, not at other arms' trials, not at what comes of it. It is not known before every
trial of the arm has ended, so that every arm has had the same number. Reading the trials is left to
`records`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from tyro_cli.analysis.formats import SettingRecord, TuningRecord

if TYPE_CHECKING:
    from tyro_cli.analysis.records import CellRecord

TrialStatus = Literal["done", "diverged", "unfinished"]


@dataclass(frozen=True)
class Trial:
    """One setting, tried for one arm.

    Attributes:
        arm: The arm.
        setting: What was tried.
        cells: Its cells, one for each seed of the search.
    """

    arm: str
    setting: SettingRecord
    cells: "tuple[CellRecord, ...]"

    @property
    def status(self) -> TrialStatus:
        """`diverged` as soon as one seed did; such a trial counts, and cannot be best."""
        found = {cell.status for cell in self.cells}
        if "unfinished" in found:
            return "unfinished"
        return "diverged" if "diverged" in found else "done"

    @property
    def valid_values(self) -> tuple[float, ...]:
        """Valid nats per token at the best checkpoint, for each seed that is done."""
        return tuple(
            cell.result.scores("valid", "best").nats_per_token
            for cell in self.cells
            if cell.status == "done" and cell.result is not None
        )

    @property
    def valid_nats(self) -> float | None:
        """Their mean, which decides; None unless every seed is done."""
        return fmean(self.valid_values) if self.status == "done" else None


@dataclass(frozen=True)
class Search:
    """The search of a run.

    Attributes:
        record: What was planned.
        trials: Every trial, by arm, in the order of the grid.
        shared: The setting that all arms share in the first contrast: `own`, or the baseline's
            best; None while that is not known.
        best: Name of each arm's best setting; None where there is none, or none yet.
    """

    record: TuningRecord
    trials: "Mapping[str, tuple[Trial, ...]]"
    shared: str | None
    best: Mapping[str, str | None]

    def setting(self, name: str) -> SettingRecord | None:
        """Return the setting of that name; None for the experiment's own outside of the grid."""
        return next((one for one in self.record.settings if one.name == name), None)

    @property
    def changed_after_looking(self) -> bool:
        """Whether the search was planned or changed when results of contrasts were there."""
        return any(plan.after_results for plan in self.record.plans)

    def best_of(self, arm: str) -> SettingRecord | None:
        """Return an arm's best setting, or None where there is none, or none yet."""
        name = self.best.get(arm)
        return self.setting(name) if name is not None else None

    def best_before(self, arm: str) -> str | None:
        """Return what the arm's best was by the trials that were planned before any result."""
        before = [plan for plan in self.record.plans if not plan.after_results]
        if not before:
            return None
        names, seeds = set(before[-1].settings), set(before[-1].seeds)
        trials = [
            Trial(arm, one.setting, tuple(cell for cell in one.cells if cell.seed in seeds))
            for one in self.trials[arm]
            if one.setting.name in names
        ]
        return best_setting(trials, self.shared)

    def is_over(self, arm: str) -> bool:
        """Say whether trials of an arm were planned and all of them have ended."""
        trials = self.trials.get(arm, ())
        return bool(trials) and all(trial.status != "unfinished" for trial in trials)

    def why_no_best(self, arm: str) -> str:
        """Say why an arm has no best setting, or "" where it has one."""
        if self.best.get(arm) is not None:
            return ""
        trials = self.trials.get(arm, ())
        if not trials:
            return f"no trial of {arm} is planned yet"
        unfinished = sum(trial.status == "unfinished" for trial in trials)
        if unfinished:
            return f"{unfinished} of {len(trials)} trials of {arm} are unfinished"
        return f"every trial of {arm} diverged"

    def edges(self, arm: str) -> tuple[tuple[str, str], ...]:
        """Return the keys whose best value for an arm lies on the edge of the grid.

        A value whose inner neighbour is exactly as good is not flagged: the key does nothing there.

        Returns:
            For each key `lowest` or `highest`.
        """
        best = self.best_of(arm)
        if best is None:
            return ()
        by_values = {_key(one.setting.values): one for one in self.trials[arm]}
        found = []
        for key, value in best.values.items():
            levels = sorted({setting.values[key] for setting in self.record.settings})
            for side, edge, inner in (
                ("lowest", levels[0], levels[1:2]),
                ("highest", levels[-1], levels[-2:-1]),
            ):
                if value != edge or not inner:
                    continue
                neighbour = by_values.get(_key({**best.values, key: inner[0]}))
                own = by_values[_key(best.values)]
                if neighbour is None or neighbour.valid_nats != own.valid_nats:
                    found.append((key, side))
        return tuple(found)


def _key(values: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(values.items()))


def search_of(
    record: TuningRecord, trials: "Mapping[str, tuple[Trial, ...]]", baseline: str
) -> Search:
    """Return what trials say: the shared setting, and the best one of each arm.

    Args:
        record: What was planned.
        trials: Every trial of every arm.
        baseline: The arm whose best is shared where the experiment says so.
    """
    shared: str | None = "own"
    if record.shared == "baseline-best":
        shared = best_setting(trials.get(baseline, ()), "own")
    best = {arm: best_setting(some, shared) for arm, some in trials.items()}
    return Search(record, trials, shared, best)


def best_setting(trials: Sequence[Trial], preferred: str | None) -> str | None:
    """Return the name of the setting with the lowest mean valid loss.

    Of settings that are equal to the last bit the preferred one is best, else the one with the
    lowest values, key by key in the order of their names.

    Args:
        trials: Every trial of one arm.
        preferred: Name of the setting that wins a tie.

    Returns:
        None while a trial is unfinished, and where all of them diverged.
    """
    if not trials or any(trial.status == "unfinished" for trial in trials):
        return None
    finished = [(nats, trial.setting) for trial in trials if (nats := trial.valid_nats) is not None]
    if not finished:
        return None
    lowest = min(nats for nats, _ in finished)
    equal = [setting for nats, setting in finished if nats == lowest]
    return min(equal, key=lambda one: (one.name != preferred, _key(one.values))).name
