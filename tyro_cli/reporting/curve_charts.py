"""The learning curves of a run as two charts, valid and train.

Invariant: the mean of an arm is over its cells that are done, at steps that all of them have; the
curve of a cell that diverged or is unfinished is drawn up to where it ends, and counts in no mean.
Reading and thinning belong to `curves`.
"""

from collections.abc import Sequence

from tyro_cli.analysis.columns import Column, Row, Table
from tyro_cli.reporting.curves import Curve, Points, mean_curve
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
from tyro_cli.reporting.views import RunView

EARLY = 0.2
"""Part of the steps whose losses may lie above the chart."""


def curve_charts(view: RunView, curves: Sequence[Curve]) -> list[Chart]:
    """Return the charts of valid and train losses by step, on one scale of losses.

    Args:
        view: The run.
        curves: The curves of its cells; none where no cell has a record of its training.
    """
    valid = {(one.arm, one.seed): one.valid for one in curves if one.valid}
    train = {(one.arm, one.seed): one.train for one in curves if one.train}
    finished = {(one.arm, one.seed) for one in curves if one.finished}
    limits = _limits([*valid.items(), *train.items()], finished)
    if limits is None:
        return []
    charts = []
    if valid:
        charts.append(
            _chart(
                view,
                "valid-curves",
                "Learning curves: valid",
                "Loss on valid at every evaluation.",
                valid,
                finished,
                limits,
                dots=True,
            )
        )
    if train:
        charts.append(
            _chart(
                view,
                "train-curves",
                "Learning curves: train",
                "Loss on the batches trained on, averaged over windows of steps.",
                train,
                finished,
                limits,
                dots=False,
            )
        )
    return charts


def _limits(
    curves: Sequence[tuple[tuple[str, int], Points]], finished: set[tuple[str, int]]
) -> tuple[float, float] | None:
    """Return the losses that the charts show: where arms are told apart, not the first descent.

    A cell that diverged must not flatten the others, so cells that are done decide, if there are
    any; and the first fifth of the steps does not count where it would take most of the height.
    """
    counted = [points for cell, points in curves if cell in finished] or [
        points for _, points in curves
    ]
    if not counted:
        return None
    last = max(points[-1][0] for points in counted)
    everything = [loss for points in counted for _, loss in points]
    late = [loss for points in counted for step, loss in points if step >= EARLY * last]
    if max(everything) - min(everything) > 2 * (max(late) - min(everything)):
        return domain([min(everything), *late], 0.04)
    return domain(everything, 0.04)


def _chart(
    view: RunView,
    name: str,
    title: str,
    caption: str,
    curves: dict[tuple[str, int], Points],
    finished: set[tuple[str, int]],
    limits: tuple[float, float],
    *,
    dots: bool,
) -> Chart:
    means = {
        arm.name: mean_curve(
            [curves[cell] for cell in curves if cell[0] == arm.name and (cell in finished)]
        )
        for arm in view.arms
    }
    counts = {
        arm.name: sum(cell[0] == arm.name and cell in finished for cell in curves)
        for arm in view.arms
    }
    unfinished = [f"{arm} seed {seed}" for arm, seed in curves if (arm, seed) not in finished]
    last = max(points[-1][0] for points in curves.values())

    drawn = {
        cell: tuple((step, loss) for step, loss in points if loss <= limits[1])
        for cell, points in curves.items()
    }
    means_drawn = {
        arm: tuple((step, loss) for step, loss in points if loss <= limits[1])
        for arm, points in means.items()
    }

    def draw(width: int) -> Specification:
        plot = Plot(
            Frame(width, 300, right=end_room((arm.label for arm in view.arms), 8)),
            Scale(0, last, "optimiser steps", "~s", 4, integers=True),
            Scale(*limits, "loss, nats per token"),
        )
        ends: list[EndLabel] = []
        for arm in view.arms:
            thin: Values = [
                {"x": step, "y": loss, "series": f"seed {seed}"}
                for (cell_arm, seed), points in drawn.items()
                if cell_arm == arm.name
                for step, loss in points
            ]
            plot.lines(thin, arm.colour, width=1, opacity=0.45)
            mean = means_drawn[arm.name]
            plot.lines(
                [{"x": step, "y": loss, "series": "mean"} for step, loss in mean],
                arm.colour,
                width=2.75,
            )
            label = "mean" if counts[arm.name] > 1 else "loss"
            plot.points(
                [
                    {
                        "x": step,
                        "y": loss,
                        "tip": f"{arm.name}, step {step:,.0f}: {label} {loss:.4f} nats per token",
                    }
                    for step, loss in mean
                ],
                arm.colour,
                shape=arm.shape,
                size=30,
                opacity=1.0 if dots and len(mean) <= 25 else 0.0,
            )
            tail = mean or next((p for cell, p in drawn.items() if cell[0] == arm.name), ())
            if tail:
                ends.append(EndLabel(tail[-1][1], arm.label, arm.colour))
        plot.end_labels(last, ends, dx=8)
        return plot.build()

    final = [f"{arm} {points[-1][1]:.4f}" for arm, points in means.items() if points]
    several = any(count > 1 for count in counts.values())
    if several:
        caption += " Thin lines are seeds, the bold line is their mean."
    if any(len(drawn[cell]) < len(points) for cell, points in curves.items()):
        caption += f" Losses above {limits[1]:.2f} are in the table only."
    if unfinished:
        caption += f" Not done, so in no mean: {', '.join(unfinished)}."
    return Chart(
        name=name,
        title=title,
        caption=caption,
        description=f"{title}, nats per token by step up to step {last:,.0f}. Last mean: "
        f"{', '.join(final) or 'none, no cell is done'}.",
        narrow=draw(NARROW),
        wide=None,
        data=_table(name, title, curves, means, several=several),
    )


def _table(
    name: str,
    title: str,
    curves: dict[tuple[str, int], Points],
    means: dict[str, Points],
    *,
    several: bool,
) -> Table:
    steps = sorted({step for points in curves.values() for step, _ in points})
    columns = [Column("step", "step", "number", 0)]
    by_step: dict[str, dict[float, float]] = {}
    for arm, points in means.items():
        if several and points:
            columns.append(Column(f"mean {arm}", f"{arm} mean", "number"))
            by_step[f"mean {arm}"] = dict(points)
        for cell, cell_points in curves.items():
            if cell[0] == arm:
                key = f"{arm} seed {cell[1]}"
                columns.append(Column(key, key, "number"))
                by_step[key] = dict(cell_points)
    rows: list[Row] = [
        {"step": step} | {key: values[step] for key, values in by_step.items() if step in values}
        for step in steps
    ]
    return Table(f"{name}-data", f"{title}, nats per token", tuple(columns), tuple(rows))
