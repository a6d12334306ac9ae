import csv
import io
import json
import math

import pytest

from tests.analysis.fake_runs import make_run
from tyro_cli.analysis.columns import Column, Table
from tyro_cli.analysis.records import load_run
from tyro_cli.analysis.rendering import (
    cell_text,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
    to_plain,
    write_tables,
)
from tyro_cli.analysis.tables import all_tables
from tyro_cli.errors import StorageError

NASTY = r"a_b%c&d#e$f{g}h\i~j^k|l<m>n`o*p--q"


def table_of(value, kind="text", notes=(), digits=4):
    column = Column("key", "header", kind, digits)
    return Table(
        "name", "title", (Column("arm", "arm"), column), ({"arm": "x", "key": value},), notes
    )


@pytest.mark.parametrize(
    ("kind", "digits", "value", "text"),
    [
        ("text", 4, "a", "a"),
        ("integer", 4, 1234567, "1,234,567"),
        ("signed_integer", 4, 1234567, "+1,234,567"),
        ("signed_integer", 4, -976, "-976"),
        ("number", 2, 12345.678, "12,345.68"),
        ("number", 0, 12345.678, "12,346"),
        ("signed", 4, 0.5, "+0.5000"),
        ("interval", 3, (-0.5, 0.25), "[-0.500, +0.250]"),
        ("numbers", 2, (4.5, 4.25), "4.50, 4.25"),
        ("signed_numbers", 2, (4.5, -4.25), "+4.50, -4.25"),
        ("percent", 1, 0.1832, "18.3 %"),
        ("p", 4, 0.0286, ".0286"),
        ("p", 4, 0.0, "< .0001"),
        ("p", 4, 0.00009, "< .0001"),
        ("p", 4, 0.0001, ".0001"),
        ("p", 4, 0.9999, ".9999"),
        ("p", 4, 1.0, "> .9999"),
        ("p", 3, 0.25, ".250"),
        ("p", 3, 0.0004, "< .001"),
        ("p", 4, (0.25, 0.0), ".2500, < .0001"),
        ("p", 4, None, "n/a"),
        ("bytes", 4, 0, "0 B"),
        ("bytes", 4, 1023, "1,023 B"),
        ("bytes", 4, 1536, "1.5 KiB"),
        ("bytes", 4, 300 * 2**20, "300.0 MiB"),
        ("bytes", 4, 5000 * 2**40, "5,000.0 TiB"),
        ("number", 4, None, "n/a"),
        ("interval", 4, None, "n/a"),
    ],
)
def test_values_are_shown_for_readers(kind, digits, value, text):
    assert cell_text(Column("key", "header", kind, digits), {"key": value}) == text


def test_what_is_absent_is_empty():
    assert cell_text(Column("key", "header", "number"), {}) == ""


def test_csv_holds_raw_numbers():
    columns = (
        Column("arm", "arm"),
        Column("mean", "mean", "signed"),
        Column("interval", "interval", "interval"),
        Column("differences", "by seed", "signed_numbers"),
        Column("total", "total", "integer"),
    )
    rows = (
        {"arm": 'a,"b"', "mean": -0.1 - 0.2, "interval": (-1.5, 0.1), "differences": (0.25, -0.5)},
        {"arm": "x", "mean": None, "interval": None, "total": 1234567},
    )
    text = to_csv(Table("name", "title", columns, rows, ("a note",)))
    read = list(csv.DictReader(io.StringIO(text)))
    assert list(read[0]) == ["arm", "mean", "interval_low", "interval_high", "differences", "total"]
    assert read[0]["arm"] == 'a,"b"'
    assert float(read[0]["mean"]) == -0.1 - 0.2
    assert (read[0]["interval_low"], read[0]["interval_high"]) == ("-1.5", "0.1")
    assert read[0]["differences"] == "0.25;-0.5"
    assert list(read[1].values()) == ["x", "", "", "", "", "1234567"]
    assert "\r" not in text


def test_json_holds_raw_numbers_and_notes():
    document = json.loads(to_json(table_of((0.125, -0.25), "interval", ("a note",))))
    assert document["rows"] == [{"arm": "x", "key": [0.125, -0.25]}]
    assert document["notes"] == ["a note"]
    assert document["columns"][1] == {"key": "key", "header": "header", "kind": "interval"}


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_json_has_no_number_that_is_not_one(value):
    assert json.loads(to_json(table_of(value, "number")))["rows"][0]["key"] is None


