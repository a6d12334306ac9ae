"""Prepared data: the facts of known corpora, the cache, and what is refused."""

import hashlib
import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.texts import SHARED_WIKITEXT, data_config, needs_shared_wikitext, write_splits
from tests.folders import digests
from tyro_cli.data import prepared as module
from tyro_cli.data.prepared import (
    PreparedData,
    default_cache_folder,
    keep_fraction,
    open_prepared,
    prepare_data,
    tokenize_split,
)
from tyro_cli.data.tokenizers import decode_tokens, load_tokenizer
from tyro_cli.errors import DamagedFolder, DamagedRecord, DataError, StorageError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_splits(tmp_path / "corpus")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count what costs time: trainings of a tokenizer."""
    kinds: list[str] = []
    train = module.train_tokenizer

    def counted(config, *arguments, **keywords):
        kinds.append(config.kind)
        return train(config, *arguments, **keywords)

    monkeypatch.setattr(module, "train_tokenizer", counted)
    return kinds


def prepare(corpus: Path, cache: Path, kind: str = "word", **changes: Any) -> PreparedData:
    config = data_config(corpus, kind, **changes)
    return prepare_data(config, cache_folder=cache)


def test_stream_starts_with_eos_and_holds_every_document(corpus: Path, cache: Path) -> None:
    data = prepare(corpus, cache, "byte")
    tokenizer = load_tokenizer(data.tokenizer_path)
    for name, split in data.splits.items():
        text = (corpus / f"{name}.txt").read_text()
        assert split.tokens[0] == 0
        assert split.num_tokens == len(split.tokens) - 1 == split.num_bytes == len(text)
        assert decode_tokens(tokenizer, split.tokens[1:].tolist()) == text
        assert split.text_sha256 == hashlib.sha256(text.encode()).hexdigest()
        ends = [*split.document_starts[1:], len(split.tokens)]
        documents = [
            decode_tokens(tokenizer, split.tokens[start:end].tolist())
            for start, end in zip(split.document_starts, ends, strict=True)
        ]
        assert "".join(documents) == text
        assert split.document_words.tolist() == [len(text.split()) for text in documents]
        assert split.document_bytes.tolist() == [len(text.encode()) for text in documents]
        assert split.num_words == split.document_words.sum()
    assert data.splits["train"].num_documents == 16


@pytest.mark.parametrize("kind", ["word", "byte"])
def test_wikitext_counts_one_eos_a_line_whatever_the_tokenizer(
    corpus: Path, cache: Path, kind: str
) -> None:
    plain = prepare(corpus, cache, kind).splits["train"]
    wikitext = prepare(corpus, cache, kind, format="wikitext").splits["train"]
    lines = (corpus / "train.txt").read_text().count("\n")
    assert wikitext.num_words == plain.num_words + lines
    if kind == "word":
        assert wikitext.num_tokens == wikitext.num_words
        np.testing.assert_array_equal(wikitext.tokens, plain.tokens)


def test_unknown_words_are_counted_and_literal_unk_is_none(tmp_path: Path, cache: Path) -> None:
    corpus = write_splits(
        tmp_path / "c", train="a b <unk> a b a b\n", valid="a new <unk> word\n", test="<unk> b\n"
    )
    data = prepare(corpus, cache)
    counts = {name: split.num_unknown for name, split in data.splits.items()}
    assert counts == {"train": 0, "valid": 2, "test": 0}
    assert data.vocab_size == 4
    assert prepare(corpus, cache, "byte").splits["valid"].num_unknown == 0


def test_second_call_tokenizes_nothing(
    corpus: Path, cache: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(corpus, cache)
    assert trainings == ["word"]
    monkeypatch.setattr(module, "tokenize_split", lambda *_, **__: pytest.fail("tokenized"))
    second = prepare(corpus, cache)
    assert trainings == ["word"]
    assert second.folder == first.folder
    assert second.facts() == first.facts()
    assert isinstance(second.splits["train"].tokens, np.memmap)


def test_the_same_text_elsewhere_uses_the_same_entry(
    corpus: Path, cache: Path, trainings: list[str], tmp_path: Path
) -> None:
    first = prepare(corpus, cache)
    moved = tmp_path / "elsewhere"
    shutil.move(corpus, moved)
    for name in ("train", "valid", "test"):
        (moved / f"{name}.txt").rename(moved / f"wiki.{name}.tokens")
    assert prepare(moved, cache).folder == first.folder
    assert trainings == ["word"]


@pytest.mark.parametrize(
    "changes",
    [{"kind": "byte"}, {"format": "wikitext"}, {"train_fraction": 0.5}, {"vocab_size": 8}],
)
def test_what_changes_the_tokens_changes_the_entry(
    corpus: Path, cache: Path, changes: dict[str, Any]
) -> None:
    assert prepare(corpus, cache, **changes).folder != prepare(corpus, cache).folder


def test_changed_text_at_the_same_path_is_other_data(corpus: Path, cache: Path) -> None:
    before = prepare(corpus, cache)
    with (corpus / "test.txt").open("a") as file:
        file.write("more cat\n")
    after = prepare(corpus, cache)
    assert after.content_sha256 != before.content_sha256
    assert after.splits["test"].num_tokens == before.splits["test"].num_tokens + 3


def test_context_length_needs_no_tokens_of_its_own(
    corpus: Path, cache: Path, trainings: list[str]
) -> None:
    assert prepare(corpus, cache, context_length=8).folder == prepare(corpus, cache).folder
    assert trainings == ["word"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "train.tokens").write_bytes(b"\x05\x00" * 105),
        lambda folder: (folder / "train.tokens").unlink(),
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        lambda folder: (folder / "MANIFEST.json").write_text("{"),
        lambda folder: (folder / "MANIFEST.json").unlink(),
        lambda folder: [path.unlink() for path in folder.iterdir()],
    ],
)
def test_damaged_entry_is_made_again_and_never_used(
    corpus: Path, cache: Path, trainings: list[str], damage
) -> None:
    first = prepare(corpus, cache)
    content = digests(first.folder)
    damage(first.folder)
    with pytest.raises(StorageError):
        open_prepared(first.folder)
    messages: list[str] = []
    second = prepare_data(data_config(corpus), cache_folder=cache, on_progress=messages.append)
    assert trainings == ["word", "word"]
    assert "damaged and is made again" in messages[0]
    assert digests(second.folder) == content


def test_entry_that_an_earlier_version_laid_out_otherwise_is_made_again(
    corpus: Path, cache: Path, trainings: list[str]
) -> None:
    from tyro_cli.storage.manifests import write_manifest

    folder = prepare(corpus, cache).folder
    (folder / "train.documents").unlink()
    (folder / "MANIFEST.json").unlink()
    write_manifest(folder)  # whole by its own account
    assert prepare(corpus, cache).splits["train"].num_documents == 16
    assert trainings == ["word", "word"]


def test_foreign_record_is_refused(corpus: Path, cache: Path) -> None:
    from tyro_cli.storage.manifests import write_manifest

    folder = prepare(corpus, cache).folder
    record = json.loads((folder / "prepared.json").read_text())
    for changed in (record | {"format": 99}, {"format": module.CACHE_FORMAT}, []):
        (folder / "prepared.json").write_text(json.dumps(changed))
        (folder / "MANIFEST.json").unlink()
        write_manifest(folder)
        with pytest.raises(DamagedRecord, match=r"prepared\.json"):
            open_prepared(folder)


def test_a_folder_that_is_no_entry_is_refused(tmp_path: Path) -> None:
    with pytest.raises((StorageError, DamagedFolder)):
        open_prepared(tmp_path / "nowhere")


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4])
def test_a_stop_leaves_nothing_half_made(corpus: Path, cache: Path, stop_at: int) -> None:
    polls = 0

    def should_stop() -> None:
        nonlocal polls
        polls += 1
        if polls == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_data(data_config(corpus), cache_folder=cache, should_stop=should_stop)
    left = [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert left == []
    assert prepare(corpus, cache).vocab_size == 8


def test_what_a_crash_left_unfinished_of_an_entry_is_cleared(corpus: Path, cache: Path) -> None:
    folder = prepare(corpus, cache).folder
    shutil.rmtree(folder)
    half = folder.with_name(f".{folder.name}.tmp-0123abcd")
    half.mkdir()
    (half / "train.bin").write_bytes(b"half")
    assert prepare(corpus, cache).folder == folder
    assert not half.exists()


def test_a_stop_is_heard_while_waiting_for_another_process(corpus: Path, cache: Path) -> None:
    from filelock import FileLock

    folder = prepare(corpus, cache).folder
    shutil.rmtree(folder)
    messages: list[str] = []

    def should_stop() -> None:
        if messages:
            raise KeyboardInterrupt

    with FileLock(folder.with_suffix(".lock")), pytest.raises(KeyboardInterrupt):
        prepare_data(
            data_config(corpus),
            cache_folder=cache,
            on_progress=messages.append,
            should_stop=should_stop,
        )
    assert messages == ["waiting for another process that prepares the same data"]


def _prepare_in_process(corpus: Path, cache: Path, barrier: Any, results: Any) -> None:
    messages: list[str] = []
    barrier.wait(timeout=30)
    data = prepare_data(data_config(corpus), cache_folder=cache, on_progress=messages.append)
    results.put((str(data.folder), any("training" in message for message in messages)))


@pytest.mark.slow
def test_two_processes_at_once_prepare_it_once(tmp_path: Path, cache: Path) -> None:
    corpus = write_splits(tmp_path / "corpus", train="the cat sat\n\n" * 20_000)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    arguments = (corpus, cache, barrier, results)
    processes = [context.Process(target=_prepare_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=30)
    assert len({folder for folder, _ in answers}) == 1
    assert sorted(trained for _, trained in answers) == [False, True]


def test_fewer_tokens_than_one_window_is_refused(corpus: Path, cache: Path) -> None:
    with pytest.raises(DataError, match="fewer than one window of context_length 500") as caught:
        prepare(corpus, cache, context_length=500)
    assert "data.context_length" in caught.value.remedy


def test_cache_that_cannot_be_written_is_a_storage_error(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError) as caught:
        prepare(corpus, tmp_path / "file")
    assert "WTIE_CACHE" in caught.value.remedy


class TestFraction:
    LENGTHS = np.array([5, 1, 9, 3, 7, 2, 8, 4, 6, 5])

    def test_smaller_fractions_lie_inside_larger_ones_in_the_order_of_the_corpus(self) -> None:
        previous: set[int] = set()
        for fraction in (0.05, 0.1, 0.3, 0.5, 0.8, 0.99, 1.0):
            kept = keep_fraction(self.LENGTHS, fraction)
            assert kept.tolist() == sorted(kept)
            assert previous <= set(kept.tolist())
            previous = set(kept.tolist())
        assert previous == set(range(10))

    @pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.7, 0.999])
    def test_it_holds_the_fraction_and_not_a_document_more(self, fraction: float) -> None:
        kept = keep_fraction(self.LENGTHS, fraction)
        held, wanted = self.LENGTHS[kept].sum(), fraction * self.LENGTHS.sum()
        assert held >= wanted
        assert held - self.LENGTHS[kept].max() < wanted

    def test_documents_are_spread_over_the_corpus(self) -> None:
        kept = keep_fraction(np.ones(1000), 0.1)
        assert len(kept) == 100
        assert 300 < kept.mean() < 700

    def test_tokenizer_sees_the_whole_split_and_counts_are_of_what_is_kept(
        self, tmp_path: Path, cache: Path
    ) -> None:
        documents = [f"word{number} and text\n\n" for number in range(100)]
        corpus = write_splits(tmp_path / "c", "".join(documents), "text\n", "text\n")
        whole, part = prepare(corpus, cache), prepare(corpus, cache, train_fraction=0.25)
        assert part.tokenizer_sha256 == whole.tokenizer_sha256
        assert part.vocab_size == 100 + 4
        assert part.content_sha256 == whole.content_sha256
        train = part.splits["train"]
        assert train.num_documents == 25
        assert train.num_words == 75
        kept = keep_fraction(np.full(100, 5), 0.25)
        text = "".join(documents[index] for index in kept)
        assert train.text_sha256 == hashlib.sha256(text.encode()).hexdigest()
        assert part.splits["valid"].text_sha256 == whole.splits["valid"].text_sha256


def test_text_of_the_users_is_tokenized_in_memory(corpus: Path, cache: Path) -> None:
    data = prepare(corpus, cache)
    tokenizer = load_tokenizer(data.tokenizer_path)
    split = tokenize_split(tokenizer, ["the cat\n", "flew"], "plain")
    assert split.document_starts.tolist() == [1, 4]
    assert (split.num_tokens, split.num_words, split.num_unknown) == (5, 3, 1)
    with pytest.raises(DataError, match="no words"):
        tokenize_split(tokenizer, ["\n"], "plain")


def test_facts_are_plain_values_without_a_path(corpus: Path, cache: Path) -> None:
    facts = prepare(corpus, cache).facts()
    assert str(cache) not in json.dumps(facts)
    assert str(corpus) not in json.dumps(facts)
    assert facts["splits"]["valid"]["tokens"] == 4


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WTIE_CACHE", "/one")
    assert default_cache_folder() == Path("/one")
    monkeypatch.delenv("WTIE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert default_cache_folder() == Path("/two/wtie")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/three")
    assert default_cache_folder() == Path("/three/.cache/wtie")


@needs_shared_wikitext
@pytest.mark.parametrize(
    ("kind", "vocab_size"), [("word", 33_278), ("byte", None)], ids=["word", "byte"]
)
def test_wikitext_2_has_its_published_counts(
    cache: Path, kind: str, vocab_size: int | None
) -> None:
    data = prepare(SHARED_WIKITEXT, cache, kind, vocab_size=vocab_size, format="wikitext")
    splits = data.splits
    words = {name: split.num_words for name, split in splits.items()}
    assert words == {"train": 2_088_628, "valid": 217_646, "test": 245_569}
    documents = {name: split.num_documents for name, split in splits.items()}
    assert documents == {"train": 600, "valid": 60, "test": 60}
    assert all(split.num_unknown == 0 for split in splits.values())
    if kind == "word":
        assert data.vocab_size == 33_278
        assert {name: split.num_tokens for name, split in splits.items()} == words
        assert os.path.getsize(data.folder / "train.tokens") == 2 * (2_088_628 + 1)
    else:
        assert data.vocab_size == 257
        assert splits["test"].num_tokens == (SHARED_WIKITEXT / "test.txt").stat().st_size
