"""The tables of a probed run: shapes, agreement across seeds, contrasts, resemblance, gradients.

Invariant: a pure function of `probes.json`. An interval is never shown without its seeds, and every
agreement stands beside what shuffled rows give. What a number means is said in docs/PROBES.md.
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import get_args

from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.analysis.probes import (
    LESS_IS_ALIKE,
    AgreementMeasure,
    Agreements,
    CellCourse,
    Matrix,
    OverSeeds,
    ProbeRecord,
    RoleGradientRecord,
    ShapeMeasure,
    shape_contrast,
    shape_over_seeds,
)

AGREEMENTS: tuple[AgreementMeasure, ...] = get_args(AgreementMeasure)
SHAPES: tuple[ShapeMeasure, ...] = get_args(ShapeMeasure)
NAMES = {
    "neighbour_overlap": "neighbour overlap",
    "linear_cka": "linear CKA",
    "similarity_correlation": "similarity correlation",
    "procrustes_residual": "Procrustes residual",
    "mean_norm": "mean norm",
    "mean_cosine": "mean cosine",
    "partition_ratio": "partition ratio",
    "effective_rank": "effective rank",
    "norm_frequency_correlation": "r norm, frequency",
    "norm_frequency_slope": "norm a decade",
}
ALIKE_NOTE = (
    "More alike: higher for neighbour overlap, linear CKA and similarity correlation, lower for "
    "the Procrustes residual."
)
JACKKNIFE_NOTE = (
    "Intervals are 95 % jackknife intervals over seeds; from values of pairs of seeds they need "
    "three, and err on the wide side. Shuffled: the same with the rows of one matrix shuffled."
)
COURSE = ("first", "middle", "last")

One = tuple[str, Matrix]


def probe_tables(record: ProbeRecord) -> dict[str, Table]:
    """Return every table of a probed run by its name."""
    tables = [shape_table(record), agreement_table(record)]
    if _pairs_of_arms(record):
        tables += [probe_contrast_table(record), resemblance_table(record)]
    if record.role_gradients:
        tables.append(role_table(record))
    return {table.name: table for table in tables}


def shape_table(record: ProbeRecord) -> Table:
    """Return the shape of every matrix, in the mean over seeds."""
    rows: list[Row] = []
    for arm, matrix in _matrices(record):
        row: dict[str, CellValue] = {
            "arm": arm,
            "matrix": matrix,
            "seeds": _seeds(record.seeds_of(arm)),
        }
        for measure in SHAPES:
            over = shape_over_seeds(record, arm, matrix, measure)
            row[measure] = over.estimate
            row[f"{measure}_values"] = over.values
        rows.append(row)
    columns = [Column("arm", "arm"), Column("matrix", "matrix")]
    columns.append(Column("seeds", "seeds", on_screen=False))
    for measure in SHAPES:
        digits = 1 if measure == "effective_rank" else 3
        columns.append(Column(measure, NAMES[measure], "number", digits))
    columns += [
        Column(f"{measure}_values", f"{NAMES[measure]} by seed", "numbers", on_screen=False)
        for measure in SHAPES
    ]
    return Table(
        "probes.shape",
        f"Shape of the embeddings of {record.name}, {record.checkpoint} checkpoints",
        tuple(columns),
        tuple(rows),
        (
            *_rows_notes(record),
            "Means over seeds. Mean cosine 0 and partition ratio 1 are isotropic; r is the "
            "correlation of a row's norm with the logarithm of its token's count in train, and a "
            "decade ten times the count, in mean norms.",
        ),
    )


def agreement_table(record: ProbeRecord) -> Table:
    """Return how alike each matrix is to itself in the other seeds."""
    rows: list[Row] = []
    for measure in AGREEMENTS:
        agreements = Agreements(record, measure)
        for arm, matrix in _matrices(record):
            over = agreements.across_seeds(arm, matrix)
            if over.values or over.estimate is not None:
                rows.append(
                    {"measure": NAMES[measure], "arm": arm, "matrix": matrix} | _numbers(over)
                )
    notes = [ALIKE_NOTE, JACKKNIFE_NOTE] if rows else []
    few = [arm for arm in record.arms if len(record.seeds_of(arm)) < 2]
    if few:
        notes.append(
            f"One seed of {', '.join(few)}: there is nothing to agree with. "
            "`wtie train --seeds 0-2` adds seeds."
        )
    return Table(
        "probes.agreement",
        f"Agreement across seeds of {record.name}, {record.checkpoint} checkpoints",
        (
            Column("measure", "measure"),
            Column("arm", "arm"),
            Column("matrix", "matrix"),
            Column("seeds", "seeds", on_screen=False),
            Column("values", "by pair of seeds", "numbers", on_screen=False),
            Column("estimate", "mean", "number"),
            Column("standard_error", "standard error", "number"),
            Column("interval_95", "95 % interval", "interval"),
            Column("shuffled", "shuffled", "number"),
        ),
        tuple(rows),
        (*_rows_notes(record), *notes),
    )


def probe_contrast_table(record: ProbeRecord) -> Table:
    """Return what tied minus untied is, measure by measure, input and output each by itself."""
    rows: list[Row] = []
    for tied, untied in _pairs_of_arms(record):
        for matrix in _own(record, untied, ("input", "output")):
            pair: tuple[One, One] = (tied, "tied"), (untied, matrix)
            names: dict[str, CellValue] = {"arm": tied, "baseline": f"{untied} {matrix}"}
            for measure in AGREEMENTS:
                over = Agreements(record, measure).contrast(*pair)
                if over.estimate is not None:
                    rows.append(
                        names
                        | {"what": "agreement", "measure": NAMES[measure]}
                        | _numbers(over, with_values=False)
                    )
            for shape in SHAPES:
                over = shape_contrast(record, *pair, shape)
                if over.estimate is not None:
                    rows.append(names | {"what": "shape", "measure": NAMES[shape]} | _numbers(over))
    return Table(
        "probes.contrasts",
        f"Probe contrasts of {record.name}, tied - untied",
        (
            Column("arm", "arm"),
            Column("baseline", "against"),
            Column("what", "of"),
            Column("measure", "measure"),
            Column("seeds", "seeds", on_screen=False),
            Column("values", "difference by seed", "signed_numbers", on_screen=False),
            Column("estimate", "difference", "signed"),
            Column("standard_error", "standard error", "number"),
            Column("interval_95", "95 % interval", "interval"),
            Column("shuffled", "shuffled", "signed"),
        ),
        tuple(rows),
        (ALIKE_NOTE, JACKKNIFE_NOTE, _unadjusted(len(rows))),
    )


def resemblance_table(record: ProbeRecord) -> Table:
    """Return which of the untied matrices the tied one is like."""
    rows: list[Row] = []
    for tied, untied in _pairs_of_arms(record):
        for measure in AGREEMENTS:
            agreements = Agreements(record, measure)
            for same_seed in (True, False):
                to_input, to_output = (
                    agreements.resemblance((tied, "tied"), (untied, matrix), same_seed=same_seed)
                    for matrix in ("input", "output")
                )
                over = agreements.preference((tied, "tied"), untied, same_seed=same_seed)
                if over.estimate is None:
                    continue
                rows.append(
                    {
                        "arm": tied,
                        "untied": untied,
                        "measure": NAMES[measure],
                        "pairs": "same seed" if same_seed else "other seeds",
                        "to_input": to_input.estimate,
                        "to_output": to_output.estimate,
                        "shuffled_input": to_input.shuffled,
                        "shuffled_output": to_output.shuffled,
                        "closer": _closer(over, measure),
                    }
                    | _numbers(over, with_values=False)
                )
    return Table(
        "probes.resemblance",
        f"Which untied matrix the tied one of {record.name} resembles",
        (
            Column("arm", "arm"),
            Column("untied", "untied", on_screen=False),
            Column("measure", "measure"),
            Column("pairs", "pairs"),
            Column("closer", "closer to"),
            Column("seeds", "seeds", on_screen=False),
            Column("to_input", "to input", "number"),
            Column("to_output", "to output", "number"),
            Column("estimate", "output - input", "signed"),
            Column("standard_error", "standard error", "number", on_screen=False),
            Column("interval_95", "95 % interval", "interval"),
            Column("shuffled_input", "shuffled input", "number"),
            Column("shuffled_output", "shuffled output", "number"),
        ),
        tuple(rows),
        (
            ALIKE_NOTE,
            JACKKNIFE_NOTE,
            "Cells of the same seed draw the tied and the untied input matrix alike, so a short "
            "training leaves them alike; other seeds share no draw.",
        ),
    )


def role_table(record: ProbeRecord) -> Table:
    """Return the course of the gradients of the roles: first, middle and last record."""
    num_bands = record.settings.num_bands
    is_translation = "source" in record.rows
    never_seen = "never a target" if is_translation else "never seen"
    bands = [*(f"band {band + 1}" for band in range(num_bands)), never_seen]
    rows: list[Row] = []
    for arm in record.arms:
        courses = [course for course in record.role_gradients if course.arm == arm]
        for index, when in enumerate(COURSE if courses else ()):
            taken = [course.records[index] for course in courses]
            for first, second, cosine in _pairs_of_roles(taken):
                row: dict[str, CellValue] = {
                    "arm": arm,
                    "roles": f"{first} / {second}",
                    "when": when,
                    "step": ", ".join(str(step) for step in sorted({one.step for one in taken})),
                    "seeds": _seeds([course.seed for course in courses]),
                    "ratio": _ratio(taken, first, second, None),
                    "cosine": _mean(taken, cosine, None),
                }
                for band in range(len(bands)):
                    row[f"ratio_{band}"] = _ratio(taken, first, second, band)
                    row[f"cosine_{band}"] = _mean(taken, cosine, band)
                rows.append(row)
    return Table(
        "probes.roles",
        f"Gradients of the roles of {record.name}",
        (
            Column("arm", "arm"),
            Column("roles", "roles"),
            Column("when", "record"),
            Column("step", "step"),
            Column("seeds", "seeds", on_screen=False),
            Column("ratio", "norm ratio", "number", 3),
            Column("cosine", "cosine", "signed", 3),
            *(
                Column(f"ratio_{band}", f"ratio {name}", "number", 3)
                for band, name in enumerate(bands)
            ),
            *(
                Column(f"cosine_{band}", f"cosine {name}", "signed", 3)
                for band, name in enumerate(bands)
            ),
        ),
        tuple(rows),
        (
            "Norm of the gradient of a fixed part of valid in the first role over that in the "
            "second, geometric mean over seeds, and the mean of their cosine. Input: read by the "
            + ("decoder; source: read by the encoder; " if is_translation else "model; ")
            + "output: compared at the softmax. A matrix that has several roles gets their sum.",
            f"Bands: tokens by falling count in train{' as target' * is_translation}, each band "
            f"about 1/{num_bands} of its text: "
            f"{_band_sizes(record.role_gradients, never_seen)}.",
        ),
    )


def _matrices(record: ProbeRecord) -> list[One]:
    return [(arm, matrix) for arm in record.arms for matrix in record.matrices_of(arm)]


def _own(record: ProbeRecord, arm: str, wanted: tuple[Matrix, ...]) -> tuple[Matrix, ...]:
    return tuple(matrix for matrix in record.matrices_of(arm) if matrix in wanted)


def _pairs_of_arms(record: ProbeRecord) -> list[tuple[str, str]]:
    """Return every tied arm with every untied one."""
    tied = [arm for arm in record.arms if "tied" in record.matrices_of(arm)]
    untied = [arm for arm in record.arms if "output" in record.matrices_of(arm)]
    return [(one, other) for one in tied for other in untied]


def _numbers(over: OverSeeds, *, with_values: bool = True) -> dict[str, CellValue]:
    """Return the values of a row; what there are too few seeds for is absent."""
    row: dict[str, CellValue] = {"seeds": _seeds(over.seeds), "estimate": over.estimate}
    if with_values:
        row["values"] = over.values
    if over.jackknife is not None:
        row["standard_error"] = over.jackknife.standard_error
        row["interval_95"] = (over.jackknife.interval.low, over.jackknife.interval.high)
    if over.shuffled is not None:
        row["shuffled"] = over.shuffled
    return row


def _closer(over: OverSeeds, measure: AgreementMeasure) -> str:
    """Say which untied matrix is nearer, where the interval excludes that it is the other."""
    if over.jackknife is None:
        return ""
    if not over.jackknife.interval.excludes_zero():
        return "cannot tell"
    return "output" if (over.jackknife.estimate > 0) != (measure == LESS_IS_ALIKE) else "input"


def _pairs_of_roles(records: Sequence[RoleGradientRecord]) -> tuple[tuple[str, str, str], ...]:
    """Return the pairs of roles that were measured, each with what its cosine is called."""
    pair = ("input", "output", "cosine")
    if any(record.bands.source_norm is None for record in records):
        return (pair,)
    return (
        pair,
        ("source", "output", "output_source_cosine"),
        ("source", "input", "input_source_cosine"),
    )


def _ratio(
    records: Sequence[RoleGradientRecord], first: str, second: str, band: int | None
) -> float | None:
    logarithms = []
    for record in records:
        norms = [_value(record, f"{role}_norm", band) for role in (first, second)]
        if not (norms[0] and norms[1]):
            return None
        logarithms.append(math.log(norms[0] / norms[1]))
    return math.exp(fmean(logarithms))


def _mean(records: Sequence[RoleGradientRecord], name: str, band: int | None) -> float | None:
    found = [_value(record, name, band) for record in records]
    known = [value for value in found if value is not None]
    return fmean(known) if len(known) == len(found) else None


def _value(record: RoleGradientRecord, name: str, band: int | None) -> float | None:
    """Return a number of a record, in all or of a band."""
    value: float | None = (
        getattr(record, name) if band is None else getattr(record.bands, name)[band]
    )
    return value


def _band_sizes(courses: Sequence[CellCourse], never_seen: str) -> str:
    *seen, never = courses[0].records[0].bands.tokens
    return f"{', '.join(f'{size:,}' for size in seen)} tokens, {never:,} {never_seen}"


def _rows_notes(record: ProbeRecord) -> list[str]:
    return [
        f"Rows: the {rows.counted:,} of {rows.vocab_size:,} tokens that occur at least "
        f"{record.settings.min_count} times in train{' as source' * (side == 'source')}; "
        f"neighbours ({record.settings.num_neighbours} each) and similarities of "
        + (f"{rows.sampled:,} of them." if rows.sampled < rows.counted else "all of them.")
        for side, rows in record.rows.items()
    ]


def _seeds(seeds: Sequence[int]) -> str:
    return ", ".join(str(seed) for seed in seeds)


def _unadjusted(num_rows: int) -> str:
    return f"{num_rows} contrasts stand here; their intervals are not adjusted for that."
