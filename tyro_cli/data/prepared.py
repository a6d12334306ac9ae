"""Prepared data: what training and evaluation read, tokenized once and cached.

Invariant: a cache entry is named by the hash of everything that made it (text, tokenizer settings,
format, train_fraction, format version), is written as a whole, and is verified whenever it is
opened; a damaged entry is built again, never used. Workers open the entry alone: they touch
neither the corpus nor the tokenizers library. What a batch is, is left to `batches`.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tyro_cli.config.schema import DataConfig
from tyro_cli.data.arrays import open_array, token_dtype, write_array
from tyro_cli.data.batches import count_windows
from tyro_cli.data.cache import entry_folder, open_or_make
from tyro_cli.data.chains import KnownEntropy
from tyro_cli.data.corpora import SPLITS, Corpus, load_corpus
from tyro_cli.data.documents import TextFormat, count_words, split_documents
from tyro_cli.data.tokenizers import (
    EOS_ID,
    UNKNOWN,
    encode_documents,
    is_word_tokenizer,
    load_tokenizer,
    train_tokenizer,
)
from tyro_cli.errors import DamagedRecord, DataError, StorageError
from tyro_cli.storage.files import new_folder, read_json, write_json, write_text
from tyro_cli.storage.manifests import sha256_of_file, verify_manifest, write_manifest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Raised whenever the same corpus and settings would be stored as something else.
CACHE_FORMAT = 2

# Seeds the one order in which `train_fraction` takes documents, for every corpus and cell.
_FRACTION_SEED = 0x6672616374696F6E  # "fraction"

_DOCUMENT_ARRAYS = ("document_starts", "document_words", "document_bytes")
_COUNTS = ("num_tokens", "num_words", "num_bytes", "num_unknown")


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """The tokens of one split, and what each of its documents holds.

    Attributes:
        tokens: The stream, one `<eos>` and then every document's tokens; a memory map when it
            comes from the cache.
        document_starts: int64 `[documents]`, index into `tokens` of each document's first token.
        document_words: int64 `[documents]`, words of the original text.
        document_bytes: int64 `[documents]`, UTF-8 bytes of the original text.
        text_sha256: Hash of the text that these tokens stand for.
        num_tokens: Tokens to score: all but the leading `<eos>`.
        num_words: Words of the original text; in `wikitext` with one `<eos>` a line.
        num_bytes: UTF-8 bytes of the original text.
        num_unknown: Words that a `word` vocabulary maps to `<unk>` though they are not `<unk>`.
    """

    tokens: np.ndarray
    document_starts: np.ndarray
    document_words: np.ndarray
    document_bytes: np.ndarray
    text_sha256: str
    num_tokens: int
    num_words: int
    num_bytes: int
    num_unknown: int

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return len(self.document_starts)


@dataclass(frozen=True, eq=False)
class PreparedData:
    """A corpus, tokenized.

    Attributes:
        folder: The cache entry.
        vocab_size: Token types, `<eos>` included.
        content_sha256: Hash of the whole corpus: the text of all three splits, and the format.
        tokenizer_kind: `bpe`, `unigram`, `word` or `byte`.
        tokenizer_path: The entry's `tokenizer.json`.
        tokenizer_sha256: Hash of that file.
        train_fraction: Fraction of the training tokens that `train` keeps.
        splits: `train`, `valid` and `test`.
        known_entropy: What is known of the text's source: of a synthetic corpus alone.
    """

    folder: Path
    vocab_size: int
    content_sha256: str
    tokenizer_kind: str
    tokenizer_path: Path
    tokenizer_sha256: str
    train_fraction: float
    splits: dict[str, TokenSplit]
    known_entropy: KnownEntropy | None = None

    @property
    def source_vocab_size(self) -> None:
        """A language model has no source."""
        return None

    def facts(self) -> dict[str, Any]:
        """Return the numbers that describe the data, as a record; no path is in it."""
        return {
            "content_sha256": self.content_sha256,
            "tokenizer": self.tokenizer_kind,
            "tokenizer_sha256": self.tokenizer_sha256,
            "train_fraction": self.train_fraction,
            "vocab_size": self.vocab_size,
            "splits": {
                name: {
                    "documents": split.num_documents,
                    "tokens": split.num_tokens,
                    "words": split.num_words,
                    "bytes": split.num_bytes,
                    "unknown_words": split.num_unknown,
                    "text_sha256": split.text_sha256,
                }
                for name, split in self.splits.items()
            },
            **(
                {"known_entropy": self.known_entropy.as_record()}
                if self.known_entropy is not None
                else {}
            ),
        }


def default_cache_folder() -> Path:
    """Return `$WTIE_CACHE`, or `wtie` under `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        StorageError: There is none of the three.
    """
    if own := os.environ.get("WTIE_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(shared) if shared else Path.home() / ".cache") / "wtie"
    except RuntimeError:  # neither HOME nor an entry in the list of users
        raise StorageError(
            "there is no home folder to keep prepared corpora in",
            "set WTIE_CACHE to a folder that can be written",
        ) from None


def prepare_data(
    data: DataConfig,
    *,
    cache_folder: Path,
    on_progress: Callable[[str], None] = lambda message: None,
    should_stop: Callable[[], None] = lambda: None,
) -> PreparedData:
    """Read a corpus and return it tokenized, from the cache where it is there.

    Two processes that start at once prepare it once: the second waits for the first.

    Args:
        data: What to prepare.
        cache_folder: Where entries are kept; see `default_cache_folder`.
        on_progress: Told in a few words what happens, for what takes time.
        should_stop: Called between slices of work; raises to stop.

    Raises:
        DataError: The corpus cannot be used as configured.
        StorageError: The cache cannot be written.
    """
    corpus = load_corpus(data, on_progress=on_progress, should_stop=should_stop)
    should_stop()
    prepared = open_or_make(
        entry_folder(cache_folder, _entry_parts(data, corpus)),
        open_prepared,
        lambda folder: _build(folder, data, corpus, on_progress, should_stop),
        on_progress,
        should_stop,
    )
    _check_one_window(prepared, data, corpus.name)
    return prepared


def open_prepared(folder: Path) -> PreparedData:
    """Open and verify a cache entry; the corpus is not needed.

    Raises:
        DamagedFolder, DamagedRecord: The entry is not what was written.
        StorageError: The entry is not there, or cannot be read.
    """
    verify_manifest(folder)
    record = read_json(folder / "prepared.json")
    if not isinstance(record, dict) or record.get("format") != CACHE_FORMAT:
        raise DamagedRecord(f"{folder / 'prepared.json'}: not a record of prepared data")
    try:
        splits = {name: _open_split(folder, name, record["splits"][name]) for name in SPLITS}
        known = record.get("known_entropy")
        return PreparedData(
            folder=folder,
            vocab_size=record["vocab_size"],
            content_sha256=record["content_sha256"],
            tokenizer_kind=record["tokenizer_kind"],
            tokenizer_path=folder / "tokenizer.json",
            tokenizer_sha256=record["tokenizer_sha256"],
            train_fraction=record["train_fraction"],
            splits=splits,
            known_entropy=KnownEntropy(**known) if known is not None else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRecord(f"{folder / 'prepared.json'}: {error} is missing or wrong") from error


def tokenize_split(
    tokenizer: "Tokenizer",
    documents: Sequence[str],
    text_format: TextFormat,
    *,
    should_stop: Callable[[], None] = lambda: None,
) -> TokenSplit:
    """Tokenize documents in memory, as a split of their own.

    Args:
        tokenizer: As `load_tokenizer` gives it.
        documents: As `split_documents` gives them.
        text_format: Decides what counts as a word.
        should_stop: Called between slices of work; raises to stop.

    Raises:
        DataError: There is no word in the documents.
    """
    if not any(document.strip() for document in documents):
        raise DataError("the text has no words", "give a text with at least one word")
    dtype = token_dtype(tokenizer.get_vocab_size())
    unknown_id = tokenizer.token_to_id(UNKNOWN) if is_word_tokenizer(tokenizer) else None
    arrays = [np.array([EOS_ID], dtype=dtype)]
    num_unknown = 0
    text_hash = hashlib.sha256()
    for ids in encode_documents(tokenizer, documents, should_stop=should_stop):
        arrays.append(ids.astype(dtype))
        if unknown_id is not None:
            num_unknown += int(np.count_nonzero(ids == unknown_id))
    words, sizes = [], []
    for document in documents:
        encoded = document.encode("utf-8")
        text_hash.update(encoded)
        sizes.append(len(encoded))
        words.append(count_words(document, text_format))
        if unknown_id is not None and UNKNOWN in document:
            num_unknown -= document.split().count(UNKNOWN)
    lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    tokens = np.concatenate(arrays)
    return TokenSplit(
        tokens=tokens,
        document_starts=np.cumsum(lengths)[:-1],
        document_words=np.array(words, dtype=np.int64),
        document_bytes=np.array(sizes, dtype=np.int64),
        text_sha256=text_hash.hexdigest(),
        num_tokens=len(tokens) - 1,
        num_words=sum(words),
        num_bytes=sum(sizes),
        num_unknown=num_unknown,
    )


def keep_fraction(document_tokens: np.ndarray, fraction: float) -> np.ndarray:
    """Return the indices of the documents that a fraction of the training tokens keeps.

    Documents are taken in one fixed shuffled order until they hold the fraction, so a smaller
    fraction's documents are among a larger one's; they stay in the order of the corpus.

    Args:
        document_tokens: Tokens of each document.
        fraction: Above 0, at most 1.
    """
    num_documents = len(document_tokens)
    if fraction >= 1:
        return np.arange(num_documents)
    generator = np.random.Generator(np.random.Philox(key=_FRACTION_SEED))
    # Sorting one draw a document keeps the order of the first documents when others are appended.
    order = np.argsort(generator.random(num_documents), kind="stable")
    held = np.cumsum(document_tokens[order])
    wanted = fraction * held[-1]
    num_kept = int(np.searchsorted(held, wanted, side="left")) + 1
    return np.sort(order[:num_kept])


def _build(
    folder: Path,
    data: DataConfig,
    corpus: Corpus,
    on_progress: Callable[[str], None],
    should_stop: Callable[[], None],
) -> None:
    """Tokenize a corpus into a new cache entry."""
    documents = {name: split_documents(corpus.texts[name], data.format) for name in SPLITS}
    on_progress(f"training the {data.tokenizer.kind} tokenizer on {corpus.name}")
    tokenizer = train_tokenizer(data.tokenizer, documents["train"], should_stop=should_stop)
    with new_folder(folder) as new:
        write_text(new / "tokenizer.json", tokenizer.to_str(pretty=True))
        # What is used is what was saved.
        tokenizer = load_tokenizer(new / "tokenizer.json")
        record: dict[str, Any] = {
            "format": CACHE_FORMAT,
            "content_sha256": corpus.content_sha256,
            "tokenizer_kind": data.tokenizer.kind,
            "tokenizer_sha256": sha256_of_file(new / "tokenizer.json"),
            "train_fraction": data.train_fraction,
            "vocab_size": tokenizer.get_vocab_size(),
            "splits": {},
        }
        if corpus.known_entropy is not None:
            record["known_entropy"] = corpus.known_entropy.as_record()
        for name in SPLITS:
            on_progress(f"tokenizing the {name} split of {corpus.name}")
            split = tokenize_split(tokenizer, documents[name], data.format, should_stop=should_stop)
            if name == "train" and data.train_fraction < 1:
                document_tokens = np.diff(split.document_starts, append=len(split.tokens))
                kept = keep_fraction(document_tokens, data.train_fraction)
                split = tokenize_split(
                    tokenizer,
                    [documents[name][index] for index in kept],
                    data.format,
                    should_stop=should_stop,
                )
            write_array(new / f"{name}.tokens", split.tokens)
            documents_of_split = [getattr(split, array) for array in _DOCUMENT_ARRAYS]
            write_array(new / f"{name}.documents", np.concatenate(documents_of_split))
            record["splits"][name] = {
                "text_sha256": split.text_sha256,
                **{count: getattr(split, count) for count in _COUNTS},
            }
        write_json(new / "prepared.json", record)
        write_manifest(new)


def _open_split(folder: Path, name: str, record: dict[str, Any]) -> TokenSplit:
    # The manifest has just vouched for the content; reading it all a second time adds nothing.
    starts, words, sizes = open_array(folder / f"{name}.documents").reshape(3, -1)
    return TokenSplit(
        tokens=open_array(folder / f"{name}.tokens"),
        document_starts=starts,
        document_words=words,
        document_bytes=sizes,
        text_sha256=record["text_sha256"],
        **{count: record[count] for count in _COUNTS},
    )


def _entry_parts(data: DataConfig, corpus: Corpus) -> dict[str, object]:
    """Return everything that decides what an entry holds."""
    return {
        "cache_format": CACHE_FORMAT,
        "content_sha256": corpus.content_sha256,
        "text_format": data.format,
        "tokenizer": data.tokenizer.model_dump(mode="json", exclude={"sharing"}),
        "tokenizers_version": version("tokenizers"),
        "train_fraction": data.train_fraction,
    }


def _check_one_window(prepared: PreparedData, data: DataConfig, corpus_name: str) -> None:
    """Refuse a training split from which not one window can be drawn."""
    train = prepared.splits["train"]
    if count_windows(len(train.tokens), data.context_length) < 1:
        raise DataError(
            f"{corpus_name}: the training split has {train.num_tokens:,} tokens, fewer than one "
            f"window of context_length {data.context_length} at any offset needs "
            f"({2 * data.context_length - 1:,})",
            "give more text, or make data.context_length smaller",
        )
