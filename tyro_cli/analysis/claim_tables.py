"""The tables of claims: one row a claim, and for each claim every finding with its numbers.

Invariant: as for all tables, a pure function of the records, without times: what would settle an
open finding is said in seeds here, and in hours on the page, which may differ between machines.
"""

from collections import Counter
from collections.abc import Sequence

from tyro_cli.analysis.claims import ClaimResult, FindingResult
from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.analysis.study_formats import CountedModel, PublishedModel

RULE = (
    "A finding holds where its mean lies on the expected side of zero with a t p, adjusted by Holm "
    "within the claim, of at most .05. It fails where it lies on the other side so, or where it is "
    "shown to be within its margin. All hold: supported; all fail: refuted; some of each: mixed; "
    "anything else: cannot tell. Counted measures need no interval."
)


def claim_tables(claims: Sequence[ClaimResult]) -> dict[str, Table]:
    """Return the table of all claims, and the findings and models counted for each, by name."""
    tables = [claims_table(claims)]
    for one in claims:
        tables.append(findings_table(one))
        tables += counted_tables(one)
    return {table.name: table for table in tables}


def claims_table(claims: Sequence[ClaimResult]) -> Table:
    """Return one row a claim: its sentence, its answer, and the numbers of its first finding."""
    return Table(
        "claims",
        "Claims about weight tying",
        (
            Column("number", "claim", "integer"),
            Column("sentence", "says"),
            Column("answer", "answer"),
            Column("outcomes", "findings"),
            Column("measure", "first finding"),
            Column("mean", "mean", "signed"),
            Column("interval_95", "95 % interval", "interval"),
        ),
        tuple(_claim_row(one) for one in claims),
        (RULE,),
    )


def _claim_row(one: ClaimResult) -> Row:
    first = one.findings[0]
    counts = Counter(finding.outcome for finding in one.findings)
    return {
        "number": one.claim.number,
        "sentence": one.claim.sentence,
        "answer": one.word,
        "outcomes": ", ".join(f"{count} {outcome}" for outcome, count in counts.items()),
        "measure": measure_in_words(first),
        **_numbers(first),
    }


def findings_table(one: ClaimResult) -> Table:
    """Return every finding of a claim, at every place of the grid it is looked for at."""
    notes = [RULE]
    notes += [
        f"{finding.finding.name}, {finding.where}: {plan_in_words(finding)}"
        for finding in one.findings
        if finding.plan is not None
    ]
    return Table(
        f"claim-{one.claim.number}",
        f"Findings of claim {one.claim.number}: {one.word}",
        (
            Column("finding", "finding"),
            Column("where", "where"),
            Column("measure", "measure"),
            Column("expected", "expected", on_screen=False),
            Column("seeds", "seeds", "integer"),
            Column("differences", "difference by seed", "signed_numbers", on_screen=False),
            Column("mean", "mean", "signed"),
            Column("interval_95", "95 % interval", "interval"),
            Column("p_holm", "t p, Holm", "number"),
            Column("margin", "margin", "number", on_screen=False),
            Column("equivalence_p_holm", "equiv. p, Holm", "number", on_screen=False),
            Column("outcome", "outcome"),
            Column("study", "study", on_screen=False),
        ),
        tuple(_finding_row(finding) for finding in one.findings),
        tuple(notes),
    )


def _finding_row(one: FindingResult) -> Row:
    return {
        "finding": one.finding.name,
        "where": one.where,
        "measure": measure_in_words(one),
        "expected": one.finding.expected,
        "seeds": len(one.seeds),
        "outcome": one.outcome + (f": {one.reason}" if one.reason else ""),
        "study": one.study,
        **_numbers(one),
    }


def _numbers(one: FindingResult) -> Row:
    if one.mean is None:
        return {}
    interval = one.interval()
    mean: float = one.mean
    differences: tuple[float, ...] = one.differences
    if one.finding.measure == "parameters":  # counts, and equal at every seed
        mean, differences = int(mean), tuple(map(int, differences))
    row: dict[str, CellValue] = {"mean": mean, "differences": differences}
    if one.margin is not None:
        row["margin"] = one.margin
        row["equivalence_p_holm"] = one.equivalence_p_holm
    if interval is not None:
        row |= {"interval_95": (interval.low, interval.high), "p_holm": one.p_holm}
    return row


