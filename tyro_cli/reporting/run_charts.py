"""Two charts of one run: every seed from arm to arm, and quality against parameters.

Invariant: a chart is a pure function of the records and shows every cell that is done. Each comes
with its data as a table and with alternative text.
"""

from statistics import fmean

from tyro_cli.analysis.columns import Column, Row, Table
from tyro_cli.reporting.palette import INK, MUTED
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
)
from tyro_cli.reporting.views import RunView, arm_values, on_test

MOST_SEED_LABELS = 8


def seed_chart(view: RunView) -> Chart | None:
    """Draw each seed as a line from the baseline to the other arms, and their mean."""
    by_arm = {
        arm.name: dict(arm_values(view.run, arm.name, on_test(view.metric))) for arm in view.arms
    }
    everything = [value for values in by_arm.values() for value in values.values()]
    if not everything or len(view.arms) < 2:
        return None
    seeds = sorted({seed for values in by_arm.values() for seed in values})
    complete = [seed for seed in seeds if all(seed in values for values in by_arm.values())]
    means = (
        [fmean(by_arm[arm.name][seed] for seed in complete) for arm in view.arms]
        if complete
        else []
    )
    last = len(view.arms) - 1

    def draw(width: int) -> Specification:
        frame = Frame(width, 300, right=70, bottom=34)
        low, high = domain(everything)
        plot = Plot(frame, Scale(-0.12, last + 0.05), Scale(low, high, f"test {view.unit}"))
        thin: Values = []
        for seed in seeds:
            present = [
                (place, by_arm[arm.name][seed])
                for place, arm in enumerate(view.arms)
                if seed in by_arm[arm.name]
            ]
            thin += [{"x": place, "y": value, "series": f"seed {seed}"} for place, value in present]
        plot.lines(thin, MUTED, width=1.25, opacity=0.55)
        if len(complete) > 1:
            mean = [{"x": place, "y": one, "series": "mean"} for place, one in enumerate(means)]
            plot.lines(mean, INK, width=3)
        for place, arm in enumerate(view.arms):
            points = [
                {
                    "x": place,
                    "y": value,
                    "tip": f"{arm.name}, seed {seed}: {value:.4f} {view.unit}",
                }
                for seed, value in by_arm[arm.name].items()
            ]
            plot.points(points, arm.colour, shape=arm.shape, size=64)
            plot.text(
                [{"x": place, "y": low, "text": arm.label}],
                arm.colour,
                align="center",
                baseline="top",
                dy=9,
                bold=True,
            )
        ends = [seed for seed in seeds if seed in by_arm[view.arms[last].name]]
        labels: list[EndLabel] = []
        if len(ends) <= MOST_SEED_LABELS:
            values = by_arm[view.arms[last].name]
            labels += [EndLabel(values[seed], f"seed {seed}", MUTED, bold=False) for seed in ends]
        if len(complete) > 1:
            labels.append(EndLabel(means[last], "mean", INK))
        plot.end_labels(last, labels, dx=10)
        return plot.build()

    won = [
        f"{one.arm} is lower than {one.baseline} in {one.num_won} of {len(one.seeds)} pairs"
        for one in view.contrasts
        if one.seeds
    ]
    rows: list[Row] = [
        {
            "seed": str(seed),
            **{
                f"value {arm.name}": by_arm[arm.name][seed]
                for arm in view.arms
                if seed in by_arm[arm.name]
            },
        }
        for seed in seeds
    ]
    return Chart(
        name="seeds",
        title="Every seed, arm by arm",
        caption="One thin line a seed, from arm to arm"
        + ("; the thick line is their mean." if len(complete) > 1 else ".")
        + " Lower is better. Test split, best-valid checkpoint.",
        description=f"Slope chart of test {view.unit} for each seed. {'; '.join(won)}.",
        narrow=draw(NARROW),
        wide=None,
        data=Table(
            "seeds-data",
            f"Test {view.unit} at the best-valid checkpoint",
            (
                Column("seed", "seed"),
                *(Column(f"value {arm.name}", arm.name, "number") for arm in view.arms),
            ),
            tuple(rows),
        ),
    )


def size_chart(view: RunView) -> Chart | None:
    """Draw bits per byte against the number of parameters."""
    points = {
        arm.name: arm_values(view.run, arm.name, on_test("bits_per_byte")) for arm in view.arms
    }
    everything = [value for values in points.values() for _, value in values]
    if not everything:
        return None
    totals = {arm.name: view.run.manifest.arms[arm.name].ledger.total for arm in view.arms}

    def draw(width: int) -> Specification:
        frame = Frame(width, 300, right=24)
        low, high = domain(everything, 0.12)
        left, right = domain([float(total) for total in totals.values()], 0.25)
        plot = Plot(
            frame,
            Scale(left, right, "unique parameters", "~s", 4),
            Scale(low, high, "test bits per byte"),
        )
        for arm in view.arms:
            values, total = points[arm.name], totals[arm.name]
            if not values:
                continue
            mean = fmean(value for _, value in values)
            thin = [
                {
                    "x": total,
                    "y": value,
                    "tip": f"{arm.name}, seed {seed}: {value:.4f} bits per byte",
                }
                for seed, value in values
            ]
            plot.points(thin, arm.colour, shape=arm.shape, size=48, opacity=0.45)
            if len(values) > 1:
                middle = {
                    "x": total,
                    "y": mean,
                    "tip": f"{arm.name}, mean: {mean:.4f} bits per byte, {total:,} parameters",
                }
                plot.points([middle], arm.colour, shape=arm.shape, size=150)
            is_right = total > (left + right) / 2
            plot.text(
                [{"x": total, "y": mean, "text": arm.label}],
                arm.colour,
                align="right" if is_right else "left",
                dx=-12 if is_right else 12,
                bold=True,
            )
        return plot.build()

    means = [
        f"{arm.name} {fmean(value for _, value in points[arm.name]):.4f} at {totals[arm.name]:,}"
        for arm in view.arms
        if points[arm.name]
    ]
    rows: list[Row] = [
        {"arm": arm.name, "parameters": totals[arm.name], "seed": str(seed), "bits": value}
        for arm in view.arms
        for seed, value in points[arm.name]
    ]
    return Chart(
        name="size",
        title="Parameters against bits per byte",
        caption="Faint marks are seeds, the large mark is their mean. Down and to the left is "
        "better: fewer bits from fewer parameters.",
        description=f"Mean test bits per byte by parameters: {'; '.join(means)}.",
        narrow=draw(NARROW),
        wide=None,
        data=Table(
            "size-data",
            "Test bits per byte at the best-valid checkpoint",
            (
                Column("arm", "arm"),
                Column("parameters", "parameters", "integer"),
                Column("seed", "seed"),
                Column("bits", "bits/byte", "number"),
            ),
            tuple(rows),
        ),
    )
