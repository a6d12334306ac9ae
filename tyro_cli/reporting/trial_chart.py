"""The chart of a search: valid loss along the values that were tried, for every arm.

Invariant: every trial that is done enters, and each arm's best trial is on its line. Where several
keys are searched the others stand, at each value, where the arm is best.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tyro_cli.analysis.columns import Column, Row, Table
from tyro_cli.analysis.trials import Search, Trial
from tyro_cli.config.tuning import OPTIMIZER, in_words, short_key
from tyro_cli.reporting.plots import (
    NARROW,
    Chart,
    EndLabel,
    Frame,
    Plot,
    Scale,
    Specification,
    Values,
    domain,
    end_room,
)
from tyro_cli.reporting.views import ArmView

UNIT = "nats per token"


@dataclass(frozen=True)
class _Place:
    """What an arm reached at one value: its place, the mean, the trial, and if that is the best."""

    level: int
    nats: float
    trial: Trial
    is_best: bool


def trial_chart(search: Search, arms: Sequence[ArmView]) -> Chart | None:
    """Draw the valid loss of every arm along the learning rate, or the first key without one.

    Args:
        search: The search.
        arms: How the arms are drawn.

    Returns:
        None where no trial is done.
    """
    keys = list(search.record.settings[0].values)
    rate = f"{OPTIMIZER}learning_rate"
    key = rate if rate in keys else keys[0]
    levels = sorted({setting.values[key] for setting in search.record.settings})
    lines = {arm.name: _line(search, arm.name, key, levels) for arm in arms}
    everything = [one.nats for line in lines.values() for one in line]
    if not everything:
        return None
    limits = domain(everything)
    last = len(levels) - 1
    name = short_key(key)

    def draw(width: int) -> Specification:
        plot = Plot(
            Frame(width, 310, right=end_room((arm.label for arm in arms), 4), bottom=52),
            Scale(-0.15, last + 0.15),
            Scale(*limits, f"valid {UNIT}"),
        )
        ends: list[EndLabel] = []
        for arm in arms:
            line = lines[arm.name]
            means: Values = [{"x": one.level, "y": one.nats, "series": arm.name} for one in line]
            plot.lines(means, arm.colour, width=2.25)
            for is_best, size in ((False, 36), (True, 130)):
                marks: Values = [
                    {"x": one.level, "y": one.nats, "tip": _in_words(arm.name, one)}
                    for one in line
                    if one.is_best is is_best
                ]
                plot.points(marks, arm.colour, shape=arm.shape, size=size)
            if line:
                ends.append(EndLabel(line[-1].nats, arm.label, arm.colour))
        plot.end_labels(last + 0.15, ends, dx=4)
        plot.name_levels([f"{level:g}" for level in levels], name)
        return plot.build()

    rows: list[Row] = [
        {
            "arm": arm,
            "setting": in_words(one.trial.setting.values),
            "nats": one.nats,
            "best": "best" if one.is_best else "",
        }
        for arm, line in lines.items()
        for one in line
    ]
    others = " Other keys stand where the arm is best at that value." if len(keys) > 1 else ""
    return Chart(
        name="trials",
        title=f"Valid loss along {name}",
        caption="Means of each arm's trials, at seeds that no contrast uses; the large mark is the "
        f"arm's best. A best mark at either end is on the edge of the grid.{others}",
        description=f"Mean valid {UNIT} of the trials by {name}. "
        + "; ".join(_in_words(arm, one) for arm, line in lines.items() for one in line)
        + ".",
        narrow=draw(NARROW),
        wide=None,
        data=Table(
            "trials-data",
            f"Valid {UNIT} of trials by {name}",
            (
                Column("arm", "arm"),
                Column("setting", "setting"),
                Column("nats", f"mean valid {UNIT}", "number"),
                Column("best", "best"),
            ),
            tuple(rows),
        ),
    )


def _line(search: Search, arm: str, key: str, levels: Sequence[float]) -> list[_Place]:
    """Return, for each value of a key, the trial that is best there; none where none is done."""
    line = []
    for place, level in enumerate(levels):
        done = [
            (nats, trial)
            for trial in search.trials.get(arm, ())
            if trial.setting.values[key] == level and (nats := trial.valid_nats) is not None
        ]
        if done:
            best = search.best.get(arm)
            nats, trial = min(done, key=lambda one: (one[0], one[1].setting.name != best))
            line.append(_Place(place, nats, trial, trial.setting.name == best))
    return line


def _in_words(arm: str, one: _Place) -> str:
    best = ", the best" if one.is_best else ""
    return f"{arm}, {in_words(one.trial.setting.values)}: {one.nats:.4f} {UNIT}{best}"
