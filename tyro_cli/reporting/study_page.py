"""The page of a study: its verdicts over the grid, its charts along the factors, its points.

Invariant: a pure function of the records of the study and of the runs it names. Verdicts are those
adjusted within their families; every planned point is accounted for. What stands on the page of a
run stands here folded away, point by point, as far as the page's size allows.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tyro_cli.analysis.columns import Column, Row, Table
from tyro_cli.analysis.instrument import instrument_table
from tyro_cli.analysis.perplexity_tables import perplexity_table
from tyro_cli.analysis.records import RunRecords
from tyro_cli.analysis.search_tables import trial_table
from tyro_cli.analysis.studies import (
    SignChange,
    StudyContrast,
    StudyRecords,
    sign_changes,
    study_contrasts,
)
from tyro_cli.analysis.study_performance import study_performance_table
from tyro_cli.analysis.study_probe_tables import study_probe_tables
from tyro_cli.analysis.study_tables import (
    family_table,
    has_search,
    results_table,
    tuned_table,
)
from tyro_cli.analysis.study_translation_tables import study_translation_tables
from tyro_cli.analysis.tables import parameter_table
from tyro_cli.analysis.verdicts import margin_in_words
from tyro_cli.config.grid import level_text, levels_in_words
from tyro_cli.errors import NothingMatched
from tyro_cli.reporting.bars import Bar, parameter_chart
from tyro_cli.reporting.contents import (
    Block,
    CodeBlock,
    Fact,
    GroupBlock,
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
from tyro_cli.reporting.provenance import (
    folder_name,
    provenance_table,
    read_raw_manifest,
    recorded_command,
    signature_table,
    text_of,
)
from tyro_cli.reporting.run_charts import seed_chart
from tyro_cli.reporting.run_page import (
    NO_CURVES,
    cell_notices,
    chart_blocks,
    mean_rows,
    without_signatures,
)
from tyro_cli.reporting.study_charts import (
    comparable_metric,
    excess_charts,
    factor_charts,
    study_size_chart,
)
from tyro_cli.reporting.views import METRIC_UNITS, ArmView, arm_views, run_view

NOT_COMPARABLE = (
    "No metric was computed in one way at all points, so there is no chart along the factors."
)

LISTED_CHANGES = 2
"""So many changes of sign that are not established stand in the verdict one by one."""

POINTS_OF_A_CURVE = 30
"""Half as many as on the page of a run, so that a grid of a dozen points fits into one page."""


def study_page(study: StudyRecords, *, force: bool = False, with_points: bool = True) -> Page:
    """Return the page of a study.

    Args:
        study: The records.
        force: Set numbers of different signature beside each other.
        with_points: Whether the page holds the curves and tables of every point.

    Raises:
        NothingMatched: No cell is finished.
        RunFolderError: Numbers of one point have different signatures, and `force` is not set.
        DamagedRecord: A record of training is damaged.
    """
    cells = [cell for point in study.points for cell in point.run.cells.values()]
    if all(cell.status == "unfinished" for cell in cells):
        raise NothingMatched(
            f"{study.folder}: none of the {len(cells)} cells of its runs is finished",
            "run the same wtie sweep command again: it resumes",
        )
    arms = arm_views(tuple(study.manifest.arms), study.manifest.baseline)
    contrasts = study_contrasts(study, force=force)
    metric = comparable_metric(study, force=force)
    along = factor_charts(study, arms, metric) if metric else []
    excess = excess_charts(study, arms)
    instrument = instrument_table(study)
    size = study_size_chart(study, arms, metric) if metric else None
    sections = [
        Section(
            "factors",
            "Along the factors",
            (
                *chart_blocks(*along),
                *chart_blocks(*excess),
                *(() if metric or excess else (TextBlock((NOT_COMPARABLE,)),)),
                TableBlock(results_table(study, force=force)),
                *([TableBlock(instrument)] if instrument else []),
            ),
        ),
        Section(
            "contrasts",
            "Contrasts",
            (
                *chart_blocks(*_forests(study, arms, contrasts)),
                TableBlock(family_table(study, contrasts)),
                *map(TableBlock, study_translation_tables(study, force=force)),
                *([TableBlock(tuned_table(study, force=force))] if has_search(study) else []),
                *map(TableBlock, study_probe_tables(study)),
            ),
        ),
        Section(
            "parameters",
            "Parameters",
            (*chart_blocks(parameter_chart(_bars(study, arms))), *chart_blocks(size)),
        ),
        Section(
            "training",
            "Training",
            (
                *chart_blocks(gap_chart(_gap_rows(study, arms))),
                TableBlock(study_performance_table(study), folded=True),
            ),
        ),
    ]
    if with_points:
        blocks = tuple(
            _point_block(number, point.run, levels_in_words(point.levels), force=force)
            for number, point in enumerate(study.points, start=1)
        )
        sections.append(Section("points", "Point by point", blocks))
    sections += [_configuration(study), _provenance(study)]
    return Page(
        kind="study",
        title=study.manifest.name,
        subtitle=_subtitle(study),
        cards=_cards(study, arms, contrasts),
        notices=_notices(study, with_points=with_points),
        arms=tuple((arm.name, swatch(arm.colour)) for arm in arms),
        sections=tuple(sections),
    )


def _cards(
    study: StudyRecords, arms: Sequence[ArmView], contrasts: Sequence[StudyContrast]
) -> tuple[VerdictCard, ...]:
    """Return a card an arm: verdicts counted, changes of sign, and every point's sentence."""
    changes = sign_changes(study, contrasts)
    cards = []
    for arm in arms[1:]:
        own = [one for one in contrasts if one.contrast.arm == arm.name]
        counts = Counter(one.verdict.text for one in own)
        text = "; ".join(
            f"{verdict} at {count} of {len(own)} points" for verdict, count in counts.most_common()
        )
        winners = {one.verdict.winner for one in own}
        winner = winners.pop() if len(winners) == 1 else None
        said = [change for change in changes if change.arm == arm.name]
        cards.append(
            VerdictCard(
                title=f"{arm.name} against {study.manifest.baseline}",
                text=text,
                sentence=changes_in_words(said) if any(one.contrast.seeds for one in own) else "",
                swatch=next((swatch(one.colour) for one in arms if one.name == winner), None),
                facts=_facts(own),
                points=tuple((f"{one.where}:", one.verdict.sentence) for one in own),
            )
        )
    return tuple(cards)


