"""The perplexity table: every metric of every cell, and the means of the arms.

Invariant: perplexity is derived from means in nats, never averaged; a metric whose signatures
differ is left out and said so. A cell that diverged or is unfinished keeps its row, without
numbers.
"""

from collections.abc import Sequence
from statistics import fmean

from tyro_cli.analysis.arm_notes import difference_notes
from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.analysis.excess import EXCESS_COLUMNS, excess_values, known_entropy_of, source_note
from tyro_cli.analysis.formats import CellResult, Split, exp_or_none
from tyro_cli.analysis.records import CellRecord, RunRecords
from tyro_cli.analysis.signatures import mixed_signatures, signatures_of
from tyro_cli.errors import RunFolderError

SPLITS: tuple[Split, ...] = ("test", "valid")

SCORE_COLUMNS = (
    Column("nats_per_token", "nats/tok", "number"),
    Column("token_perplexity", "tok ppl", "number", 2),
    Column("nats_per_word", "nats/word", "number", on_screen=False),
    Column("word_perplexity", "word ppl", "number", 2),
    Column("bits_per_byte", "bits/byte", "number"),
)


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
            rows.append(mean_row(run, arm, split))
            rows += [_score_row(cell, split) for cell in cells]
    kept = tuple(
        {key: value for key, value in row.items() if (row["split"], key) not in withheld}
        for row in rows
    )
    known = known_entropy_of(run.results())
    all_done = all(cell.status == "done" for cell in run.cells.values())
    columns = (
        Column("arm", "arm"),
        Column("split", "split"),
        Column("seed", "seed"),
        Column("status", "cell", on_screen=not all_done),
        *SCORE_COLUMNS,
        *(EXCESS_COLUMNS if known is not None else ()),
        Column("last_nats_per_token", "nats/tok, last", "number", on_screen=False),
        Column("last_word_perplexity", "last ppl", "number", 2),
        Column("gap_nats", "gap", "signed"),
        Column("last_gap_nats", "gap, last", "signed", on_screen=False),
        Column("best_step", "best at", "integer"),
        Column("still_improving", "improving"),
    )
    explanation = (
        "Scores of the best-valid checkpoint, found at step `best at`; `last ppl` is the word "
        "perplexity of the last one. The perplexity of a mean is exp(mean nats). Gap: nats per "
        "token, valid minus a part of train of valid's size. Improving: the last evaluation was "
        "the best."
    )
    sources = [source_note(known)] if known is not None else []
    return Table(
        "perplexity",
        f"Perplexity of {run.manifest.name}",
        columns,
        kept,
        (
            explanation,
            *sources,
            *notes,
            *difference_notes(run, against),
            *_signature_notes(run, withheld),
        ),
    )


def status_in_words(cell: CellRecord) -> str:
    """Return what became of a cell, as every table shows it."""
    if cell.result is not None and cell.result.diverged is not None:
        return f"diverged at step {cell.result.diverged.step:,}"
    return cell.status


def _score_row(cell: CellRecord, split: Split) -> Row:
    row: dict[str, CellValue] = {
        "arm": cell.arm,
        "split": split,
        "seed": str(cell.seed),
        "status": status_in_words(cell),
    }
    result = cell.result
    if result is None or cell.status != "done":
        return row
    best, last = result.scores(split, "best"), result.scores(split, "last")
    for column in SCORE_COLUMNS:
        row[column.key] = getattr(best, column.key)
    row |= excess_values(result, split)
    row["last_nats_per_token"] = last.nats_per_token
    row["last_word_perplexity"] = last.word_perplexity
    if split == "valid":
        improving = result.training.still_improving
        row["gap_nats"] = result.evaluation("best").generalisation_gap_nats
        row["last_gap_nats"] = result.evaluation("last").generalisation_gap_nats
        row["best_step"] = result.evaluation("best").step
        row["still_improving"] = None if improving is None else ("yes" if improving else "no")
    return row


def mean_row(run: RunRecords, arm: str, split: Split) -> Row:
    """Average what may be averaged: nats and bits; a perplexity is that of the mean in nats."""
    done = run.done(arm)
    row: dict[str, CellValue] = {
        "arm": arm,
        "split": split,
        "seed": "mean",
        "status": f"{len(done)}/{len(run.seeds_of(arm))} done",
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
    excesses = [excess_values(result, split) for result in done]
    if all(excesses):
        row |= {key: _mean([one[key] for one in excesses]) for key in excesses[0]}
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
    results = run.labelled()
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
            if column.key == "nats_per_token":
                withheld |= {(split, excess.key) for excess in EXCESS_COLUMNS}
            notes.append(f"Left out: {split} {column.key}: {difference}.")
    if results and all((split, one.key) in withheld for split in SPLITS for one in SCORE_COLUMNS):
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
    results = run.labelled()
    notes = []
    for split in SPLITS:
        for metric in ("token_perplexity", "word_perplexity", "bits_per_byte"):
            measured = _measured(results, split, metric)
            if measured and (split, metric) not in withheld:
                signature = next(iter(measured.values())).signature(split, metric)
                notes.append(f"{metric.replace('_', ' ').capitalize()}, {split}: `{signature}`.")
    return notes
