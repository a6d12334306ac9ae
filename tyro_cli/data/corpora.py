"""Corpora: where text comes from, read strictly and unchanged.

Invariant: a corpus is three texts (`train`, `valid`, `test`), none of them blank, and its hash
depends on those texts and on `data.format`, never on where they lay. Files are decoded as strict
UTF-8 with their line ends kept. Nothing from a corpus is executed. What a document is, is left to
`documents`; the hub to `hub`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro_cli.config.schema import SYNTHETIC, DataConfig, SplitNames
from tyro_cli.data import parquet
from tyro_cli.data.bible import read_kjv
from tyro_cli.data.chains import KnownEntropy
from tyro_cli.data.documents import TextFormat
from tyro_cli.data.places import existing_folder, unreadable
from tyro_cli.data.synthetic import draw_texts
from tyro_cli.errors import DataError

SPLITS = ("train", "valid", "test")
BUILT_IN = ("kjv", SYNTHETIC)
PARALLEL_BUILT_IN = ("kjv-web",)

# The layouts of a folder, in the order in which they are looked for.
_TEXT_LAYOUTS = ("{stem}.txt", "wiki.{stem}.tokens", "wiki.{stem}.raw")
# The hub's usual name of a split that is not there under its own.
_OTHER_NAMES = {"valid": "validation", "validation": "valid"}

_GZIP = b"\x1f\x8b"  # what a compressed file begins with, and no text does


@dataclass(frozen=True)
class Corpus:
    """The text of three splits.

    Attributes:
        name: As the configuration names it.
        texts: Text of `train`, `valid` and `test`.
        text_sha256: Hash of each text's UTF-8 bytes.
        content_sha256: Hash of the whole: the three hashes and the format; of a synthetic corpus
            everything that made it, too.
        known_entropy: What is known of the text's source, where anything is.
    """

    name: str
    texts: dict[str, str]
    text_sha256: dict[str, str]
    content_sha256: str
    known_entropy: KnownEntropy | None = None


def load_corpus(
    data: DataConfig,
    *,
    on_progress: Callable[[str], None] = lambda message: None,
    should_stop: Callable[[], None] = lambda: None,
) -> Corpus:
    """Read the three splits of a corpus.

    Args:
        data: `corpus`: a built-in name, `hf:OWNER/NAME[:CONFIG][@REVISION]`, or a folder,
            which starts at the current directory as in a shell.
        on_progress: Told in a few words what happens, for what takes time.
        should_stop: Called while a synthetic corpus is drawn; raises to stop.

    Raises:
        DataError: The corpus is not there, or a split is missing, blank or not UTF-8.
    """
    if data.corpus == SYNTHETIC:
        assert data.synthetic is not None, "refused with the settings"
        drawn = draw_texts(data.synthetic, should_stop=should_stop)
        return corpus_of_texts(
            data.corpus, drawn.texts, data.format, made_by=drawn.made_by, known_entropy=drawn.known
        )
    if data.corpus in PARALLEL_BUILT_IN:
        raise DataError(
            f"the built-in corpus {data.corpus} is pairs of sentences, not a text",
            f"say task: translation, or take a built-in text ({', '.join(BUILT_IN)})",
        )
    if data.corpus in BUILT_IN:
        texts = read_kjv()
    elif data.corpus.startswith("hf:"):
        from tyro_cli.data.hub import read_hub_dataset

        on_progress(f"loading {data.corpus}")
        rows = read_hub_dataset(
            data.corpus,
            split_candidates(data.splits),
            column="text",
            remedy="save the text as files train.txt, valid.txt and test.txt and name their folder",
        )
        texts = {
            split: text_of_rows(check_rows(rows[split], f"{data.corpus}, {split}"), data.format)
            for split in SPLITS
        }
    else:
        texts = _read_folder(data)
    return corpus_of_texts(data.corpus, texts, data.format)


def corpus_of_texts(
    name: str,
    texts: dict[str, str],
    text_format: TextFormat,
    *,
    made_by: Mapping[str, Any] | None = None,
    known_entropy: KnownEntropy | None = None,
) -> Corpus:
    """Return the corpus of three texts, hashed.

    Args:
        name: As the configuration names it.
        texts: Text of each split.
        text_format: Decides what a document and a word is.
        made_by: What a synthetic text was made by: another source is another corpus, even where the
            text comes out the same.
        known_entropy: What is known of the source.

    Raises:
        DataError: A split has no word in it.
    """
    hashes = {}
    for split in SPLITS:
        if not texts[split].strip():
            raise DataError(
                f"{name}: the {split} split is empty",
                "give every split at least one line of text",
            )
        hashes[split] = hashlib.sha256(texts[split].encode("utf-8")).hexdigest()
    parts = {"format": text_format, **hashes} | ({"made_by": dict(made_by)} if made_by else {})
    whole = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    content_sha256 = hashlib.sha256(whole.encode("utf-8")).hexdigest()
    return Corpus(name, texts, hashes, content_sha256, known_entropy)


def text_of_rows(rows: Iterable[str], text_format: TextFormat) -> str:
    r"""Join the rows of a dataset's column `text`.

    A row that ends in a line end, and an empty row, is a line. Any other row is closed: by a line
    end in `wikitext`, where rows are lines; by a blank line in `plain`, where it is a document.
    The hub stores the lines of WikiText that way, and its blank lines, which are `" \n"` in
    WikiText's own files, as empty rows; in `wikitext` they are given back, so the text is the same.
    """
    blank, close = (" \n", "\n") if text_format == "wikitext" else ("\n", "\n\n")
    return "".join(
        row if row.endswith("\n") else row + close if row.strip() else blank for row in rows
    )


def split_candidates(names: SplitNames) -> dict[str, tuple[str, ...]]:
    """Return, for each split, the names to look for, the one asked for first."""
    asked = {"train": names.train, "valid": names.valid, "test": names.test}
    return {
        split: (name, _OTHER_NAMES[name]) if name in _OTHER_NAMES else (name,)
        for split, name in asked.items()
    }


def _read_folder(data: DataConfig) -> dict[str, str]:
    folder = existing_folder(
        data.corpus,
        "give a folder with train.txt, valid.txt and test.txt, a built-in corpus "
        f"({', '.join(BUILT_IN)}), or hf:OWNER/NAME[:CONFIG]",
    )
    candidates = split_candidates(data.splits)
    for layout in _TEXT_LAYOUTS:
        files = {split: _first_file(folder, layout, candidates[split]) for split in SPLITS}
        if all(files.values()):
            return {split: read_text(path) for split, path in files.items() if path}
    shards = parquet.find_shards(folder, candidates)
    if shards is not None:
        return {
            split: text_of_rows(_read_parquet(paths), data.format)
            for split, paths in shards.items()
        }
    raise _missing_split(folder, candidates)


def _first_file(folder: Path, layout: str, names: Iterable[str]) -> Path | None:
    paths = (folder / layout.format(stem=name) for name in names)
    return next((path for path in paths if path.is_file()), None)


def _missing_split(folder: Path, candidates: dict[str, tuple[str, ...]]) -> DataError:
    """Return the error for the layout of which the most splits are there."""

    def found(layout: str) -> list[str]:
        if layout == parquet.LAYOUT:
            return [split for split in SPLITS if parquet.shards_of_split(folder, candidates[split])]
        return [split for split in SPLITS if _first_file(folder, layout, candidates[split])]

    layouts = (*_TEXT_LAYOUTS, parquet.LAYOUT)
    best = max(layouts, key=lambda layout: len(found(layout)))
    missing = [split for split in SPLITS if split not in found(best)]
    shown = (best,) if found(best) else layouts
    tried = [
        layout.format(stem=name)
        for layout in shown
        for split in missing
        for name in candidates[split]
    ]
    return DataError(
        f"{folder}: no file for the {' and '.join(missing)} split; tried {', '.join(tried)}",
        "put the file there, or name the file stems under data.splits",
    )


def read_text(path: Path) -> str:
    """Read a file as strict UTF-8, line ends as they are.

    Raises:
        DataError: The file cannot be read, or is not UTF-8; names the byte offset and the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    return decode_text(content, path)


