"""Training of the unigram vocabulary, the same on every run.

The `tokenizers` library trains unigram vocabularies too, but sums probabilities in the order of a
hash map that is seeded anew in every process: on WikiText-2 (8,192 tokens) six trainings of one
text gave six different files, with log-probabilities up to 0.008 apart. Here every count is an
exact integer and every tie is broken by spelling. The library still does the heavy work: it cuts
words, proposes candidates (a BPE vocabulary) and segments. Method: Kudo 2018, "Subword
Regularization", section 3.2, with the best segmentation in place of the expectation.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

MAX_PIECE_BYTES = 16
_CANDIDATES_PER_TOKEN = 4
_KEPT_FRACTION = 0.75  # of the pieces, in each round
_SEGMENTATIONS_PER_ROUND = 2
_SCORE_DECIMALS = 6  # so that the last bit of a machine's logarithm decides nothing
_NEVER = -1000.0  # the score of `<eos>`: no segmentation of a text contains it


def train_unigram(
    vocab_size: int,
    slices: Callable[[], Iterable[list[str]]],
    *,
    pre_tokenizer: "PreTokenizer",
    alphabet: list[str],
    eos: str,
    should_stop: Callable[[], None],
) -> list[tuple[str, float]]:
    """Return the vocabulary: `<eos>`, then pieces by falling log-probability.

    Args:
        vocab_size: Tokens wanted, `<eos>` included; fewer come back where the text has no more.
        slices: Gives the text anew at each call, in slices.
        pre_tokenizer: Cuts a text into words over the alphabet.
        alphabet: Characters that are always in the vocabulary, whatever the text.
        eos: Spelling of `<eos>`.
        should_stop: Called between slices of work; raises to stop.
    """
    candidates, words = _candidates_and_words(
        vocab_size, slices, pre_tokenizer=pre_tokenizer, alphabet=alphabet
    )
    word_counts = _count_words(words, slices, pre_tokenizer, should_stop)
    pieces = sorted({*candidates, *alphabet} - {eos})
    single = set(alphabet)
    # The first segmentation prefers few pieces; the later ones prefer likely ones.
    scores = dict.fromkeys(pieces, -1.0)
    wanted = vocab_size - 1
    while True:
        for _ in range(_SEGMENTATIONS_PER_ROUND):
            should_stop()
            counts = _count_pieces(scores, words, word_counts)
            scores = _log_probabilities(counts)
        if len(scores) <= wanted:
            break
        losses = {
            piece: counts[piece] * (scores[piece] - _score_without(piece, scores))
            for piece in scores
            if piece not in single and counts[piece] > 0
        }
        num_kept = max(wanted, int(_KEPT_FRACTION * len(scores))) - len(single)
        order = sorted(
            (piece for piece in scores if piece not in single),
            key=lambda piece: (-round(losses.get(piece, 0.0), _SCORE_DECIMALS), piece),
        )
        scores = {piece: scores[piece] for piece in (*alphabet, *order[:num_kept])}
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return [(eos, _NEVER), *ranked]


def _candidates_and_words(
    vocab_size: int,
    slices: Callable[[], Iterable[list[str]]],
    *,
    pre_tokenizer: "PreTokenizer",
    alphabet: list[str],
) -> tuple[list[str], list[str]]:
    """Return candidate pieces and the distinct words of the text, both without an order."""
    from tokenizers import Tokenizer, models, trainers

    merging = Tokenizer(models.BPE())
    merging.pre_tokenizer = pre_tokenizer
    merging.train_from_iterator(
        slices(),
        trainers.BpeTrainer(
            vocab_size=_CANDIDATES_PER_TOKEN * vocab_size,
            initial_alphabet=alphabet,
            max_token_length=MAX_PIECE_BYTES,
            show_progress=False,
        ),
    )
    listing = Tokenizer(models.WordLevel())
    listing.pre_tokenizer = pre_tokenizer
    listing.train_from_iterator(
        slices(), trainers.WordLevelTrainer(vocab_size=2**31, show_progress=False)
    )
    return list(merging.get_vocab()), sorted(listing.get_vocab())


def _count_words(
    words: list[str],
    slices: Callable[[], Iterable[list[str]]],
    pre_tokenizer: "PreTokenizer",
    should_stop: Callable[[], None],
) -> np.ndarray:
    """Return how often each word stands in the text."""
    from tokenizers import Tokenizer, models

    vocabulary = {word: number for number, word in enumerate(words)}
    counting = Tokenizer(models.WordLevel(vocabulary, unk_token=words[0]))
    counting.pre_tokenizer = pre_tokenizer
    counts = np.zeros(len(words), dtype=np.int64)
    for texts in slices():
        should_stop()
        encodings = counting.encode_batch_fast(texts, add_special_tokens=False)
        ids = [word_id for encoding in encodings for word_id in encoding.ids]
        counts += np.bincount(np.array(ids, dtype=np.int64), minlength=len(words))
    return counts


def _count_pieces(
    scores: dict[str, float], words: list[str], word_counts: np.ndarray
) -> dict[str, int]:
    """Segment every word at its best and count the pieces, weighted by the words' counts."""
    from tokenizers import Tokenizer, models

    pieces = list(scores)
    segmenting = Tokenizer(models.Unigram(list(scores.items())))
    counts = np.zeros(len(pieces), dtype=np.int64)
    for encoding, word_count in zip(
        segmenting.encode_batch_fast(words, add_special_tokens=False), word_counts, strict=True
    ):
        for piece_id in encoding.ids:
            counts[piece_id] += word_count
    return dict(zip(pieces, counts.tolist(), strict=True))


def _log_probabilities(counts: dict[str, int]) -> dict[str, float]:
    """Return the log of each piece's share; a piece that no word uses counts as half a use."""
    log_total = math.log(sum(counts.values()))
    return {
        piece: round(math.log(count or 0.5) - log_total, _SCORE_DECIMALS)
        for piece, count in counts.items()
    }


def _score_without(piece: str, scores: dict[str, float]) -> float:
    """Return the score of the best segmentation of a piece into smaller ones."""
    best = [0.0]
    for end in range(1, len(piece) + 1):
        starts = range(1 if end == len(piece) else 0, end)
        found = (
            best[start] + scores[piece[start:end]] for start in starts if piece[start:end] in scores
        )
        best.append(max(found, default=-math.inf))
    return best[-1]
