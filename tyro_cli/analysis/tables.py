"""The tables of a run: parameters, perplexity, contrasts and performance.

Invariant: a table is a pure function of the records. Every planned cell stands in it, done, diverged
or unfinished; perplexity is derived from means in nats, never averaged; a metric whose signatures
differ is left out and said so. Times and memory stand in `performance` only, so that all other
tables are byte-identical wherever the cells ran. How values look is left to `rendering`.
"""

from collections.abc import Sequence
from statistics import fmean

from tyro_cli.analysis.arm_notes import difference_notes, saving_note, tie_notes
from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.analysis.contrasts import (
    UNIT_OF_METRIC,
    Contrast,
    contrast,
    document_contrast,
    seeds_in_words,
)
from tyro_cli.analysis.formats import (
    At,
    CellResult,
    LedgerRecord,
    Metric,
    Split,
    exp_or_none,
)
from tyro_cli.analysis.records import CellRecord, RunRecords
from tyro_cli.analysis.signatures import mixed_signatures, signatures_of
from tyro_cli.analysis.verdicts import decisive_contrast, verdict_of
from tyro_cli.errors import RunFolderError

SPLITS: tuple[Split, ...] = ("test", "valid")

SCORE_COLUMNS = (
    Column("nats_per_token", "nats/token", "number"),
    Column("token_perplexity", "token ppl", "number", 2),
    Column("nats_per_word", "nats/word", "number", on_screen=False),
    Column("word_perplexity", "word ppl", "number", 2),
    Column("bits_per_byte", "bits/byte", "number"),
)

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
    metric: Metric | None = None,
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
        NothingMatched: The run has no such arm.
        RunFolderError: The numbers to compare have different signatures, and `force` is not set.
    """
    against = run.baseline(baseline)
    tables = (
        parameter_table(run, against),
        perplexity_table(run, against, force=force),
        contrast_table(run, against, metric, force=force),
        performance_table(run),
    )
    return {table.name: table for table in tables}


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
        "estimate. A tied head owns no parameters, but costs the same FLOPs.",
    ]
    title = f"Parameters of {run.manifest.name}"
    return Table("parameters", title, tuple(columns), tuple(rows), tuple(notes))


def perplexity_table(run: RunRecords, baseline: str | None = None, *, force: bool = False) -> Table:
    """Return, for each arm and split, the mean over seeds and every seed's value.

    Raises:
        RunFolderError: No metric has one signature in all cells, and `force` is not set.
    """
    against = run.baseline(baseline)
    withheld, notes = _withheld_metrics(run, force=force)
    rows = []
    for arm in run.arms:
        cells = tuple(run.cells_of(arm))
        for split in SPLITS:
            rows.append(_mean_row(arm, split, cells))
            rows += [_score_row(cell, split) for cell in cells]
    kept = tuple(
        {key: value for key, value in row.items() if (row["split"], key) not in withheld}
        for row in rows
    )
    columns = (
        Column("arm", "arm"),
        Column("split", "split"),
        Column("seed", "seed"),
        Column("status", "cell"),
        *SCORE_COLUMNS,
        Column("last_nats_per_token", "nats/token, last", "number", on_screen=False),
        Column("last_word_perplexity", "word ppl, last", "number", 2),
        Column("gap_nats", "gap", "signed"),
        Column("last_gap_nats", "gap, last", "signed", on_screen=False),
        Column("best_step", "best step", "integer"),
        Column("still_improving", "improving"),
    )
    explanation = (
        "Scores of the best-valid checkpoint; `last` is the last one. Perplexity of a mean is "
        "exp(mean nats). Gap: nats per token, valid minus a part of train of valid's size."
    )
    return Table(
        "perplexity",
        f"Perplexity of {run.manifest.name}",
        columns,
        kept,
        (explanation, *notes, *difference_notes(run, against), *_signature_notes(run, withheld)),
    )


def contrast_table(
    run: RunRecords,
    baseline: str | None = None,
    metric: Metric | None = None,
    *,
    force: bool = False,
) -> Table:
    """Return every arm against the baseline, metric by metric, and the verdicts as notes.

    Raises:
        RunFolderError: The numbers to compare have different signatures, and `force` is not set.
    """
    against = run.baseline(baseline)
    others = [arm for arm in run.arms if arm != against]
    rows: list[Row] = []
    notes: list[str] = []
    for arm in others:
        decisive = decisive_contrast(run, arm, against, force=force)
        shown: list[tuple[Metric, Split, At]] = (
            [(name, "test", "best") for name in CONTRASTED] if metric is None else []
        )
        main = decisive.metric if metric is None else metric
        shown += [(main, "test", "best")] if metric is not None else []
        shown += [(main, "valid", "best"), (main, "test", "last")]
        for name, split, at in shown:
            try:
                one = contrast(run, arm, against, name, split, at, force=force)
            except RunFolderError as error:
                if metric is not None:
                    raise
                notes.append(f"Left out: {error.message}.")
                continue
            rows.append(_contrast_row(one))
        notes.append(verdict_of(run, arm, against, force=force).sentence)
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
        f"Contrasts of {run.manifest.name} against {against}",
        (
            Column("arm", "arm"),
            Column("baseline", "baseline", on_screen=False),
            Column("metric", "metric"),
            Column("scored", "scored"),
            Column("seeds", "seeds", on_screen=False),
            Column("arm_values", "arm by seed", "numbers", on_screen=False),
            Column("baseline_values", "baseline by seed", "numbers", on_screen=False),
            Column("differences", "difference by seed", "signed_numbers"),
            Column("mean", "mean", "signed"),
            Column("interval_95", "95 % interval", "interval"),
            Column("interval_90", "90 % interval", "interval", on_screen=False),
            Column("sign_flip_p", "sign-flip p", "number", 3),
            Column("smallest_p", "smallest p", "number", 3),
            Column("perplexity_ratio", "ppl ratio", "number"),
            Column("pairs_won", "pairs won"),
            Column("pairs_verified", "pairs verified"),
        ),
        tuple(rows),
        tuple(notes),
    )


def performance_table(run: RunRecords) -> Table:
    """Return times, rates and memory of every cell; the only table that differs between runs."""
    rows = []
    for arm in run.arms:
        for cell in run.cells_of(arm):
            row: dict[str, CellValue] = {
                "arm": arm,
                "seed": str(cell.seed),
                "status": _status(cell),
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
        ("As measured on the machine that trained each cell; cells that ran at once shared it.",),
    )


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


def _status(cell: CellRecord) -> str:
    if cell.result is not None and cell.result.diverged is not None:
        return f"diverged at step {cell.result.diverged.step:,}"
    return cell.status


def _score_row(cell: CellRecord, split: Split) -> Row:
    row: dict[str, CellValue] = {
        "arm": cell.arm,
        "split": split,
        "seed": str(cell.seed),
        "status": _status(cell),
    }
    result = cell.result
    if result is None or cell.status != "done":
        return row
    best, last = result.scores(split, "best"), result.scores(split, "last")
    for column in SCORE_COLUMNS:
        row[column.key] = getattr(best, column.key)
    row["last_nats_per_token"] = last.nats_per_token
    row["last_word_perplexity"] = last.word_perplexity
    if split == "valid":
        improving = result.training.still_improving
        row["gap_nats"] = result.evaluation("best").generalisation_gap_nats
        row["last_gap_nats"] = result.evaluation("last").generalisation_gap_nats
        row["best_step"] = result.evaluation("best").step
        row["still_improving"] = None if improving is None else ("yes" if improving else "no")
    return row


def _mean_row(arm: str, split: Split, cells: Sequence[CellRecord]) -> Row:
    """Average what may be averaged: nats and bits; a perplexity is that of the mean in nats."""
    done = [cell.result for cell in cells if cell.status == "done" and cell.result is not None]
    row: dict[str, CellValue] = {
        "arm": arm,
        "split": split,
        "seed": "mean",
        "status": f"{len(done)}/{len(cells)} done",
    }
    if not done:
        return row
    best = [result.scores(split, "best") for result in done]
    last = [result.scores(split, "last") for result in done]
    row["nats_per_token"] = _mean([scores.nats_per_token for scores in best])
    row["nats_per_word"] = _mean([scores.nats_per_word for scores in best])
    row["bits_per_byte"] = _mean([scores.bits_per_byte for scores in best])
    row["token_perplexity"] = _perplexity([scores.nats_per_token for scores in best])
    row["word_perplexity"] = _perplexity([scores.nats_per_word for scores in best])
    row["last_nats_per_token"] = _mean([scores.nats_per_token for scores in last])
    row["last_word_perplexity"] = _perplexity([scores.nats_per_word for scores in last])
    if split == "valid":
        row["gap_nats"] = _mean([one.evaluation("best").generalisation_gap_nats for one in done])
        row["last_gap_nats"] = _mean(
            [one.evaluation("last").generalisation_gap_nats for one in done]
        )
        improving = sum(one.training.still_improving is True for one in done)
        row["still_improving"] = f"{improving}/{len(done)}"
    return row


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _perplexity(nats: Sequence[float | None]) -> float | None:
    mean = _mean(nats)
    return None if mean is None else exp_or_none(mean)


def _withheld_metrics(run: RunRecords, *, force: bool) -> tuple[set[tuple[str, str]], list[str]]:
    """Return the (split, column) that must not stand in one table, and why, in sentences."""
    results = {f"{result.arm} seed {result.seed}": result for result in run.results()}
    withheld: set[tuple[str, str]] = set()
    notes = []
    for split in SPLITS:
        for column in SCORE_COLUMNS:
            measured = _measured(results, split, column.key)
            difference = mixed_signatures(signatures_of(measured, split, column.key))
            if not difference:
                continue
            if force:
                notes.append(f"Forced: {split} {column.key}: {difference}.")
                continue
            withheld |= {(split, column.key), (split, f"last_{column.key}")}
            notes.append(f"Left out: {split} {column.key}: {difference}.")
    if results and len(withheld) == 2 * len(SPLITS) * len(SCORE_COLUMNS):
        raise RunFolderError(
            f"{run.folder}: no metric was computed in one way by all cells. {notes[0]}",
            "Give all arms one evaluation, or insist with --force.",
        )
    return withheld, notes


def _measured(results: dict[str, CellResult], split: Split, metric: str) -> dict[str, CellResult]:
    """Return the results that have a value: what is n/a needs no signature."""
    return {
        label: result
        for label, result in results.items()
        if getattr(result.scores(split, "best"), metric) is not None
    }


def _signature_notes(run: RunRecords, withheld: set[tuple[str, str]]) -> list[str]:
    """Print how each metric was computed, from the first cell that has it."""
    results = {f"{result.arm} seed {result.seed}": result for result in run.results()}
    notes = []
    for split in SPLITS:
        for metric in ("token_perplexity", "word_perplexity", "bits_per_byte"):
            measured = _measured(results, split, metric)
            if measured and (split, metric) not in withheld:
                signature = next(iter(measured.values())).signature(split, metric)
                notes.append(f"{metric.replace('_', ' ').capitalize()}, {split}: `{signature}`.")
    return notes


def _contrast_row(one: Contrast) -> Row:
    row: dict[str, CellValue] = {
        "arm": one.arm,
        "baseline": one.baseline,
        "metric": one.metric.replace("_", " "),
        "scored": f"{one.split}, {one.at}",
        "pairs_verified": one.pairs_in_words(),
    }
    if one.unavailable:
        row["mean"] = None
    if one.mean is None:
        return row
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
    for seed in decisive.seeds:
        over = document_contrast(run, decisive.arm, decisive.baseline, seed, decisive.metric)
        if over is None:
            return []
        intervals.append(
            f"{seeds_in_words([seed])} {over.difference:+.4f} "
            f"[{over.interval.low:+.4f}, {over.interval.high:+.4f}]"
        )
    return [
        f"{decisive.arm} - {decisive.baseline} over the {over.num_documents:,} test documents, "
        f"two fixed checkpoints at a time, {UNIT_OF_METRIC[decisive.metric]} as the unit, "
        f"95 % intervals: {'; '.join(intervals)}."
    ]