def measure_in_words(one: FindingResult) -> str:
    """Return what was measured, of which arms: `test bits per byte, tied - untied`."""
    finding = one.finding
    arms = f"{finding.arm} - {finding.baseline}" + (f" {finding.matrix}" if finding.matrix else "")
    rates = ", each at its best rate" if finding.rates == "each-best" else ""
    return f"{MEASURES[finding.measure]}, {arms}{rates}"


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
    "memory_share": "share of the baseline's training memory",
    "neighbour_overlap": "neighbour overlap across seeds",
    "linear_cka": "linear CKA across seeds",
}


def plan_in_words(one: FindingResult) -> str:
    """Say what would settle an open finding, in seeds."""
    plan = one.plan
    assert plan is not None
    if plan.seeds <= len(one.seeds):
        return (
            f"the half-width ({plan.half_width:.4f}) is at {plan.target:.4f} already: the "
            "difference lies at the edge, and more seeds may not settle it."
        )
    return (
        f"to bring the half-width ({plan.half_width:.4f}) to {plan.target:.4f} would take "
        f"{plan.seeds:,} seeds in all, by the upper 80 % bound of the spread."
    )


def counted_tables(one: ClaimResult) -> list[Table]:
    """Return the models that were counted and not trained: the experiment's, and published ones."""
    claims = [study.manifest.claim for study in one.studies if study.manifest.claim is not None]
    counted = [model for claim in claims for model in claim.counted]
    published = [model for claim in claims for model in claim.published]
    tables = []
    if counted:
        tables.append(_counted_table(one.claim.number, counted))
    if published:
        tables.append(_published_table(one.claim.number, published))
    return tables


def _counted_table(number: int, models: Sequence[CountedModel]) -> Table:
    return Table(
        f"claim-{number}-counted",
        f"Counted for claim {number}: what the tie saves, or would save",
        (
            Column("name", "model"),
            Column("vocab_size", "vocabulary", "integer"),
            Column("d_model", "d_model", "integer"),
            Column("untied_total", "untied parameters", "integer"),
            Column("saving", "V x d saved", "integer"),
            Column("share", "share saved", "percent", 1),
        ),
        tuple(_counted_row(model) for model in models),
        ("In closed form, from configurations alone; nothing of this table was trained.",),
    )


def _published_table(number: int, models: Sequence[PublishedModel]) -> Table:
    return Table(
        f"claim-{number}-published",
        f"Published models, for claim {number}: what the tie saves, or would save",
        (
            Column("name", "model"),
            Column("vocab_size", "vocabulary", "integer"),
            Column("d_model", "d_model", "integer"),
            Column("published", "published"),
            Column("total", "parameters", "integer"),
            Column("embedding_share", "embedding and head", "percent", 1),
            Column("tied_total", "if tied", "integer"),
            Column("untied_total", "if untied", "integer"),
            Column("saving", "V x d saved", "integer"),
            Column("share", "share saved", "percent", 1),
        ),
        tuple(
            {
                **_counted_row(model),
                "published": "tied" if model.tied else "untied",
                "total": model.total,
                "embedding_share": model.embedding_and_head / model.total,
                "tied_total": model.tied_total,
            }
            for model in models
        ),
        (
            "In closed form, from the configuration files of the models; no weight was read. "
            "Embedding and head are a share of the parameters as published, the V x d saved is one "
            "of the untied total. Each model was trained as published only: of the other form the "
            "table says what it counts, not how good it would be.",
        ),
    )


def _counted_row(model: CountedModel) -> Row:
    return {
        "name": model.name,
        "vocab_size": model.vocab_size,
        "d_model": model.d_model,
        "untied_total": model.untied_total,
        "saving": model.saving,
        "share": model.saving / model.untied_total,
    }
