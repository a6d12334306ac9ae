"""The charts along a study's factors: a metric by level for every arm, and quality by size.

Invariant: a line joins only points that differ in one factor, and every combination of the others
has a chart of its own, all on one scale. Bands are 95 % t intervals of an arm's own mean over
seeds; they say nothing of the paired contrast, which has a plot of its own.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tyro_cli.analysis.columns import Column, Row, Table
from tyro_cli.analysis.contrasts import METRICS
from tyro_cli.analysis.formats import Metric
from tyro_cli.analysis.signatures import mixed_signatures, signatures_of
from tyro_cli.analysis.statistics import Interval, paired_t_interval
from tyro_cli.analysis.studies import PointRun, StudyRecords
from tyro_cli.config.grid import level_text
from tyro_cli.reporting.palette import MUTED, RULE
from tyro_cli.reporting.plots import (
    NARROW,
    Chart,
    Frame,
    Plot,
    Scale,
    Specification,
    Values,
    domain,
    shortened,
    spread,
)
from tyro_cli.reporting.views import METRIC_UNITS, ArmView

LABEL_GAP = 15
MOST_POINT_LABELS = 8
PREFERRED: tuple[Metric, ...] = ("bits_per_byte", "nats_per_word", "nats_per_token")
"""Which metric to draw: the first that was computed in one way at every point."""


@dataclass(frozen=True)
class LevelValues:
    """What one arm reached at one point: its values by seed, their mean and its interval."""

    arm: ArmView
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


def comparable_metric(study: StudyRecords, *, force: bool = False) -> Metric | None:
    """Return the metric whose numbers may stand beside each other, or None."""
    assert set(PREFERRED) <= set(METRICS)
    results = {
        f"{levels_in_words(point)} {result.arm} seed {result.seed}": result
        for point in study.points
        for result in point.run.results()
    }
    for metric in PREFERRED:
        known = all(
            getattr(result.scores("test", "best"), metric) is not None
            for result in results.values()
        )
        mixed = mixed_signatures(signatures_of(results, "test", metric))
        if results and known and (force or not mixed):
            return metric
    return None


def levels_in_words(point: PointRun, without: str = "") -> str:
    """Return the levels of a point, `vocabulary 512, data 0.1`, leaving out one factor."""
    return ", ".join(
        f"{name} {level_text(level)}" for name, level in point.levels.items() if name != without
    )


def arm_values(point: PointRun, arm: str, metric: Metric) -> tuple[tuple[int, float], ...]:
    """Return (seed, test value) of every cell of an arm that is done."""
    found = (
        (cell.seed, getattr(cell.result.scores("test", "best"), metric))
        for cell in point.run.cells_of(arm)
        if cell.status == "done" and cell.result is not None
    )
    return tuple((seed, value) for seed, value in found if value is not None)


def factor_charts(study: StudyRecords, arms: Sequence[ArmView], metric: Metric) -> list[Chart]:
    """Return, for each factor with several levels, a chart a combination of the others."""
    charts = []
    for number, (factor, record) in enumerate(study.factors.items(), start=1):
        lines: dict[str, list[LevelValues]] = {}
        for point in study.points:
            for arm in arms:
                values = arm_values(point, arm.name, metric)
                if values:
                    level = record.levels.index(point.levels[factor])
                    one = LevelValues(arm, level, values)
                    lines.setdefault(levels_in_words(point, factor), []).append(one)
        several = {
            elsewhere: line
            for elsewhere, line in lines.items()
            if len({one.level for one in line}) > 1
        }
        bounds = [bound for line in several.values() for one in line for bound in _bounds(one)]
        for place, (elsewhere, line) in enumerate(several.items(), start=1):
            charts.append(
                _factor_chart(
                    f"factor-{number}-{place}",
                    factor,
                    [level_text(level) for level in record.levels],
                    elsewhere,
                    arms,
                    line,
                    METRIC_UNITS[metric],
                    domain(bounds),
                )
            )
    return charts


def _bounds(one: LevelValues) -> list[float]:
    interval = one.interval
    values = [value for _, value in one.values]
    return [*values, interval.low, interval.high] if interval else values


def _factor_chart(
    name: str,
    factor: str,
    levels: Sequence[str],
    elsewhere: str,
    arms: Sequence[ArmView],
    line: Sequence[LevelValues],
    unit: str,
    limits: tuple[float, float],
) -> Chart:
    by_arm = {
        arm.name: sorted((one for one in line if one.arm == arm), key=lambda one: one.level)
        for arm in arms
    }
    last = len(levels) - 1

    def draw(width: int) -> Specification:
        plot = Plot(
            Frame(width, 310, right=78, bottom=52),
            Scale(-0.15, last + 0.15),
            Scale(*limits, f"test {unit}"),
        )
        ends: list[tuple[LevelValues, float]] = []
        for arm in arms:
            present = by_arm[arm.name]
            band = [
                {"x": one.level, "y": interval.low, "y2": interval.high}
                for one in present
                if (interval := one.interval) is not None
            ]
            plot.band(band if len(band) > 1 else [], arm.colour)
            means: Values = [{"x": one.level, "y": one.mean, "series": arm.name} for one in present]
            plot.lines(means, arm.colour, width=2.25)
            thin = [
                {
                    "x": one.level,
                    "y": value,
                    "tip": f"{arm.name}, {factor} {levels[one.level]}, seed {seed}: {value:.4f}",
                }
                for one in present
                for seed, value in one.values
            ]
            plot.points(thin, arm.colour, shape=arm.shape, size=26, opacity=0.45)
            bold = [
                {"x": one.level, "y": one.mean, "tip": _in_words(one, factor, levels, unit)}
                for one in present
            ]
            plot.points(bold, arm.colour, shape=arm.shape, size=80)
            if present:
                ends.append((present[-1], plot.pixels_y(present[-1].mean)))
        places = spread([pixels for _, pixels in ends], LABEL_GAP, 0, plot.frame.inner_height)
        for (one, _), pixels in zip(ends, places, strict=True):
            label = {"x": last + 0.15, "y": plot.value_at_y(pixels), "text": one.arm.label}
            plot.text([label], one.arm.colour, dx=4, bold=True)
        ticks: Values = [
            {"x": place, "y": limits[0], "text": shortened(level, 34 // len(levels) + 2)}
            for place, level in enumerate(levels)
        ]
        plot.text(ticks, MUTED, align="center", baseline="top", dy=8)
        title = {"x": last / 2, "y": limits[0], "text": shortened(factor, 40)}
        plot.text([title], MUTED, align="center", baseline="top", dy=26)
        return plot.build()

    at = f" at {elsewhere}" if elsewhere else ""
    rows: list[Row] = [
        {
            "level": levels[one.level],
            "arm": arm,
            "values": tuple(value for _, value in one.values),
            "mean": one.mean,
            "interval": None if one.interval is None else (one.interval.low, one.interval.high),
        }
        for arm, present in by_arm.items()
        for one in present
    ]
    with_band = any(one.interval for one in line)
    return Chart(
        name=name,
        title=f"{unit[0].upper()}{unit[1:]} along {factor}{at}",
        caption="Large marks are means, small ones seeds."
        + (
            " Bands are 95 % t intervals of each arm's own mean; whether the arms differ is said "
            "by the paired contrasts."
            if with_band
            else " One seed a point: there is no interval."
        ),
        description=f"Mean test {unit} by level of {factor}{at}. "
        + "; ".join(
            _in_words(one, factor, levels, unit) for present in by_arm.values() for one in present
        )
        + ".",
        narrow=draw(NARROW),
        wide=None,
        data=Table(
            f"{name}-data",
            f"Test {unit} by {factor}{at}",
            (
                Column("level", factor),
                Column("arm", "arm"),
                Column("values", "by seed", "numbers"),
                Column("mean", "mean", "number"),
                Column("interval", "95 % interval of the mean", "interval"),
            ),
            tuple(rows),
        ),
    )


def _in_words(one: LevelValues, factor: str, levels: Sequence[str], unit: str) -> str:
    interval = one.interval
    band = f" [{interval.low:.4f}, {interval.high:.4f}]" if interval else ""
    return f"{one.arm.name}, {factor} {levels[one.level]}: {one.mean:.4f}{band} {unit}"


def study_size_chart(study: StudyRecords, arms: Sequence[ArmView], metric: Metric) -> Chart | None:
    """Draw the mean of a metric against parameters, the arms of one point joined by a line."""
    unit = METRIC_UNITS[metric]
    placed: list[tuple[PointRun, ArmView, int, float]] = []
    for point, arm in itertools.product(study.points, arms):
        values = arm_values(point, arm.name, metric)
        if values:
            total = point.run.manifest.arms[arm.name].ledger.total
            placed.append((point, arm, total, fmean(value for _, value in values)))
    if not placed:
        return None
    labelled = len(study.points) <= MOST_POINT_LABELS

    def draw(width: int) -> Specification:
        low, high = domain([mean for *_, mean in placed], 0.1)
        left, right = domain([float(total) for _, _, total, _ in placed], 0.12)
        plot = Plot(
            Frame(width, 320),
            Scale(left, right, "unique parameters", "~s", 4),
            Scale(low, high, f"test {unit}"),
        )
        joined: Values = [
            {"x": total, "y": mean, "series": levels_in_words(point)}
            for point, _, total, mean in placed
        ]
        plot.lines(joined, RULE, width=1.25)
        for arm in arms:
            plot.points(
                [
                    {"x": total, "y": mean, "tip": _point_in_words(point, arm, total, mean, unit)}
                    for point, one, total, mean in placed
                    if one == arm
                ],
                arm.colour,
                shape=arm.shape,
                size=90,
            )
        if labelled:
            _label_points(plot, placed, arms[0])
        return plot.build()

    rows: list[Row] = [
        {"point": levels_in_words(point), "arm": arm.name, "parameters": total, "mean": mean}
        for point, arm, total, mean in placed
    ]
    return Chart(
        name="size",
        title=f"Parameters against {unit}",
        caption="Means over seeds; a line joins the arms of one point"
        + (", labelled with its levels." if labelled else ".")
        + " Down and to the left is better.",
        description=f"Mean test {unit} by parameters. "
        + "; ".join(_point_in_words(*one, unit) for one in placed)
        + ".",
        narrow=draw(NARROW),
        wide=None,
        data=Table(
            "size-data",
            f"Test {unit} and parameters",
            (
                Column("point", "point"),
                Column("arm", "arm"),
                Column("parameters", "parameters", "integer"),
                Column("mean", f"mean {unit}", "number"),
            ),
            tuple(rows),
        ),
        key=tuple((arm.name, arm.colour) for arm in arms),
    )


def _point_in_words(point: PointRun, arm: ArmView, total: int, mean: float, unit: str) -> str:
    return f"{levels_in_words(point)}, {arm.name}: {mean:.4f} {unit}, {total:,} parameters"


def _label_points(
    plot: Plot, placed: Sequence[tuple[PointRun, ArmView, int, float]], baseline: ArmView
) -> None:
    """Write a point's levels at its baseline arm, towards the middle of the plot."""
    own = [(point, total, mean) for point, arm, total, mean in placed if arm == baseline]
    # Towards the middle, above the mark, and apart where points are alike.
    for is_right in (False, True):
        side = [
            one for one in own if (plot.pixels_x(one[1]) > plot.frame.inner_width / 2) is is_right
        ]
        wanted = [plot.pixels_y(mean) - LABEL_GAP / 2 - 2 for _, _, mean in side]
        places = spread(wanted, LABEL_GAP, -LABEL_GAP, plot.frame.inner_height)
        labels: Values = [
            {
                "x": total,
                "y": plot.value_at_y(pixels),
                "text": shortened(
                    ", ".join(level_text(level) for level in point.levels.values()), 18
                ),
            }
            for (point, total, _), pixels in zip(side, places, strict=True)
        ]
        plot.text(labels, MUTED, align="right" if is_right else "left", dx=-9 if is_right else 9)