def test_latex_is_escaped():
    text = to_latex(table_of(NASTY, notes=(f"{NASTY.replace('`', '')} and `code_x`",)))
    row = next(line for line in text.splitlines() if line.startswith("x & "))
    assert row == (
        r"x & a\_b\%c\&d\#e\$f\{g\}h\textbackslash{}i\textasciitilde{}j\textasciicircum{}k"
        r"\textbar{}l\textless{}m\textgreater{}n\textasciigrave{}o*p-{}-q \\"
    )
    assert r"\texttt{code\_x}" in text
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 1
    assert "\\toprule" in text and "\\midrule" in text and "\\bottomrule" in text


def test_latex_has_a_minus_in_numbers_and_a_hyphen_in_names():
    assert "x & $-$0.5000 \\\\" in to_latex(table_of(-0.5, "signed"))
    assert "x & [$-$0.5000, $+$0.2500] \\\\" in to_latex(table_of((-0.5, 0.25), "interval"))
    assert "x & tied-2 \\\\" in to_latex(table_of("tied-2"))


def test_latex_does_not_read_a_row_as_an_option():
    table = Table("n", "t", (Column("key", "header", "interval"),), ({"key": (1.0, 2.0)},))
    assert "{}[" in to_latex(table)


def test_markdown_is_escaped():
    text = to_markdown(table_of("a|b_c*d<e>f\\g`h", notes=("<b>x</b> `a_b|c` d_e __f__ [g](h)",)))
    row = next(line for line in text.splitlines() if line.startswith("| x"))
    assert row == r"| x   | a\|b_c\*d\<e>f\\g\`h |"
    assert r"- \<b>x\</b> `a_b|c` d_e \_\_f\_\_ [g\](h)" in text


def test_markdown_aligns_numbers_to_the_right():
    lines = to_markdown(table_of(1234567, "integer")).splitlines()
    assert lines == [
        "## title",
        "",
        "| arm |    header |",
        "| --- | --------: |",
        "| x   | 1,234,567 |",
    ]


@pytest.mark.parametrize("render", [to_markdown, to_latex, to_plain])
def test_control_characters_forge_no_rows(render):
    table = table_of("a\nx | forged\x1b[31m\r", notes=("b\nc",))
    text = render(table)
    assert "\x1b" not in text and "\r" not in text
    assert len(text.splitlines()) == len(render(table_of("a", notes=("b",))).splitlines())


def test_an_empty_table_still_says_its_notes():
    table = Table("name", "title", (Column("arm", "arm"),), (), ("nothing here",))
    assert to_markdown(table) == "## title\n\n- nothing here\n"
    assert to_plain(table) == "title\n\n- nothing here\n"
    assert to_csv(table) == "arm\n"
    assert "tabular" not in to_latex(table)


def test_plain_text_folds_columns_that_do_not_fit():
    columns = (Column("arm", "arm"), *(Column(f"c{i}", f"column {i}", "integer") for i in range(6)))
    rows = ({"arm": "untied", **{f"c{i}": 10**i for i in range(6)}},)
    text = to_plain(Table("n", "title", columns, rows, ("word " * 30,)), 40)
    assert max(map(len, text.splitlines())) <= 40
    assert text.count("untied") == 2, "each group of columns repeats the first"
    for i in range(6):
        assert f"column {i}" in text and f"{10**i:,}" in text


def test_plain_text_leaves_out_what_is_not_for_the_screen():
    columns = (Column("arm", "arm"), Column("seeds", "seeds", on_screen=False))
    table = Table("n", "t", columns, ({"arm": "x", "seeds": "0, 1"},))
    assert "0, 1" not in to_plain(table)
    assert "0, 1" in to_markdown(table)


def test_tables_are_written_whole_and_twice_the_same(tmp_path):
    run = load_run(make_run(tmp_path))
    paths = write_tables(run.folder, all_tables(run))
    assert sorted(path.name for path in (run.folder / "tables").iterdir()) == sorted(
        f"{name}.{ending}"
        for name in ("parameters", "perplexity", "contrasts", "performance")
        for ending in ("md", "csv", "json", "tex")
    )
    before = {path: path.read_bytes() for path in paths}
    write_tables(run.folder, all_tables(load_run(run.folder)))
    assert {path: path.read_bytes() for path in paths} == before
    assert json.loads((run.folder / "tables/contrasts.json").read_text())["name"] == "contrasts"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    run = load_run(make_run(tmp_path))
    (run.folder / "tables").write_text("in the way")
    with pytest.raises(StorageError, match="tables"):
        write_tables(run.folder, all_tables(run))
