"""What a cell took: added up over its processes, with every processor that worked on it."""

import pytest

from tyro_cli.experiments import clock
from tyro_cli.experiments.clock import CellClock
from tyro_cli.experiments.environment import describe_hardware
from tyro_cli.storage.files import read_json


@pytest.fixture
def path(tmp_path):
    return tmp_path / "performance.json"


def test_the_processor_is_the_one_of_the_manifest(path):
    CellClock(path, "cpu").write()
    assert read_json(path)["processors"] == [describe_hardware("cpu")["processor"]]


def test_every_processor_is_named_once_in_their_order(path, monkeypatch):
    for name in ("one", "two", "one"):
        monkeypatch.setattr(clock, "accelerator_name", lambda device, name=name: name)
        CellClock(path, "cpu").write()
    assert read_json(path)["processors"] == ["one", "two"]


@pytest.mark.parametrize("text", ["{", "[]", '{"processors": 3}', '{"processors": [1, null]}'])
def test_a_damaged_record_is_begun_anew(path, text):
    path.write_text(text)
    CellClock(path, "cpu").write()
    assert read_json(path)["processors"] == [describe_hardware("cpu")["processor"]]
