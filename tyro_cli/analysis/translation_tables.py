"""Tables of translation quality: BLEU and chrF of every cell, and what they make of a contrast.

Invariant: BLEU is a number of a whole corpus, so an interval is over seeds (paired t), and between
two fixed checkpoints sentences are exchanged at random (`bleu.randomisation_test`); higher is
better, and no verdict is decided here. The score of copying the source stands beside every score.
What source and target have in common is measured by `data.overlap`; here it is shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from pydantic import ValidationError

from tyro_cli.analysis.bleu import randomisation_test
from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.analysis.contrasts import contrast
from tyro_cli.analysis.formats import CellResult, PairsRecord, Quality, Split
from tyro_cli.analysis.perplexity_tables import SPLITS, status_in_words
from tyro_cli.analysis.records import CellRecord, RunRecords
from tyro_cli.analysis.rendering import p_in_words
from tyro_cli.analysis.signatures import mixed_signatures, refuse_mixed_signatures
from tyro_cli.analysis.statistics import Interval, paired_t_interval

Score = Literal["bleu", "chrf"]
SCORES: tuple[Score, ...] = ("bleu", "chrf")
NAMES: dict[Score, str] = {"bleu": "BLEU", "chrf": "chrF"}

CONTRAST_COLUMNS = (
    Column("seeds", "seeds", on_screen=False),
    Column("arm_values", "arm by seed", "numbers", 2, on_screen=False),
    Column("baseline_values", "baseline by seed", "numbers", 2, on_screen=False),
    Column("differences", "difference by seed", "signed_numbers", 2),
    Column("mean", "mean", "signed", 2),
    Column("interval_95", "95 % interval", "interval", 2),
    Column("copying", "copying", "number", 2),
)

COPYING = "Copying: the source text handed in as its own translation"

OVERLAP_COLUMNS = (
    Column("shared_target_tokens", "target tokens shared", "percent", 1),
    Column("shared_rows", "rows shared", "integer"),
    Column("source_rows", "source rows", "integer"),
    Column("target_rows", "target rows", "integer"),
    Column("source_tokens_per_word", "source tokens/word", "number", 2),
    Column("target_tokens_per_word", "target tokens/word", "number", 2),
    Column("pairs", "pairs", "integer"),
    Column("empty_pairs", "dropped, empty", "integer"),
    Column("long_pairs", "dropped, long", "integer"),
)

OVERLAP_EXPLANATION = (
    "Of the pairs that are trained on, without `<eos>`. Target tokens shared: the part of the "
    "target's tokens that occur in the source, too; rows: token types that a side uses, shared "
    "those of a joint vocabulary that both use. Dropped: pairs with an empty side, and pairs with "
    "more than `data.context_length` tokens on a side."
)


@dataclass(frozen=True)
class QualityContrast:
    """BLEU or chrF of an arm minus the baseline's, over verified pairs; above zero is better.

    Attributes:
        score: Which of the two.
        split: The split that was translated.
        seeds: Seeds of the verified pairs, in the order of all values below.
        arm_values: The arm's score at each seed.
        baseline_values: The baseline's.
        copying: The score of the source text as its own translation.
        randomisation_ps: For BLEU, the p of exchanging sentences at each seed; None where the
            counts were not kept, or it was not asked for.
        forced: Warning that the values have different signatures, or "".
    """

    score: Score
    split: Split
    seeds: tuple[int, ...]
    arm_values: tuple[float, ...]
    baseline_values: tuple[float, ...]
    copying: float
    randomisation_ps: tuple[float, ...] | None
    forced: str

    @property
    def differences(self) -> tuple[float, ...]:
        """Arm minus baseline at each seed."""
        pairs = zip(self.arm_values, self.baseline_values, strict=True)
        return tuple(arm - baseline for arm, baseline in pairs)

    @property
    def interval(self) -> Interval | None:
        """The 95 % paired t interval of the mean difference, or None below two pairs."""
        return paired_t_interval(self.differences, 0.95) if len(self.seeds) > 1 else None


def quality_contrast(
    run: RunRecords,
    arm: str,
    baseline: str,
    score: Score,
    split: Split = "test",
    *,
    randomise: bool = True,
    force: bool = False,
) -> QualityContrast | None:
    """Set a score of an arm against the baseline's; None without a verified pair.

    Args:
        run: The records.
        arm: The arm that comes first in the difference.
        baseline: The arm it is set against.
        score: Which of the two.
        split: The split that was translated.
        randomise: Whether to exchange sentences at each seed, which takes a while.
        force: Compare values of different signature.

    Raises:
        RunFolderError: The values have different signatures, and `force` is not set.
        DamagedRecord: A file of counts is damaged.
    """
    # Which pairs are verified is asked here, and nothing of their losses.
    seeds = contrast(run, arm, baseline, "nats_per_token", split, force=True).seeds
    pairs = [[_quality(run.cells[name, seed], split) for name in (arm, baseline)] for seed in seeds]
    if not pairs:
        return None
    signatures = {
        f"{name} seed {seed}": quality.signatures.get(score, "")
        for seed, pair in zip(seeds, pairs, strict=True)
        for name, quality in zip((arm, baseline), pair, strict=True)
    }
    return QualityContrast(
        score=score,
        split=split,
        seeds=seeds,
        arm_values=tuple(getattr(first, score) for first, _ in pairs),
        baseline_values=tuple(getattr(second, score) for _, second in pairs),
        copying=getattr(pairs[0][1], f"copy_{score}"),
        randomisation_ps=_randomisation(run, arm, baseline, seeds, split)
        if score == "bleu" and randomise
        else None,
        forced=refuse_mixed_signatures(f"{split} {score}", signatures, force=force),
    )


def bleu_beside(run: RunRecords, arm: str, baseline: str) -> str:
    """Return what BLEU says beside a verdict, with its interval; "" where nothing is translated.

    It decides nothing, so scores that were not computed in one way are left out here and refuse
    nothing.
    """
    one = None
    if run.translates:
        one = quality_contrast(run, arm, baseline, "bleu", randomise=False, force=True)
    if one is None:
        return ""
    if one.forced:
        return "Test BLEU is left out: it was not computed in one way."
    mean = fmean(one.differences)
    sentence = f"Test BLEU, {arm} - {baseline}: {mean:+.2f}"
    if one.interval is not None:
        low, high = one.interval.low, one.interval.high
        sentence += f", 95 % interval [{low:+.2f}, {high:+.2f}] over {len(one.seeds)} seeds"
    elif (ps := _randomisation(run, arm, baseline, one.seeds, "test")) is not None:
        sentence += f" at seed {one.seeds[0]} (randomisation p {p_in_words(ps[0])})"
    return f"{sentence}; higher is better, and it decides nothing."


def comparable_scores(
    results: Mapping[str, CellResult], between: str, *, force: bool
) -> tuple[list[Score], list[str]]:
    """Return the scores of translations that may stand in one column, and a note on the others.

    Args:
        results: Every result of the column, by its label.
        between: What the numbers belong to, for the note: `cells` or `points`.
        force: Leave nothing out, and say that.
    """
    kept: list[Score] = []
    notes = []
    for score in SCORES:
        # The score of copying tells other sentences apart, which sacrebleu's line does not hold.
        lines = {
            label: f"{one.signatures.get(score, '')}|copying:{getattr(one, f'copy_{score}'):.4f}"
            for label, result in results.items()
            if result.quality is not None
            for one in (result.quality["test"],)
        }
        difference = mixed_signatures(lines)
        if difference:
            said = "Forced" if force else "Left out"
            notes.append(
                f"{said}: {NAMES[score]} does not compare between {between}: {difference}."
            )
        if force or not difference:
            kept.append(score)
    return kept, notes


def quality_table(run: RunRecords, *, force: bool = False) -> Table:
    """Return BLEU and chrF of every cell and split, and the means of the arms."""
    scores, left_out = comparable_scores(run.labelled(), "cells", force=force)
    columns = []
    for score in scores:
        name = NAMES[score]
        columns.append(Column(score, name, "number", 2))
        columns.append(Column(f"copy_{score}", f"{name} of copying", "number", 2, score == "bleu"))
    rows: list[Row] = []
    for arm in run.arms:
        cells = tuple(run.cells_of(arm))
        for split in SPLITS:
            rows.append(_mean_row(arm, split, cells))
            rows += [_row(cell, split) for cell in cells]
    all_done = all(cell.status == "done" for cell in run.cells.values())
    return Table(
        "translation",
        f"Translation quality of {run.manifest.name}",
        (
            Column("arm", "arm"),
            Column("split", "split"),
            Column("seed", "seed"),
            Column("status", "cell", on_screen=not all_done),
            *columns,
            Column("sentences", "sentences", "integer"),
        ),
        tuple(rows),
        (
            "Scores of the best-valid checkpoint, 0 to 100, higher is better; a mean is that of "
            f"the seeds' scores. {COPYING}.",
            *left_out,
            *_signature_notes(run),
        ),
    )


def quality_contrast_table(
    run: RunRecords, baseline: str | None = None, *, force: bool = False
) -> Table:
    """Return the differences of BLEU and chrF of every arm against the baseline."""
    against = run.baseline(baseline)
    rows: list[Row] = []
    notes = [
        "Differences are arm - baseline, higher is better; best-valid checkpoints. Intervals are "
        "paired t intervals over seeds. The randomisation p is of two fixed checkpoints, whose "
        "sentences are exchanged at random 10,000 times (BLEU); it says nothing about other seeds. "
        f"{COPYING}."
    ]
    scores, left_out = comparable_scores(run.labelled(), "cells", force=force)
    notes += left_out
    for arm in run.arms:
        if arm == against:
            continue
        for score in scores:
            for split in SPLITS:
                one = quality_contrast(run, arm, against, score, split, force=force)
                row = contrast_row(one, arm, against, score, split)
                if one is not None and score == "bleu":
                    row["randomisation_ps"] = one.randomisation_ps
                rows.append(row)
    return Table(
        "translation-contrasts",
        f"Translation contrasts of {run.manifest.name} against {against}",
        (
            Column("arm", "arm"),
            Column("baseline", "baseline", on_screen=False),
            Column("score", "score"),
            Column("split", "split"),
            *CONTRAST_COLUMNS,
            Column("randomisation_ps", "randomisation p by seed", "p"),
            Column("pairs_won", "pairs won"),
        ),
        tuple(rows),
        tuple(notes),
    )


def overlap_table(run: RunRecords) -> Table:
    """Return what source and target of a run have in common, and how many pairs it trains on."""
    return Table(
        "overlap",
        f"Vocabulary overlap of {run.manifest.name}",
        OVERLAP_COLUMNS,
        (overlap_row(run),),
        (OVERLAP_EXPLANATION,),
    )


def overlap_row(run: RunRecords) -> Row:
    """Return the values of `OVERLAP_COLUMNS`; none where the manifest does not say them."""
    try:
        facts = PairsRecord.model_validate(run.manifest.data)
    except ValidationError:
        return {}
    train = facts.splits.get("train")
    return facts.overlap.model_dump() | (train.model_dump() if train else {})


def _quality(cell: CellRecord, split: Split) -> Quality:
    assert cell.result is not None and cell.result.quality is not None
    return cell.result.quality[split]


def _randomisation(
    run: RunRecords, arm: str, baseline: str, seeds: tuple[int, ...], split: Split
) -> tuple[float, ...] | None:
    ps = []
    for seed in seeds:
        first, second = (run.cells[name, seed].bleu_counts(split) for name in (arm, baseline))
        if first is None or second is None or first.shape != second.shape:
            return None
        ps.append(randomisation_test(first, second, seed).p)
    return tuple(ps)


def _row(cell: CellRecord, split: Split) -> Row:
    row: dict[str, CellValue] = {
        "arm": cell.arm,
        "split": split,
        "seed": str(cell.seed),
        "status": status_in_words(cell),
    }
    if cell.status != "done":
        return row
    quality = _quality(cell, split)
    names = ("bleu", "chrf", "copy_bleu", "copy_chrf", "sentences")
    return row | {name: getattr(quality, name) for name in names}


def _mean_row(arm: str, split: Split, cells: tuple[CellRecord, ...]) -> Row:
    done = [_quality(cell, split) for cell in cells if cell.status == "done"]
    row: dict[str, CellValue] = {
        "arm": arm,
        "split": split,
        "seed": "mean",
        "status": f"{len(done)}/{len(cells)} done",
    }
    if not done:
        return row
    names = ("bleu", "chrf", "copy_bleu", "copy_chrf")
    return row | {name: fmean(getattr(one, name) for one in done) for name in names}


def contrast_row(
    one: QualityContrast | None, arm: str, baseline: str, score: Score, split: Split
) -> dict[str, CellValue]:
    """Return what both tables of contrasts show of one; without a pair only what was planned."""
    row: dict[str, CellValue] = {
        "arm": arm,
        "baseline": baseline,
        "score": NAMES[score],
        "split": split,
    }
    if one is None:
        return row
    won = sum(difference > 0 for difference in one.differences)
    return row | {
        "seeds": ", ".join(str(seed) for seed in one.seeds),
        "arm_values": one.arm_values,
        "baseline_values": one.baseline_values,
        "differences": one.differences,
        "mean": fmean(one.differences),
        "interval_95": (one.interval.low, one.interval.high) if one.interval else None,
        "copying": one.copying,
        "pairs_won": f"{won}/{len(one.seeds)}",
    }


def _signature_notes(run: RunRecords) -> list[str]:
    """Print how each score was computed, from the first cell that has it."""
    for result in run.results():
        return [_signature_note(result, split) for split in SPLITS]
    return []


def _signature_note(result: CellResult, split: Split) -> str:
    assert result.quality is not None
    lines = result.quality[split].signatures
    said = [f"{NAMES[score]} `{lines[score]}`" for score in SCORES if score in lines]
    return f"{split.capitalize()}: {', '.join(said)}."
