"""Prepared pairs: what is kept of a corpus, how it is counted, the cache, and what is refused."""

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.texts import PAIRS, pairs_config, write_pairs
from tests.folders import digests
from tyro_cli.data import prepared_pairs as module
from tyro_cli.data.arrays import write_array
from tyro_cli.data.pair_splits import PairSplit
from tyro_cli.data.parallel import hash_pairs
from tyro_cli.data.prepared import open_prepared
from tyro_cli.data.prepared_pairs import PreparedPairs, open_pairs, prepare_pairs
from tyro_cli.data.scripts import DisjointScript, restore
from tyro_cli.data.tokenizers import decode_tokens, load_tokenizer
from tyro_cli.errors import DamagedRecord, DataError, StorageError
from tyro_cli.storage.manifests import write_manifest

LONG = "lang " * 40


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "corpus")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def prepare(corpus: Path, cache: Path, kind: str = "word", **changes: Any) -> PreparedPairs:
    config = pairs_config(corpus, kind, **changes)
    return prepare_pairs(config, cache_folder=cache)


def sentences(tokenizer_path: Path, tokens: np.ndarray, starts: np.ndarray) -> list[str]:
    """Return the text of each sentence, without the `<eos>` that each must end in."""
    tokenizer = load_tokenizer(tokenizer_path)
    pieces = [tokens[start:end] for start, end in pairwise(starts)]
    assert all(piece[-1] == 0 for piece in pieces)
    return [decode_tokens(tokenizer, piece[:-1].tolist()) for piece in pieces]


def sides(data: PreparedPairs, split: PairSplit) -> list[tuple[str, str]]:
    source = sentences(data.source_tokenizer_path, split.source, split.source_starts)
    target = sentences(data.tokenizer_path, split.target, split.target_starts)
    return list(zip(source, target, strict=True))


@pytest.mark.parametrize("sharing", ["joint", "separate"])
@pytest.mark.parametrize(("kind", "vocab_size"), [("word", None), ("byte", None), ("bpe", 270)])
def test_every_sentence_is_tokenized_and_ends_in_eos(
    corpus: Path, cache: Path, kind: str, vocab_size: int | None, sharing: str
) -> None:
    data = prepare(corpus, cache, kind, vocab_size=vocab_size, sharing=sharing)
    for name, split in data.splits.items():
        assert sides(data, split) == PAIRS[name]
        assert split.num_pairs == len(PAIRS[name])
        assert split.num_tokens == len(split.target)
        targets = [target for _, target in PAIRS[name]]
        assert split.target_words.tolist() == [len(text.split()) for text in targets]
        assert split.target_bytes.tolist() == [len(text.encode()) for text in targets]
        assert split.num_words == split.target_words.sum()
        assert split.num_bytes == split.target_bytes.sum()
        assert split.source_lengths.sum() == split.num_source_tokens == len(split.source)
        assert split.target_lengths.sum() == split.num_tokens
        assert split.text_sha256 == hash_pairs(*zip(*PAIRS[name], strict=True))
        assert (split.num_empty, split.num_long) == (0, 0)
    assert data.splits["train"].source.dtype == np.dtype("<u2")


def test_sentences_of_valid_and_test_are_kept_as_they_are(corpus: Path, cache: Path) -> None:
    data = prepare(corpus, cache)
    assert data.splits["train"].source_sentences == data.splits["train"].target_sentences == ()
    for name in ("valid", "test"):
        split = data.splits[name]
        pairs = zip(split.source_sentences, split.target_sentences, strict=True)
        assert list(pairs) == PAIRS[name]


def test_joint_vocabulary_is_of_both_sides_and_separate_ones_of_each(
    corpus: Path, cache: Path
) -> None:
    english, german = (
        {word for pair in PAIRS["train"] for word in pair[side].split()} for side in (0, 1)
    )
    joint = prepare(corpus, cache)
    assert joint.sharing == "joint"
    assert joint.vocab_size == joint.source_vocab_size == len(english | german) + 2
    assert joint.source_tokenizer_path == joint.tokenizer_path
    assert joint.source_tokenizer_sha256 == joint.tokenizer_sha256
    separate = prepare(corpus, cache, sharing="separate")
    assert separate.vocab_size == len(german) + 2
    assert separate.source_vocab_size == len(english) + 2
    assert separate.source_tokenizer_path.name == "source-tokenizer.json"
    assert separate.source_tokenizer_sha256 != separate.tokenizer_sha256


