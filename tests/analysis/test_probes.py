"""What a record of probes says over seeds, by hand, and the tables of it."""

import math
from statistics import fmean
from typing import Any

import pytest

from tests.analysis.fake_probes import gradients, make_probes, probes, three_roles
from tyro_cli.analysis.probe_tables import probe_tables
from tyro_cli.analysis.probes import (
    Agreements,
    RoleGradientRecord,
    load_probes,
    shape_contrast,
    shape_over_seeds,
)
from tyro_cli.analysis.rendering import RENDERERS, to_plain
from tyro_cli.analysis.statistics import paired_t_interval
from tyro_cli.errors import DamagedRecord, NothingMatched
from tyro_cli.storage.files import write_json


def test_agreement_is_the_mean_over_pairs_of_seeds() -> None:
    over = Agreements(probes(), "neighbour_overlap").across_seeds("tied", "tied")
    assert over.values == pytest.approx((0.61, 0.62, 0.63))
    assert over.estimate == pytest.approx(0.62)
    # Without seed 0, 1, 2 the one pair left has .63, .62, .61.
    assert over.jackknife is not None
    expected = math.sqrt(2 / 3 * (0.01**2 + 0.01**2))
    assert over.jackknife.standard_error == pytest.approx(expected)
    assert over.shuffled == pytest.approx(0.02)


def test_a_contrast_leaves_a_seed_out_of_both_arms_at_once() -> None:
    over = Agreements(probes(5), "linear_cka").contrast(("tied", "tied"), ("untied", "output"))
    assert over.estimate == pytest.approx(0.1)
    # Seeds move both arms alike, so their difference has no spread.
    assert over.jackknife is not None
    assert over.jackknife.standard_error == pytest.approx(0, abs=1e-12)
    assert over.shuffled == pytest.approx(0)


def test_a_contrast_takes_the_seeds_that_both_arms_have() -> None:
    record = make_probes(4)
    record["cells"] = [c for c in record["cells"] if (c["arm"], c["seed"]) != ("untied", 3)]
    over = Agreements(probes(**record), "linear_cka").contrast(
        ("tied", "tied"), ("untied", "input")
    )
    assert over.seeds == (0, 1, 2)


def test_resemblance_of_the_same_seed_and_of_others() -> None:
    agreements = Agreements(probes(), "neighbour_overlap")
    pair = ("tied", "tied"), ("untied", "input")
    same = agreements.resemblance(*pair, same_seed=True)
    assert same.values == pytest.approx((0.3, 0.304, 0.308))
    others = agreements.resemblance(*pair, same_seed=False)
    assert len(others.values) == 6
    assert others.estimate == pytest.approx(0.204)
    for same_seed in (True, False):
        more = agreements.preference(("tied", "tied"), "untied", same_seed=same_seed)
        assert more.estimate == pytest.approx(0.2)
        assert more.jackknife is not None


def test_shapes_over_seeds_have_the_t_interval() -> None:
    over = shape_over_seeds(probes(), "tied", "tied", "mean_norm")
    assert over.values == pytest.approx((1.0, 1.1, 1.2))
    expected = paired_t_interval(over.values)
    assert over.jackknife is not None
    assert over.jackknife.interval.low == pytest.approx(expected.low)
    contrast = shape_contrast(probes(), ("tied", "tied"), ("untied", "input"), "mean_norm")
    assert contrast.values == (0, 0, 0)


@pytest.mark.parametrize(
    ("num_seeds", "has_value", "has_interval"),
    [(1, False, False), (2, True, False), (3, True, True)],
)
def test_two_seeds_have_an_agreement_and_three_an_interval(
    num_seeds: int, has_value: bool, has_interval: bool
) -> None:
    over = Agreements(probes(num_seeds), "linear_cka").across_seeds("tied", "tied")
    assert (over.estimate is not None, over.jackknife is not None) == (has_value, has_interval)


def test_what_is_not_defined_stays_so() -> None:
    record = make_probes()
    record["agreements"][0]["observed"]["linear_cka"] = None
    over = Agreements(probes(**record), "linear_cka").across_seeds("tied", "tied")
    assert (over.estimate, over.jackknife, len(over.values)) == (None, None, 2)
    record["shapes"][0]["values"]["partition_ratio"] = None
    shape = shape_over_seeds(probes(**record), "tied", "tied", "partition_ratio")
    assert (shape.estimate, len(shape.values)) == (None, 2)


def test_a_record_is_read_back(tmp_path) -> None:
    with pytest.raises(NothingMatched, match="has not been probed"):
        load_probes(tmp_path)
    write_json(tmp_path / "probes.json", make_probes())
    assert load_probes(tmp_path) == probes()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"checkpoint": "newest"}, "checkpoint"),
        ({"cells": []}, "cells"),
        (
            {"settings": {"min_count": 10, "num_neighbours": 10, "num_bands": 4}},
            "one number a band",
        ),
        ({"role_gradients": [{"arm": "tied", "seed": 0, "records": []}]}, "records"),
    ],
)
def test_a_damaged_record_is_told(tmp_path, change, told: str) -> None:
    write_json(tmp_path / "probes.json", make_probes(**change))
    with pytest.raises(DamagedRecord, match=told) as raised:
        load_probes(tmp_path)
    assert "wtie probe" in raised.value.remedy


