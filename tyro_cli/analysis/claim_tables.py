"""The tables of claims: what each comes to by outcome, and every finding with its numbers.

Invariant: as for all tables, a pure function of the records, without times: what would settle an
open finding is said in seeds here, and in hours on the page, which may differ between machines. No
number of one finding stands for a whole claim.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro_cli.analysis.claims import ClaimResult, FindingResult
from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.analysis.findings import COUNTED
from tyro_cli.analysis.search_tables import every_cell
from tyro_cli.analysis.studies import StudyRecords
from tyro_cli.analysis.study_formats import CountedModel, PublishedModel
from tyro_cli.analysis.verdicts import LEVEL
from tyro_cli.config.paths import value_at

RULE = (
    "A finding holds where its mean lies on the expected side of zero with a t p, adjusted by Holm "
    "within the claim, of at most .05. Else it fails where it lies on the other side so "
    "(opposite), or where it is shown to be within its margin (no effect). All hold: supported; "
    "all fail: refuted; some of each: mixed; anything else: cannot tell. Counted measures need no "
    "interval."
)
MOST_PLACES = 3
"""So many places of one outcome are named in the table of all claims; more are counted."""


@dataclass(frozen=True)
class Alike:
    """Findings of one claim that measure the same and came out alike.

    Attributes:
        findings: They, in the claim's order.
        of: Number of all findings of the claim.
    """

    findings: tuple[FindingResult, ...]
    of: int

    @property
    def outcome(self) -> str:
        """How many came out how: `1 of 3 holds`, `9 of 9 hold`."""
        count = len(self.findings)
        return f"{count} of {self.of} {_in_number(outcome_in_words(self.findings[0]), count)}"

    @property
    def where(self) -> str:
        """Their places by name, or how many, where they are many."""
        places = [one.where for one in self.findings]
        return "; ".join(places) if len(places) <= MOST_PLACES else f"{len(places)} places"

    @property
    def means(self) -> tuple[float, ...]:
        """The lowest and the highest mean, or the one there is; none where nothing was measured."""
        means = sorted({mean for one in self.findings if (mean := mean_of(one)) is not None})
        return (means[0], means[-1]) if len(means) > 1 else tuple(means)

    @property
    def interval(self) -> tuple[float, float] | None:
        """What their 95 % intervals span together, or None where there are none."""
        intervals = [each for one in self.findings if (each := one.interval()) is not None]
        if not intervals:
            return None
        return min(one.low for one in intervals), max(one.high for one in intervals)


def alike(one: ClaimResult) -> tuple[Alike, ...]:
    """Return the findings of a claim by measure, side and outcome, as these come up first."""
    groups: dict[tuple[str, str, str], list[FindingResult]] = {}
    for finding in one.findings:
        side = finding.finding.expected
        key = measure_in_words(finding), side, outcome_in_words(finding)
        groups.setdefault(key, []).append(finding)
    return tuple(Alike(tuple(group), len(one.findings)) for group in groups.values())


def claim_tables(claims: Sequence[ClaimResult]) -> dict[str, Table]:
    """Return the table of all claims, and the findings and models counted for each, by name."""
    tables = [claims_table(claims)]
    for one in claims:
        tables.append(findings_table(one))
        tables += counted_tables(one)
    return {table.name: table for table in tables}


def claims_table(claims: Sequence[ClaimResult]) -> Table:
    """Return each claim's sentence and answer, and a row for every outcome of its findings."""
    rows = tuple(row for one in claims for row in _claim_rows(one))
    notes = [RULE]
    if any("highest_mean" in row for row in rows):
        notes.append(
            "A row of several findings has their lowest and highest mean, and what all their "
            "intervals span together."
        )
    return Table(
        "claims",
        "Claims about weight tying",
        (
            Column("number", "claim", "integer"),
            Column("sentence", "says"),
            Column("answer", "answer"),
            Column("measured_on", "measured on", on_screen=False),
            Column("outcome", "findings"),
            Column("where", "where", on_screen=False),
            Column("measure", "measure"),
            Column("mean", "mean", "signed"),
            Column("highest_mean", "to", "signed"),
            Column("interval_95", "95 % interval", "interval"),
        ),
        rows,
        tuple(notes),
    )


