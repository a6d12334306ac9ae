"""What the charts of fixed records hold: the right numbers, words for them, and a specification."""

import json
import os
from pathlib import Path
from statistics import fmean

import pytest

from tests.analysis.fake_chains import DEPTHS, LEVELS, excess, make_chain_study
from tests.analysis.fake_runs import NATS_PER_WORD, diverge, edit_json, make_run
from tests.reporting.fake_grids import make_grid
from tyro_cli.analysis.records import load_run
from tyro_cli.analysis.studies import load_study_records
from tyro_cli.reporting.drawing import draw_png, draw_svg, inline_svg, specification_text
from tyro_cli.reporting.run_page import run_page
from tyro_cli.reporting.study_page import study_page

GOLDEN = Path(__file__).parent.parent / "golden" / "reporting"

RUN_CHARTS = ["contrasts", "seeds", "size", "parameters", "valid-curves", "train-curves", "gap"]


def charts_of(folder):
    return {chart.name: chart for chart in run_page(load_run(folder)).charts()}


def values_in(specification):
    return [row for layer in specification["layer"] for row in layer["data"]["values"]]


def tips_in(specification):
    return [row["tip"] for row in values_in(specification) if "tip" in row]


def texts_in(specification):
    return [row["text"] for row in values_in(specification) if "text" in row]


def test_a_run_has_every_chart(run_folder):
    assert list(charts_of(run_folder)) == RUN_CHARTS


def test_a_study_has_its_factors_first_and_every_point_last(study_folder):
    names = [chart.name for chart in study_page(load_study_records(study_folder)).charts()]
    assert names[:9] == [
        *("factor-1-1", "factor-1-2", "factor-2-1", "factor-2-2"),
        *("contrasts", "parameters", "size", "gap", "point-1-seeds"),
    ]
    assert names[-1] == "point-4-train-curves"


