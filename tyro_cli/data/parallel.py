"""Parallel corpora: pairs of sentences, read strictly from wherever they lie.

Invariant: a corpus has as many source as target sentences in each split, sentence i of one being
the translation of sentence i of the other; its hash depends on the sentences and on which side is
the source, never on where they lay. A sentence is a line without the whitespace around it, so it
holds no line end; it may be empty. What becomes of empty and long ones is left to
`prepared_pairs`.
"""

import glob
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tyro_cli.config.messages import nearest
from tyro_cli.config.schema import DataConfig, Languages
from tyro_cli.data import parquet
from tyro_cli.data.bible import read_kjv_web
from tyro_cli.data.corpora import (
    BUILT_IN,
    PARALLEL_BUILT_IN,
    SPLITS,
    decode_text,
    read_text,
    split_candidates,
)
from tyro_cli.data.places import entries, existing_folder, unreadable
from tyro_cli.errors import DataError

# Text shrinks to a quarter or a third. A file that grows a hundredfold is no text, but could take
# all of the memory; small files of one repeated line may.
_MOST_GROWTH = 100
_ALWAYS_READ_BYTES = 2**24
_CHUNK_BYTES = 2**20
_MOST_SHOWN = 12

_BUILT_IN_LANGUAGES = Languages(source="kjv", target="web")
_NAME_LANGUAGES = "name both sides, for example data.languages='{source: en, target: de}'"
_COLUMN = "translation"
_COLUMN_REMEDY = (
    f"a column {_COLUMN} holds a map of languages in each row; save other pairs as files, a "
    "sentence a line, such as train.en and train.de, and name their folder"
)


@dataclass(frozen=True)
class PairTexts:
    """The pairs of one split.

    Attributes:
        source: Sentences to translate.
        target: Their translations, as many.
        text_sha256: Hash of the pairs, see `hash_pairs`.
    """

    source: list[str]
    target: list[str]
    text_sha256: str


@dataclass(frozen=True)
class ParallelCorpus:
    """The pairs of three splits.

    Attributes:
        name: As the configuration names it.
        languages: What the two sides are called.
        splits: `train`, `valid` and `test`.
        content_sha256: Hash of the whole: the hashes of the three splits.
    """

    name: str
    languages: Languages
    splits: dict[str, PairTexts]
    content_sha256: str


def load_parallel_corpus(
    data: DataConfig,
    *,
    on_progress: Callable[[str], None] = lambda message: None,
) -> ParallelCorpus:
    """Read the three splits of a parallel corpus.

    Args:
        data: `corpus`: a built-in name, `hf:OWNER/NAME[:CONFIG][@REVISION]` of a dataset with a
            column `translation`, or a folder of files `STEM.LANGUAGE`, plain or `.gz`, or of the
            hub's parquet.
        on_progress: Told in a few words what happens, for what takes time.

    Raises:
        DataError: The corpus is not there; or a split or side is missing, empty, not UTF-8, or
            has more sentences than the other side.
    """
    if data.corpus in BUILT_IN:
        raise DataError(
            f"the built-in corpus {data.corpus} is a text, not pairs of sentences",
            f"say task: language-modeling, or take {' or '.join(PARALLEL_BUILT_IN)}",
        )
    if data.corpus in PARALLEL_BUILT_IN:
        languages = data.languages or _BUILT_IN_LANGUAGES
        pairs = _read_built_in(data.corpus, languages)
        return parallel_corpus_of_pairs(data.corpus, languages, pairs)
    if data.corpus.startswith("hf:"):
        from tyro_cli.data.hub import read_hub_dataset

        if data.languages is None:
            raise DataError(f"{data.corpus}: data.languages is missing", _NAME_LANGUAGES)
        languages = data.languages
        on_progress(f"loading {data.corpus}")
        rows = read_hub_dataset(
            data.corpus,
            split_candidates(data.splits),
            column=_COLUMN,
            remedy=_COLUMN_REMEDY,
        )
        pairs = {
            split: _pairs_of_rows(rows[split], f"{data.corpus}, {split}", languages)
            for split in SPLITS
        }
        return parallel_corpus_of_pairs(data.corpus, languages, pairs)
    return _read_folder(data)


