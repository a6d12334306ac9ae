"""A page as one HTML file: the template filled, the charts drawn, and what they are written as.

Invariant: the bytes follow from the records alone: no clock, no path, no random name. The file asks
no host for anything; a content security policy in it makes the browser refuse to, and names the
hashes of the one script and the one style sheet. Text is escaped by the template; the only markup
that goes in as it is are charts drawn by `drawing`.
"""

import base64
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from tyro_cli.analysis.columns import Table
from tyro_cli.analysis.rendering import TEXT_KINDS, cell_text, code_parts
from tyro_cli.reporting import palette
from tyro_cli.reporting.contents import Page
from tyro_cli.reporting.drawing import draw_png, draw_svg, inline_svg, specification_text
from tyro_cli.reporting.plots import Chart

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_PAGE_BYTES = 1_500_000


@dataclass(frozen=True)
class Report:
    """A page and its pictures, ready to be written.

    Attributes:
        html: The page.
        pictures: Content by file name, for the folder `plots` beside it.
    """

    html: str
    pictures: dict[str, bytes]


def build_report(page: Page, *, whole: bool = False) -> Report:
    """Draw the charts of a page and fill its template.

    Args:
        page: What it says.
        whole: Keep every chart in it, even if it grows larger than `MAX_PAGE_BYTES`.

    Raises:
        UsageError: vl-convert is not installed.
    """
    from markupsafe import Markup

    drawn: dict[str, Markup] = {}
    pictures: dict[str, bytes] = {}
    for chart in page.charts():
        svgs = {"narrow": draw_svg(chart.narrow)}
        if chart.wide is not None:
            svgs["wide"] = draw_svg(chart.wide)
        # Drawn by us from a specification in which names are data, so it holds no foreign markup.
        drawn[chart.name] = Markup("\n").join(
            Markup(_inline(chart, size, svg)) for size, svg in svgs.items()
        )
        svg = svgs.get("wide", svgs["narrow"])
        pictures[f"{chart.name}.svg"] = svg.encode("utf-8")
        pictures[f"{chart.name}.png"] = draw_png(svg)
        pictures[f"{chart.name}.vl.json"] = specification_text(chart.wide or chart.narrow).encode()
    html = fill_template(page, drawn) if whole else _within_limit(page, drawn)
    return Report(html, pictures)


def _within_limit(page: Page, drawn: "dict[str, Markup]") -> str:
    """Fill the template; what makes the page too large, largest first, is only in its picture."""
    from markupsafe import Markup

    html = fill_template(page, drawn)
    for name in sorted(drawn, key=lambda name: len(drawn[name]), reverse=True):
        if len(html.encode("utf-8")) <= MAX_PAGE_BYTES:
            break
        drawn[name] = Markup(
            "<p>Too large for this page: see {name}.svg among the pictures beside it; its data is "
            "below.</p>"
        ).format(name=name)
        html = fill_template(page, drawn)
    return html


def fill_template(page: Page, drawn: "dict[str, Markup]") -> str:
    """Return the HTML of a page whose charts are drawn."""
    import jinja2
    from markupsafe import Markup

    style, script = _style(), _resource("report.js")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["code_parts"] = code_parts
    html = environment.get_template("report.html.j2").render(
        page=page,
        drawn=drawn,
        swatch=palette.swatch,
        text_of=cell_text,
        is_text=lambda column: column.kind in TEXT_KINDS,
        is_prose=is_prose,
        shown_columns=shown_columns,
        # Both are ours, shipped with the package, and hold no text from records.
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    return html if html.endswith("\n") else f"{html}\n"


def shown_columns(table: Table) -> tuple[int, ...]:
    """Return the places of the columns that readers see; files hold the others as well."""
    return tuple(place for place, column in enumerate(table.columns) if column.on_screen)


def is_prose(table: Table) -> bool:
    """Say whether a table holds text only, such as versions, which must wrap anywhere."""
    return all(column.kind in TEXT_KINDS for column in table.columns[2:])


def _inline(chart: Chart, size: str, svg: str) -> str:
    css_class = size if chart.wide is not None else "only"
    return inline_svg(
        svg, f"{chart.name}-{size}", f"{chart.name}-title {chart.name}-text", css_class
    )


def _style() -> str:
    variables = {
        "/* LIGHT COLOURS */": palette.colour_variables(dark=False),
        "/* DARK COLOURS */": palette.colour_variables(dark=True),
        "/* CHART COLOURS */": palette.chart_style(),
    }
    style = _resource("report.css")
    for place, text in variables.items():
        style = style.replace(place, text)
    return style


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _resource(name: str) -> str:
    folder = resources.files("tyro_cli.reporting") / "templates"
    return (folder / name).read_text(encoding="utf-8")