def _claim_rows(one: ClaimResult) -> list[Row]:
    """Return a row an outcome; what is the claim's stands in the first: sentence, answer, sizes."""
    rows: list[Row] = []
    for group in alike(one):
        row: dict[str, CellValue] = {
            "number": one.claim.number,
            "outcome": group.outcome,
            "where": group.where,
            "measure": measure_in_words(group.findings[0]),
        }
        if not rows:
            row |= {"sentence": one.claim.sentence, "answer": one.word}
            row["measured_on"] = measured_on(one)
        row |= dict(zip(("mean", "highest_mean"), group.means, strict=False))
        if group.interval is not None:
            row["interval_95"] = group.interval
        rows.append(row)
    return rows


def measured_on(one: ClaimResult) -> str:
    """Return how large the trained models of a claim's studies are, and how long they trained."""
    return "; ".join(map(_measured_on, one.studies))


def _measured_on(study: StudyRecords) -> str:
    """Say how large the trained models of a study are, and how much of what they were trained on.

    The corpus is named by the last part of its path; `width` is d_model, `layers` those of each
    side where a model translates.
    """
    settings = [point.run.manifest.arms[study.manifest.baseline].settings for point in study.points]
    corpora = [value_at(one, "data.corpus") for one in settings]
    trained = [
        cell.result.training.tokens
        for point in study.points
        for cell in point.run.cells.values()
        if cell.result is not None
    ]
    widths = _whole(value_at(one, "model.d_model") for one in settings)
    layers = _whole(value_at(one, "model.num_layers") for one in settings)
    parts = [
        *dict.fromkeys(Path(one).name for one in corpora if isinstance(one, str)),
        *([f"{_span(trained, 'token')} a cell"] if trained else []),
        *([f"width {_span(widths)}"] if widths else []),
        *([_span(layers, "layer")] if layers else []),
        _span([len(study.manifest.seeds)], "seed"),
    ]
    return ", ".join(parts)


def _whole(values: Iterable[object]) -> list[int]:
    """Return the whole numbers among settings that were read from a file."""
    return [one for one in values if isinstance(one, int)]


def _span(counts: Sequence[int], noun: str = "") -> str:
    """Write the one count there is, or the smallest and the largest: `1 seed`, `0 to 2 layers`."""
    low, high = min(counts), max(counts)
    span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return span if not noun else f"{span} {noun}{'' if high == 1 else 's'}"


def findings_table(one: ClaimResult, *, with_plans: bool = True) -> Table:
    """Return every finding of a claim, at every place of the grid it is looked for at.

    Columns that no finding has a value for are left out.

    Args:
        one: The claim.
        with_plans: Whether the notes say what would settle each open finding, and what the records
            tell on; a page says both elsewhere.
    """
    notes = []
    if any(finding.finding.minus for finding in one.findings):
        notes.append(
            "A change is the difference at the second of the two levels minus the difference at "
            "the first, seed by seed."
        )
    if any(finding.finding.matrix and finding.seeds for finding in one.findings):
        notes.append(
            "Agreement is between seeds, so there is none of one seed: its differences by seed are "
            "the jackknife's values, and its intervals the jackknife's."
        )
    notes += [
        f"{measure_in_words(finding)}, {finding.where}: the same cells as in an earlier row, so "
        "Holm counts the two as one."
        for finding in one.findings
        if finding.repeats
    ]
    notes += [
        f"{measure_in_words(finding)}, {finding.where}: {finding.plan.sentence}"
        for finding in one.findings
        if with_plans and finding.plan is not None
    ]
    notes += notices_of(one) if with_plans else []
    rows = tuple(_finding_row(finding) for finding in one.findings)
    columns = (
        Column("finding", "finding"),
        Column("where", "where"),
        Column("measure", "measure"),
        Column("expected", "expected", on_screen=False),
        Column("seeds", "seeds", "integer"),
        Column("differences", "difference by seed", "signed_numbers", on_screen=False),
        Column("mean", "mean", "signed"),
        Column("share_saved", "share saved", "percent", 1),
        Column("interval_95", "95 % interval", "interval"),
        Column("p_holm", "t p, Holm", "p"),
        Column("margin", "margin", "number", on_screen=False),
        Column("equivalence_p_holm", "equiv. p, Holm", "p", on_screen=False),
        Column("outcome", "outcome"),
        *([Column("study", "study", on_screen=False)] if len(one.studies) > 1 else []),
    )
    return Table(
        f"claim-{one.claim.number}",
        f"Findings of claim {one.claim.number}: {one.word}",
        tuple(column for column in columns if any(column.key in row for row in rows)),
        rows,
        tuple(notes),
    )


