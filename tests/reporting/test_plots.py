import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tyro_cli.reporting.bars import DARK_COMPONENTS
from tyro_cli.reporting.palette import (
    ARMS,
    COMPONENTS,
    EVERY_COLOUR,
    INK,
    MUTED,
    ON_COMPONENT,
    PAPER,
)
from tyro_cli.reporting.plots import (
    LEAST_END_ROOM,
    Frame,
    Plot,
    Scale,
    domain,
    end_room,
    shortened,
    shortened_within,
    spread,
)


@given(st.lists(st.floats(0, 100), max_size=6))
def test_labels_are_apart_and_inside(places):
    moved = spread(places, 10, 0, 100)
    ordered = sorted(moved)
    assert all(-1e-9 <= place <= 100 + 1e-9 for place in moved)
    if max(places, default=0) <= 60 and min(places, default=100) >= 40:
        assert all(b - a >= 10 - 1e-6 for a, b in pairwise(ordered))


def test_labels_that_do_not_touch_stay_where_they_are():
    assert spread([10.0, 80.0, 40.0], 15, 0, 100) == [10.0, 80.0, 40.0]


def test_labels_that_touch_move_apart_in_order():
    assert spread([50.0, 50.0, 52.0], 10, 0, 100) == pytest.approx([40.67, 50.67, 60.67], abs=0.01)


def test_the_margin_holds_the_longest_label():
    assert end_room(["tied", "untied"], 8) == LEAST_END_ROOM
    assert end_room(["tied", "untied-narrow"], 8) == 102  # 13 bold characters of 7.2 pixels
    assert end_room([], 8) == LEAST_END_ROOM


@pytest.mark.parametrize("values", [[1.0], [0.0], [3.0, 3.0], [-2.0, 5.0]])
def test_a_domain_has_room_around_its_values(values):
    low, high = domain(values)
    assert low < min(values) <= max(values) < high
    assert math.isfinite(low)


def test_a_label_is_one_line_and_not_too_long():
    assert shortened("a\nb\x00c", 10) == "a b c"
    assert shortened("abcdefgh", 5) == "abcd…"
    assert shortened_within("abcdefgh", 5) == "ab…gh"
    assert shortened_within("abcde", 5) == "abcde"


def test_every_colour_is_a_string_of_its_own():
    lights = [colour.light for colour in EVERY_COLOUR]
    assert len(set(lights)) == len(lights)


def test_the_specification_says_its_size_and_measures_no_text():
    plot = Plot(Frame(340, 200), Scale(0, 1, "steps"), Scale(0, 1, "nats"))
    plot.points([{"x": 0, "y": 1, "tip": "here"}], EVERY_COLOUR[0])
    built = plot.build()
    padding = built["padding"]
    assert built["autosize"] == {"type": "none"}
    assert built["width"] + padding["left"] + padding["right"] == 340
    assert built["height"] + padding["top"] + padding["bottom"] == 200


def contrast_ratio(first: str, second: str) -> float:
    """The contrast of two colours as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_arms_can_be_told_from_the_paper(theme):
    paper = getattr(PAPER, theme)
    for colour in (*ARMS, INK, MUTED):
        assert contrast_ratio(getattr(colour, theme), paper) >= 4.5, colour


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_on_a_bar_can_be_read(theme):
    for name, colour in COMPONENTS.items():
        text = ON_COMPONENT if name in DARK_COMPONENTS else INK
        ratio = contrast_ratio(getattr(colour, theme), getattr(text, theme))
        assert ratio >= 4.5, f"{name}: {ratio:.1f}"
