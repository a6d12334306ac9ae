"""The page: whole, self-contained, the same each time, and nothing in it that records could run."""

import re
from itertools import pairwise

import pytest

from tests.analysis.fake_runs import edit_json, make_run
from tests.analysis.fake_translations import keep_counts, make_translation_study, translate
from tests.reporting.fake_grids import make_grid
from tests.reporting.pages import parse
from tyro_cli.analysis.rendering import code_parts
from tyro_cli.analysis.studies import SignChange, load_study_records
from tyro_cli.reporting.folders import read_report, write_report
from tyro_cli.reporting.page import MAX_PAGE_BYTES
from tyro_cli.reporting.palette import arm_colour, arm_shape
from tyro_cli.reporting.study_page import changes_in_words, study_page

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>{{ 7*7 }}&\\textbf{x}\"'"


@pytest.fixture(params=["run", "study"])
def report(request):
    return request.getfixturevalue(f"{request.param}_report")


def test_the_verdict_comes_first_in_a_sentence_with_its_interval(run_report):
    main = parse(run_report.html).all("main")[0]
    first = main.children[0]
    assert first.attributes["id"] == "verdict"
    text = first.text()
    assert "tied better" in text
    assert re.search(r"95 % interval \[-0\.\d{4}, -0\.\d{4}\] over 3 seeds", text)


def test_a_study_says_the_verdict_of_every_point(study_report):
    verdict = parse(study_report.html).all("main")[0].children[0].text()
    for levels in ("vocabulary 61, data 0.5", "vocabulary 122, data 1.0"):
        assert f"{levels}:" in verdict
    assert verdict.count("adjusted by Holm: p") == 4
    assert "No contrast changes its sign along a factor." in verdict


def test_a_study_counts_the_changes_of_sign_that_it_cannot_establish():
    crossed = SignChange("tied", True, "Crossover of tied along data: untied is better at 0.1.")
    weak = [SignChange("tied", False, f"The mean changes at size {size}.") for size in (1, 2, 4)]
    assert changes_in_words([]) == "No contrast changes its sign along a factor."
    few = [crossed, *weak[:2]]
    assert changes_in_words(few) == " ".join(one.sentence for one in few)
    assert changes_in_words([crossed, *weak]) == (
        f"{crossed.sentence} The sign of the mean changes 3 times along a factor, not established; "
        "each stands under the table of contrasts."
    )


def test_a_study_without_a_pair_says_nothing_of_signs(tmp_path):
    folder = make_grid(tmp_path)
    for path in tmp_path.rglob("tied/*/result.json"):
        path.unlink()
    cards = study_page(load_study_records(folder)).cards
    assert [card.sentence for card in cards] == [""]


def test_seven_arms_look_different():
    looks = {(arm_colour(place), arm_shape(place)) for place in range(12)}
    assert len(looks) == 12


def test_a_study_of_translation_has_bleu_beside_its_verdicts(tmp_path):
    main = parse(read_report(make_translation_study(tmp_path)).html).all("main")[0]
    assert "Test BLEU, tied - untied: " in main.children[0].text()
    assert "Translation contrasts of the study sizes against untied" in main.text()
    assert "How the contrasts of the study sizes change along its factors" in main.text()
    assert "Vocabulary overlap of the study sizes" in main.text()


def test_a_run_of_translation_has_its_quality_and_overlap(tmp_path):
    folder = make_run(tmp_path, edit=translate)
    keep_counts(folder)
    page = parse(read_report(folder).html)
    assert "Translation" in [one.text() for one in page.all("h2")]
    text = page.all("main")[0].text()
    for title in ("Translation quality of", "Translation contrasts of", "Vocabulary overlap of"):
        assert f"{title} tiny" in text
    assert "BLEU of copying" in text and "62.5" in text


def test_every_part_is_there(run_report):
    headings = [one.text() for one in parse(run_report.html).all("h2")]
    assert headings == [
        *("Verdict", "Contrasts", "Parameters", "Perplexity", "Training"),
        *("Configuration", "Provenance"),
    ]
    text = parse(run_report.html).all("main")[0].text()
    for part in (
        "wtie runs verify runs/tiny-0123abcd",
        "wtie train",
        "word_ppl|corpus:",
        "versions.torch",
        "2.13.0",
        "training.optimizer.learning_rate",
        "name: tiny",
    ):
        assert part in text, part


