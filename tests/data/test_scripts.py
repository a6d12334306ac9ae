"""The disjoint script: exact to undo, nested over fractions, and only letters change."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.texts import NASTY_TEXTS
from tyro_cli.data.scripts import OFFSET, DisjointScript, check_unused, restore
from tyro_cli.errors import DataError

TRAIN = [
    "Zwei junge weiße Männer sind im Freien, in der Nähe vieler Büsche.",
    "Mehrere Männer mit Schutzhelmen bedienen ein Antriebsradsystem.",
    "Ein kleines Mädchen klettert in ein Spielhaus aus Holz (3 Meter hoch).",
]
TYPES = {word.casefold() for word in re.findall(r"[^\W\d_]+", " ".join(TRAIN))}


def is_passed(text: str) -> bool:
    try:
        check_unused([text], "target")
    except DataError:
        return False
    return True


texts = st.text().filter(is_passed)
fractions = st.floats(0, 1)


def written_types(script: DisjointScript, types: set[str]) -> set[str]:
    return {word for word in types if script.write(word) != word}


@given(texts, fractions)
def test_what_is_written_is_restored_exactly(text: str, fraction: float) -> None:
    assert restore(DisjointScript(TRAIN, fraction).write(text)) == text
    assert restore(DisjointScript([text], fraction).write(text)) == text


@pytest.mark.parametrize("text", [text for text in NASTY_TEXTS if is_passed(text)])
def test_nasty_texts_are_restored_exactly(text: str) -> None:
    assert restore(DisjointScript([], 1).write(text)) == text


@given(texts)
def test_only_letters_change_and_all_of_them_where_everything_is_written(text: str) -> None:
    written = DisjointScript(TRAIN, 1).write(text)
    assert len(written) == len(text)
    for before, after in zip(text, written, strict=True):
        assert (before != after) == before.isalpha()
        if before != after:
            assert ord(after) == ord(before) + OFFSET
            assert unicodedata.category(after).startswith("L")


@given(texts)
def test_fraction_0_changes_nothing(text: str) -> None:
    assert DisjointScript([text], 0).write(text) == text
    assert DisjointScript(TRAIN, 0).write(text) == text


def test_unseen_words_stay_where_no_training_word_is_taken() -> None:
    unseen = {f"wort{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"}
    for fraction in (0, 1e-9):
        assert not written_types(DisjointScript(TRAIN, fraction), unseen)


@given(st.lists(texts, max_size=5), fractions, fractions)
def test_types_of_a_smaller_fraction_are_among_those_of_a_larger_one(
    sentences: list[str], one: float, other: float
) -> None:
    small, large = (DisjointScript(TRAIN, p) for p in sorted((one, other)))
    types = TYPES | {word.casefold() for text in sentences for word in text.split()}
    assert written_types(small, types) <= written_types(large, types)


@pytest.mark.parametrize("fraction", [0, 0.1, 0.25, 0.5, 0.9, 1])
def test_the_fraction_is_of_the_word_types_of_the_training_target(fraction: float) -> None:
    script = DisjointScript(TRAIN, fraction)
    assert len(written_types(script, TYPES)) == round(fraction * len(TYPES))


def test_order_of_sentences_and_repetitions_decide_nothing() -> None:
    shuffled = DisjointScript([*reversed(TRAIN), *TRAIN], 0.5)
    assert written_types(shuffled, TYPES) == written_types(DisjointScript(TRAIN, 0.5), TYPES)


def test_unseen_words_are_decided_in_the_same_way() -> None:
    unseen = {f"wort{letter}{other}" for letter in "abcdefghij" for other in "abcdefghijklmnop"}
    half = written_types(DisjointScript(TRAIN, 0.5), unseen)
    assert 0.2 * len(unseen) < len(half) < 0.8 * len(unseen)
    assert written_types(DisjointScript(TRAIN, 1), unseen) == unseen


def test_a_word_is_one_type_in_every_case_and_its_case_is_kept() -> None:
    script = DisjointScript(TRAIN, 0.5)
    for word in TYPES:
        forms = {word, word.capitalize(), word.upper()}
        assert len({script.write(form) == form for form in forms}) == 1
        assert len({script.write(form) for form in forms}) == len(forms)


def test_a_word_with_marks_is_written_as_one() -> None:
    hindi = "हिन्दी"
    decided = set()
    for number in range(1, 10):
        script = DisjointScript([hindi, *TRAIN], number / 10)
        written = [a != b for a, b in zip(hindi, script.write(hindi), strict=True) if a.isalpha()]
        assert len(set(written)) == 1
        decided.add(written[0])
    assert decided == {False, True}


def test_punctuation_is_no_part_of_a_word() -> None:
    script = DisjointScript(TRAIN, 1)
    assert script.write("(3 \u00d7 ...)\u00ab\u2014\u00bb_") == "(3 \u00d7 ...)\u00ab\u2014\u00bb_"
    with_comma, without = script.write("Freien,"), script.write("Freien")
    assert with_comma == without + ","


def test_known_words_stay_what_they_are() -> None:
    """Changes only together with the protocol number: other words are other results."""
    script = DisjointScript(TRAIN, 0.25)
    known = ["aus", "der", "ein", "freien", "in", "meter"]
    assert sorted(written_types(script, TYPES)) == known


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a \U00020061", "is of the script"),
        ("\U0002a6df", "is of the script"),
        ("\uac00", "has no counterpart"),
        ("\U0001d400", "has no counterpart"),
    ],
)
def test_text_that_could_not_be_restored_is_refused(text: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        check_unused(["fine", text], "the target")
    assert "the target: the letter" in caught.value.message
    assert "data.target_script" in caught.value.remedy


def test_symbols_beyond_the_letters_are_fine() -> None:
    check_unused(["\U0001f468\u200d\U0001f469 \ue000 \uffff 中文 ß"], "the target")
