"""The pairs of one split: which of them can be used, their tokens, and the files they lie in.

Invariant: source i and target i are a pair, neither is empty, and neither has more than
`context_length` tokens, `<eos>` included. What is dropped is counted, or refused, as
`data.unusable_pairs` says. The cache entry that splits lie in is left to `prepared_pairs`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tyro_cli.config.schema import DataConfig
from tyro_cli.data.arrays import open_array, token_dtype, write_array
from tyro_cli.data.parallel import PairTexts, hash_pairs
from tyro_cli.data.prepared import keep_fraction
from tyro_cli.data.tokenizers import (
    EOS,
    EOS_ID,
    UNKNOWN,
    encode_documents,
    is_word_tokenizer,
)
from tyro_cli.errors import DataError
from tyro_cli.storage.files import write_text
from tyro_cli.storage.system import storage_errors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_COUNTS = ("num_tokens", "num_words", "num_bytes", "num_unknown", "num_empty", "num_long")
_WITH_SENTENCES = ("valid", "test")


@dataclass(frozen=True, eq=False)
class PairSplit:
    """The pairs of one split.

    Attributes:
        source: Tokens of all source sentences, each of which ends in `<eos>`; a memory map when
            it comes from the cache.
        target: Tokens of all target sentences, likewise; what is written in a disjoint script is
            tokenized as it is written.
        source_starts: int64 `[pairs + 1]`, index into `source` of each sentence's first token, and
            the end.
        target_starts: int64 `[pairs + 1]`, the same of `target`.
        target_words: int64 `[pairs]`, words of the original target sentence.
        target_bytes: int64 `[pairs]`, UTF-8 bytes of the original target sentence.
        text_sha256: Hash of the original sentences of these pairs.
        num_tokens: Target tokens to score, `<eos>` included.
        num_words: Words of the original target.
        num_bytes: UTF-8 bytes of the original target.
        num_unknown: Target words that a `word` vocabulary maps to `<unk>` though they are not
            `<unk>`.
        num_empty: Pairs of the whole split that were dropped because a side is empty.
        num_long: Pairs of the whole split that were dropped because a side has more than
            `context_length` tokens.
        source_sentences: Source sentences as they are tokenized; of `valid` and `test` alone.
        target_sentences: Original target sentences; of `valid` and `test` alone.
    """

    source: np.ndarray
    target: np.ndarray
    source_starts: np.ndarray
    target_starts: np.ndarray
    target_words: np.ndarray
    target_bytes: np.ndarray
    text_sha256: str
    num_tokens: int
    num_words: int
    num_bytes: int
    num_unknown: int
    num_empty: int
    num_long: int
    source_sentences: tuple[str, ...]
    target_sentences: tuple[str, ...]

    @property
    def num_pairs(self) -> int:
        """Number of pairs."""
        return len(self.target_words)

    @property
    def num_source_tokens(self) -> int:
        """Source tokens, `<eos>` included."""
        return len(self.source)

    @property
    def source_lengths(self) -> np.ndarray:
        """Tokens of each source sentence, `<eos>` included, int64 `[pairs]`."""
        return np.diff(self.source_starts)

    @property
    def target_lengths(self) -> np.ndarray:
        """Tokens of each target sentence, `<eos>` included, int64 `[pairs]`."""
        return np.diff(self.target_starts)


def tokenize_pairs(
    texts: PairTexts,
    written: Sequence[str],
    tokenizers: "tuple[Tokenizer, Tokenizer]",
    data: DataConfig,
    where: str,
    *,
    fraction: float = 1.0,
    should_stop: Callable[[], None] = lambda: None,
) -> PairSplit:
    """Tokenize the pairs of a split that can be used.

    Args:
        texts: The original sentences.
        written: The target sentences as they are to be tokenized.
        tokenizers: Of the source and of the target.
        data: Says what can be used (`context_length`) and what becomes of the rest
            (`unusable_pairs`).
        where: Corpus and split, for errors.
        fraction: Fraction of the tokens of both sides that is kept, in whole pairs; those of a
            smaller fraction are among those of a larger one.
        should_stop: Called between slices of work; raises to stop.

    Raises:
        DataError: No pair can be used, or one cannot and the rule is to refuse.
    """
    source, target = texts.source, texts.target
    filled = np.array([i for i, pair in enumerate(zip(source, target, strict=True)) if all(pair)])
    source_tokens, source_lengths = _encode(
        tokenizers[0], [source[index] for index in filled], should_stop
    )
    target_tokens, target_lengths = _encode(
        tokenizers[1], [written[index] for index in filled], should_stop
    )
    is_usable = np.maximum(source_lengths, target_lengths) <= data.context_length
    num_empty, num_long = len(source) - len(filled), int(np.count_nonzero(~is_usable))
    if data.unusable_pairs == "refuse" and num_empty + num_long:
        lengths = np.zeros((len(source), 2), dtype=np.int64)
        lengths[filled] = np.stack([source_lengths, target_lengths], axis=1)
        raise _unusable_pair(data, where, texts, lengths)
    if not is_usable.any():
        raise DataError(
            f"{where}: no pair can be used: {num_empty:,} have an empty side, {num_long:,} more "
            f"than data.context_length ({data.context_length}) tokens on a side",
            "make data.context_length longer",
        )
    usable = np.flatnonzero(is_usable)
    kept = usable[keep_fraction((source_lengths + target_lengths)[usable], fraction)]
    is_kept = np.isin(np.arange(len(filled)), kept)
    source_tokens = source_tokens[np.repeat(is_kept, source_lengths)]
    target_tokens = target_tokens[np.repeat(is_kept, target_lengths)]
    kept_pairs = filled[kept]
    source_sentences = tuple(source[index] for index in kept_pairs)
    target_sentences = tuple(target[index] for index in kept_pairs)
    words = np.array([len(sentence.split()) for sentence in target_sentences], dtype=np.int64)
    sizes = np.array([len(text.encode("utf-8")) for text in target_sentences], dtype=np.int64)
    return PairSplit(
        source=source_tokens,
        target=target_tokens,
        source_starts=np.concatenate([[0], np.cumsum(source_lengths[kept])]),
        target_starts=np.concatenate([[0], np.cumsum(target_lengths[kept])]),
        target_words=words,
        target_bytes=sizes,
        text_sha256=hash_pairs(source_sentences, target_sentences),
        num_tokens=len(target_tokens),
        num_words=int(words.sum()),
        num_bytes=int(sizes.sum()),
        num_unknown=_count_unknown(
            tokenizers[1], target_tokens, [written[index] for index in kept_pairs]
        ),
        num_empty=num_empty,
        num_long=num_long,
        source_sentences=source_sentences,
        target_sentences=target_sentences,
    )


def _encode(
    tokenizer: "Tokenizer", sentences: Sequence[str], should_stop: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens of sentences, each closed by `<eos>`, and their lengths."""
    dtype = token_dtype(tokenizer.get_vocab_size())
    eos = np.array([] if is_word_tokenizer(tokenizer) else [EOS_ID], dtype=dtype)
    encoded = encode_documents(tokenizer, sentences, should_stop=should_stop)
    arrays = [np.concatenate([ids.astype(dtype), eos]) for ids in encoded]
    lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    return np.concatenate(arrays), lengths


