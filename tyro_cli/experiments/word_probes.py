"""What a user asks of the words of a probed run: their neighbours, and rated pairs.

Only words with a counted row of their own are answered for; the others are counted, or refused with
the reason. Nothing is written: the answers depend on what was asked. Words are target words, so an
encoder's own matrix is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from tyro_cli.analysis.columns import CellValue, Column, Row, Table
from tyro_cli.analysis.statistics import jackknife
from tyro_cli.errors import DataError
from tyro_cli.evaluation.probes.spaces import NUM_NEIGHBOURS, nearest_rows
from tyro_cli.evaluation.probes.words import (
    MIN_COVERED,
    RatedPair,
    pair_cosines,
    row_of_word,
    row_that_counts,
    shown_token,
    spearman,
)
from tyro_cli.experiments.probing import OpenedProbe, ProbedSpace


@dataclass(frozen=True)
class WordAnswer:
    """An answer: its numbers for `--json`, and the table of them."""

    record: Any
    table: Table


@dataclass(frozen=True, eq=False)
class CoveredPairs:
    """The rated pairs of a file whose words both have a counted row.

    Attributes:
        path: The file.
        num_pairs: How many pairs it holds, covered or not.
        places_P2: int64, the words' places among the counted rows.
        scores_P: float64.
    """

    path: Path
    num_pairs: int
    places_P2: np.ndarray
    scores_P: np.ndarray


def places_of(opened: OpenedProbe, words: Sequence[str]) -> dict[str, int]:
    """Return the places of words among the counted rows.

    Raises:
        DataError: A word is empty, no token of the vocabulary, or a rare one.
    """
    counts, ids = opened.counts["target"], opened.rows["target"].ids
    return {word: row_that_counts(opened.tokenizer, word, counts, ids) for word in words}


def answer_neighbours(
    opened: OpenedProbe, spaces: Sequence[ProbedSpace], places: Mapping[str, int]
) -> WordAnswer:
    """Return the nearest neighbours of words in every matrix of each arm's first seed.

    Args:
        opened: What is probed.
        spaces: Its matrices.
        places: The words, as `places_of` finds them.
    """
    tokenizer, ids = opened.tokenizer, opened.rows["target"].ids
    shown: dict[tuple[str, str], ProbedSpace] = {}
    for one in _of_words(spaces):
        shown.setdefault((one.cell.arm, one.matrix), one)
    record: list[dict[str, Any]] = []
    for word, place in places.items():
        for one in shown.values():
            nearest, cosines = nearest_rows(one.space.rows_RD, np.array([place]), NUM_NEIGHBOURS)
            found = [
                {"token": shown_token(tokenizer, int(ids[row])), "cosine": float(cosine)}
                for row, cosine in zip(nearest[0], cosines[0], strict=True)
            ]
            record.append(
                {"word": word, "token": shown_token(tokenizer, int(ids[place]))}
                | one.name
                | {"neighbours": found}
            )
    rows: list[Row] = [
        {
            "where": f"{one['word']}: {one['arm']} {one['matrix']}",
            "neighbours": " ".join(
                f"{other['token']} {other['cosine']:.2f}" for other in one["neighbours"]
            ),
        }
        for one in record
    ]
    seeds = sorted({one.cell.seed for one in shown.values()})
    table = Table(
        "neighbours",
        "Nearest neighbours by cosine",
        (
            Column("where", "word and matrix"),
            Column("neighbours", "neighbours"),
        ),
        tuple(rows),
        (
            f"Of seed {', '.join(map(str, seeds))}; --seed asks another. An open box is the space "
            "in front of a word.",
        ),
    )
    return WordAnswer(record, table)


def covered_pairs(opened: OpenedProbe, path: Path, pairs: Sequence[RatedPair]) -> CoveredPairs:
    """Return the pairs of a file whose words both have counted rows.

    Raises:
        DataError: Fewer than `MIN_COVERED` pairs have.
    """
    place_of = {int(token): place for place, token in enumerate(opened.rows["target"].ids)}
    places: dict[str, int | None] = {}
    for word in {word for pair in pairs for word in (pair.first, pair.second)}:
        token = row_of_word(opened.tokenizer, word, opened.counts["target"])
        places[word] = None if token is None else place_of.get(token)
    covered = [
        ((first, second), pair.score)
        for pair in pairs
        if (first := places[pair.first]) is not None and (second := places[pair.second]) is not None
    ]
    if len(covered) < MIN_COVERED:
        num_words = sum(place is not None for place in places.values())
        raise DataError(
            f"{path}: {len(covered)} of its {len(pairs):,} pairs have both words as one frequent "
            f"token of the vocabulary ({num_words:,} of {len(places):,} words do), and a rank "
            f"correlation needs {MIN_COVERED}",
            "give pairs of words that are frequent in the training text, spelled as there, or "
            "probe a run with a larger vocabulary: a word that is split into pieces has no row",
        )
    places_P2, scores_P = (np.array(column) for column in zip(*covered, strict=True))
    return CoveredPairs(path, len(pairs), places_P2, scores_P)


def answer_pairs(spaces: Sequence[ProbedSpace], pairs: CoveredPairs) -> WordAnswer:
    """Return how the cosines of rated pairs go with their scores, and how many are covered."""
    covered = len(pairs.scores_P)
    by_matrix: dict[tuple[str, str], dict[int, float | None]] = {}
    for one in _of_words(spaces):
        correlation = spearman(pair_cosines(one.space.rows_RD, pairs.places_P2), pairs.scores_P)
        by_matrix.setdefault((one.cell.arm, one.matrix), {})[one.cell.seed] = correlation
    record = {
        "pairs": pairs.num_pairs,
        "covered": covered,
        "correlations": [
            {"arm": arm, "matrix": matrix, "seed": seed, "spearman": correlation}
            for (arm, matrix), by_seed in by_matrix.items()
            for seed, correlation in by_seed.items()
        ],
    }
    table = Table(
        "pairs",
        f"Rated pairs of {pairs.path.name}",
        (
            Column("arm", "arm"),
            Column("matrix", "matrix"),
            Column("seeds", "seeds"),
            Column("values", "by seed", "signed_numbers", 3),
            Column("mean", "Spearman", "signed", 3),
            Column("interval_95", "95 % interval", "interval", 3),
        ),
        tuple(_pairs_row(*names, by_seed) for names, by_seed in by_matrix.items()),
        (
            f"Covered: {covered:,} of {pairs.num_pairs:,} pairs ({covered / pairs.num_pairs:.0%}), "
            "whose words are one token each and frequent enough; a word that is split is not.",
            "Spearman's correlation of cosine and score; the interval is over seeds, not pairs.",
        ),
    )
    return WordAnswer(record, table)


def _pairs_row(arm: str, matrix: str, by_seed: dict[int, float | None]) -> Row:
    seeds = ", ".join(str(seed) for seed in by_seed)
    known = {seed: value for seed, value in by_seed.items() if value is not None}
    if len(known) < len(by_seed):
        return {"arm": arm, "matrix": matrix, "seeds": seeds, "mean": None}
    row: dict[str, CellValue] = {
        "arm": arm,
        "matrix": matrix,
        "seeds": seeds,
        "values": tuple(known.values()),
        "mean": fmean(known.values()),
    }
    if len(known) < 2:
        return row
    over = jackknife(lambda some: fmean(known[seed] for seed in some), list(known))
    return row | {"interval_95": (over.interval.low, over.interval.high)}


def _of_words(spaces: Sequence[ProbedSpace]) -> list[ProbedSpace]:
    return [one for one in spaces if one.matrix != "source"]