@pytest.mark.parametrize("name", ["contrasts", "seeds"])
def test_specifications_are_those_kept(run_folder, name):
    """WTIE_GOLDEN=write keeps the new ones; tell of it in CHANGELOG.md under Numbers."""
    text = specification_text(charts_of(run_folder)[name].narrow)
    path = GOLDEN / f"{name}.vl.json"
    if os.environ.get("WTIE_GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_the_forest_shows_the_contrast_with_its_interval(run_folder):
    chart = charts_of(run_folder)["contrasts"]
    assert chart.data.rows[0]["mean"] == pytest.approx(-0.04167, abs=1e-5)
    low, high = chart.data.rows[0]["interval"]
    assert low < -0.04167 < high < 0
    assert f"[{low:+.4f}, {high:+.4f}]" in chart.description
    assert chart.wide is not None
    assert f"-0.0417 [{low:+.4f}, {high:+.4f}]" in texts_in(chart.wide)


def test_the_bars_end_at_the_totals(run_folder):
    chart = charts_of(run_folder)["parameters"]
    ends = [row["x2"] for row in values_in(chart.narrow) if "tip" in row]
    totals = [row["total"] for row in chart.data.rows]
    assert max(ends) == max(totals)
    assert totals[0] - totals[1] == 61 * 16


def test_every_seed_is_a_line_from_arm_to_arm(run_folder):
    chart = charts_of(run_folder)["seeds"]
    assert [row["value tied"] for row in chart.data.rows] == pytest.approx([4.46, 4.47, 4.475])
    assert {"seed 0", "seed 1", "seed 2", "mean"} <= set(texts_in(chart.narrow))
    assert "tied, seed 2: 4.4750 nats per word" in tips_in(chart.narrow)


def test_one_seed_has_no_interval_and_no_mean(tmp_path):
    nats = {cell: value for cell, value in NATS_PER_WORD.items() if cell[1] == 0}
    charts = charts_of(make_run(tmp_path, nats_per_word=nats))
    assert charts["contrasts"].data.rows[0]["interval"] is None
    assert "no interval over seeds" in charts["contrasts"].caption
    assert "mean" not in texts_in(charts["seeds"].narrow)


def test_many_arms_keep_their_colours_apart(tmp_path):
    arms = {"untied": {}, **{f"arm-{n}": {"model": {"d_ff": 48 + n}} for n in range(5)}}
    nats = {(arm, seed): 4.5 + 0.01 * seed for arm in arms for seed in (0, 1)}
    page = run_page(load_run(make_run(tmp_path, nats_per_word=nats, arms=arms)))
    assert len({number for _, number in page.arms}) == len(arms)
    assert len(page.cards) == 5


def test_a_long_name_at_the_end_of_a_line_is_inside_the_picture(tmp_path):
    arms = {"untied": {}, "untied-narrow-2": {"model": {"d_ff": 48}}}
    nats = {(arm, seed): 4.5 + 0.01 * seed for arm in arms for seed in (0, 1)}
    chart = charts_of(make_run(tmp_path, nats_per_word=nats, arms=arms))["valid-curves"]
    assert "untied-narrow…" in texts_in(chart.narrow)
    picture, padding = chart.narrow, chart.narrow["padding"]
    assert padding["right"] >= 8 + 7 * len("untied-narrow…")
    assert padding["left"] + picture["width"] + padding["right"] == 340


def test_diverged_and_unfinished_cells_are_named(tmp_path):
    def edit(record):
        if (record["arm"], record["seed"]) == ("tied", 1):
            diverge(record)

    nats = {cell: value for cell, value in NATS_PER_WORD.items() if cell != ("untied", 2)}
    page = run_page(load_run(make_run(tmp_path, nats_per_word=nats, edit=edit)))
    assert page.notices == (
        "1 of 6 cells diverged: tied seed 1 (diverged at step 33).",
        "1 of 6 cells unfinished: untied seed 2.",
    )
    assert page.cards[0].text == "withheld: 1 of 3 pairs diverged"
    assert page.cards[0].swatch is None


def test_nothing_is_drawn_of_scores_where_all_cells_diverged(tmp_path):
    charts = charts_of(make_run(tmp_path, edit=diverge))
    assert list(charts) == ["parameters", "valid-curves", "train-curves"]


def test_the_factor_charts_show_both_arms_at_every_level(study_folder):
    charts = {c.name: c for c in study_page(load_study_records(study_folder)).charts()}
    chart = charts["factor-1-1"]
    assert chart.title == "Bits per byte along vocabulary at data 0.5"
    assert [(row["level"], row["arm"]) for row in chart.data.rows] == [
        *(("61", "untied"), ("122", "untied"), ("61", "tied"), ("122", "tied"))
    ]
    for row in chart.data.rows:
        low, high = row["interval"]
        assert low < row["mean"] < high
    assert [layer["mark"]["type"] for layer in chart.narrow["layer"]].count("area") == 2


def test_the_excess_of_every_arm_and_depth_stands_in_one_chart(tmp_path):
    page = study_page(load_study_records(make_chain_study(tmp_path)))
    names = [chart.name for chart in page.charts()]
    assert names[0] == "excess-1" and not any(name.startswith("factor") for name in names)
    assert not any("No metric" in str(block) for block in page.sections[0].blocks)
    chart = page.charts()[0]
    assert chart.title == "Excess nats per token along irreversibility"
    assert "named by arm and depth" in chart.caption
    assert [(row["arm"], row["elsewhere"], row["level"]) for row in chart.data.rows] == [
        (arm, f"depth {depth}", str(level))
        for arm in ("untied", "tied")
        for depth in DEPTHS
        for level in LEVELS
    ]
    for row in chart.data.rows:
        level, depth = float(row["level"]), int(row["elsewhere"][-1])
        by_seed = [excess(row["arm"], level, depth, seed) for seed in range(3)]
        assert row["values"] == pytest.approx(by_seed)
        low, high = row["interval"]
        assert low < row["mean"] < high
    assert chart.wide is not None
    for drawn in (chart.narrow, chart.wide):
        marks = [layer["mark"] for layer in drawn["layer"]]
        lines = [(m["stroke"], *m.get("strokeDash", ())) for m in marks if m["type"] == "line"]
        assert len(set(lines)) == 6
        assert [mark["type"] for mark in marks].count("area") == 6
        assert {"untied, 0", "tied, 0", "tied, 1", "tied, 2"} <= set(texts_in(drawn))
    # Of 18 points the words name both ends of each line; the table has them all.
    start, end = (fmean(excess("tied", x, 0, seed) for seed in range(3)) for x in (0.0, 1.0))
    ends = f"tied, depth 0: {start:.4f} at irreversibility 0.0, {end:.4f} at 1.0;"
    assert ends in chart.description and chart.description.count(" at irreversibility ") == 6


def test_an_excess_along_several_sources_has_a_chart_for_each_combination(tmp_path):
    folder = make_chain_study(tmp_path)

    def edit(record):
        record["factors"]["depth"]["keys"] = ["data.synthetic.rank"]

    edit_json(folder / "manifest.json", edit)
    page = study_page(load_study_records(folder))
    titles = [chart.title for chart in page.charts() if chart.name.startswith("excess")]
    along = "Excess nats per token along"
    assert titles == [
        *(f"{along} irreversibility at depth {depth}" for depth in DEPTHS),
        *(f"{along} depth at irreversibility {level}" for level in LEVELS),
    ]


def test_a_long_name_leaves_room_for_the_level(tmp_path):
    names = {"an-untied-arm-with-a-long-name": {}, "tied": {"model": {"tying": "in-out"}}}
    study = load_study_records(make_chain_study(tmp_path, arms=names))
    chart = study_page(study).charts()[0]
    assert "an-untied-…, 0" in texts_in(chart.narrow)


def test_a_study_with_one_seed_has_no_bands(tmp_path):
    page = study_page(load_study_records(make_grid(tmp_path, seeds=(0,))))
    chart = page.charts()[0]
    assert "there is no interval" in chart.caption
    assert "area" not in [layer["mark"]["type"] for layer in chart.narrow["layer"]]


def test_points_that_are_not_there_are_named(tmp_path):
    page = study_page(load_study_records(make_grid(tmp_path, missing=1)))
    assert "1 of 4 points have no run folder yet: point-3." in page.notices


def test_numbers_computed_in_several_ways_are_not_drawn_together(tmp_path):
    folder = make_grid(tmp_path)

    def other_stride(content):
        for split in content["signatures"].values():
            for metric in split:
                split[metric] = split[metric].replace("stride:4", "stride:8")

    for path in (tmp_path / "point-0").rglob("result.json"):
        edit_json(path, other_stride)
    page = study_page(load_study_records(folder))
    assert not any(chart.name.startswith("factor") for chart in page.charts())
    assert "No metric was computed in one way" in page.sections[0].blocks[0].paragraphs[0]


def test_every_chart_has_words_and_data(run_folder, study_folder):
    pages = [run_page(load_run(run_folder)), study_page(load_study_records(study_folder))]
    for chart in (chart for page in pages for chart in page.charts()):
        assert chart.title, chart.name
        assert len(chart.caption) > 20, chart.name
        assert any(digit in chart.description for digit in "0123456789"), chart.name
        assert chart.data.rows, chart.name
        assert tips_in(chart.narrow), chart.name


def test_a_picture_does_not_depend_on_what_was_drawn_before(run_folder):
    charts = charts_of(run_folder)
    first = draw_svg(charts["size"].narrow)
    draw_svg(charts["gap"].narrow)
    assert draw_svg(charts["size"].narrow) == first


def test_a_picture_is_png_at_twice_its_size(run_folder):
    png = draw_png(draw_svg(charts_of(run_folder)["size"].narrow))
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(png[16:20], "big") == 680


def test_an_inline_picture_carries_its_tips_and_nothing_of_vega(run_folder):
    chart = charts_of(run_folder)["seeds"]
    svg = inline_svg(draw_svg(chart.narrow), "seeds", "a b", "only")
    assert svg.startswith('<svg xmlns="http://www.w3.org/2000/svg" class="only" viewBox="0 0 340 ')
    assert 'role="img" aria-labelledby="a b"' in svg
    assert svg.count("<title>") == len(tips_in(chart.narrow))
    assert "tied, seed 0: 4.4600 nats per word</title>" in svg
    assert "role-mark" not in svg
    assert "aria-roledescription" not in svg


def test_names_are_data_in_a_specification_and_text_in_a_picture(tmp_path):
    hostile = "</title><script>alert(1)</script> datum['x'] \" ' \\"
    folder = make_grid(tmp_path, factors={hostile: [hostile, "b"]})
    chart = study_page(load_study_records(folder)).charts()[0]
    svg = draw_svg(chart.narrow)
    assert "<script" not in svg
    assert "&lt;script" in svg
    assert "<script" not in inline_svg(svg, "x", "a", "only")
    for layer in chart.narrow["layer"]:
        assert hostile not in json.dumps({**layer, "data": None})
