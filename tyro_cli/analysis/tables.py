"""The tables of a run: parameters, perplexity, contrasts and performance.

Invariant: a table is a pure function of the records, and every planned cell stands in it, done,
diverged or unfinished. Times and memory stand in `performance` only, so that all other tables are
byte-identical wherever the cells ran. The perplexity table is in `perplexity_tables`; how values
look is left to `rendering`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from tyro_cli.analysis.arm_notes import difference_notes, saving_note, tie_notes
from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.analysis.contrasts import (
    UNIT_OF_METRIC,
    Contrast,
    check_metric,
    contrast,
    document_contrast,
    seeds_in_words,
)
from tyro_cli.analysis.formats import At, LedgerRecord, Metric, Split
from tyro_cli.analysis.perplexity_tables import perplexity_table, status_in_words
from tyro_cli.analysis.records import CellRecord, RunRecords
from tyro_cli.analysis.search_tables import trial_table, tuned_table
from tyro_cli.analysis.translation_tables import (
    overlap_table,
    quality_contrast_table,
    quality_table,
)
from tyro_cli.analysis.verdicts import decisive_contrast, verdict_of
from tyro_cli.errors import RunFolderError

PERFORMANCE_COLUMNS = (
    Column("train_tokens_per_second", "tokens/s", "number", 0),
    Column("train_seconds", "training s", "number", 1),
    Column("evaluation_seconds", "evaluations s", "number", 1),
    Column("final_evaluation_seconds", "final evaluation s", "number", 1),
    Column("start_up_seconds", "start-up s", "number", 1),
    Column("peak_memory_bytes", "peak memory", "bytes"),
)

CONTRASTED: tuple[Metric, ...] = ("nats_per_word", "nats_per_token", "bits_per_byte")


def all_tables(
    run: RunRecords,
    baseline: str | None = None,
    metric: str | None = None,
    *,
    force: bool = False,
) -> dict[str, Table]:
    """Return every table of a run by its name.

    Args:
        run: The records.
        baseline: The arm that all others are set against; by default the experiment's own.
        metric: The one metric to contrast; by default nats per word, per token and bits per byte.
        force: Set numbers of different signature beside each other.

    Raises:
        UsageError: There is no such metric.
        NothingMatched: The run has no such arm.
        RunFolderError: The numbers to compare have different signatures, and `force` is not set.
    """
    against = run.baseline(baseline)
    tables = [
        parameter_table(run, against),
        perplexity_table(run, against, force=force),
        contrast_table(run, against, metric, force=force),
        performance_table(run),
    ]
    if run.search is not None:
        tables[3:3] = search_tables(run, against, metric, force=force)
    if run.translates:
        tables[2:2] = [overlap_table(run), quality_table(run, force=force)]
        tables.insert(5, quality_contrast_table(run, against, force=force))
    return {table.name: table for table in tables}


def search_tables(
    run: RunRecords, baseline: str, metric: str | None = None, *, force: bool = False
) -> tuple[Table, Table]:
    """Return the contrasts with each arm at its best, and the trials that say where that is."""

    def contrasts(tuned: RunRecords) -> Table:
        return contrast_table(tuned, baseline, metric, force=force)

    return tuned_table(run, baseline, contrasts, force=force), trial_table(run)


def parameter_table(run: RunRecords, baseline: str | None = None) -> Table:
    """Return components by arms: unique parameters, shares, bytes and FLOPs."""
    against = run.baseline(baseline)
    others = [arm for arm in run.arms if arm != against]
    ordered = [against, *others]
    ledgers = {arm: run.manifest.arms[arm].ledger for arm in ordered}
    columns = [Column("quantity", "unique parameters")]
    for arm in ordered:
        columns.append(Column(f"value {arm}", arm, "integer"))
        columns.append(Column(f"share {arm}", f"{arm} share", "percent", 1))
    for arm in others:
        columns.append(Column(f"difference {arm}", f"{arm} - {against}", "signed_integer"))
    rows = []
    for quantity, values in _ledger_quantities(ledgers):
        row: dict[str, CellValue] = {"quantity": quantity}
        for arm, (value, share) in values.items():
            row[f"value {arm}"] = value
            if share is not None:
                row[f"share {arm}"] = share
        for arm in others:
            row[f"difference {arm}"] = values[arm][0] - values[against][0]
        rows.append(row)
    notes = [saving_note(run, arm, against) for arm in others]
    notes += [
        *difference_notes(run, against),
        *tie_notes(run),
        *_counted_notes(run, ordered),
        "Checkpoint: float32 weights. Optimiser: two float32 moments. Training memory is an "
        "estimate, without the program itself. A tied head owns no parameters, but costs the same "
        "FLOPs.",
    ]
    title = f"Parameters of {run.manifest.name}"
    return Table("parameters", title, tuple(columns), tuple(rows), tuple(notes))


def contrast_table(
    run: RunRecords,
    baseline: str | None = None,
    metric: str | None = None,
    *,
    force: bool = False,
) -> Table:
    """Return every arm against the baseline, metric by metric, and the verdicts as notes.

    Raises:
        RunFolderError: The numbers to compare have different signatures, and `force` is not set.
    """
    against = run.baseline(baseline)
    asked_for = None if metric is None else check_metric(metric)
    others = [arm for arm in run.arms if arm != against]
    rows: list[Row] = []
    notes: list[str] = []
    for arm in others:
        decisive = decisive_contrast(run, arm, against, force=force)
        main = asked_for or decisive.metric
        shown: list[tuple[Metric, Split, At]] = [
            *((name, "test", "best") for name in (CONTRASTED if asked_for is None else [main])),
            (main, "valid", "best"),
            (main, "test", "last"),
        ]
        for name, split, at in shown:
            try:
                one = contrast(run, arm, against, name, split, at, force=force)
            except RunFolderError as error:
                if asked_for is not None:
                    raise
                notes.append(f"Left out: {error.message}.")
                continue
            rows.append(_contrast_row(one))
        notes.append(f"Verdict: {verdict_of(run, arm, against, force=force).sentence}")
        notes += _document_notes(run, decisive)
    if len(others) > 1:
        notes.append(
            f"{len(others)} arms are set against one baseline; "
            "intervals and verdicts are not adjusted for that."
        )
    if others:
        notes.append(
            "Differences are arm - baseline, lower is better. Intervals are paired t intervals "
            "over seeds; the sign-flip p is exact and never decides."
        )
    else:
        notes.append("The run has one arm: there is nothing to set against it.")
    notes += difference_notes(run, against)
    return Table(
        "contrasts",
        f"Contrasts of {run.manifest.name} against {against}{_setting(run)}",
        (
            Column("arm", "arm"),
            Column("baseline", "baseline", on_screen=False),
            Column("metric", "metric"),
            Column("split", "split"),
            Column("checkpoint", "checkpoint"),
            Column("seeds", "seeds", on_screen=False),
            Column("arm_values", "arm by seed", "numbers", on_screen=False),
            Column("baseline_values", "baseline by seed", "numbers", on_screen=False),
            Column("differences", "difference by seed", "signed_numbers"),
            Column("mean", "mean", "signed"),
            Column("interval_95", "95 % interval", "interval"),
            Column("interval_90", "90 % interval", "interval", on_screen=False),
            Column("sign_flip_p", "sign-flip p", "p"),
            Column("smallest_p", "smallest p", "p"),
            Column("perplexity_ratio", "ppl ratio", "number"),
            Column("pairs_won", "pairs won"),
            Column("pairs_verified", "pairs verified", on_screen=False),
        ),
        tuple(rows),
        tuple(notes),
    )


def _setting(run: RunRecords) -> str:
    """Say at which setting of a search the arms are."""
    if run.search is None:
        return ""
    return ", each arm at its best" if run.rates == "each-best" else ", at the shared setting"


def performance_table(run: RunRecords) -> Table:
    """Return times, rates and memory of every cell; the only table that differs between runs."""
    rows = []
    for arm in run.arms:
        for cell in run.cells_of(arm):
            row: dict[str, CellValue] = {
                "arm": arm,
                "seed": str(cell.seed),
                "status": status_in_words(cell),
            }
            if cell.performance is not None:
                for column in PERFORMANCE_COLUMNS:
                    row[column.key] = getattr(cell.performance, column.key)
            rows.append(row)
    return Table(
        "performance",
        f"Performance of {run.manifest.name}",
        (
            Column("arm", "arm"),
            Column("seed", "seed"),
            Column("status", "cell"),
            *PERFORMANCE_COLUMNS,
        ),
        tuple(rows),
        (
            "As measured on the machine that trained each cell; cells that ran at once shared it.",
            *trained_on(run.cells.values()),
        ),
    )


def trained_on(cells: Iterable[CellRecord]) -> list[str]:
    """Say how many cells each processor trained; nothing where the cells do not tell of several."""
    counts = Counter(
        " and ".join(cell.performance.processors)
        for cell in cells
        if cell.performance is not None and cell.performance.processors
    )
    if len(counts) < 2:
        return []
    parts = [f"{count} on {name}" for name, count in sorted(counts.items())]
    return [f"Cells by processor: {', '.join(parts)}."]


def processors_of(run: RunRecords, cells: Iterable[CellRecord]) -> list[str]:
    """Return what trained some cells of a run; where they do not say, what its manifest says."""
    performances = [cell.performance for cell in cells if cell.performance is not None]
    own = [name for one in performances for name in one.processors]
    if not own and performances and run.manifest.processor is not None:
        own = [run.manifest.processor]
    return list(dict.fromkeys(own))


def _ledger_quantities(
    ledgers: dict[str, LedgerRecord],
) -> list[tuple[str, dict[str, tuple[int, float | None]]]]:
    """Return each quantity's name with (value, share of total or None) for every arm."""
    components = dict.fromkeys(row.component for led in ledgers.values() for row in led.rows)
    quantities: list[tuple[str, dict[str, tuple[int, float | None]]]] = []
    rows_of = {arm: {row.component: row for row in led.rows} for arm, led in ledgers.items()}
    for component in components:
        counts = {
            arm: rows[component].parameters if component in rows else 0
            for arm, rows in rows_of.items()
        }
        quantities.append(
            (component, {arm: (n, _share(n, ledgers[arm].total)) for arm, n in counts.items()})
        )
    for name, attribute in (("total", "total"), ("non-embedding", "non_embedding")):
        counts = {arm: getattr(led, attribute) for arm, led in ledgers.items()}
        quantities.append(
            (name, {arm: (n, _share(n, ledgers[arm].total)) for arm, n in counts.items()})
        )
    for name, attribute in (
        ("checkpoint bytes", "checkpoint_bytes"),
        ("optimiser bytes", "optimizer_bytes"),
        ("training memory bytes", "training_memory_bytes"),
        ("forward FLOPs per token", "forward_flops_per_token"),
    ):
        quantities.append(
            (name, {arm: (getattr(led, attribute), None) for arm, led in ledgers.items()})
        )
    return quantities


