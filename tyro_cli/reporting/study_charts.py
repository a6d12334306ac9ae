"""The charts along a study's factors: a metric by level for every arm, and quality by size.

Invariant: a line joins only points that differ in one factor, and every combination of the others
has a chart of its own, all on one scale. Bands are 95 % t intervals of an arm's own mean over
seeds; they say nothing of the paired contrast, which has a plot of its own.
"""

import itertools
from collections.abc import Callable, Sequence
from statistics import fmean

from tyro_cli.analysis.columns import Column, Row, Table
from tyro_cli.analysis.excess import excess_nats
from tyro_cli.analysis.formats import CellResult, Metric
from tyro_cli.analysis.signatures import mixed_signatures, signatures_of
from tyro_cli.analysis.studies import PointRun, StudyRecords, source_factors
from tyro_cli.config.grid import level_text, levels_in_words
from tyro_cli.reporting.factor_chart import FactorLine, LevelValues, factor_chart
from tyro_cli.reporting.palette import MUTED, RULE
from tyro_cli.reporting.plots import (
    LABEL_GAP,
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
from tyro_cli.reporting.views import LABEL_CHARACTERS, METRIC_UNITS, ArmView, arm_values, on_test

MOST_POINT_LABELS = 8
PREFERRED: tuple[Metric, ...] = ("bits_per_byte", "nats_per_word", "nats_per_token")
"""Which metric to draw: the first that was computed in one way at every point."""


def comparable_metric(study: StudyRecords, *, force: bool = False) -> Metric | None:
    """Return the metric whose numbers may stand beside each other, or None."""
    results = study.labelled()
    for metric in PREFERRED:
        known = all(
            getattr(result.scores("test", "best"), metric) is not None
            for result in results.values()
        )
        mixed = mixed_signatures(signatures_of(results, "test", metric))
        if results and known and (force or not mixed):
            return metric
    return None


def along(
    study: StudyRecords,
    factor: str,
    points: Sequence[PointRun],
    arm: ArmView,
    value: Callable[[CellResult], float | None],
) -> tuple[LevelValues, ...]:
    """Return what an arm reached at points that differ in one factor, by level."""
    levels = study.factors[factor].levels
    found = [
        LevelValues(levels.index(point.levels[factor]), values)
        for point in points
        if (values := arm_values(point.run, arm.name, value))
    ]
    return tuple(sorted(found, key=lambda one: one.level))


def factor_charts(study: StudyRecords, arms: Sequence[ArmView], metric: Metric) -> list[Chart]:
    """Return, for each factor with several levels, a chart a combination of the others."""
    charts = []
    for number, (factor, record) in enumerate(study.factors.items(), start=1):
        by_elsewhere: dict[str, list[PointRun]] = {}
        for point in study.points:
            by_elsewhere.setdefault(levels_in_words(point.levels, factor), []).append(point)
        several: dict[str, list[FactorLine]] = {}
        for elsewhere, points in by_elsewhere.items():
            lines = [
                FactorLine(arm, along(study, factor, points, arm, on_test(metric)), arm.label)
                for arm in arms
            ]
            if len({one.level for line in lines for one in line.levels}) > 1:
                several[elsewhere] = lines
        bounds = [bound for lines in several.values() for line in lines for bound in line.bounds]
        for place, (elsewhere, lines) in enumerate(several.items(), start=1):
            charts.append(
                factor_chart(
                    lines,
                    name=f"factor-{number}-{place}",
                    factor=factor,
                    levels=[level_text(level) for level in record.levels],
                    unit=METRIC_UNITS[metric],
                    limits=domain(bounds),
                    elsewhere=elsewhere,
                )
            )
    return charts


def excess_charts(
    study: StudyRecords, arms: Sequence[ArmView], name: str = "excess"
) -> list[Chart]:
    """Return a chart of the excess along each factor of a known source; none without one.

    Excesses compare though the texts of the levels differ, so that lines at all levels of the
    other factors, such as the number of layers, stand in one chart.

    Args:
        study: The records.
        arms: How the arms are drawn.
        name: What the names of the charts begin with.
    """
    sources = source_factors(study)
    others = [factor for factor in study.factors if factor not in sources]
    charts: list[Chart] = []
    for factor in sources:
        levels = study.factors[factor].levels
        by_elsewhere: dict[str, dict[tuple[str, ...], list[PointRun]]] = {}
        for point in study.points:
            elsewhere = levels_in_words(point.levels, factor, *others)
            other = tuple(level_text(point.levels[one]) for one in others)
            by_elsewhere.setdefault(elsewhere, {}).setdefault(other, []).append(point)
        for elsewhere, by_other in by_elsewhere.items():
            lines = [
                FactorLine(
                    arm,
                    along(study, factor, points, arm, excess_nats),
                    label=_label(arm, other),
                    elsewhere=levels_in_words(points[0].levels, *sources),
                    dash=dash,
                )
                for arm in arms
                for dash, (other, points) in enumerate(by_other.items())
            ]
            bounds = [bound for line in lines for bound in line.bounds]
            if len({one.level for line in lines for one in line.levels}) > 1:
                named = f"Lines are named by arm and {' and '.join(others)}. " if others else ""
                charts.append(
                    factor_chart(
                        lines,
                        name=f"{name}-{len(charts) + 1}",
                        factor=factor,
                        levels=[level_text(level) for level in levels],
                        unit="excess nats per token",
                        limits=domain([0.0, *bounds]),
                        elsewhere=elsewhere,
                        reading=f"{named}0 is what the source of the text itself scores.",
                        wide=True,
                    )
                )
    return charts


def _label(arm: ArmView, other: tuple[str, ...]) -> str:
    """Return `tied, 0`: however long the names are, some of both is left."""
    levels = shortened("".join(f", {level}" for level in other), LABEL_CHARACTERS // 2)
    return shortened(arm.name, LABEL_CHARACTERS - len(levels)) + levels


def study_size_chart(study: StudyRecords, arms: Sequence[ArmView], metric: Metric) -> Chart | None:
    """Draw the mean of a metric against parameters, the arms of one point joined by a line."""
    unit = METRIC_UNITS[metric]
    placed: list[tuple[PointRun, ArmView, int, float]] = []
    for point, arm in itertools.product(study.points, arms):
        values = arm_values(point.run, arm.name, on_test(metric))
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
            {"x": total, "y": mean, "series": levels_in_words(point.levels)}
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
        {"point": levels_in_words(point.levels), "arm": arm.name, "parameters": total, "mean": mean}
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
    return f"{levels_in_words(point.levels)}, {arm.name}: {mean:.4f} {unit}, {total:,} parameters"


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
