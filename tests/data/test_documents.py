"""Documents: exact pieces of the text, cut where the format says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tyro_cli.data.documents import count_lines, count_words, split_documents

# Texts made of what the cut looks at, and anything else.
LINES = st.sampled_from(
    ["\n", " \n", "\t\u3000\n", " = Title = \n", "= T =\n", " = = Part = = \n", "words\n", "\r\n"]
)
TEXTS = st.one_of(st.lists(LINES | st.text(max_size=3)).map("".join), st.text())


@pytest.mark.parametrize("text_format", ["plain", "wikitext"])
@given(text=TEXTS.filter(lambda text: text.strip() != ""))
def test_documents_concatenate_to_the_text_and_none_is_blank(text_format: str, text: str) -> None:
    documents = split_documents(text, text_format)
    assert "".join(documents) == text
    assert all(document.strip() for document in documents)


@pytest.mark.parametrize("text_format", ["plain", "wikitext"])
@given(text=TEXTS.filter(lambda text: text.strip() != ""))
def test_words_of_documents_add_up_to_the_words_of_the_text(text_format: str, text: str) -> None:
    documents = split_documents(text, text_format)
    total = sum(count_words(document, text_format) for document in documents)
    assert total == count_words(text, text_format)


def test_plain_cuts_after_blank_lines_which_belong_to_the_block_before() -> None:
    text = "\n \none\ntwo\n\n \t\nthree\n\nfour\n\n\n"
    assert split_documents(text, "plain") == (
        "\n \none\ntwo\n\n \t\n",
        "three\n\n",
        "four\n\n\n",
    )


def test_plain_without_a_blank_line_is_one_document() -> None:
    assert split_documents("one\ntwo\n   ", "plain") == ("one\ntwo\n   ",)


def test_wikitext_cuts_before_titles_and_not_before_sections() -> None:
    text = " \n = One = \n \n words \n \n = = Part = = \n \n words \n \n = Two = \n \n words \n"
    assert split_documents(text, "wikitext") == (
        " \n = One = \n \n words \n \n = = Part = = \n \n words \n \n",
        " = Two = \n \n words \n",
    )


def test_wikitext_cuts_alike_at_both_line_ends() -> None:
    text = " \n = One = \n \n words \n \n = Two = \n \n words \n"
    windows = text.replace("\n", "\r\n")
    assert split_documents(windows, "wikitext") == tuple(
        one.replace("\n", "\r\n") for one in split_documents(text, "wikitext")
    )


def test_wikitext_keeps_text_before_the_first_title_as_a_document() -> None:
    text = " words \n \n = One = \n \n words \n"
    assert split_documents(text, "wikitext") == (" words \n \n", " = One = \n \n words \n")


@pytest.mark.parametrize(
    "text",
    [
        " Key : Pld \n = Played , W = \n Wins \n",  # a legend that only looks like a title
        " \n = Played , W = \n Wins \n",
        " Wins \n = Played , W = \n \n",
        " \n = = Section = = \n \n words \n",
        " \n =Glued= \n \n words \n",
    ],
)
def test_wikitext_lines_that_are_no_titles(text: str) -> None:
    assert split_documents(text, "wikitext") == (text,)


def test_words_count_one_eos_a_line_in_wikitext_alone() -> None:
    assert count_words(" a b \n \n c", "plain") == 3
    assert count_words(" a b \n \n c", "wikitext") == 6


@pytest.mark.parametrize(("text", "lines"), [("", 0), ("a", 1), ("a\n", 1), ("\n", 1), ("\na", 2)])
def test_lines_include_an_unfinished_last_one(text: str, lines: int) -> None:
    assert count_lines(text) == lines
