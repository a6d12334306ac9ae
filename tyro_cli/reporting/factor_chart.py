"""A chart along one factor: lines over its levels, with seeds, means and bands.

Invariant: what is drawn is means over seeds at levels set at equal distances, in the factor's
order; a band is the 95 % t interval of one line's own mean, and says nothing of a paired contrast.
Lines of one arm share its colour and shape; a dash tells them apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tyro_cli.analysis.columns import Column, Row, Table
from tyro_cli.analysis.statistics import Interval, paired_t_interval
from tyro_cli.reporting.plots import (
    NARROW,
    WIDE,
    Chart,
    EndLabel,
    Frame,
    Plot,
    Scale,
    Specification,
    Values,
    end_room,
)
from tyro_cli.reporting.views import ArmView

MOST_POINTS_IN_WORDS = 12
"""So many points a description names one by one; of more, both ends of each line."""
DASHES: tuple[tuple[int, ...], ...] = ((), (7, 4), (2, 4), (9, 3, 2, 3))


@dataclass(frozen=True)
class LevelValues:
    """What one arm reached at one level: its values by seed, their mean and its interval."""

    level: int
    values: tuple[tuple[int, float], ...]

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return fmean(value for _, value in self.values)

    @property
    def interval(self) -> Interval | None:
        """The 95 % t interval of the mean, or None below two seeds."""
        values = [value for _, value in self.values]
        return paired_t_interval(values) if len(values) > 1 else None


@dataclass(frozen=True)
class FactorLine:
    """One line of a chart along a factor.

    Attributes:
        arm: Whose it is.
        levels: What it joins, in the order of the levels.
        elsewhere: Levels of other factors, where the chart has lines at several: `depth 0`.
        label: What stands at its end.
        dash: Its place among the dashes.
    """

    arm: ArmView
    levels: tuple[LevelValues, ...]
    label: str
    elsewhere: str = ""
    dash: int = 0

    @property
    def name(self) -> str:
        """The line in words: `tied`, or `tied, depth 0`."""
        return f"{self.arm.name}, {self.elsewhere}" if self.elsewhere else self.arm.name

    @property
    def bounds(self) -> list[float]:
        """Every value and every end of an interval."""
        found = []
        for one in self.levels:
            found += [value for _, value in one.values]
            if one.interval is not None:
                found += [one.interval.low, one.interval.high]
        return found


def factor_chart(
    lines: Sequence[FactorLine],
    *,
    name: str,
    factor: str,
    levels: Sequence[str],
    unit: str,
    limits: tuple[float, float],
    elsewhere: str = "",
    reading: str = "",
    wide: bool = False,
) -> Chart:
    """Draw lines along a factor.

    Args:
        lines: What to draw; those of one arm beside each other.
        name: Of the chart's files.
        factor: The factor.
        levels: Its levels in words, in order.
        unit: What is measured on test, in words.
        limits: The values at the lower and upper end of the axis.
        elsewhere: Levels of the other factors, where all lines share them.
        reading: What else tells how it is read, for the caption.
        wide: Whether it takes the whole width of a page.
    """
    last = len(levels) - 1

    def draw(width: int) -> Specification:
        plot = Plot(
            Frame(width, 310, right=end_room((line.label for line in lines), 4), bottom=52),
            Scale(-0.15, last + 0.15),
            Scale(*limits, f"test {unit}"),
        )
        ends: list[EndLabel] = []
        for line in lines:
            arm = line.arm
            band = [
                {"x": one.level, "y": interval.low, "y2": interval.high}
                for one in line.levels
                if (interval := one.interval) is not None
            ]
            plot.band(band if len(band) > 1 else [], arm.colour)
            means: Values = [
                {"x": one.level, "y": one.mean, "series": line.name} for one in line.levels
            ]
            plot.lines(means, arm.colour, width=2.25, dash=DASHES[line.dash % len(DASHES)])
            thin = [
                {
                    "x": one.level,
                    "y": value,
                    "tip": f"{line.name}, {factor} {levels[one.level]}, seed {seed}: {value:.4f}",
                }
                for one in line.levels
                for seed, value in one.values
            ]
            plot.points(thin, arm.colour, shape=arm.shape, size=26, opacity=0.45)
            bold = [
                {"x": one.level, "y": one.mean, "tip": _in_words(line, one, factor, levels, unit)}
                for one in line.levels
            ]
            # Smaller where an arm has several lines, so that their dashes can be told apart.
            plot.points(bold, arm.colour, shape=arm.shape, size=48 if line.elsewhere else 80)
            if line.levels:
                ends.append(EndLabel(line.levels[-1].mean, line.label, arm.colour))
        plot.end_labels(last + 0.15, ends, dx=4)
        plot.name_levels(levels, factor)
        return plot.build()

    rows: list[Row] = [
        {
            "level": levels[one.level],
            "arm": line.arm.name,
            "elsewhere": line.elsewhere,
            "values": tuple(value for _, value in one.values),
            "mean": one.mean,
            "interval": None if one.interval is None else (one.interval.low, one.interval.high),
        }
        for line in lines
        for one in line.levels
    ]
    at = f" at {elsewhere}" if elsewhere else ""
    at_several = any(line.elsewhere for line in lines)
    with_band = any(one.interval for line in lines for one in line.levels)
    return Chart(
        name=name,
        title=f"{unit[0].upper()}{unit[1:]} along {factor}{at}",
        caption="Large marks are means, small ones seeds."
        + (
            " Bands are 95 % t intervals of each arm's own mean; whether the arms differ is said "
            "by the paired contrasts."
            if with_band
            else " One seed a point: there is no interval."
        )
        + (f" {reading}" if reading else ""),
        description=f"Mean test {unit} by level of {factor}{at}. "
        + "; ".join(
            (_ends_in_words(line, factor, levels) for line in lines if line.levels)
            if sum(len(line.levels) for line in lines) > MOST_POINTS_IN_WORDS
            else (
                _in_words(line, one, factor, levels, unit) for line in lines for one in line.levels
            )
        )
        + ".",
        narrow=draw(NARROW),
        wide=draw(WIDE) if wide else None,
        data=Table(
            f"{name}-data",
            f"Test {unit} by {factor}{at}",
            (
                Column("level", factor),
                Column("arm", "arm"),
                *((Column("elsewhere", "at"),) if at_several else ()),
                Column("values", "by seed", "numbers"),
                Column("mean", "mean", "number"),
                Column("interval", "95 % interval of the mean", "interval"),
            ),
            tuple(rows),
        ),
    )


def _in_words(
    line: FactorLine, one: LevelValues, factor: str, levels: Sequence[str], unit: str
) -> str:
    interval = one.interval
    band = f" [{interval.low:.4f}, {interval.high:.4f}]" if interval else ""
    return f"{line.name}, {factor} {levels[one.level]}: {one.mean:.4f}{band} {unit}"


def _ends_in_words(line: FactorLine, factor: str, levels: Sequence[str]) -> str:
    first, last = line.levels[0], line.levels[-1]
    start = f"{line.name}: {first.mean:.4f} at {factor} {levels[first.level]}"
    return start if first == last else f"{start}, {last.mean:.4f} at {levels[last.level]}"
