"""What the fault suite shares: small runs trained once, syncs that cost nothing, and a count."""

import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.faults.cells import SmallRun


@pytest.fixture
def injected(request) -> Iterator[Callable[..., None]]:
    """Count the faults that a test injects, by kind; `tests.faults.report` prints the sums."""
    counts: Counter[str] = Counter()

    def count(kind: str, number: int = 1) -> None:
        counts[kind] += number

    yield count
    request.node.user_properties.extend(("injected", item) for item in counts.items())


@pytest.fixture(autouse=True)
def _quick_syncs(monkeypatch):
    """Check the descriptor and skip the disk: what was synced is known from the calls."""
    monkeypatch.setattr(os, "fsync", os.fstat)


@pytest.fixture(scope="package")
def short(tmp_path_factory) -> SmallRun:
    """A run of 12 steps a cell, evaluated at every fourth; nothing is trained yet."""
    return SmallRun(tmp_path_factory.mktemp("short"), steps=12, every=4)


@pytest.fixture(scope="package")
def long(tmp_path_factory) -> SmallRun:
    """A run of 200 steps a cell of two micro-batches each, evaluated at every twentieth.

    Nothing is trained yet.
    """
    training = {"micro_batch_tokens": 16}
    return SmallRun(tmp_path_factory.mktemp("long"), steps=200, every=20, training=training)
