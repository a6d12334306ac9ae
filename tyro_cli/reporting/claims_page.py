"""The page of a set of claims: an answer to each first, then every finding behind it.

Invariant: a pure function of the records of the studies. A reader who knows nothing of the program
finds the claim, the word and the numbers of each outcome before anything else; the rule that leads
from numbers to words stands on the page once. Findings of different measures never share an axis.
"""

from collections.abc import Sequence

from tyro_cli.analysis.claim_tables import (
    MEASURES,
    Alike,
    alike,
    arms_in_words,
    claims_table,
    counted_tables,
    findings_table,
    measure_in_words,
    measured_on,
    notices_of,
    outcome_in_words,
)
from tyro_cli.analysis.claims import ClaimResult, FindingResult
from tyro_cli.analysis.findings import COUNTED
from tyro_cli.analysis.instrument import instrument_table
from tyro_cli.analysis.studies import StudyRecords
from tyro_cli.analysis.study_probe_tables import study_probe_tables
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
from tyro_cli.reporting.forest import PAIRED, ForestRow, forest_chart
from tyro_cli.reporting.palette import MUTED, Colour, arm_colour, arm_shape
from tyro_cli.reporting.plots import Chart
from tyro_cli.reporting.provenance import (
    folder_name,
    provenance_table,
    read_raw_manifest,
    recorded_command,
)
from tyro_cli.reporting.run_page import chart_blocks
from tyro_cli.reporting.study_charts import excess_charts
from tyro_cli.reporting.views import arm_views

HOW_TO_READ = (
    "Weight tying lets one matrix serve as the input embedding and as the output softmax matrix of "
    "a language model. Each claim about it below is a study of models that differ in nothing but "
    "what its row says, most often the tie: trained on the same text in the same order from the "
    "same start, at several seeds unless a finding only counts.",
    "A difference is the first arm minus the second. Losses (nats, bits per byte) and the "
    "generalisation gap are better when they are lower, BLEU when it is higher. An interval that "
    "leaves out zero is a difference that other seeds would be expected to show as well.",
)

CHANGES = " Where a row names two levels, how that difference changes from one to the other."
JACKKNIFED = "Bars are 95 % jackknife intervals over seeds, faint marks its values by seed"


def claims_page(claims: Sequence[ClaimResult], name: str) -> Page:
    """Return the page of a set of claims.

    Args:
        claims: What `claim_results` found, at least one.
        name: The name of the folder that their studies lie in.
    """
    studies = [study for one in claims for study in one.studies]
    numbers = ", ".join(str(one.claim.number) for one in claims)
    plural = "s" if len(claims) > 1 else ""
    everything = (TextBlock(HOW_TO_READ), TableBlock(claims_table(claims)))
    return Page(
        kind="claims",
        title="Claims about weight tying",
        subtitle=f"{name} \u00b7 claim{plural} {numbers}",
        cards=tuple(_card(one) for one in claims),
        notices=tuple(notice for one in claims for notice in notices_of(one)),
        arms=(),
        sections=(
            Section("all", "All claims", everything),
            *(_section(one) for one in claims),
            _provenance(studies),
        ),
    )


def _card(one: ClaimResult) -> VerdictCard:
    groups = alike(one)
    without_numbers = [f"{group.outcome}." for group in groups if not group.means]
    return VerdictCard(
        title=f"Claim {one.claim.number}: {one.claim.sentence}",
        text=one.word,
        sentence=" ".join([*without_numbers, f"Measured on {measured_on(one)}."]),
        swatch=None,
        facts=tuple(_fact(group) for group in groups if group.means),
        points=tuple(
            (f"{measure_in_words(each)}, {each.where}:", each.plan.in_full)
            for each in one.findings
            if each.plan is not None
        ),
    )


