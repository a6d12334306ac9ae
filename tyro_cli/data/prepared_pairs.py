"""Prepared pairs: what translation trains on and is evaluated on, tokenized once and cached.

Invariant: as in `prepared`: an entry is named by the hash of everything that made it, is written as
a whole, and is verified whenever it is opened. What a split holds is left to `pair_splits`, what a
batch is to `pair_batches`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro_cli.config.schema import DataConfig
from tyro_cli.data.cache import entry_folder, open_or_make
from tyro_cli.data.corpora import SPLITS
from tyro_cli.data.overlap import measure_overlap
from tyro_cli.data.pair_splits import PairSplit, open_split, tokenize_pairs, write_split
from tyro_cli.data.parallel import ParallelCorpus, load_parallel_corpus
from tyro_cli.data.scripts import DisjointScript, check_unused
from tyro_cli.data.tokenizers import load_tokenizer, train_tokenizer
from tyro_cli.errors import DamagedRecord
from tyro_cli.storage.files import new_folder, read_json, write_json, write_text
from tyro_cli.storage.manifests import sha256_of_file, verify_manifest, write_manifest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Raised whenever the same corpus and settings would be stored as something else.
CACHE_FORMAT = 1

_RECORD = "pairs.json"
_TOKENIZER = "tokenizer.json"
_SOURCE_TOKENIZER = "source-tokenizer.json"


@dataclass(frozen=True, eq=False)
class PreparedPairs:
    """A parallel corpus, tokenized.

    Attributes:
        folder: The cache entry.
        vocab_size: Token types of the target, or of both sides; `<eos>` included.
        source_vocab_size: Token types of the source; the same number where they are joint.
        content_sha256: Hash of the whole corpus: the original sentences of all three splits.
        tokenizer_kind: `bpe`, `unigram`, `word` or `byte`.
        tokenizer_path: The entry's `tokenizer.json`, of the target or of both sides.
        tokenizer_sha256: Hash of that file.
        source_tokenizer_path: The entry's `source-tokenizer.json`; `tokenizer.json` where the
            vocabulary is joint.
        source_tokenizer_sha256: Hash of that file.
        sharing: `joint` or `separate`.
        source_language: What the corpus calls the source side.
        target_language: What the corpus calls the target side.
        disjoint_fraction: Fraction of the target's word types written in the disjoint script.
        train_fraction: Fraction of the training tokens that `train` keeps.
        overlap: What the two sides have in common, see `overlap.measure_overlap`.
        splits: `train`, `valid` and `test`.
    """

    folder: Path
    vocab_size: int
    source_vocab_size: int
    content_sha256: str
    tokenizer_kind: str
    tokenizer_path: Path
    tokenizer_sha256: str
    source_tokenizer_path: Path
    source_tokenizer_sha256: str
    sharing: str
    source_language: str
    target_language: str
    disjoint_fraction: float
    train_fraction: float
    overlap: dict[str, int | float | None]
    splits: dict[str, PairSplit]

    @property
    def known_entropy(self) -> None:
        """Of no parallel corpus is the source known."""
        return None

    def facts(self) -> dict[str, Any]:
        """Return the numbers that describe the data, as a record; no path is in it."""
        return {
            "content_sha256": self.content_sha256,
            "languages": {"source": self.source_language, "target": self.target_language},
            "tokenizer": self.tokenizer_kind,
            "sharing": self.sharing,
            "tokenizer_sha256": self.tokenizer_sha256,
            "source_tokenizer_sha256": self.source_tokenizer_sha256,
            "disjoint_fraction": self.disjoint_fraction,
            "train_fraction": self.train_fraction,
            "vocab_size": self.vocab_size,
            "source_vocab_size": self.source_vocab_size,
            "overlap": self.overlap,
            "splits": {
                name: {
                    "pairs": split.num_pairs,
                    "empty_pairs": split.num_empty,
                    "long_pairs": split.num_long,
                    "source_tokens": split.num_source_tokens,
                    "tokens": split.num_tokens,
                    "words": split.num_words,
                    "bytes": split.num_bytes,
                    "unknown_words": split.num_unknown,
                    "text_sha256": split.text_sha256,
                }
                for name, split in self.splits.items()
            },
        }


def prepare_pairs(
    data: DataConfig,
    *,
    cache_folder: Path,
    on_progress: Callable[[str], None] = lambda message: None,
    should_stop: Callable[[], None] = lambda: None,
) -> PreparedPairs:
    """Read a parallel corpus and return it tokenized, from the cache where it is there.

    Two processes that start at once prepare it once: the second waits for the first.

    Args:
        data: What to prepare.
        cache_folder: Where entries are kept; see `prepared.default_cache_folder`.
        on_progress: Told in a few words what happens, for what takes time.
        should_stop: Called between slices of work; raises to stop.

    Raises:
        DataError: The corpus cannot be used as configured.
        StorageError: The cache cannot be written.
    """
    corpus = load_parallel_corpus(data, on_progress=on_progress)
    should_stop()
    return open_or_make(
        entry_folder(cache_folder, _entry_parts(data, corpus)),
        open_pairs,
        lambda folder: _build(folder, data, corpus, on_progress, should_stop),
        on_progress,
        should_stop,
    )


def open_pairs(folder: Path) -> PreparedPairs:
    """Open and verify a cache entry; the corpus is not needed.

    Raises:
        DamagedFolder, DamagedRecord: The entry is not what was written.
        StorageError: The entry is not there, or cannot be read.
    """
    verify_manifest(folder)
    record = read_json(folder / _RECORD)
    if not isinstance(record, dict) or record.get("format") != CACHE_FORMAT:
        raise DamagedRecord(f"{folder / _RECORD}: not a record of prepared pairs")
    try:
        is_joint = record["sharing"] == "joint"
        return PreparedPairs(
            folder=folder,
            vocab_size=record["vocab_size"],
            source_vocab_size=record["source_vocab_size"],
            content_sha256=record["content_sha256"],
            tokenizer_kind=record["tokenizer_kind"],
            tokenizer_path=folder / _TOKENIZER,
            tokenizer_sha256=record["tokenizer_sha256"],
            source_tokenizer_path=folder / (_TOKENIZER if is_joint else _SOURCE_TOKENIZER),
            source_tokenizer_sha256=record["source_tokenizer_sha256"],
            sharing=record["sharing"],
            source_language=record["source_language"],
            target_language=record["target_language"],
            disjoint_fraction=record["disjoint_fraction"],
            train_fraction=record["train_fraction"],
            overlap=record["overlap"],
            splits={name: open_split(folder, name, record["splits"][name]) for name in SPLITS},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRecord(f"{folder / _RECORD}: {error} is missing or wrong") from error


def _build(
    folder: Path,
    data: DataConfig,
    corpus: ParallelCorpus,
    on_progress: Callable[[str], None],
    should_stop: Callable[[], None],
) -> None:
    """Tokenize a parallel corpus into a new cache entry."""
    written = _written_targets(data, corpus)
    train_source = corpus.splits["train"].source
    is_joint = _sharing(data) == "joint"
    with new_folder(folder) as new:

        def tokenizer_of(name: str, sentences: Sequence[str]) -> "Tokenizer":
            on_progress(f"training the {data.tokenizer.kind} tokenizer on {corpus.name}")
            trained = train_tokenizer(data.tokenizer, sentences, should_stop=should_stop)
            write_text(new / name, trained.to_str(pretty=True))
            # What is used is what was saved.
            return load_tokenizer(new / name)

        if is_joint:
            target = source = tokenizer_of(_TOKENIZER, [*train_source, *written["train"]])
        else:
            target = tokenizer_of(_TOKENIZER, written["train"])
            source = tokenizer_of(_SOURCE_TOKENIZER, train_source)
        source_name = _TOKENIZER if is_joint else _SOURCE_TOKENIZER
        record: dict[str, Any] = {
            "format": CACHE_FORMAT,
            "content_sha256": corpus.content_sha256,
            "tokenizer_kind": data.tokenizer.kind,
            "tokenizer_sha256": sha256_of_file(new / _TOKENIZER),
            "source_tokenizer_sha256": sha256_of_file(new / source_name),
            "sharing": _sharing(data),
            "source_language": corpus.languages.source,
            "target_language": corpus.languages.target,
            "disjoint_fraction": data.disjoint_fraction,
            "train_fraction": data.train_fraction,
            "vocab_size": target.get_vocab_size(),
            "source_vocab_size": source.get_vocab_size(),
            "splits": {},
        }
        for name in SPLITS:
            on_progress(f"tokenizing the {name} split of {corpus.name}")
            split = tokenize_pairs(
                corpus.splits[name],
                written[name],
                (source, target),
                data,
                f"{corpus.name}: the {name} split",
                fraction=data.train_fraction if name == "train" else 1.0,
                should_stop=should_stop,
            )
            if name == "train":
                record["overlap"] = measure_overlap(
                    split.source, split.target, split.source_sentences, split.num_words,
                    None if is_joint else (source.get_vocab(), target.get_vocab()),
                )  # fmt: skip
            record["splits"][name] = write_split(new, name, split)
        write_json(new / _RECORD, record)
        write_manifest(new)


def _written_targets(data: DataConfig, corpus: ParallelCorpus) -> dict[str, list[str]]:
    """Return the target sentences of each split as they are tokenized."""
    targets = {name: corpus.splits[name].target for name in SPLITS}
    if data.disjoint_fraction == 0:
        return targets
    for name in SPLITS:
        check_unused(corpus.splits[name].source, f"{corpus.name}, {name}, source")
        check_unused(targets[name], f"{corpus.name}, {name}, target")
    script = DisjointScript(targets["train"], data.disjoint_fraction)
    return {name: [script.write(sentence) for sentence in targets[name]] for name in SPLITS}


def _entry_parts(data: DataConfig, corpus: ParallelCorpus) -> dict[str, object]:
    """Return everything that decides what an entry holds."""
    return {
        "cache_format": CACHE_FORMAT,
        "content_sha256": corpus.content_sha256,
        "context_length": data.context_length,
        "disjoint_fraction": data.disjoint_fraction,
        "languages": corpus.languages.model_dump(mode="json"),
        "sharing": _sharing(data),
        "tokenizer": data.tokenizer.model_dump(mode="json", exclude={"sharing"}),
        "tokenizers_version": version("tokenizers"),
        "train_fraction": data.train_fraction,
        "unusable_pairs": data.unusable_pairs or "drop",
    }


def _sharing(data: DataConfig) -> str:
    return data.tokenizer.sharing or "joint"
