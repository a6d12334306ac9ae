"""The instrument of a study on known sources: whether its untied models can be the source at all.

Invariant: at each source the deepest untied models are asked, and no other; what a tied model loses
is due to the tie only where these lose next to nothing.
"""

from dataclasses import dataclass
from statistics import fmean

from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.analysis.excess import excess_nats, known_entropy_of
from tyro_cli.analysis.studies import PointRun, StudyRecords, source_factors
from tyro_cli.analysis.study_columns import factor_columns, level_values, missing_notes
from tyro_cli.config.grid import level_text
from tyro_cli.config.paths import value_at

INSTRUMENT_SHARE = 0.02
"""Most that the excess of an untied model may be, as a share of unigram entropy minus entropy rate,
for its study to be one of tying: a model that cannot be the source says little of the tie."""


def instrument_table(study: StudyRecords) -> Table | None:
    """Return what the deepest untied models lose to each known source; None without one."""
    results = (result for point in study.points for result in point.run.results())
    if known_entropy_of(results) is None:
        return None
    sources = source_factors(study)
    by_source: dict[tuple[str, ...], list[_Untied]] = {}
    for point in study.points:
        source = tuple(level_text(point.levels[name]) for name in sources)
        for arm in study.manifest.arms:
            record = point.run.manifest.arms[arm]
            if record.ledger.tying == "none":
                layers = value_at(record.settings, "model.num_layers")
                one = _Untied(point, arm, layers if isinstance(layers, int) else 0)
                by_source.setdefault(source, []).append(one)
    deepest = [
        one
        for models in by_source.values()
        for one in models
        if one.layers == max(other.layers for other in models)
    ]
    if not deepest:
        return None
    rows = [_instrument_row(one) for one in deepest]
    held = sum(row["holds"] == "yes" for row in rows)
    return Table(
        "instrument",
        f"Instrument of the study {study.manifest.name}: can the untied model be the source?",
        (
            *factor_columns(study),
            Column("arm", "arm"),
            Column("layers", "layers", "integer"),
            Column("cells", "cells"),
            Column("room_nats", "unigram - rate", "number"),
            Column("excesses", "excess by seed", "signed_numbers"),
            Column("excess_nats", "mean", "signed"),
            Column("most_nats", "at most", "number"),
            Column("share", "share", "percent", 2),
            Column("holds", f"share at most {100 * INSTRUMENT_SHARE:g} %"),
        ),
        tuple(rows),
        (
            "Excess of the deepest untied model on test at the best-valid checkpoint, in nats per "
            "token, and its mean over seeds as a share of (unigram entropy - entropy rate). Where "
            "that is small the model can be the source, so that what a tied model loses beyond it "
            f"is due to the tie. It is at most {100 * INSTRUMENT_SHARE:g} % at {held} of "
            f"{len(rows)} points.",
            *missing_notes(study),
        ),
    )


@dataclass(frozen=True)
class _Untied:
    """An untied arm at one point, and its number of layers."""

    point: PointRun
    arm: str
    layers: int


def _instrument_row(one: _Untied) -> Row:
    done = one.point.run.done(one.arm)
    excesses = tuple(excess for result in done if (excess := excess_nats(result)) is not None)
    row: dict[str, CellValue] = {
        **level_values(one.point.levels),
        "arm": one.arm,
        "layers": one.layers,
        "cells": f"{len(done)}/{len(one.point.run.seeds_of(one.arm))}",
        "holds": "not run",
    }
    known = known_entropy_of(done)
    if known is None or not excesses:
        return row
    room = known.unigram_entropy_nats - known.entropy_rate_nats
    mean = fmean(excesses)
    return row | {
        "room_nats": room,
        "excesses": excesses,
        "excess_nats": mean,
        "most_nats": INSTRUMENT_SHARE * room,
        "share": mean / room if room > 0 else None,
        "holds": "yes" if mean <= INSTRUMENT_SHARE * room else "no",
    }