def parallel_corpus_of_pairs(
    name: str, languages: Languages, pairs: Mapping[str, tuple[list[str], list[str]]]
) -> ParallelCorpus:
    """Return the corpus of the source and target sentences of three splits, hashed.

    Raises:
        DataError: A split has no pair with a word on both sides.
    """
    splits = {}
    for split in SPLITS:
        source, target = pairs[split]
        assert len(source) == len(target)
        if not any(one and other for one, other in zip(source, target, strict=True)):
            raise DataError(
                f"{name}: the {split} split is empty",
                "give every split at least one pair with words on both sides",
            )
        splits[split] = PairTexts(source, target, hash_pairs(source, target))
    hashes = {split: texts.text_sha256 for split, texts in splits.items()}
    whole = json.dumps({"format": "pairs", **hashes}, sort_keys=True, separators=(",", ":"))
    content_sha256 = hashlib.sha256(whole.encode("utf-8")).hexdigest()
    return ParallelCorpus(name, languages, splits, content_sha256)


def hash_pairs(source: Sequence[str], target: Sequence[str]) -> str:
    """Return the sha256 of pairs: of each pair the source, a line end, the target, a line end."""
    hasher = hashlib.sha256()
    for pair in zip(source, target, strict=True):
        for sentence in pair:
            hasher.update(sentence.encode("utf-8"))
            hasher.update(b"\n")
    return hasher.hexdigest()


def sentences_of(text: str) -> list[str]:
    r"""Return the sentences of a text, one a line: its lines without the whitespace around them.

    Lines end at `\n` and nowhere else, so a rare separator inside of a sentence shifts no pair.
    """
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.strip() for line in lines]


def _read_built_in(name: str, languages: Languages) -> dict[str, tuple[list[str], list[str]]]:
    known = (_BUILT_IN_LANGUAGES.source, _BUILT_IN_LANGUAGES.target)
    for side in (languages.source, languages.target):
        if side not in known:
            raise DataError(
                f"{name} has no side '{side}'; its sides are {' and '.join(known)}"
                + nearest(side, known),
                "correct data.languages, or leave it out",
            )
    return {
        split: (verses[languages.source], verses[languages.target])
        for split, verses in read_kjv_web().items()
    }


def _read_folder(data: DataConfig) -> ParallelCorpus:
    folder = existing_folder(
        data.corpus,
        "give a folder with files such as train.en and train.de, a built-in corpus "
        f"({', '.join(PARALLEL_BUILT_IN)}), or hf:OWNER/NAME[:CONFIG]",
    )
    candidates = split_candidates(data.splits)
    languages = data.languages
    if languages is None:
        there = sorted({side for stem in candidates["train"] for side in _sides(folder, stem)})
        shown = f"; the training split is there in {', '.join(there)}" if there else ""
        raise DataError(f"{folder}: data.languages is missing{shown}", _NAME_LANGUAGES)
    wanted = {languages.source, languages.target}
    stems = {
        split: next((name for name in names if wanted & _sides(folder, name).keys()), None)
        for split, names in candidates.items()
    }
    shards = None if any(stems.values()) else parquet.find_shards(folder, candidates)
    pairs = {}
    for split, stem in stems.items():
        if shards is not None:
            rows = [
                row
                for path in shards[split]
                for row in parquet.read_column(path, _COLUMN, _COLUMN_REMEDY)
            ]
            pairs[split] = _pairs_of_rows(rows, f"{folder}, {split}", languages)
        elif stem is None:
            raise _missing_split(folder, split, candidates[split], languages)
        else:
            pairs[split] = _read_sides(folder, stem, languages)
    return parallel_corpus_of_pairs(data.corpus, languages, pairs)


