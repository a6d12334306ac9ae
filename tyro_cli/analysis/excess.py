"""Excess nats: what a model loses to the source of its text, where the source is known.

Invariant: a model and the source are scored on the same tokens, so a model that is the source has
an excess of exactly 0 on every text, and a contrast between arms is the same with it as without.
Two excesses may stand beside each other though their texts differ: each is measured from its own
source. Where the source is not known, nothing here shows anything.
"""

from collections.abc import Iterable

from tyro_cli.analysis.columns import CellValue, Column
from tyro_cli.analysis.formats import CellResult, KnownEntropyRecord, Split

EXCESS_COLUMNS = (
    Column("entropy_rate_nats", "entropy rate", "number"),
    Column("excess_nats", "excess/tok", "signed"),
    Column("excess_share", "share", "percent", 1),
    Column("excess_over_rate_nats", "over the rate", "signed", on_screen=False),
)

SOURCE_COLUMNS = (
    Column("probability_current", "current", "number", 3),
    Column("reversible_excess_nats", "reversible", "number"),
)
"""What a study shows of the source at each of its points."""

EXPLANATION = (
    "Excess: nats a token above what the source of the text scores on the same tokens; share: of "
    "unigram entropy minus entropy rate, so that 100 % is a model that ignores its context"
)


def known_entropy_of(results: Iterable[CellResult]) -> KnownEntropyRecord | None:
    """Return what is known of the text that results were scored on, from the first that says it."""
    return next((one.known_entropy for one in results if one.known_entropy is not None), None)


def excess_values(result: CellResult, split: Split) -> dict[str, float | None]:
    """Return the values of `EXCESS_COLUMNS` at the best checkpoint; none without a known source."""
    known = result.known_entropy
    if known is None:
        return {}
    nats_per_token = result.scores(split, "best").nats_per_token
    excess = nats_per_token - known.true_nats_per_token[split]
    gap = known.unigram_entropy_nats - known.entropy_rate_nats
    return {
        "entropy_rate_nats": known.entropy_rate_nats,
        "excess_nats": excess,
        "excess_share": excess / gap if gap > 0 else None,
        "excess_over_rate_nats": nats_per_token - known.entropy_rate_nats,
    }


def excess_nats(result: CellResult) -> float | None:
    """Return the excess on test at the best checkpoint; None without a known source."""
    return excess_values(result, "test").get("excess_nats")


def source_values(known: KnownEntropyRecord) -> dict[str, CellValue]:
    """Return the values of `SOURCE_COLUMNS`."""
    return {column.key: getattr(known, column.key) for column in SOURCE_COLUMNS}


def source_note(known: KnownEntropyRecord) -> str:
    """Say what is known of the source, and what an excess is."""
    true = known.true_nats_per_token
    return (
        f"{EXPLANATION}. The source scores {true['test']:.4f} nats a token on test and "
        f"{true['valid']:.4f} on valid; its entropy rate is {known.entropy_rate_nats:.4f}, its "
        f"unigram entropy {known.unigram_entropy_nats:.4f}, its probability current "
        f"{known.probability_current:.3f}. Every reversible chain, and so every 0-layer tied model "
        f"without a norm, has an expected excess of {known.reversible_excess_nats:.4f} or more."
    )
