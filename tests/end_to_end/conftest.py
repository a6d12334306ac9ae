"""One run, trained once by the command itself, that most tests here read."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.workplace import Finished, Workplace


class TrainedPlace(Workplace):
    """A workplace whose experiment has been trained."""

    first: Finished


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory) -> Path:
    """Keep tokens prepared once for all tests that have the same corpus."""
    return tmp_path_factory.mktemp("end-to-end-cache")


@pytest.fixture(scope="session")
def trained(tmp_path_factory, shared_cache) -> TrainedPlace:
    """Train both arms at seed 0; tests must leave the run as it is."""
    place = TrainedPlace(tmp_path_factory.mktemp("trained"), shared_cache)
    place.first = place.train()
    assert place.first.exit_code == 0, place.first.stderr
    return place


@pytest.fixture
def place(tmp_path, shared_cache) -> Iterator[Workplace]:
    """Give a test a workplace of its own."""
    workplace = Workplace(tmp_path, shared_cache)
    yield workplace
    workplace.leave()


@pytest.fixture
def trained_copy(place, trained) -> Workplace:
    """Give a test the trained run in a workplace of its own, as its own first start left it."""
    shutil.copytree(trained.runs, place.runs)
    return place
