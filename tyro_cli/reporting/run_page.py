"""The page of one run: what it says, and in which order.

Invariant: a pure function of the run's records. The verdict comes first; every planned cell is
accounted for, and what the records do not hold is said instead of left out.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from tyro_cli.analysis.columns import Table
from tyro_cli.analysis.contrasts import Contrast, contrast
from tyro_cli.analysis.perplexity_tables import perplexity_table, status_in_words
from tyro_cli.analysis.records import RunRecords
from tyro_cli.analysis.search_tables import TunedVerdict, tuned_verdicts
from tyro_cli.analysis.tables import (
    contrast_table,
    parameter_table,
    performance_table,
    search_tables,
)
from tyro_cli.analysis.translation_tables import (
    overlap_table,
    quality_contrast_table,
    quality_table,
)
from tyro_cli.analysis.verdicts import Verdict, margin_in_words, verdict_of_run
from tyro_cli.errors import NothingMatched
from tyro_cli.reporting.bars import Bar, parameter_chart
from tyro_cli.reporting.contents import (
    Block,
    ChartBlock,
    Fact,
    Page,
    Section,
    TableBlock,
    TextBlock,
    VerdictCard,
)
from tyro_cli.reporting.curve_charts import curve_charts
from tyro_cli.reporting.curves import read_curves
from tyro_cli.reporting.forest import ForestRow, forest_chart
from tyro_cli.reporting.gaps import GapRow, gap_chart
from tyro_cli.reporting.palette import swatch
from tyro_cli.reporting.plots import Chart
from tyro_cli.reporting.provenance import configuration_section, folder_name, provenance_section
from tyro_cli.reporting.run_charts import seed_chart, size_chart
from tyro_cli.reporting.trial_chart import trial_chart
from tyro_cli.reporting.views import METRIC_UNITS, RunView, run_view

NO_CURVES = (
    "There are no learning curves: these records were kept without metrics.jsonl, the losses that "
    "each cell wrote while it trained."
)


def run_page(run: RunRecords, *, force: bool = False) -> Page:
    """Return the page of a run.

    Args:
        run: The records.
        force: Set numbers of different signature beside each other.

    Raises:
        NothingMatched: No cell is finished.
        RunFolderError: Numbers have different signatures, and `force` is not set.
        DamagedRecord: A record of training is damaged.
    """
    if all(cell.status == "unfinished" for cell in run.cells.values()):
        raise NothingMatched(
            f"{run.folder}: none of its {len(run.cells)} cells is finished",
            "run the same wtie train command again: it resumes",
        )
    view = run_view(run, force=force)
    verdicts = verdict_of_run(run, force=force)
    curves = curve_charts(view, read_curves(run))
    perplexity = perplexity_table(run, force=force)
    sections = (
        Section(
            "contrasts",
            "Contrasts",
            (
                *chart_blocks(_forest(view, verdicts, force=force)),
                *chart_blocks(seed_chart(view), size_chart(view)),
                TableBlock(_without_verdicts(contrast_table(run, force=force))),
            ),
        ),
        *_search_section(view, force=force),
        Section(
            "parameters",
            "Parameters",
            (*chart_blocks(parameter_chart(_bars(view))), TableBlock(parameter_table(run))),
        ),
        Section(
            "perplexity",
            "Perplexity",
            (TableBlock(without_signatures(perplexity), mean_rows(perplexity)),),
        ),
        *_translation_section(run, force=force),
        Section(
            "training",
            "Training",
            (
                *(chart_blocks(*curves) if curves else (TextBlock((NO_CURVES,)),)),
                *chart_blocks(gap_chart(_gap_rows(view))),
                TableBlock(performance_table(run), folded=True),
            ),
        ),
        configuration_section(view),
        provenance_section(run),
    )
    return Page(
        kind="run",
        title=run.manifest.name,
        subtitle=_subtitle(run),
        cards=verdict_cards(view, verdicts, force=force),
        notices=cell_notices(run),
        arms=tuple((arm.name, swatch(arm.colour)) for arm in view.arms),
        sections=sections,
    )


def _translation_section(run: RunRecords, *, force: bool) -> tuple[Section, ...]:
    """Return how good translations are, and what their two languages share, where there are any."""
    if not run.translates:
        return ()
    quality = quality_table(run, force=force)
    blocks = (
        TableBlock(quality, mean_rows(quality)),
        TableBlock(quality_contrast_table(run, force=force)),
        TableBlock(overlap_table(run)),
    )
    return (Section("translation", "Translation", blocks),)


def _search_section(view: RunView, *, force: bool) -> tuple[Section, ...]:
    """Return what a search for learning rates found, where the run has one."""
    run = view.run
    if run.search is None:
        return ()
    tuned, trials = search_tables(run, run.manifest.baseline, force=force)
    best = frozenset(i for i, row in enumerate(trials.rows) if "best" in str(row["role"]))
    blocks = (
        *chart_blocks(trial_chart(run.search, view.arms)),
        TableBlock(_without_verdicts(tuned)),
        TableBlock(trials, best),
    )
    return (Section("search", "Each arm at its best", blocks),)


def verdict_cards(
    view: RunView, verdicts: dict[str, Verdict], *, force: bool
) -> tuple[VerdictCard, ...]:
    """Return the verdict on every arm with the numbers to see first."""
    colours = {arm.name: arm.colour for arm in view.arms}
    run = view.run
    tuned = {}
    if run.search is not None:
        tuned = tuned_verdicts(run, run.manifest.baseline, force=force)
    cards = []
    for one in view.contrasts:
        verdict = verdicts[one.arm]
        cards.append(
            VerdictCard(
                title=f"{one.arm} against {one.baseline}",
                text=verdict.text,
                sentence=verdict.sentence,
                swatch=swatch(colours[verdict.winner]) if verdict.winner else None,
                facts=(*_facts(view, one), *_tuned_facts(tuned.get(one.arm))),
            )
        )
    return tuple(cards)


def cell_notices(run: RunRecords) -> tuple[str, ...]:
    """Name every cell that diverged or is unfinished."""
    notices = []
    for status in ("diverged", "unfinished"):
        cells = [cell for cell in run.cells.values() if cell.status == status]
        names = [
            f"{cell.arm} seed {cell.seed}"
            + (f" ({status_in_words(cell)})" if status == "diverged" else "")
            for cell in cells
        ]
        if names:
            notices.append(f"{len(names)} of {len(run.cells)} cells {status}: {', '.join(names)}.")
    return tuple(notices)


def _facts(view: RunView, one: Contrast) -> tuple[Fact, ...]:
    unit = METRIC_UNITS[one.metric]
    interval = one.interval(0.95)
    facts = []
    if one.mean is not None:
        facts.append(
            Fact(
                "difference",
                f"{one.mean:+.4f}",
                f"{unit}, 95 % interval {interval.low:+.4f} to {interval.high:+.4f}"
                if interval
                else f"{unit}, one pair: no interval",
            )
        )
        if one.perplexity_ratio is not None:
            facts.append(
                Fact(
                    "perplexity ratio",
                    f"{one.perplexity_ratio:.4f}",
                    f"{math.exp(interval.low):.4f} to {math.exp(interval.high):.4f}"
                    if interval and interval.high < 700
                    else "",
                )
            )
    own, other = (view.run.manifest.arms[name].ledger.total for name in (one.arm, one.baseline))
    change = (own - other) / other if other else 0.0
    facts.append(
        Fact(
            "parameters",
            f"{change:+.1%}".replace("%", " %"),
            f"{own:,} against {other:,}",
        )
    )
    facts.append(Fact("pairs", f"{len(one.seeds)}/{len(one.planned_seeds)}", one.pairs_in_words()))
    return tuple(facts)


def _tuned_facts(tuned: TunedVerdict | None) -> tuple[Fact, ...]:
    if tuned is None:
        return ()
    mean = tuned.contrast.mean if tuned.contrast is not None else None
    value = "not known" if mean is None else f"{mean:+.4f}"
    return (Fact("each arm at its best", value, tuned.text),)


def _forest(view: RunView, verdicts: dict[str, Verdict], *, force: bool) -> Chart | None:
    """Return the decisive contrasts, and the same metric on valid and at the last checkpoint."""
    arms = {arm.name: arm for arm in view.arms}
    rows = []
    for one in view.contrasts:
        if one.metric != view.metric:
            continue
        arm = arms[one.arm]
        name = f"{one.arm} - {one.baseline}"
        others = (
            (f"{name}, test", one, verdicts[one.arm].text),
            (
                f"{name}, valid",
                contrast(view.run, one.arm, one.baseline, one.metric, "valid", force=force),
                "",
            ),
            (
                f"{name}, test, last step",
                contrast(view.run, one.arm, one.baseline, one.metric, "test", "last", force=force),
                "",
            ),
        )
        rows += [
            ForestRow(label, each, arm.colour, arm.shape, text) for label, each, text in others
        ]
    margin = view.run.manifest.margin
    return forest_chart(
        rows, view.unit, (math.log1p(margin), margin_in_words(margin)), name="contrasts"
    )


def _bars(view: RunView) -> list[Bar]:
    return [Bar(arm.name, view.run.manifest.arms[arm.name].ledger) for arm in view.arms]


def _gap_rows(view: RunView) -> list[GapRow]:
    return [GapRow(arm.name, arm.colour, view.run.done(arm.name)) for arm in view.arms]


def chart_blocks(*charts: Chart | None) -> Sequence[Block]:
    """Return charts side by side as one block, without those there is nothing to draw of."""
    drawn = tuple(chart for chart in charts if chart is not None)
    return (ChartBlock(drawn),) if drawn else ()


def _without_verdicts(table: Table) -> Table:
    """Leave out the notes that say again what the page begins with."""
    return replace(table, notes=tuple(n for n in table.notes if not n.startswith("Verdict: ")))


def without_signatures(table: Table) -> Table:
    """Leave out the notes that stand as a table of their own under provenance."""
    return replace(table, notes=tuple(n for n in table.notes if "|split:" not in n))


def mean_rows(table: Table) -> frozenset[int]:
    """Return the places of the rows that are means over seeds."""
    return frozenset(index for index, row in enumerate(table.rows) if row["seed"] == "mean")


def _subtitle(run: RunRecords) -> str:
    manifest = run.manifest
    seeds = sorted({seed for _, seed in run.cells})
    data = manifest.arms[manifest.baseline].settings.get("data")
    corpus = data.get("corpus") if isinstance(data, dict) else None
    parts = [
        folder_name(run.folder),
        f"{len(run.arms)} arm{'s' if len(run.arms) != 1 else ''}",
        f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}",
        *([f"corpus {corpus}"] if isinstance(corpus, str) else []),
        f"vocabulary {manifest.vocab_size:,}",
    ]
    return " · ".join(parts)