def notices_of(one: ClaimResult) -> list[str]:
    """Say what is not there yet, was planned when results were known, or saw other numerics."""
    there, parts = len(one.studies), one.claim.parts
    absent = [
        f"Claim {one.claim.number} is decided by {parts} studies together; {there} of them here, "
        "and the p values are adjusted for what is here alone."
    ]
    told = [(finding.study, text) for finding in one.findings for text in finding.notices]
    return [
        *(absent if there < parts else []),
        *_late_claims(one),
        *(f"{study}: {text}" for study, text in dict.fromkeys(told)),
    ]


def _late_claims(one: ClaimResult) -> list[str]:
    """Say which studies had trained cells before what they are to decide was written down."""
    return [
        f"What {study.manifest.name} is to decide was written into its folder, as it stands now, "
        f"after {cells} of its {planned} cells had been trained."
        for study in one.studies
        if (cells := study.manifest.claim_after_cells)
        and (planned := sum(len(every_cell(point.run)) for point in study.points))
    ]


def _finding_row(one: FindingResult) -> Row:
    row: dict[str, CellValue] = {
        "finding": one.finding.name,
        "where": one.where,
        "measure": measure_in_words(one),
        "expected": one.finding.expected,
        "seeds": len(one.seeds),
        "outcome": outcome_in_words(one),
        "study": one.study,
    }
    if (mean := mean_of(one)) is None:
        return row
    row["mean"] = mean
    if one.baseline_parameters is not None:
        row["share_saved"] = -mean / one.baseline_parameters
    if one.finding.measure not in COUNTED:  # what is counted is equal at every seed
        row["differences"] = one.differences
    if one.margin is not None:
        row["margin"] = one.margin
        row["equivalence_p_holm"] = one.equivalence_p_holm
    if (interval := one.interval()) is not None:
        row |= {"interval_95": (interval.low, interval.high), "p_holm": one.p_holm}
    return row


def mean_of(one: FindingResult) -> float | None:
    """Return the mean difference, whole where parameters were counted."""
    mean = one.mean
    return mean if mean is None or one.finding.measure != "parameters" else int(mean)


def outcome_in_words(one: FindingResult) -> str:
    """Return what a finding comes to, with the way in which it fails or why it has no number."""
    detail = _way_of_failing(one) if one.outcome == "fails" else one.reason
    return f"{one.outcome}: {detail}" if detail else one.outcome


def _way_of_failing(one: FindingResult) -> str:
    if one.p_holm is None:  # counted
        return "opposite" if one.mean else "no difference"
    if one.p_holm > LEVEL:
        return "no effect (within margin)"
    is_small = one.equivalence_p_holm is not None and one.equivalence_p_holm <= LEVEL
    return "opposite, by less than its margin" if is_small else "opposite"


def _in_number(outcome: str, count: int) -> str:
    """Say an outcome of one finding or of several: `holds`, `hold`."""
    if count == 1:
        return outcome
    return re.sub("^(hold|fail)s", r"\1", outcome).replace("its margin", "their margin")


