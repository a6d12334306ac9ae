"""Which matrices a model has, by what each serves as: read from the tensors, not from a flag."""

import pytest

from tests import tiny, tiny_translation
from tyro_cli.models.tying import softmax_matrix, source_matrix, vocabulary_matrices


@pytest.mark.parametrize(
    ("tying", "expected"), [("none", {"input", "output"}), ("in-out", {"tied"})]
)
def test_of_a_language_model(tying: str, expected: set[str]) -> None:
    model = tiny.tiny_model(tying=tying)
    found = vocabulary_matrices(model)
    assert set(found) == expected
    assert found.get("output", found.get("tied")) is softmax_matrix(model)
    assert found.get("input", found.get("tied")) is model.embedding.weight


@pytest.mark.parametrize(
    ("tying", "expected"),
    [
        ("none", {"input", "output", "source"}),
        ("in-out", {"tied", "source"}),
        ("three-way", {"tied"}),
    ],
)
def test_of_a_translation_model(tying: str, expected: set[str]) -> None:
    model = tiny_translation.tiny_model(tying=tying)
    found = vocabulary_matrices(model)
    assert set(found) == expected
    assert found.get("source", found.get("tied")) is source_matrix(model)