def changes_in_words(changes: Sequence[SignChange]) -> str:
    """Return what a card says of the signs: every crossover, and the rest counted if many."""
    if not changes:
        return "No contrast changes its sign along a factor."
    num_weak = sum(not change.is_established for change in changes)
    is_counted = num_weak > LISTED_CHANGES
    said = [one.sentence for one in changes if one.is_established or not is_counted]
    if is_counted:
        said.append(
            f"The sign of the mean changes {num_weak} times along a factor, not established; each "
            "stands under the table of contrasts."
        )
    return " ".join(said)


def _facts(contrasts: Sequence[StudyContrast]) -> tuple[Fact, ...]:
    metrics = {one.contrast.metric for one in contrasts if one.contrast.mean is not None}
    means = [one.contrast.mean for one in contrasts if one.contrast.mean is not None]
    if len(metrics) != 1:  # differences in other units do not compare
        return ()
    unit = METRIC_UNITS[metrics.pop()]
    lower = sum(mean < 0 for mean in means)
    seeds = sorted({len(one.contrast.seeds) for one in contrasts})
    return (
        Fact("lowest mean", f"{min(means):+.4f}", f"difference in {unit}"),
        Fact("highest mean", f"{max(means):+.4f}", f"below zero at {lower} of {len(means)} points"),
        Fact(
            "pairs a point", " to ".join(str(one) for one in dict.fromkeys((seeds[0], seeds[-1])))
        ),
        Fact("family", f"{contrasts[0].family.size}", "contrasts, adjusted by Holm"),
    )


def _forests(
    study: StudyRecords, arms: Sequence[ArmView], contrasts: Sequence[StudyContrast]
) -> list[Chart | None]:
    """Return one plot a unit, since differences in other units do not compare."""
    views = {arm.name: arm for arm in arms}
    margin = study.manifest.margin
    by_metric: dict[str, list[ForestRow]] = {}
    for one in contrasts:
        arm = views[one.contrast.arm]
        label = one.where if len(arms) == 2 else f"{arm.name}, {one.where}"
        row = ForestRow(label, one.contrast, arm.colour, arm.shape, one.verdict.text)
        by_metric.setdefault(one.contrast.metric, []).append(row)
    return [
        forest_chart(
            rows,
            METRIC_UNITS[metric],
            (math.log1p(margin), margin_in_words(margin)),
            name="contrasts" if number == 1 else f"contrasts-{number}",
        )
        for number, (metric, rows) in enumerate(by_metric.items(), start=1)
    ]


