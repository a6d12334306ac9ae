"""Translations as text: in the original script, one line each."""

from pathlib import Path
from typing import Any

import pytest

from tests.data.texts import PAIRS, pairs_config, write_pairs
from tests.tiny_translation import tiny_model
from tyro_cli.data.prepared_pairs import prepare_pairs
from tyro_cli.data.scripts import DisjointScript
from tyro_cli.data.tokenizers import load_tokenizer
from tyro_cli.evaluation import translation
from tyro_cli.evaluation.decoding import Translation
from tyro_cli.evaluation.translation import Search, sources_of, translations_of

TARGETS = [target for _, target in PAIRS["train"]]


def written_as_trained(
    monkeypatch: pytest.MonkeyPatch, folder: Path, has_own_script: bool, **changes: Any
) -> list[str]:
    """Return the text of translations that are the tokens of the training targets."""
    config = pairs_config(folder / "pairs", "byte", context_length=128, **changes)
    data = prepare_pairs(config, cache_folder=folder / "cache")
    train = data.splits["train"]
    ends = train.target_starts[1:] - 1  # without `<eos>`
    found = [
        Translation(train.target[begin:end].tolist(), -1.0, -1.0)
        for begin, end in zip(train.target_starts[:-1], ends, strict=True)
    ]
    monkeypatch.setattr(translation, "translate", lambda *_, **__: found)
    return translations_of(
        tiny_model(),
        sources_of(train),
        load_tokenizer(data.tokenizer_path),
        Search(1, 1.0),
        has_own_script=has_own_script,
    )


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_what_is_written_in_a_script_of_its_own_is_mapped_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fraction: float
) -> None:
    write_pairs(tmp_path / "pairs")
    script = {"target_script": {"disjoint_fraction": fraction}}
    assert written_as_trained(monkeypatch, tmp_path, True, **script) == TARGETS
    written = [DisjointScript(TARGETS, fraction).write(text) for text in TARGETS]
    assert written_as_trained(monkeypatch, tmp_path, False, **script) == written != TARGETS


def test_ideographs_of_a_corpus_stay_where_nothing_was_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    targets = ["\U00020bb7\u91ce\u5bb6", "\U00020061 b"]  # the second would be mapped to "a b"
    write_pairs(tmp_path / "pairs", PAIRS | {"train": [("one", text) for text in targets]})
    assert written_as_trained(monkeypatch, tmp_path, has_own_script=False) == targets


def test_a_translation_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", PAIRS | {"train": [("one", "ein\rHund\x0b\x85 rennt")]})
    found = written_as_trained(monkeypatch, tmp_path, has_own_script=False)
    assert found == ["ein Hund rennt"]
