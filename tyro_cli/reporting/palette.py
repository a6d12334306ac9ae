"""The colours of charts and page, light and dark, in one place.

Invariant: charts are drawn in the light colours, each of them a distinct string, so that a style
sheet can give every one its dark twin without drawing anything again. Arms keep their colour and
their shape in every chart. The arm colours are Okabe and Ito's order of hues, told apart with every
common kind of colour blindness; shapes tell the arms apart in print, and the seventh arm from the
first.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """One colour by its light and dark value."""

    light: str
    dark: str


ARMS = (
    Colour("#0067a5", "#62b4f0"),
    Colour("#c64f00", "#ff9a57"),
    Colour("#00805d", "#3ecf9f"),
    Colour("#a8477f", "#ea9fcb"),
    Colour("#6b5900", "#d9c340"),
    Colour("#3b6f8f", "#9ccfe8"),
)
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")

INK = Colour("#1a1d21", "#eceef0")
MUTED = Colour("#58616b", "#a6afb9")
RULE = Colour("#b4bbc3", "#5b646e")
GRID = Colour("#e4e7eb", "#2c3238")
BAND = Colour("#eceff2", "#262c32")
PAPER = Colour("#ffffff", "#15181c")

COMPONENTS = {
    "token embedding": Colour("#5b4a9e", "#9d8be0"),
    "head": Colour("#a79bd6", "#5f519c"),
    "positions": Colour("#75664a", "#b8a684"),
    "attention": Colour("#5f7278", "#8fa3aa"),
    "feed-forward": Colour("#9eabb0", "#5b696f"),
    "norms": Colour("#c9d1d4", "#465155"),
}
OTHER_COMPONENT = Colour("#7d8a70", "#a5b396")
ON_COMPONENT = Colour("#fefefe", "#0f1113")
"""Text on the darker segments of a bar."""

EVERY_COLOUR = (
    *ARMS,
    INK,
    MUTED,
    RULE,
    GRID,
    BAND,
    PAPER,
    *COMPONENTS.values(),
    OTHER_COMPONENT,
    ON_COMPONENT,
)


def arm_colour(position: int) -> Colour:
    """Return the colour of the arm at that place in the experiment's order."""
    return ARMS[position % len(ARMS)]


def arm_shape(position: int) -> str:
    """Return the Vega name of the arm's mark."""
    return SHAPES[(position + position // len(ARMS)) % len(SHAPES)]


def chart_style() -> str:
    """Return the style sheet that gives every colour of an inline chart its value by theme."""
    lines = []
    for index, colour in enumerate(EVERY_COLOUR):
        for attribute in ("fill", "stroke"):
            lines.append(
                f'.plot [{attribute}="{colour.light}"] {{ {attribute}: var(--chart-{index}) }}'
            )
        lines.append(f".swatch-{index} {{ background: var(--chart-{index}) }}")
    return "\n".join(lines)


def colour_variables(*, dark: bool) -> str:
    """Return the declarations of one theme, for the root element."""
    return " ".join(
        f"--chart-{index}: {colour.dark if dark else colour.light};"
        for index, colour in enumerate(EVERY_COLOUR)
    )


def swatch(colour: Colour) -> int:
    """Return the number of a colour's class in the style sheet."""
    return EVERY_COLOUR.index(colour)
