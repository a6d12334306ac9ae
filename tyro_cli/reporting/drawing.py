"""Charts as pictures: Vega-Lite specifications through vl-convert to SVG and PNG.

Invariant: the same specification gives the same SVG, whatever was drawn before, and the SVG refers
to nothing outside itself. For the page its marks carry their tips as `<title>`, which every browser
shows without a script. vl-convert is an extra and loads a JavaScript engine, so it is imported when
the first chart is drawn.
"""

import json
import re
from types import ModuleType
from xml.etree import ElementTree

from tyro_cli.errors import UsageError
from tyro_cli.reporting.palette import PAPER
from tyro_cli.reporting.plots import FONT, Specification

VEGA_LITE_VERSION = "6.4"
PNG_SCALE = 2

SVG = "http://www.w3.org/2000/svg"
NEEDLESS = {
    "class": None,
    "role": None,
    "aria-roledescription": None,
    "aria-hidden": None,
    "pointer-events": None,
    "opacity": "1",
    "fill-opacity": "1",
    "stroke-opacity": "1",
    "font-family": FONT,
}
"""Attributes that Vega writes for its own interactive page or that the style sheet sets: dropped
where they have this value, or any value for None."""

INHERITED = (
    "fill",
    "fill-opacity",
    "stroke",
    "stroke-opacity",
    "stroke-width",
    "stroke-linecap",
    "stroke-linejoin",
    "text-anchor",
    "font-size",
    "font-weight",
)
"""Attributes that a group may carry for all its marks."""

PLACES = ("d", "transform", "x", "y", "x2", "y2", "width", "height")
LONG_NUMBER = re.compile(r"(\.\d)\d+")
REFERENCE = re.compile(r"^url\(#(.*)\)$")


def renderer() -> ModuleType:
    """Return vl-convert, or say what to install.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise UsageError(
            f"`wtie report` draws its charts with vl-convert-python, which is not installed "
            f"({error})",
            "install the extra `report`: python -m pip install 'wtie[report]'",
        ) from error
    module: ModuleType = vl_convert
    return module


def draw_svg(specification: Specification) -> str:
    """Return a chart as a stand-alone SVG picture."""
    svg: str = renderer().vegalite_to_svg(
        json.dumps(specification, sort_keys=True),
        vl_version=VEGA_LITE_VERSION,
        allowed_base_urls=[],
    )
    root = ElementTree.fromstring(svg)
    _renumber(root)
    return _text(root)


def draw_png(svg: str) -> bytes:
    """Return a picture as PNG on white, at twice its size."""
    root = ElementTree.fromstring(svg)
    paper = {"width": "100%", "height": "100%", "fill": PAPER.light}
    root.insert(0, ElementTree.Element(f"{{{SVG}}}rect", paper))
    png: bytes = renderer().svg_to_png(_text(root), scale=PNG_SCALE)
    return png


def inline_svg(svg: str, prefix: str, labelled_by: str, css_class: str) -> str:
    """Return a picture for the page: scaled by its box, named, and with a tip on every mark.

    Args:
        svg: What `draw_svg` returned.
        prefix: What makes its identifiers unique in the page.
        labelled_by: Identifiers of the elements that name and describe it.
        css_class: Its class in the style sheet.
    """
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        _make_lean(element)
    _drop_empty(root)
    _share_attributes(root)
    _renumber(root, prefix)
    root.attrib = {
        "class": css_class,
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": labelled_by,
    }
    return _text(root)


def specification_text(specification: Specification) -> str:
    """Return the specification as a file that other Vega-Lite tools open."""
    return json.dumps(specification, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _make_lean(element: ElementTree.Element) -> None:
    """Turn what Vega says of a mark into a tip, and drop what the page has no use for."""
    tip = element.attrib.pop("aria-label", None)
    if tip is not None and element.tag == f"{{{SVG}}}path":
        ElementTree.SubElement(element, f"{{{SVG}}}title").text = tip
    for name, value in NEEDLESS.items():
        if name in element.attrib and value in (None, element.attrib[name]):
            del element.attrib[name]
    for name in PLACES:
        if name in element.attrib:
            element.attrib[name] = LONG_NUMBER.sub(r"\1", element.attrib[name])


def _drop_empty(element: ElementTree.Element) -> None:
    """Remove frames without ink and groups without content."""
    for child in list(element):
        _drop_empty(child)
        is_group = child.tag == f"{{{SVG}}}g"
        is_path = child.tag == f"{{{SVG}}}path"
        inked = child.attrib.get("fill") or child.attrib.get("stroke")
        if (is_group and not len(child)) or (is_path and not inked and not len(child)):
            element.remove(child)


def _share_attributes(element: ElementTree.Element) -> None:
    """Write once, on its group, what all marks of a group have in common."""
    for child in element:
        _share_attributes(child)
    if element.tag != f"{{{SVG}}}g" or len(element) < 2:
        return
    for name in INHERITED:
        values = {child.attrib.get(name) for child in element}
        value = values.pop()
        if not values and value is not None and name not in element.attrib:
            element.attrib[name] = value
            for child in element:
                del child.attrib[name]


def _renumber(root: ElementTree.Element, prefix: str = "part") -> None:
    """Number identifiers from 0: Vega goes on counting from the picture before."""
    names: dict[str, str] = {}
    for element in root.iter():
        if "id" in element.attrib:
            names[element.attrib["id"]] = f"{prefix}-{len(names)}"
            element.attrib["id"] = names[element.attrib["id"]]
    for element in root.iter():
        for key, value in element.attrib.items():
            reference = REFERENCE.match(value)
            if reference:
                element.attrib[key] = f"url(#{names[reference[1]]})"


def _text(root: ElementTree.Element) -> str:
    ElementTree.register_namespace("", SVG)
    return ElementTree.tostring(root, encoding="unicode")
