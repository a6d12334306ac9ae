"""Small texts, folders and configurations that the tests of the data room share."""

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tyro_cli.config.schema import DataConfig

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_WIKITEXT = REPOSITORY.parent / "shared" / "data" / "wikitext-2"

needs_shared_wikitext = pytest.mark.skipif(
    not (SHARED_WIKITEXT / "train.txt").is_file(),
    reason="WikiText-2 is not beside the repository (../shared/data/wikitext-2)",
)

SHARED_MULTI30K = REPOSITORY.parent / "shared" / "data" / "multi30k"

needs_shared_multi30k = pytest.mark.skipif(
    not (SHARED_MULTI30K / "train.en.gz").is_file(),
    reason="Multi30k is not beside the repository (../shared/data/multi30k)",
)

# Everything that a careless tokenizer loses: carriage returns, tabs, runs of spaces, no-break and
# zero-width characters, combining marks in both orders, emoji with joiners, other scripts, text in
# both directions, controls, the ends of the code space, and the spellings of special tokens.
NASTY_TEXTS = (
    "plain words, and more words.\n",
    "line\r\nline\rline\n\n\n\n   indented\t\ttabs   \n",
    " leading and trailing ",
    "no\u00a0break\u200bzero\u2028separator\u2029paragraph\u0085next\u3000wide",
    "e\u0301 \u00e9 a\u0323\u0307 a\u0307\u0323 \ufb01 \u212b \u1e9b\u0323",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f",
    "\u4e2d\u6587 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea "
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
    "\x00\x01\x1c\x1d\x1e\x1f\x7f\u0080\u009f",
    "\ud7ff\ue000\ufffd\ufffe\uffff\U0010ffff\ufeff",
    "<eos><unk> <eos> <unk>\n<eos>",
    "\u0120the \u010a \u0121",
    "a" * 5000 + " " * 5000 + "\n" * 50,
)


def data_config(corpus: str | Path, kind: str = "word", **changes: Any) -> DataConfig:
    """Return a configuration over small windows; `vocab_size` goes to the tokenizer."""
    tokenizer = {"kind": kind, "vocab_size": changes.pop("vocab_size", None)}
    fields = {"corpus": str(corpus), "tokenizer": tokenizer, "context_length": 4, **changes}
    return DataConfig.model_validate(fields)


def write_splits(
    folder: Path,
    train: str = "the cat sat on the mat\n\nthe dog sat\n\n" * 8,
    valid: str = "the cat sat\n",
    test: str = "the dog sat\n",
) -> Path:
    """Write a folder with train.txt, valid.txt and test.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("train", train), ("valid", valid), ("test", test)):
        (folder / f"{name}.txt").write_bytes(text.encode("utf-8"))
    return folder


def write_parquet(path: Path, rows: list[Any], column: str = "text") -> None:
    """Write one shard as the hub lays it out."""
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table({column: rows}), path)


def pairs_config(corpus: str | Path, kind: str = "word", **changes: Any) -> DataConfig:
    """Return a configuration of pairs from `en` to `de`; `sharing` goes to the tokenizer."""
    tokenizer = {
        "kind": kind,
        "vocab_size": changes.pop("vocab_size", None),
        "sharing": changes.pop("sharing", None),
    }
    fields = {
        "corpus": str(corpus),
        "tokenizer": tokenizer,
        "context_length": 32,
        "languages": {"source": "en", "target": "de"},
        **changes,
    }
    return DataConfig.model_validate(fields)


PAIRS = {
    "train": [
        ("a dog runs", "ein Hund rennt"),
        ("a dog sleeps here", "ein Hund schl\u00e4ft hier"),
        ("the cat sleeps", "die Katze schl\u00e4ft"),
    ]
    * 4,
    "valid": [("a cat runs", "die Katze rennt"), ("the dog", "ein Hund")],
    "test": [("the dog sleeps", "ein Hund schl\u00e4ft")],
}


def write_pairs(
    folder: Path, pairs: Mapping[str, Sequence[tuple[str, str]]] = PAIRS, suffix: str = ""
) -> Path:
    """Write a folder with STEM.en and STEM.de of each split, compressed where the suffix is .gz."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, split in pairs.items():
        for side, language in enumerate(("en", "de")):
            content = "".join(f"{pair[side]}\n" for pair in split).encode("utf-8")
            path = folder / f"{stem}.{language}{suffix}"
            path.write_bytes(gzip.compress(content) if suffix == ".gz" else content)
    return folder