class TestUnusablePairs:
    @pytest.fixture
    def corpus(self, tmp_path: Path) -> Path:
        unusable = [("", "ein Hund"), ("a dog", ""), (LONG, "lang"), ("long", LONG), ("", LONG)]
        train = [PAIRS["train"][0], *unusable, *PAIRS["train"][1:]]
        test = [*PAIRS["test"], ("a dog", "")]
        return write_pairs(tmp_path / "corpus", PAIRS | {"train": train, "test": test})

    def test_they_are_dropped_and_counted_by_reason(self, corpus: Path, cache: Path) -> None:
        data = prepare(corpus, cache)
        counts = {name: (s.num_empty, s.num_long) for name, s in data.splits.items()}
        assert counts == {"train": (3, 2), "valid": (0, 0), "test": (1, 0)}
        assert all(sides(data, split) == PAIRS[name] for name, split in data.splits.items())
        assert data.splits["test"].target_sentences == (PAIRS["test"][0][1],)

    def test_limit_counts_eos_on_either_side(self, tmp_path: Path, cache: Path) -> None:
        pairs = [("a " * 7, "b"), ("a", "b " * 7), ("a " * 8, "b"), ("a", "b " * 8)]
        corpus = write_pairs(tmp_path / "c", PAIRS | {"train": pairs})
        split = prepare(corpus, cache, context_length=8).splits["train"]
        assert split.source_lengths.tolist() == [8, 2]
        assert split.target_lengths.tolist() == [2, 8]
        assert split.num_long == 2

    @pytest.mark.parametrize(
        ("pair", "problem"),
        [(("", "b"), "no source"), (("a", ""), "no target"), (("", ""), "no source and no target")],
    )
    def test_the_side_that_is_empty_is_named(
        self, tmp_path: Path, cache: Path, pair: tuple[str, str], problem: str
    ) -> None:
        corpus = write_pairs(tmp_path / "c", PAIRS | {"valid": [("a", "b"), pair]})
        message = f"the valid split: pair 2 cannot be used: it has {problem} (the first of 1)"
        with pytest.raises(DataError, match=re.escape(message)):
            prepare(corpus, cache, unusable_pairs="refuse")

    def test_the_rule_to_refuse_names_the_first_of_them(
        self, corpus: Path, cache: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(DataError) as caught:
            prepare(corpus, cache, unusable_pairs="refuse")
        problem = "the train split: pair 2 cannot be used: it has no source (the first of 5)"
        assert caught.value.message == f"{corpus}: {problem}"
        assert "data.unusable_pairs: drop" in caught.value.remedy
        train = [*PAIRS["train"], ("lang", LONG)]
        corpus = write_pairs(tmp_path / "long", PAIRS | {"train": train})
        with pytest.raises(
            DataError, match=r"pair 13 cannot be used: it has 2 source and 41 target"
        ):
            prepare(corpus, cache, unusable_pairs="refuse")
        assert not [path for path in cache.rglob("*") if path.suffix != ".lock" and path.is_file()]

    def test_the_rule_to_refuse_lets_usable_pairs_pass(self, tmp_path: Path, cache: Path) -> None:
        corpus = write_pairs(tmp_path / "good")
        assert prepare(corpus, cache, unusable_pairs="refuse").splits["train"].num_pairs == 12

    def test_a_split_with_no_usable_pair_is_refused(self, tmp_path: Path, cache: Path) -> None:
        corpus = write_pairs(tmp_path / "c", PAIRS | {"valid": [("", "a"), (LONG, "a")]})
        with pytest.raises(DataError, match=r"valid split: no pair can be used: 1 .* 1 more"):
            prepare(corpus, cache)


def test_unknown_target_words_are_counted_and_literal_unk_is_none(
    tmp_path: Path, cache: Path
) -> None:
    pairs = PAIRS | {"valid": [("new words", "ein neues <unk> Haus")]}
    corpus = write_pairs(tmp_path / "c", pairs)
    data = prepare(corpus, cache)
    counts = {name: split.num_unknown for name, split in data.splits.items()}
    assert counts == {"train": 0, "valid": 2, "test": 0}
    assert prepare(corpus, cache, "byte").splits["valid"].num_unknown == 0


class TestFraction:
    @pytest.fixture
    def corpus(self, tmp_path: Path) -> Path:
        train = [(f"word {number}", f"wort {number} hier") for number in range(200)]
        pairs = {"train": [("", "a"), *train], "test": train[:20]}
        return write_pairs(tmp_path / "corpus", PAIRS | pairs)

    def test_whole_pairs_are_kept_nested_and_in_order(self, corpus: Path, cache: Path) -> None:
        previous: set[tuple[str, str]] = set()
        for fraction in (0.1, 0.4, 1.0):
            data = prepare(corpus, cache, train_fraction=fraction)
            kept = sides(data, data.splits["train"])
            assert kept == sorted(kept, key=lambda pair: int(pair[0].split()[1]))
            assert previous < set(kept)
            assert len(kept) == pytest.approx(200 * fraction, abs=2)
            previous = set(kept)

    def test_counts_are_of_what_is_kept_and_the_tokenizer_of_all(
        self, corpus: Path, cache: Path
    ) -> None:
        part = prepare(corpus, cache, train_fraction=0.1)
        whole = prepare(corpus, cache)
        assert part.tokenizer_sha256 == whole.tokenizer_sha256
        train = part.splits["train"]
        assert train.num_tokens == 4 * train.num_pairs == train.num_words + train.num_pairs
        assert train.num_empty == 1
        assert train.text_sha256 != whole.splits["train"].text_sha256
        assert part.facts()["splits"]["test"] == whole.facts()["splits"]["test"]


class TestDisjointScript:
    @pytest.mark.parametrize("fraction", [0.5, 1.0])
    def test_targets_are_tokenized_as_written_and_counted_as_they_are(
        self, corpus: Path, cache: Path, fraction: float
    ) -> None:
        plain = prepare(corpus, cache, "byte")
        data = prepare(corpus, cache, "byte", target_script={"disjoint_fraction": fraction},
                       context_length=128)  # fmt: skip
        script = DisjointScript([target for _, target in PAIRS["train"]], fraction)
        for name, split in data.splits.items():
            written = [(source, script.write(target)) for source, target in PAIRS[name]]
            assert sides(data, split) == written
            assert [(source, restore(text)) for source, text in written] == PAIRS[name]
            same = plain.splits[name]
            assert split.num_bytes == same.num_bytes < split.num_tokens - split.num_pairs
            assert split.num_words == same.num_words
            assert split.text_sha256 == same.text_sha256
            if name != "train":
                assert split.target_sentences == same.target_sentences
        assert data.content_sha256 == plain.content_sha256
        assert data.facts()["disjoint_fraction"] == fraction

    def test_fraction_0_is_the_same_entry_as_none(self, corpus: Path, cache: Path) -> None:
        none = prepare(corpus, cache, target_script={"disjoint_fraction": 0.0})
        assert none.folder == prepare(corpus, cache).folder

    @pytest.mark.parametrize("side", [0, 1])
    def test_corpus_that_uses_the_script_is_refused(
        self, tmp_path: Path, cache: Path, side: int
    ) -> None:
        pair = ["a", "b"]
        pair[side] += "\U00020000"
        corpus = write_pairs(tmp_path / "c", PAIRS | {"test": [(pair[0], pair[1])]})
        prepare(corpus, cache)
        where = ("source", "target")[side]
        with pytest.raises(DataError, match=f"test, {where}: the letter .*U\\+20000"):
            prepare(corpus, cache, target_script={"disjoint_fraction": 0.5})


class TestOverlap:
    def test_it_is_that_of_a_corpus_counted_by_hand(self, tmp_path: Path, cache: Path) -> None:
        train = [("in a bus", "in einem Bus Bus"), ("in a taxi", "in einem taxi")]
        corpus = write_pairs(tmp_path / "c", PAIRS | {"train": train})
        expected = {
            "source_rows": 4,
            "target_rows": 4,
            "shared_rows": 2,  # in, taxi
            "shared_target_tokens": 3 / 7,
            "source_tokens_per_word": 1.0,
            "target_tokens_per_word": 1.0,
        }
        assert prepare(corpus, cache).overlap == expected
        separate = prepare(corpus, cache, sharing="separate").overlap
        assert separate == expected | {"shared_rows": None}

    def test_tokens_per_word_leave_eos_out(self, tmp_path: Path, cache: Path) -> None:
        train = [("ab cd", "abcd efgh")]
        corpus = write_pairs(tmp_path / "c", PAIRS | {"train": train})
        overlap = prepare(corpus, cache, "byte").overlap
        assert overlap["source_tokens_per_word"] == 5 / 2
        assert overlap["target_tokens_per_word"] == 9 / 2
        assert overlap["shared_target_tokens"] == 5 / 9

    def test_words_of_dropped_pairs_alone_count_nowhere(self, tmp_path: Path, cache: Path) -> None:
        train = [("in a bus", "im Bus"), ("", "a taxi zuletzt"), ("zuletzt a", "")]
        corpus = write_pairs(tmp_path / "c", PAIRS | {"train": train})
        for sharing in ("joint", "separate"):
            overlap = prepare(corpus, cache, sharing=sharing).overlap
            assert (overlap["source_rows"], overlap["target_rows"]) == (3, 2)
            assert overlap["shared_target_tokens"] == 0

    def test_a_disjoint_script_shares_no_word(self, tmp_path: Path, cache: Path) -> None:
        train = [("in a bus", "in einem Bus Bus"), ("in a taxi", "in einem taxi")]
        corpus = write_pairs(tmp_path / "c", PAIRS | {"train": train})
        overlap = prepare(corpus, cache, target_script={"disjoint_fraction": 1.0}).overlap
        assert overlap["shared_rows"] == overlap["shared_target_tokens"] == 0
        assert overlap["target_tokens_per_word"] == 1


class TestCache:
    def test_second_call_tokenizes_nothing(
        self, corpus: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = prepare(corpus, cache, sharing="separate")
        monkeypatch.setattr(module, "train_tokenizer", lambda *_, **__: pytest.fail("trained"))
        monkeypatch.setattr(module, "tokenize_pairs", lambda *_, **__: pytest.fail("tokenized"))
        second = prepare(corpus, cache, sharing="separate")
        assert second.folder == first.folder
        assert second.facts() == first.facts() == open_pairs(first.folder).facts()
        assert isinstance(second.splits["train"].source, np.memmap)

    def test_the_same_pairs_elsewhere_use_the_same_entry(
        self, corpus: Path, cache: Path, tmp_path: Path
    ) -> None:
        other = write_pairs(tmp_path / "elsewhere", suffix=".gz")
        assert prepare(other, cache).folder == prepare(corpus, cache).folder

    @pytest.mark.parametrize(
        "changes",
        [
            {"kind": "byte"},
            {"sharing": "separate"},
            {"train_fraction": 0.5},
            {"context_length": 16},
            {"unusable_pairs": "refuse"},
            {"target_script": {"disjoint_fraction": 0.5}},
            {"languages": {"source": "de", "target": "en"}},
        ],
    )
    def test_what_changes_the_tokens_changes_the_entry(
        self, corpus: Path, cache: Path, changes: dict[str, Any]
    ) -> None:
        assert prepare(corpus, cache, **changes).folder != prepare(corpus, cache).folder

    @pytest.mark.parametrize("spelled_out", [{"sharing": "joint"}, {"unusable_pairs": "drop"}])
    def test_defaults_written_out_change_nothing(
        self, corpus: Path, cache: Path, spelled_out: dict[str, Any]
    ) -> None:
        assert prepare(corpus, cache, **spelled_out).folder == prepare(corpus, cache).folder

    @pytest.mark.parametrize(
        "name", ["train.source", "valid.pairs", "test.target.txt", "tokenizer.json", "pairs.json"]
    )
    def test_damaged_entry_is_made_again_and_never_used(
        self, corpus: Path, cache: Path, name: str
    ) -> None:
        first = prepare(corpus, cache)
        content = digests(first.folder)
        (first.folder / name).write_bytes(b"\x05\x00" * 105)
        with pytest.raises(StorageError):
            open_pairs(first.folder)
        messages: list[str] = []
        second = prepare_pairs(
            pairs_config(corpus), cache_folder=cache,
            on_progress=messages.append,
        )  # fmt: skip
        assert "damaged and is made again" in messages[0]
        assert digests(second.folder) == content

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("test.source.txt", b"one line too many\nthe dog sleeps\n"),
            ("test.source.txt", b""),
            ("test.source.txt", b"\xff\n"),
            ("pairs.json", b"[]"),
            ("pairs.json", b'{"format": 1}'),
            ("pairs.json", b'{"format": 99}'),
        ],
    )
    def test_entry_that_is_whole_by_its_own_account_alone_is_refused(
        self, corpus: Path, cache: Path, name: str, content: bytes
    ) -> None:
        folder = prepare(corpus, cache).folder
        (folder / name).write_bytes(content)
        (folder / "MANIFEST.json").unlink()
        write_manifest(folder)
        with pytest.raises(DamagedRecord, match=r"pairs\.json"):
            open_pairs(folder)

    @pytest.mark.parametrize("array", ["pairs", "source", "target"])
    def test_arrays_of_different_numbers_of_pairs_are_refused(
        self, corpus: Path, cache: Path, array: str
    ) -> None:
        folder = prepare(corpus, cache).folder
        for suffix in ("", ".json"):
            shutil.copy(folder / f"test.{array}{suffix}", folder / f"train.{array}{suffix}")
        (folder / "MANIFEST.json").unlink()
        write_manifest(folder)
        with pytest.raises(DamagedRecord, match="number of pairs of train"):
            open_pairs(folder)

    @pytest.mark.parametrize("length", [1, 2, 5, 7])
    def test_numbers_that_are_none_of_whole_pairs_are_refused(
        self, corpus: Path, cache: Path, length: int
    ) -> None:
        folder = prepare(corpus, cache).folder
        write_array(folder / "test.pairs", np.zeros(length, dtype=np.int64))
        (folder / "MANIFEST.json").unlink()
        write_manifest(folder)
        with pytest.raises(DamagedRecord, match=r"the length of test\.pairs"):
            open_pairs(folder)

    def test_an_entry_of_pairs_is_none_of_a_text(self, corpus: Path, cache: Path) -> None:
        with pytest.raises(StorageError):
            open_prepared(prepare(corpus, cache).folder)

    @pytest.mark.parametrize("stop_at", [1, 3, 6, 9])
    def test_a_stop_leaves_nothing_half_made(self, corpus: Path, cache: Path, stop_at: int) -> None:
        polls = 0

        def should_stop() -> None:
            nonlocal polls
            polls += 1
            if polls == stop_at:
                raise KeyboardInterrupt

        config = pairs_config(corpus, sharing="separate")
        with pytest.raises(KeyboardInterrupt):
            prepare_pairs(config, cache_folder=cache, should_stop=should_stop)
        left = [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
        assert left == []


def test_facts_are_a_record_without_paths(corpus: Path, cache: Path) -> None:
    facts = prepare(corpus, cache).facts()
    assert str(cache) not in json.dumps(facts)
    assert facts["languages"] == {"source": "en", "target": "de"}
    assert facts["splits"]["test"] == {
        "pairs": 1,
        "empty_pairs": 0,
        "long_pairs": 0,
        "source_tokens": 4,
        "tokens": 4,
        "words": 3,
        "bytes": len("ein Hund schl\u00e4ft".encode()),
        "unknown_words": 0,
        "text_sha256": hash_pairs(["the dog sleeps"], ["ein Hund schl\u00e4ft"]),
    }