def _share(parameters: int, total: int) -> float | None:
    return parameters / total if total else None


def _counted_notes(run: RunRecords, arms: Sequence[str]) -> list[str]:
    """Say in how many cells the model's own unique storage was counted.

    `records.load_run` refuses a result whose count is not the ledger's.
    """
    counted = [
        f"{sum(cell.result is not None for cell in run.cells_of(arm))} cells of {arm}"
        for arm in arms
        if any(cell.result is not None for cell in run.cells_of(arm))
    ]
    if not counted:
        return ["No cell is trained yet: the counts are the ledger's."]
    return [f"Unique storage in the trained models equals the ledger in {', '.join(counted)}."]


def _contrast_row(one: Contrast) -> Row:
    row: dict[str, CellValue] = {
        "arm": one.arm,
        "baseline": one.baseline,
        "metric": one.metric,
        "split": one.split,
        "checkpoint": one.at,
        "pairs_verified": one.pairs_in_words(),
    }
    if one.mean is None:
        only_unfinished = len(one.unfinished_seeds) == len(one.planned_seeds)
        return row if only_unfinished else row | {"mean": None}
    interval_95, interval_90, flip = one.interval(0.95), one.interval(0.90), one.sign_flip
    return row | {
        "seeds": ", ".join(str(seed) for seed in one.seeds),
        "arm_values": one.arm_values,
        "baseline_values": one.baseline_values,
        "differences": one.differences,
        "mean": one.mean,
        "interval_95": (interval_95.low, interval_95.high) if interval_95 else None,
        "interval_90": (interval_90.low, interval_90.high) if interval_90 else None,
        "sign_flip_p": flip.p if flip else None,
        "smallest_p": flip.smallest_p if flip else None,
        "perplexity_ratio": one.perplexity_ratio,
        "pairs_won": f"{one.num_won}/{len(one.seeds)}",
    }


def _document_notes(run: RunRecords, decisive: Contrast) -> list[str]:
    """Add, for each of several pairs, the interval over documents of its two checkpoints."""
    if len(decisive.seeds) < 2:
        return []
    intervals = []
    num_documents = 0
    for seed in decisive.seeds:
        over = document_contrast(run, decisive.arm, decisive.baseline, seed, decisive.metric)
        if over is None:
            return []
        num_documents = over.num_documents
        intervals.append(
            f"{seeds_in_words([seed])} {over.difference:+.4f} "
            f"[{over.interval.low:+.4f}, {over.interval.high:+.4f}]"
        )
    return [
        f"{decisive.arm} - {decisive.baseline} over the {num_documents:,} test {run.units}, "
        f"two fixed checkpoints at a time, {UNIT_OF_METRIC[decisive.metric]} as the unit, "
        f"95 % intervals: {'; '.join(intervals)}."
    ]
