"""The charts of one run: parameters, seeds, contrasts, size against quality, and overfitting.

Invariant: a chart is a pure function of the records and shows every cell that is done; what is not
done is said in its caption. Each comes with its data as a table and with alternative text. Curves
of training are in `curve_charts`, charts along a study's factors in `study_charts`.
"""

from collections.abc import Sequence
from statistics import fmean

from tyro_cli.analysis.columns import Column, Row, Table
from tyro_cli.reporting.palette import COMPONENTS, INK, MUTED, ON_COMPONENT, OTHER_COMPONENT, Colour
from tyro_cli.reporting.plots import (
    NARROW,
    TEXT_SIZE,
    WIDE,
    Chart,
    Frame,
    Plot,
    Scale,
    Specification,
    Values,
    domain,
    spread,
)
from tyro_cli.reporting.views import RunView

CHARACTER_WIDTH = 0.56 * TEXT_SIZE
"""About the width of a character of a label, in pixels: measured in Arial on figures and names."""

LABEL_GAP = 15
MOST_SEED_LABELS = 8
DARK_COMPONENTS = ("token embedding", "positions", "attention")


def run_charts(view: RunView) -> list[Chart]:
    """Return the charts of a run that its records allow."""
    charts = [
        parameter_chart(view),
        seed_chart(view),
        size_chart(view),
        gap_chart(view),
    ]
    return [chart for chart in charts if chart is not None]


def parameter_chart(view: RunView) -> Chart:
    """Draw the unique parameters of each arm as one bar of components."""
    ledgers = {arm.name: view.run.manifest.arms[arm.name].ledger for arm in view.arms}
    components = list(dict.fromkeys(row.component for one in ledgers.values() for row in one.rows))
    counts = {
        arm: {row.component: row.parameters for row in ledger.rows}
        for arm, ledger in ledgers.items()
    }
    shown = [name for name in components if any(counts[arm].get(name) for arm in counts)]
    most = max(ledger.total for ledger in ledgers.values())

    def draw(width: int) -> Specification:
        frame = Frame(width, 42 + 58 * len(view.arms) + 8, left=0, right=10, top=4, bottom=46)
        plot = Plot(
            frame,
            Scale(0, most, "unique parameters", "~s", 4 if width == NARROW else 6),
            Scale(len(view.arms), 0),
        )
        boxes: dict[str, Values] = {name: [] for name in shown}
        labels: dict[bool, Values] = {True: [], False: []}
        names: Values = []
        for place, arm in enumerate(view.arms):
            start = 0
            total = ledgers[arm.name].total
            names.append({"x": 0, "y": place + 0.18, "text": f"{arm.label}  {total:,} parameters"})
            for name in shown:
                count = counts[arm.name].get(name, 0)
                if not count:
                    continue
                share = f"{count / total:.1%}".replace("%", " %")
                boxes[name].append(
                    {
                        "x": start,
                        "x2": start + count,
                        "y": place + 0.36,
                        "y2": place + 0.86,
                        "tip": f"{arm.name}, {name}: {count:,} parameters, {share}",
                    }
                )
                room = plot.pixels_x(count)
                text = next(
                    (t for t in (f"{name} {share}", name) if len(t) * CHARACTER_WIDTH + 12 < room),
                    None,
                )
                if text:
                    labels[name in DARK_COMPONENTS].append(
                        {"x": start + count / 2, "y": place + 0.61, "text": text}
                    )
                start += count
        for name in shown:
            plot.boxes(boxes[name], _component_colour(name))
        plot.text(names, bold=True)
        plot.text(labels[True], ON_COMPONENT, align="center")
        plot.text(labels[False], INK, align="center")
        return plot.build()

    totals = ", ".join(f"{arm.name} {ledgers[arm.name].total:,}" for arm in view.arms)
    rows: list[Row] = [
        {"component": name, **{f"count {arm}": counts[arm].get(name, 0) for arm in counts}}
        for name in [*shown]
    ]
    rows.append({"component": "total", **{f"count {arm}": ledgers[arm].total for arm in ledgers}})
    return Chart(
        name="parameters",
        title="Where the parameters are",
        caption="One bar an arm, one segment a component; a shared matrix counts once.",
        description=f"Stacked bars of unique parameters by component. Totals: {totals}.",
        narrow=draw(NARROW),
        wide=draw(WIDE),
        data=Table(
            "parameters-data",
            "Unique parameters by component",
            (
                Column("component", "component"),
                *(Column(f"count {arm}", arm, "integer") for arm in counts),
            ),
            tuple(rows),
        ),
        key=tuple((name, _component_colour(name)) for name in shown),
    )


def _component_colour(name: str) -> Colour:
    return COMPONENTS.get(name, OTHER_COMPONENT)


