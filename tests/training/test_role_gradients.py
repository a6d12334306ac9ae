"""Measuring the gradients of the roles changes nothing of a cell but adds its records."""

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.folders import digests
from tyro_cli.errors import Interrupted
from tyro_cli.storage.records import read_records
from tyro_cli.training.loop import Trainer


def train(folder: Path, every: int | None, **model: Any) -> Trainer:
    trainer = Trainer(
        tiny.context(folder, evaluation={"role_gradients_every_steps": every}, **model)
    )
    trainer.run()
    return trainer


def others_than_roles(folder: Path) -> bytes:
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if b'"kind":"role_gradients"' not in line)


@pytest.mark.parametrize("tying", ["none", "in-out"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_and_losses_have_the_same_bytes(tmp_path: Path, tying: str, precision: str) -> None:
    options: dict[str, Any] = {
        "tying": tying,
        "dropout": 0.1,
        "training": tiny.training(precision=precision, micro_batch_tokens=16),
    }
    train(tmp_path / "without", None, **options)
    train(tmp_path / "with", 1, **options)
    without, measured = digests(tmp_path / "without"), digests(tmp_path / "with")
    assert without.pop("metrics.jsonl") != measured.pop("metrics.jsonl")
    assert any("checkpoints" in str(name) for name in without)
    assert measured == without
    assert others_than_roles(tmp_path / "with") == others_than_roles(tmp_path / "without")


def test_records_come_every_so_many_steps_from_the_first(tmp_path: Path) -> None:
    train(tmp_path, 5, tying="in-out")
    records = [r for r in read_records(tmp_path / "metrics.jsonl") if r["kind"] == "role_gradients"]
    assert [record["step"] for record in records] == [1, 6, 11]
    assert all(len(record["bands"]["cosine"]) == 6 for record in records)
    assert len({record["output_norm"] for record in records}) == 3


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4, 5, 9, 10, 11, 17])
def test_a_stopped_cell_ends_with_the_same_bytes(tmp_path: Path, stop_at: int) -> None:
    train(tmp_path / "whole", 1, tying="in-out")
    polls = 0

    def poll() -> None:
        nonlocal polls
        polls += 1
        if polls == stop_at:
            raise Interrupted

    options: dict[str, Any] = {"evaluation": {"role_gradients_every_steps": 1}, "tying": "in-out"}
    context = tiny.context(tmp_path / "stopped", **options)
    object.__setattr__(context, "poll", poll)
    with pytest.raises(Interrupted):
        Trainer(context).run()
    Trainer(tiny.context(tmp_path / "stopped", **options)).run()
    assert digests(tmp_path / "stopped") == digests(tmp_path / "whole")


def test_what_it_takes_counts_as_evaluation(tmp_path: Path) -> None:
    trainer = train(tmp_path, 1, tying="in-out")
    assert trainer.evaluation_seconds > 0