def _sides(folder: Path, stem: str) -> dict[str, list[Path]]:
    """Return the files `STEM.LANGUAGE` and `STEM.LANGUAGE.gz` of a stem, by language."""
    sides: dict[str, list[Path]] = {}
    for path in sorted(folder.glob(f"{glob.escape(stem)}.*")):
        language = path.name[len(stem) + 1 :].removesuffix(".gz")
        if path.is_file() and language != "parquet":
            sides.setdefault(language, []).append(path)
    return sides


def _missing_split(
    folder: Path, split: str, stems: Iterable[str], languages: Languages
) -> DataError:
    tried = [f"{stem}.{side}" for stem in stems for side in (languages.source, languages.target)]
    names = [path.name for path in entries(folder) if path.is_file()]
    shown = ", ".join(names[:_MOST_SHOWN]) + (", ..." if len(names) > _MOST_SHOWN else "")
    return DataError(
        f"{folder}: no files for the {split} split; tried {', '.join(tried)} (and .gz of each); "
        f"there {'is' if len(names) == 1 else 'are'} {shown or 'no files'}",
        "put the files there, or name the file stems under data.splits and the suffixes under "
        "data.languages",
    )


def _read_sides(folder: Path, stem: str, languages: Languages) -> tuple[list[str], list[str]]:
    """Read the two files of a split, of which at least one is there."""
    sides = _sides(folder, stem)
    paths = []
    for language in (languages.source, languages.target):
        files = sides.get(language, [])
        if not files:
            raise DataError(
                f"{folder}: no file {stem}.{language} or {stem}.{language}.gz; {stem} is there in "
                + ", ".join(sides)
                + nearest(language, sides.keys() - {languages.source, languages.target}),
                "put the file there, or correct data.languages",
            )
        if len(files) > 1:
            raise DataError(
                f"{folder}: both {files[0].name} and {files[1].name} are there",
                "remove one of them, so that it is clear which is meant",
            )
        paths += files
    source, target = (sentences_of(_read_file(path)) for path in paths)
    if len(source) != len(target):
        raise DataError(
            f"{folder}: {paths[0].name} has {len(source):,} lines and {paths[1].name} "
            f"{len(target):,}; line n of one must be the translation of line n of the other",
            "give two files of the same number of lines",
        )
    return source, target


def _read_file(path: Path) -> str:
    """Read a plain or compressed file as strict UTF-8.

    Raises:
        DataError: It cannot be read, is not UTF-8, or unpacks to more than text would.
    """
    if path.suffix != ".gz":
        return read_text(path)
    content = bytearray()
    try:
        most = max(_ALWAYS_READ_BYTES, _MOST_GROWTH * path.stat().st_size)
        with gzip.open(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                content += chunk
                if len(content) > most:
                    raise DataError(
                        f"{path}: unpacks to more than {most:,} bytes, {_MOST_GROWTH} times its "
                        "size; text does not shrink as much",
                        "check where the file comes from; if it is right, unpack it yourself",
                    )
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(
            f"{path}: cannot be read as gzip: {error}",
            "download or compress the file again; if it is plain text, take .gz from its name",
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error
    return decode_text(bytes(content), path)


def _pairs_of_rows(
    rows: list[object], source: str, languages: Languages
) -> tuple[list[str], list[str]]:
    """Return the two sides of the rows of a column `translation`.

    A line end inside of a sentence becomes a space.

    Raises:
        DataError: Names the first row without one of the two languages.
    """
    sides: tuple[list[str], list[str]] = ([], [])
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(
                f"{source}: row {number} of column {_COLUMN} holds {type(row).__name__}, not a "
                "map of languages",
                _COLUMN_REMEDY,
            )
        for side, language in zip(sides, (languages.source, languages.target), strict=True):
            sentence = row.get(language)
            if not isinstance(sentence, str):
                known = [str(key) for key, value in row.items() if isinstance(value, str)]
                raise DataError(
                    f"{source}: row {number} of column {_COLUMN} has no text in '{language}'; it "
                    f"has {', '.join(known) or 'none'}{nearest(language, known)}",
                    "correct data.languages, or give a dataset with both languages in every row",
                )
            side.append(sentence.replace("\n", " ").strip())
    return sides