def _bars(study: StudyRecords, arms: Sequence[ArmView]) -> list[Bar]:
    """Return a bar for each ledger: points whose models are alike share one."""
    found: dict[tuple[str, str], tuple[Bar, dict[str, str]]] = {}
    for point in study.points:
        levels = {name: level_text(level) for name, level in point.levels.items()}
        for arm in arms:
            ledger = point.run.manifest.arms[arm.name].ledger
            key = (arm.name, repr([(row.component, row.parameters) for row in ledger.rows]))
            shared = found[key][1] if key in found else levels
            common = {name: level for name, level in shared.items() if levels[name] == level}
            label = ", ".join([arm.name, *(f"{name} {level}" for name, level in common.items())])
            found[key] = (Bar(label, ledger), common)
    return [bar for bar, _ in found.values()]


def _gap_rows(study: StudyRecords, arms: Sequence[ArmView]) -> list[GapRow]:
    return [
        GapRow(f"{arm.name}, {levels_in_words(point.levels)}", arm.colour, point.run.done(arm.name))
        for point in study.points
        for arm in arms
    ]


def _point_block(number: int, run: RunRecords, title: str, *, force: bool) -> Block:
    """Return what a run's own page shows of seeds, training and scores, folded away."""
    if all(cell.status == "unfinished" for cell in run.cells.values()):
        return GroupBlock(title, (TextBlock(("No cell of this point is finished.",)),))
    view = run_view(run, force=force)
    curves = curve_charts(view, read_curves(run, POINTS_OF_A_CURVE))
    seeds = seed_chart(view)
    charts = [
        replace(chart, name=f"point-{number}-{chart.name}")
        for chart in ([seeds] if seeds else []) + curves
    ]
    perplexity = without_signatures(perplexity_table(run, force=force))
    return GroupBlock(
        title,
        (
            *chart_blocks(*charts),
            *(() if curves else (TextBlock((NO_CURVES,)),)),
            TableBlock(perplexity, mean_rows(perplexity)),
            TableBlock(parameter_table(run)),
            *([TableBlock(trial_table(run))] if run.search is not None else []),
        ),
    )


def _notices(study: StudyRecords, *, with_points: bool) -> tuple[str, ...]:
    notices = [
        f"{levels_in_words(point.levels)}: {notice}"
        for point in study.points
        for notice in cell_notices(point.run)
    ]
    if study.missing:
        notices.append(
            f"{len(study.missing)} of {len(study.manifest.points)} points have no run folder yet: "
            f"{', '.join(study.missing)}."
        )
    if not with_points:
        notices.append(
            "The study is too large for the curves and tables of every point to fit in this page; "
            "wtie report on a run's own folder shows them."
        )
    return tuple(notices)


def _configuration(study: StudyRecords) -> Section:
    manifest = study.manifest
    rows: list[Row] = [
        {
            "factor": name,
            "keys": ", ".join(factor.keys),
            "levels": ", ".join(level_text(level) for level in factor.levels),
        }
        for name, factor in study.factors.items()
    ]
    table = Table(
        "factors",
        f"Factors; seeds {', '.join(str(seed) for seed in manifest.seeds)}; family: "
        f"{manifest.family}; margin {margin_in_words(manifest.margin)}",
        (Column("factor", "factor"), Column("keys", "sets"), Column("levels", "levels")),
        tuple(rows),
    )
    blocks: list[Block] = [TableBlock(table)]
    text = text_of(study.folder / "study.yaml")
    if text is not None:
        blocks.append(CodeBlock("study.yaml", text, folded=True))
    return Section("configuration", "Configuration", tuple(blocks))


def _provenance(study: StudyRecords) -> Section:
    name = folder_name(study.folder)
    commands = [*recorded_command(read_raw_manifest(study.folder)), f"wtie report runs/{name}"]
    commands += [f"wtie runs verify runs/{point.run}" for point in study.manifest.points]
    blocks: list[Block] = [CodeBlock("Commands that reproduce this page", "\n".join(commands))]
    for point in study.points:
        manifest = read_raw_manifest(point.run.folder)
        title = f"{levels_in_words(point.levels)}: {folder_name(point.run.folder)}"
        tables = (signature_table(point.run), provenance_table(point.run, manifest))
        blocks.append(GroupBlock(title, tuple(TableBlock(table) for table in tables)))
    return Section("provenance", "Provenance", tuple(blocks))


def _subtitle(study: StudyRecords) -> str:
    manifest = study.manifest
    return " · ".join(
        (
            folder_name(study.folder),
            f"{len(manifest.points)} point{'s' if len(manifest.points) != 1 else ''} along "
            + " and ".join(study.factors),
            f"{len(manifest.arms)} arms",
            f"{len(manifest.seeds)} seed{'s' if len(manifest.seeds) != 1 else ''}",
        )
    )