def decode_text(content: bytes, path: Path) -> str:
    """Decode the content of a file as strict UTF-8; a byte order mark is no part of the text.

    Raises:
        DataError: It is not UTF-8, or compressed; names the byte offset and the line.
    """
    try:
        return content.decode("utf-8").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    except UnicodeDecodeError as error:
        if content.startswith(_GZIP):
            raise DataError(
                f"{path}: holds compressed data, not text", "unpack it, for example with: gunzip -c"
            ) from error
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: not valid UTF-8 at byte {error.start} "
            f"(0x{content[error.start]:02x}: {error.reason}), in line {line:,}",
            "convert the file to UTF-8, for example with: iconv -f latin1 -t utf-8",
        ) from error


def _read_parquet(paths: Iterable[Path]) -> list[str]:
    """Return the column `text` of a split's shards."""
    rows: list[str] = []
    for path in paths:
        read = parquet.read_column(path, "text", "rename the column that holds the text")
        rows += check_rows(read, str(path))
    return rows


def check_rows(rows: list[object], source: str) -> list[str]:
    """Return the rows, which must all be text.

    Raises:
        DataError: Names the first row that is not.
    """
    for number, row in enumerate(rows):
        if not isinstance(row, str):
            raise DataError(
                f"{source}: row {number} of column text holds {type(row).__name__}, not text",
                "give a dataset whose column text is a string in every row",
            )
    return rows  # type: ignore[return-value]