def _fact(group: Alike) -> Fact:
    """Show the numbers of one outcome: a mean, or the lowest and the highest."""
    interval = ""
    if group.interval is not None:
        low, high = group.interval
        said = "intervals within" if len(group.findings) > 1 else "interval"
        interval = f"95 % {said} [{low:+.4f}, {high:+.4f}]; "
    measure = measure_in_words(group.findings[0])
    value = " to ".join(dict.fromkeys(map(_shown, group.means)))
    return Fact(group.outcome, value, f"{interval}{measure}; {group.where}")


def _shown(number: float) -> str:
    """Write a count or a measure with its sign, as the tables do."""
    return f"{number:+,d}" if isinstance(number, int) else f"{number:+.4f}"


def _section(one: ClaimResult) -> Section:
    blocks: list[Block] = [
        TextBlock((f"{one.claim.sentence} Answer: {one.word}.",)),
        *chart_blocks(*_forests(one)),
        TableBlock(findings_table(one, with_plans=False)),  # the card has them, in hours
        *map(TableBlock, counted_tables(one)),
    ]
    for place, study in enumerate(one.studies, start=1):
        arms = arm_views(tuple(study.manifest.arms), study.manifest.baseline)
        name = f"claim-{one.claim.number}-excess-{place}"
        blocks += chart_blocks(*excess_charts(study, arms, name))
        if instrument := instrument_table(study):
            blocks.append(TableBlock(instrument))
        blocks += map(TableBlock, study_probe_tables(study))
    return Section(f"claim-{one.claim.number}", f"Claim {one.claim.number}", tuple(blocks))


def _forests(one: ClaimResult) -> list[Chart | None]:
    """Return one plot a measure: differences in other units do not compare."""
    by_measure: dict[str, list[FindingResult]] = {}
    for finding in one.findings:
        if finding.finding.measure not in COUNTED:
            by_measure.setdefault(finding.finding.measure, []).append(finding)
    charts = []
    for measure, findings in by_measure.items():
        rows = []
        for each in findings:
            colour, shape = _look(each)
            words = outcome_in_words(each)
            rows.append(ForestRow(_label(each, findings), each, colour, shape, words))
        margins = {each.margin for each in findings}
        margin = margins.pop() if len(margins) == 1 else None
        unit = MEASURES[measure]
        charts.append(
            forest_chart(
                rows,
                unit,
                None if margin is None else (margin, f"{margin:.4g}"),
                name=f"claim-{one.claim.number}-{measure.replace('_', '-')}",
                reading=f"Differences in {unit}; the first arm minus the second."
                + (CHANGES if any(each.finding.minus for each in findings) else ""),
                bars=JACKKNIFED if findings[0].finding.matrix else PAIRED,
            )
        )
    return charts


def _label(one: FindingResult, others: Sequence[FindingResult]) -> str:
    """Name a finding by what tells it apart from the others in its plot."""
    arms = arms_in_words(one)
    rates = ", each at its best" if one.finding.rates == "each-best" else ""
    if len({arms_in_words(each) for each in others}) == 1:
        return f"{one.where}{rates}"
    if len({each.where for each in others}) == 1:
        return f"{arms}{rates}"
    if len({each.finding.arm for each in others}) == 1:
        arms = f"vs {arms.removeprefix(f'{one.finding.arm} - ')}"
    return f"{arms}, {one.where}{rates}"


def _look(one: FindingResult) -> tuple[Colour, str]:
    if one.outcome.startswith("holds"):
        return arm_colour(2), arm_shape(0)
    return (arm_colour(1), arm_shape(1)) if one.outcome == "fails" else (MUTED, arm_shape(3))


def _provenance(studies: Sequence[StudyRecords]) -> Section:
    commands = [
        line for study in studies for line in recorded_command(read_raw_manifest(study.folder))
    ]
    blocks: list[Block] = [
        CodeBlock("Commands that repeat these studies", "\n".join(commands)),
    ]
    for study in studies:
        run = study.points[0].run
        table = provenance_table(run, read_raw_manifest(run.folder))
        title = f"{study.manifest.name}: {folder_name(study.folder)}"
        blocks.append(GroupBlock(title, (TableBlock(table),)))
    return Section("provenance", "Provenance", tuple(blocks))
