"""The tables of studies: what is left out, how levels are written, and names that mean harm."""

import json
import math

from tests.analysis.fake_runs import values
from tests.analysis.fake_studies import make_study, tables_of
from tests.analysis.test_studies import NOISY, TIED, UNTIED, study_on
from tyro_cli.analysis.rendering import RENDERERS, to_plain
from tyro_cli.analysis.statistics import seeds_needed
from tyro_cli.analysis.studies import load_study_records
from tyro_cli.analysis.study_performance import study_performance_table


def test_factors_stand_in_the_order_of_the_study(tmp_path):
    points = {(512, 0.1): values(TIED), (512, 1.0): values(TIED)}
    folder = make_study(tmp_path, points, factors=("vocabulary", "data"))
    for table in tables_of(load_study_records(folder)).values():
        assert [column.header for column in table.columns[:3]] == ["vocabulary", "data", "arm"]


def test_what_is_not_there_yet_has_a_row_and_is_counted(tmp_path):
    nats = values(TIED)
    del nats["tied", 2]
    folder = make_study(tmp_path, {(512,): values(TIED), (1024,): nats})
    tables = tables_of(load_study_records(folder))
    rows = [row for row in tables["results"].rows if row["level vocabulary"] == "1024"]
    assert [(row["arm"], row["cells"]) for row in rows] == [("untied", "3/3"), ("tied", "2/3")]
    contrast = tables["contrasts"].rows[1]
    assert contrast["seeds"] == 2
    assert contrast["pairs_verified"] == "2/3 identical start, 1/3 unfinished"
    for table in tables.values():
        assert table.notes[-1] == "Not final: 1 cells are unfinished."


def test_a_metric_that_differs_between_points_is_left_out(tmp_path):
    def other_tokenizer(record):
        for split in ("valid", "test"):
            for metric, text in record["signatures"][split].items():
                record["signatures"][split][metric] = text.replace("bpe-61", "bpe-64")

    study = study_on(tmp_path, TIED, TIED, edits={(1024,): other_tokenizer})
    table = tables_of(study)["results"]
    keys = [column.key for column in table.columns]
    assert "token_perplexity" not in keys and "word_perplexity" in keys
    assert "valid_nats_per_token" not in keys
    (note,) = [note for note in table.notes if note.startswith("Left out: token_perplexity does")]
    assert "bpe-61" in note and "bpe-64" in note
    forced = tables_of(study, force=True)["results"]
    keys = [column.key for column in forced.columns]
    assert "token_perplexity" in keys and "valid_nats_per_token" in keys
    assert any(note.startswith("Forced: token_perplexity") for note in forced.notes)


def test_levels_are_written_as_in_yaml(tmp_path):
    points = {(None,): values(TIED), (True,): values(TIED), ("a b",): values(TIED)}
    table = tables_of(load_study_records(make_study(tmp_path, points)))["contrasts"]
    assert [row["level vocabulary"] for row in table.rows] == ["null", "true", "a b"]


HOSTILE = [
    "<script>alert(1)</script>",
    r"\input{/etc/passwd}%",
    "a|b",
    "`x`",
    "one\ntwo",
    "\x1b[31mred",
    "=1+1",
]


def test_hostile_levels_change_no_table(tmp_path):
    """Every level is a value of one cell in every format, and runs nothing."""
    points = {(level,): values(TIED if i % 2 else UNTIED) for i, level in enumerate(HOSTILE)}
    changes = {
        "name": "<b>|$x$",
        "factors": {"<i>": {"order": 0, "keys": ["k"], "levels": HOSTILE}},
    }
    folder = make_study(tmp_path, points, factors=("<i>",), changes=changes)
    tables = tables_of(load_study_records(folder))
    for table in tables.values():
        markdown, latex = RENDERERS["md"](table), RENDERERS["tex"](table)
        assert "<script" not in markdown.replace("\\<", "")
        lines = [line for line in markdown.split("\n") if line.startswith("|")]
        assert len(lines) == 2 + len(table.rows)
        columns = {len(line.replace(r"\|", "").split("|")) for line in lines}
        assert columns == {len(table.columns) + 2}
        assert r"\input" not in latex
        assert r"\textbackslash{}input\{/etc/passwd\}\%" in latex
        assert r"\textless{}i\textgreater{}" in latex
        body = latex.split("\\midrule\n")[1].split("\\bottomrule")[0]
        assert body.count("\\\\\n") == len(table.rows)
        record = json.loads(RENDERERS["json"](table))
        assert list(dict.fromkeys(row["level <i>"] for row in record["rows"])) == HOSTILE
        for text in (markdown, latex, to_plain(table)):
            assert "\x1b" not in text


def test_seeds_needed_stand_where_one_cannot_tell_and_nowhere_else(tmp_path):
    edge = [0.0097, 0.0098, 0.0099]  # cannot tell in a family of so many, narrow as it is
    table = tables_of(study_on(tmp_path, TIED, NOISY, edge, edge))["contrasts"]
    better, open_, *narrow = table.rows
    assert (better["verdict"], open_["verdict"]) == ("tied better", "cannot tell")
    assert better.get("seeds_needed") is None
    assert all(row.get("seeds_needed") is None for row in narrow)
    assert open_["seeds_needed"] == seeds_needed(NOISY, math.log1p(0.01))
    assert any(note.startswith("Seeds needed, where one cannot tell: ") for note in table.notes)


def test_performance_is_the_mean_over_the_cells_that_were_measured(tmp_path):
    folder = make_study(tmp_path, {(512,): values(TIED), (1024,): values(TIED)})
    study = load_study_records(folder)
    untouched = study_performance_table(study)
    assert {row["cells"] for row in untouched.rows} == {3}
    run = study.points[1].run.folder
    for seed, rate in enumerate((100.0, 300.0)):
        record = {"train_tokens_per_second": rate, "processors": ["A", "B"][: seed + 1]}
        (run / f"tied/seed-{seed}/performance.json").write_text(json.dumps(record))
    (run / "tied/seed-2/performance.json").unlink()
    again = load_study_records(folder)
    assert tables_of(again) == tables_of(study)
    after = study_performance_table(again)
    assert [dict(row) for row in after.rows if row["cells"] != 3] == [
        {
            "level vocabulary": "1024",
            "arm": "tied",
            "cells": 2,
            "processor": "A, B",
            "train_tokens_per_second": 200.0,
        }
    ]
    assert after.rows[:-1] == untouched.rows[:-1]


def test_a_processor_that_cells_do_not_name_is_the_one_of_the_manifest(tmp_path):
    folder = make_study(tmp_path, {(512,): values(TIED)})
    run = load_study_records(folder).points[0].run.folder
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"hardware": {"processor": "C"}}))
    (run / "untied/seed-0/performance.json").write_text(json.dumps({"processors": ["A"]}))
    table = study_performance_table(load_study_records(folder))
    assert [row["processor"] for row in table.rows] == ["A", "C"]