def test_every_chart_has_a_name_a_description_and_its_data(report):
    page = parse(report.html)
    ids = [one.attributes["id"] for one in page.walk() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    figures = page.all("figure")
    assert figures
    for figure in figures:
        assert len(figure.all("figcaption")) == 1
        assert len(figure.all("h3")) == 1
        assert len(figure.all("table")) == 1
        pictures = figure.all("svg")
        assert pictures
        for picture in pictures:
            assert picture.attributes["role"] == "img"
            named = picture.attributes["aria-labelledby"].split()
            assert len(named) == 2
            assert set(named) <= set(ids)


def test_the_page_can_be_walked_without_eyes(report):
    page = parse(report.html)
    assert page.all("html")[0].attributes["lang"] == "en"
    assert len(page.all("h1")) == 1
    for landmark in ("header", "nav", "main"):
        assert len(page.all(landmark)) == 1
    skip = page.all("a")[0]
    assert skip.attributes["href"] == "#main"
    ids = {one.attributes.get("id") for one in page.walk()}
    for link in page.all("a"):
        assert link.attributes["href"].removeprefix("#") in ids
    levels = [int(one.tag[1]) for one in page.walk() if re.fullmatch("h[1-6]", one.tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for table in page.all("table"):
        assert table.all("caption")[0].text()
        assert all("scope" in cell.attributes for cell in table.all("th"))


def test_the_page_asks_no_host_for_anything(report):
    page = parse(report.html)
    for element in page.walk():
        for name, value in element.attributes.items():
            assert not name.startswith("on"), f"{element.tag} {name}"
            assert name not in ("src", "srcset", "action", "xlink:href", "style"), element.tag
            if name == "href":
                assert value.startswith(("#", "data:,")), value
            if name not in ("xmlns", "xmlns:xlink"):
                assert "://" not in value, f"{element.tag} {name}={value}"
    style = page.all("style")[0].text()
    assert "url(" not in style
    assert "@import" not in style
    policy = next(m for m in page.all("meta") if "http-equiv" in m.attributes)
    assert policy.attributes["content"].startswith("default-src 'none'; img-src data:;")


def test_the_same_records_give_the_same_bytes(run_folder, run_report, study_folder, study_report):
    assert read_report(run_folder) == run_report
    assert read_report(study_folder) == study_report


def test_a_page_does_not_depend_on_where_its_folder_lies(tmp_path, run_report):
    (tmp_path / "deep").mkdir()
    assert read_report(make_run(tmp_path / "deep")).html == run_report.html


def test_pages_are_far_below_the_limit(report):
    assert len(report.html.encode()) < MAX_PAGE_BYTES / 3


def test_a_study_that_grows_too_large_leaves_its_points_to_their_own_pages(
    study_folder, study_report, monkeypatch
):
    limit = len(study_report.html.encode()) - 1
    monkeypatch.setattr("tyro_cli.reporting.folders.MAX_PAGE_BYTES", limit)
    html = read_report(study_folder).html
    assert len(html.encode()) < limit
    assert "point-1-seeds" not in html
    assert "too large for the curves and tables of every point" in html


def test_a_page_that_grows_too_large_leaves_its_largest_charts_to_files(
    run_folder, run_report, monkeypatch
):
    size = len(run_report.html.encode())
    monkeypatch.setattr("tyro_cli.reporting.page.MAX_PAGE_BYTES", size - 1)
    report = read_report(run_folder)
    assert len(report.html.encode()) < size
    (left_out,) = re.findall(r"Too large for this page: see ([\w-]+)\.svg", report.html)
    assert report.pictures == run_report.pictures
    assert f"{left_out}.svg" in report.pictures
    assert report.html.count("<svg") < run_report.html.count("<svg")
    monkeypatch.setattr("tyro_cli.reporting.page.MAX_PAGE_BYTES", 0)
    assert "<svg" not in read_report(run_folder).html


def assert_harmless(html):
    page = parse(html)
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert "onerror=alert" not in re.sub(r"&lt;img.*?onerror=alert", "", html)
    assert "49" not in page.all("h1")[0].text()


def test_names_and_titles_are_text_wherever_they_stand_in_a_run(tmp_path):
    folder = make_run(tmp_path)

    def change(manifest):
        manifest["name"] = HOSTILE
        manifest["data"] = {HOSTILE: HOSTILE}
        manifest["command"] = ["wtie", HOSTILE]
        for arm in manifest["arms"].values():
            arm["settings"]["data"]["corpus"] = HOSTILE
            arm["settings"][HOSTILE] = HOSTILE

    edit_json(folder / "manifest.json", change)
    (folder / "experiment.yaml").write_text(f"name: {HOSTILE}\n")
    html = read_report(folder).html
    assert_harmless(html)
    assert HOSTILE in parse(html).all("h1")[0].text()
    assert parse(html).all("main")[0].text().count("alert(2)") >= 6


def test_names_and_levels_are_text_wherever_they_stand_in_a_study(tmp_path):
    folder = make_grid(tmp_path, name=HOSTILE, factors={HOSTILE: [HOSTILE, "plain"]})
    report = read_report(folder)
    assert_harmless(report.html)
    for name, content in report.pictures.items():
        if name.endswith(".svg"):
            assert b"<script" not in content
            assert b"<img" not in content


@pytest.mark.parametrize("part", ["command", "versions", "hardware", "git", "data", "created"])
@pytest.mark.parametrize("value", [None, 3, "text", ["a", 1], {"a": {"b": None}}])
def test_free_parts_of_the_manifest_may_hold_anything(tmp_path, part, value, monkeypatch):
    monkeypatch.setattr("tyro_cli.reporting.page.draw_svg", lambda _: EMPTY_PICTURE)
    monkeypatch.setattr("tyro_cli.reporting.page.draw_png", lambda _: b"")
    folder = make_run(tmp_path)
    edit_json(folder / "manifest.json", lambda manifest: manifest.update({part: value}))
    assert "Provenance" in read_report(folder).html


EMPTY_PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"></svg>'


def test_a_file_that_is_too_long_to_show_is_left_out(tmp_path):
    folder = make_run(tmp_path)
    (folder / "experiment.yaml").write_text("# long\n" * 20_000)
    assert "experiment.yaml" not in read_report(folder).html


def test_page_and_pictures_are_written_beside_each_other(tmp_path):
    folder = make_run(tmp_path)
    page, pictures = write_report(folder)
    assert page == folder / "report.html"
    assert {path.parent for path in pictures} == {folder / "plots"}
    assert {path.suffix for path in pictures} == {".svg", ".png", ".json"}
    assert all(path.stat().st_size for path in pictures)
    assert not list(folder.rglob("*.tmp-*"))


def test_notes_are_split_at_their_code():
    assert code_parts("a `b` c") == [("a ", False), ("b", True), (" c", False)]
    assert code_parts("an odd ` mark") == [("an odd ` mark", False)]
