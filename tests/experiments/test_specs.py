"""What stands where a cell writes its result: kept, and told, unless it is the cell's own."""

import json

import pytest

from tyro_cli.experiments.specs import read_result, set_aside_foreign_result

OWN, OTHER = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    "text", ["", '{"cell_id": "a', "[]", json.dumps({"cell_id": OTHER, "status": "done"})]
)
def test_a_damaged_or_foreign_result_is_kept_under_another_name(tmp_path, text):
    path = tmp_path / "result.json"
    for number in (1, 2):
        path.write_text(text)
        told = set_aside_foreign_result(tmp_path, OWN)
        assert told.startswith(f"{path} is damaged or belongs to another cell; it is kept as ")
        assert told.endswith(f"result.json.old-{number}")
        assert not path.exists()
        assert (tmp_path / f"result.json.old-{number}").read_text() == text


@pytest.mark.parametrize("status", ["done", "diverged"])
def test_the_cells_own_result_stays(tmp_path, status):
    (tmp_path / "result.json").write_text(json.dumps({"cell_id": OWN, "status": status}))
    assert set_aside_foreign_result(tmp_path, OWN) == ""
    assert read_result(tmp_path, OWN) == {"cell_id": OWN, "status": status}


def test_nothing_is_said_of_a_cell_without_a_result(tmp_path):
    assert set_aside_foreign_result(tmp_path, OWN) == ""
    assert set_aside_foreign_result(tmp_path / "not-there", OWN) == ""
