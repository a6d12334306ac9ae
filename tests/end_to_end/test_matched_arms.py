"""An arm matched in parameters is paired with the arm that it is matched to, whatever is solved."""

import json

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("by", ["d_ff", "d_model", "num_layers"])
def test_a_matched_arm_has_a_contrast(place, by):
    deep = {"model": {"tying": "in-out"}, "match": {"parameters_of": "untied", "by": by}}
    place.experiment({"arms": {"untied": {}, "deep": deep}, "baseline": "untied"})
    finished = place.wtie("train", "--config", "a.yaml", "--json")
    assert finished.exit_code == 0, finished.stderr
    rows = json.loads(finished.stdout)["tables"]["contrasts"]["rows"]
    assert rows[0]["pairs_verified"] == "1/1 same data"
    assert rows[0]["mean"] is not None