def measure_in_words(one: FindingResult) -> str:
    """Return what was measured, of which arms: `test bits per byte, tied - untied`."""
    finding = one.finding
    change = "change of " if finding.minus is not None else ""
    rates = ", each at its best rate" if finding.rates == "each-best" else ""
    return f"{change}{MEASURES[finding.measure]}, {arms_in_words(one)}{rates}"


def arms_in_words(one: FindingResult) -> str:
    """Return what is subtracted from what: `tied - untied`, of probes `tied - untied input`."""
    finding = one.finding
    return f"{finding.arm} - {finding.baseline}" + (f" {finding.matrix}" if finding.matrix else "")


MEASURES = {
    "nats_per_word": "test nats per word",
    "nats_per_token": "test nats per token",
    "bits_per_byte": "test bits per byte",
    "valid_nats_per_token": "valid nats per token",
    "gap_nats": "gap at the best step, nats per token",
    "last_gap_nats": "gap at the last step, nats per token",
    "bleu": "test BLEU",
    "parameters": "parameters",
    "parameter_share": "share of the baseline's parameters",
    "memory_share": "share of the baseline's training memory, estimated",
    "neighbour_overlap": "neighbour overlap across seeds",
    "linear_cka": "linear CKA across seeds",
}


def counted_tables(one: ClaimResult) -> list[Table]:
    """Return the models that were counted and not trained: the experiments', and published ones."""
    tables: list[Table] = []
    published: list[PublishedModel] = []
    for study in one.studies:
        if (claim := study.manifest.claim) is not None:
            published += claim.published
            if claim.counted:
                number = f"-{len(tables) + 1}" if tables else ""
                name = f"claim-{one.claim.number}-counted{number}"
                tables.append(_counted_table(name, study.manifest.name, claim.counted))
    if published:
        tables.append(_published_table(one.claim.number, published))
    return tables


def _counted_table(name: str, study: str, models: Sequence[CountedModel]) -> Table:
    """Return the share saved by vocabulary and width."""
    widths = dict.fromkeys(model.d_model for model in models)
    rows: dict[int, dict[str, CellValue]] = {}
    for model in models:
        row = rows.setdefault(model.vocab_size, {"vocab_size": model.vocab_size})
        row[f"share {model.d_model}"] = model.saving / model.untied_total
    return Table(
        name,
        f"Counted for {study}: share of the parameters that the tie saves",
        (
            Column("vocab_size", "vocabulary", "integer"),
            *(Column(f"share {one}", f"d_model {one:,}", "percent", 1) for one in widths),
        ),
        tuple(rows.values()),
        (
            "In closed form, from the configuration alone; nothing of this table was trained. What "
            "is saved is vocabulary x d_model parameters, here as a share of the untied model's. "
            "The layers are as many as the experiment has; in a deeper model the share is smaller.",
        ),
    )


def _published_table(number: int, models: Sequence[PublishedModel]) -> Table:
    """Return published models in both forms, that which saves the largest share first."""
    rows: list[dict[str, CellValue]] = [
        {
            "name": model.name,
            "vocab_size": model.vocab_size,
            "d_model": model.d_model,
            "published": "tied" if model.tied else "untied",
            "untied_total": model.untied_total,
            "tied_total": model.tied_total,
            "saving": model.saving,
            "share": model.saving / model.untied_total,
        }
        for model in sorted(models, key=lambda model: -model.saving / model.untied_total)
    ]
    return Table(
        f"claim-{number}-published",
        f"Published models, for claim {number}: what the tie saves, or would save",
        (
            Column("name", "model"),
            Column("vocab_size", "vocabulary", "integer"),
            Column("d_model", "d_model", "integer"),
            Column("published", "published"),
            Column("untied_total", "untied total", "integer"),
            Column("tied_total", "tied total", "integer"),
            Column("saving", "V x d saved", "integer"),
            Column("share", "share saved", "percent", 1),
        ),
        tuple(rows),
        (
            "In closed form, from the configuration files of the models; no weight was read. The "
            "totals are parameters, the share saved is one of the untied total. Each model was "
            "trained as published only: of the other form the table says what it counts, not how "
            "good it would be.",
        ),
    )
