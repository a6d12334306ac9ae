"""The report in a real browser: silent, asking for nothing, drawn at every width, and usable."""

import base64

import pytest

from tests.analysis.fake_runs import make_run
from tests.browser.chromium import find_chromium, running_browser
from tests.reporting.fake_grids import make_grid
from tyro_cli.reporting.folders import write_report

CHROMIUM = find_chromium()

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

DESKTOP, TELEPHONE = 1280, 390

FIGURES = """
[...document.querySelectorAll("figure")].map((figure) => {
  const shown = [...figure.querySelectorAll("svg")].filter((svg) => svg.getClientRects().length);
  const box = shown[0].getBoundingClientRect();
  return {
    id: figure.id, shown: shown.length, width: box.width, height: box.height,
    marks: shown[0].querySelectorAll("[data-tip], title").length,
    smallestText: box.width / shown[0].viewBox.baseVal.width * Math.min(
      ...[...shown[0].querySelectorAll("text")].map(
        (text) => parseFloat(getComputedStyle(text).fontSize)
      )
    ),
  };
})
"""
OPEN_ALL = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
TIP = """
(() => {
  const tip = document.getElementById("tip");
  return tip.hidden ? null : tip.textContent;
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    assert CHROMIUM is not None
    with running_browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def run_page(tmp_path_factory):
    return write_report(make_run(tmp_path_factory.mktemp("run")))[0]


@pytest.fixture(scope="module")
def study_page(tmp_path_factory):
    return write_report(make_grid(tmp_path_factory.mktemp("study")))[0]


@pytest.fixture(params=["run", "study"])
def page(request):
    return request.getfixturevalue(f"{request.param}_page")


@pytest.mark.parametrize("width", [DESKTOP, TELEPHONE])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_silent_asks_for_nothing_and_draws_every_chart(browser, page, width, dark):
    browser.open(page, width=width, dark=dark)
    browser.evaluate(OPEN_ALL)
    figures = browser.evaluate(FIGURES)
    assert len(figures) >= 7
    for figure in figures:
        assert figure["shown"] == 1, figure
        assert figure["width"] > 300, figure
        assert figure["height"] > 80, figure
        assert figure["marks"] > 0, figure
        assert figure["smallestText"] >= 11, figure
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]


def test_a_tip_follows_the_pointer(browser, run_page):
    browser.open(run_page, width=DESKTOP)
    assert browser.evaluate(TIP) is None
    browser.point_at("#chart-size [data-tip*='seed 0']")
    assert "bits per byte" in browser.evaluate(TIP)
    browser.point_at("h1")
    assert browser.evaluate(TIP) is None


def test_the_arrow_keys_step_through_a_chart(browser, run_page):
    browser.open(run_page, width=DESKTOP)
    browser.evaluate("document.querySelector('#chart-seeds .plot').focus({preventScroll: true})")
    browser.press("ArrowRight")
    first = browser.evaluate(TIP)
    browser.press("ArrowRight")
    second = browser.evaluate(TIP)
    assert first.startswith("untied, seed")
    assert second.startswith("untied, seed")
    assert first != second
    browser.press("End")
    assert browser.evaluate(TIP).startswith("tied, seed")
    browser.press("Escape")
    assert browser.evaluate(TIP) is None


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_button_changes_the_theme_of_page_and_charts(browser, run_page, dark):
    colours = """[
      getComputedStyle(document.body).backgroundColor,
      getComputedStyle(document.querySelector("#chart-seeds [data-tip^='tied']")).fill,
      getComputedStyle(document.querySelector("#chart-seeds text")).fill,
    ]"""
    browser.open(run_page, width=DESKTOP, dark=dark)
    browser.evaluate("localStorage.clear()")
    browser.open(run_page, width=DESKTOP, dark=dark)
    before = browser.evaluate(colours)
    label = browser.evaluate("document.getElementById('theme').textContent")
    assert label == ("Light theme" if dark else "Dark theme")
    browser.click("#theme")
    after = browser.evaluate(colours)
    assert all(one != other for one, other in zip(before, after, strict=True))
    browser.open(run_page, width=DESKTOP, dark=dark)
    assert browser.evaluate(colours) == after, "the choice is kept"
    browser.evaluate("localStorage.clear()")
    browser.open(run_page, width=DESKTOP, dark=not dark)
    assert browser.evaluate(colours) == after, "the button and the system mean the same colours"


def test_without_scripts_everything_is_there(browser, run_page):
    browser.open(run_page, width=DESKTOP, scripts=False)
    root = browser.call("DOM.getDocument")["root"]["nodeId"]

    def count(selector):
        found = browser.call("DOM.querySelectorAll", nodeId=root, selector=selector)
        return len(found["nodeIds"])

    assert count("figure svg") == 10
    assert count("figure svg title") > 60
    assert count("#theme[hidden]") == 1
    assert count("[data-tip]") == 0


def test_the_page_prints(browser, page):
    browser.open(page, width=DESKTOP, dark=True)
    pdf = base64.b64decode(browser.call("Page.printToPDF", printBackground=False)["data"])
    assert pdf.startswith(b"%PDF")
    assert browser.complaints == []