def _count_unknown(tokenizer: "Tokenizer", tokens: np.ndarray, sentences: Sequence[str]) -> int:
    """Return the words that became `<unk>` though they are not `<unk>`."""
    if not is_word_tokenizer(tokenizer):
        return 0
    num_literal = sum(sentence.split().count(UNKNOWN) for sentence in sentences)
    return int(np.count_nonzero(tokens == tokenizer.token_to_id(UNKNOWN))) - num_literal


def _unusable_pair(
    data: DataConfig, where: str, texts: PairTexts, lengths: np.ndarray
) -> DataError:
    """Return the error that names the first unusable pair.

    Args:
        data: Has the rule and the limit.
        where: Corpus and split.
        texts: The original sentences.
        lengths: `[pairs, 2]`, tokens of source and target; 0 where a side is empty.
    """
    is_unusable = (lengths.min(axis=1) == 0) | (lengths.max(axis=1) > data.context_length)
    number = int(np.flatnonzero(is_unusable)[0])
    sides = {"source": texts.source[number], "target": texts.target[number]}
    empty = [f"no {side}" for side, sentence in sides.items() if not sentence]
    source, target = lengths[number].tolist()
    problem = (
        " and ".join(empty)
        or f"{source:,} source and {target:,} target tokens ({EOS} included), "
        f"data.context_length is {data.context_length:,}"
    )
    return DataError(
        f"{where}: pair {number + 1:,} cannot be used: it has {problem} (the first of "
        f"{np.count_nonzero(is_unusable):,})",
        "correct the pairs, make data.context_length longer, or set data.unusable_pairs: drop",
    )


def write_split(folder: Path, name: str, split: PairSplit) -> dict[str, Any]:
    """Write a split into a folder and return the record that `open_split` asks for."""
    write_array(folder / f"{name}.source", split.source)
    write_array(folder / f"{name}.target", split.target)
    parts = (split.source_starts, split.target_starts, split.target_words, split.target_bytes)
    write_array(folder / f"{name}.pairs", np.concatenate(parts))
    if name in _WITH_SENTENCES:
        for side, sentences in (
            ("source", split.source_sentences),
            ("target", split.target_sentences),
        ):
            write_text(folder / f"{name}.{side}.txt", "".join(f"{line}\n" for line in sentences))
    return {
        "text_sha256": split.text_sha256,
        **{count: getattr(split, count) for count in _COUNTS},
    }


def open_split(folder: Path, name: str, record: dict[str, Any]) -> PairSplit:
    """Open a split of a folder whose manifest was verified.

    Raises:
        KeyError, ValueError: The record or the files are not what `write_split` wrote.
        StorageError: A file is missing or cannot be read.
    """
    # The manifest has just vouched for the content; reading it all a second time adds nothing.
    numbers = open_array(folder / f"{name}.pairs")
    num_pairs, rest = divmod(len(numbers) - 2, 4)
    if num_pairs < 1 or rest:
        raise ValueError(f"the length of {name}.pairs")
    source_starts, target_starts, words, sizes = np.split(
        numbers, np.cumsum([num_pairs + 1, num_pairs + 1, num_pairs])
    )
    sides = {
        side: _read_sentences(folder / f"{name}.{side}.txt") if name in _WITH_SENTENCES else ()
        for side in ("source", "target")
    }
    split = PairSplit(
        source=open_array(folder / f"{name}.source"),
        target=open_array(folder / f"{name}.target"),
        source_starts=source_starts,
        target_starts=target_starts,
        target_words=words,
        target_bytes=sizes,
        text_sha256=record["text_sha256"],
        **{count: record[count] for count in _COUNTS},
        source_sentences=sides["source"],
        target_sentences=sides["target"],
    )
    num_kept = num_pairs if name in _WITH_SENTENCES else 0
    fits = (
        source_starts[-1] == len(split.source)
        and target_starts[-1] == len(split.target)
        and all(len(sentences) == num_kept for sentences in sides.values())
    )
    if not fits:
        raise ValueError(f"the number of pairs of {name}")
    return split


def _read_sentences(path: Path) -> tuple[str, ...]:
    with storage_errors(path, "read"):
        return tuple(path.read_bytes().decode("utf-8").split("\n")[:-1])