def test_the_tables_of_a_run() -> None:
    tables = probe_tables(probes())
    assert list(tables) == [
        "probes.shape",
        "probes.agreement",
        "probes.contrasts",
        "probes.resemblance",
        "probes.roles",
    ]
    shape = tables["probes.shape"].rows
    assert [(row["arm"], row["matrix"]) for row in shape] == [
        ("untied", "input"),
        ("untied", "output"),
        ("tied", "tied"),
    ]
    assert len(tables["probes.agreement"].rows) == 4 * 3
    assert len(tables["probes.contrasts"].rows) == 2 * (4 + 6)
    closer = {(r["measure"], r["pairs"]): r["closer"] for r in tables["probes.resemblance"].rows}
    assert set(closer.values()) == {"output"}
    assert len(closer) == 8
    roles = [row for row in tables["probes.roles"].rows if row["arm"] == "tied"]
    assert [row["when"] for row in roles] == ["first", "middle", "last"]
    assert roles[0]["ratio"] == pytest.approx(1 / 2)
    assert roles[0]["ratio_1"] == pytest.approx(1 / 2)
    assert roles[2]["cosine"] == pytest.approx(0.41)
    assert roles[0]["ratio_5"] is None
    assert {row["roles"] for row in roles} == {"input / output"}
    for table in tables.values():
        assert table.title in to_plain(table)
        for render in RENDERERS.values():
            assert render(table)


def test_the_nearer_matrix_is_named_only_where_the_interval_says_so() -> None:
    record = make_probes()
    for one in record["agreements"]:
        if one["first"]["arm"] != one["second"]["arm"]:
            one["observed"]["linear_cka"] = 0.5 + 0.1 * (one["second"]["seed"] % 2)
    rows = probe_tables(probes(**record))["probes.resemblance"].rows
    closer = {row["closer"] for row in rows if row["measure"] == "linear CKA"}
    assert closer == {"cannot tell"}


def test_one_seed_says_that_nothing_agrees() -> None:
    table = probe_tables(probes(1))["probes.agreement"]
    assert table.rows == ()
    assert any("there is nothing to agree with" in note for note in table.notes)


def test_one_arm_has_no_contrasts() -> None:
    record = make_probes()
    record["cells"] = [cell for cell in record["cells"] if cell["arm"] == "tied"]
    assert list(probe_tables(probes(**record | {"role_gradients": []}))) == [
        "probes.shape",
        "probes.agreement",
    ]


def test_the_ratio_is_a_geometric_mean() -> None:
    record = make_probes(2)
    for course, output in zip(record["role_gradients"][2:], (4.0, 1.0), strict=True):
        course["records"][0]["output_norm"] = output
    row = next(r for r in probe_tables(probes(**record))["probes.roles"].rows if r["arm"] == "tied")
    assert row["ratio"] == pytest.approx(math.exp(fmean([math.log(0.25), 0])))


def make_translation_probes() -> dict[str, Any]:
    """Return the record of a translation with one vocabulary."""
    rows = make_probes()["rows"]
    record = make_probes(rows=rows | {"source": rows["target"]})
    for course in record["role_gradients"]:
        course["records"] = [three_roles(step) for step in (1, 21, 41)]
    return record


def test_the_encoders_role_stands_beside_the_other_two() -> None:
    table = probe_tables(probes(**make_translation_probes()))["probes.roles"]
    first = {
        row["roles"]: row for row in table.rows if (row["arm"], row["when"]) == ("tied", "first")
    }
    assert {pair: row["ratio"] for pair, row in first.items()} == {
        "input / output": pytest.approx(1 / 2),
        "source / output": pytest.approx(1 / 4),
        "source / input": pytest.approx(1 / 2),
    }
    assert first["source / output"]["cosine_5"] == pytest.approx(-0.6)
    assert first["source / input"]["cosine_0"] == pytest.approx(0.6)
    assert first["source / input"]["cosine_5"] is None
    assert first["source / output"]["ratio_5"] == pytest.approx(3)
    assert len(table.rows) == 2 * 3 * 3
    assert any("3 never a target" in note for note in table.notes)


def test_a_part_of_the_encoders_gradients_is_damage() -> None:
    record = make_translation_probes()
    del record["role_gradients"][0]["records"][1]["bands"]["source_norm"]
    with pytest.raises(ValueError, match="a part of the encoder's gradients is missing"):
        probes(**record)
    record = make_translation_probes()
    record["role_gradients"][0]["records"][1]["bands"]["source_norm"].pop()
    with pytest.raises(ValueError, match="a list has not one number a band"):
        probes(**record)


def test_a_record_without_the_encoders_role_stays_as_it_was() -> None:
    for record in (gradients(1), three_roles(1)):
        kept = RoleGradientRecord.model_validate(record | {"kind": "role_gradients"})
        assert kept.model_dump(mode="json", exclude_unset=True) == record