def seed_chart(view: RunView) -> Chart | None:
    """Draw each seed as a line from the baseline to the other arms, and their mean."""
    by_arm = {
        arm.name: dict(
            view.values(
                arm.name, lambda result: getattr(result.scores("test", "best"), view.metric)
            )
        )
        for arm in view.arms
    }
    everything = [value for values in by_arm.values() for value in values.values()]
    if not everything or len(view.arms) < 2:
        return None
    seeds = sorted({seed for values in by_arm.values() for seed in values})
    complete = [seed for seed in seeds if all(seed in values for values in by_arm.values())]
    means = (
        [fmean(by_arm[arm.name][seed] for seed in complete) for arm in view.arms]
        if (complete)
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
                align="center" if place < last or last > 1 else "center",
                baseline="top",
                dy=9,
                bold=True,
            )
        ends = [seed for seed in seeds if seed in by_arm[view.arms[last].name]]
        labels: list[tuple[float, str, bool]] = []
        if len(ends) <= MOST_SEED_LABELS:
            labels += [(by_arm[view.arms[last].name][seed], f"seed {seed}", False) for seed in ends]
        if len(complete) > 1:
            labels.append((means[last], "mean", True))
        _end_labels(plot, last, labels)
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


def _end_labels(plot: Plot, x: float, labels: Sequence[tuple[float, str, bool]]) -> None:
    """Write labels right of their values, moved apart where they would touch."""
    wanted = [plot.pixels_y(value) for value, _, _ in labels]
    places = spread(wanted, LABEL_GAP, 0, plot.frame.inner_height)
    for bold in (False, True):
        values = [
            {"x": x, "y": plot.value_at_y(place), "text": text}
            for place, (_, text, is_bold) in zip(places, labels, strict=True)
            if is_bold is bold
        ]
        plot.text(values, INK if bold else MUTED, dx=10, bold=bold)


def size_chart(view: RunView) -> Chart | None:
    """Draw bits per byte against the number of parameters."""
    points = {
        arm.name: view.values(arm.name, lambda result: result.scores("test", "best").bits_per_byte)
        for arm in view.arms
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


def gap_chart(view: RunView) -> Chart | None:
    """Draw the generalisation gap of each arm at the best and at the last checkpoint."""
    best = {
        arm.name: view.values(
            arm.name, lambda result: result.evaluation("best").generalisation_gap_nats
        )
        for arm in view.arms
    }
    last = {
        arm.name: dict(
            view.values(arm.name, lambda result: result.evaluation("last").generalisation_gap_nats)
        )
        for arm in view.arms
    }
    everything = [value for values in best.values() for _, value in values]
    everything += [value for values in last.values() for value in values.values()]
    if not everything:
        return None

    def draw(width: int) -> Specification:
        frame = Frame(width, 300, left=8, right=16, top=12, bottom=42)
        low, high = domain([*everything, 0.0])
        plot = Plot(
            frame,
            Scale(low, high, "valid - train, nats per token", grid=True),
            Scale(len(view.arms), 0),
        )
        plot.rules([{"x": 0, "x2": 0, "y": 0, "y2": len(view.arms)}], MUTED)
        for place, arm in enumerate(view.arms):
            values = best[arm.name]
            rows = [
                (
                    seed,
                    value,
                    last[arm.name][seed],
                    place + 0.36 + 0.5 * (index + 0.5) / len(values),
                )
                for index, (seed, value) in enumerate(values)
            ]
            plot.text([{"x": low, "y": place + 0.2, "text": arm.label}], arm.colour, bold=True)
            plot.rules(
                [{"x": first, "x2": second, "y": y, "y2": y} for _, first, second, y in rows],
                arm.colour,
                width=1.5,
                opacity=0.6,
            )
            plot.points(
                [
                    {
                        "x": second,
                        "y": y,
                        "tip": f"{arm.name}, seed {seed}, last step: {second:+.4f} nats per token",
                    }
                    for seed, _, second, y in rows
                ],
                arm.colour,
                size=44,
                hollow=True,
            )
            plot.points(
                [
                    {
                        "x": first,
                        "y": y,
                        "tip": f"{arm.name}, seed {seed}, best step: {first:+.4f} nats per token",
                    }
                    for seed, first, _, y in rows
                ],
                arm.colour,
                size=60,
            )
        return plot.build()

    means = [
        f"{arm.name} {fmean(value for _, value in best[arm.name]):+.4f} at the best step, "
        f"{fmean(last[arm.name].values()):+.4f} at the last"
        for arm in view.arms
        if best[arm.name]
    ]
    rows: list[Row] = [
        {"arm": arm.name, "seed": str(seed), "best": value, "last": last[arm.name][seed]}
        for arm in view.arms
        for seed, value in best[arm.name]
    ]
    return Chart(
        name="gap",
        title="Generalisation gap",
        caption="One line a seed: the full mark is the best-valid checkpoint, the open one the "
        "last. Right of zero, the text trained on is easier than text that was not.",
        description=f"Gap in nats per token, means over seeds: {'; '.join(means)}.",
        narrow=draw(NARROW),
        wide=None,
        data=Table(
            "gap-data",
            "Generalisation gap: valid minus a part of train, nats per token",
            (
                Column("arm", "arm"),
                Column("seed", "seed"),
                Column("best", "at best step", "signed"),
                Column("last", "at last step", "signed"),
            ),
            tuple(rows),
        ),
    )
