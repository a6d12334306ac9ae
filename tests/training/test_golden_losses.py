"""Loss curves that may not change in silence: float32, one thread.

A change of these numbers raises `PROTOCOL` and gets a CHANGELOG line under **Numbers**. To write
them anew: `WTIE_WRITE_GOLDEN=1 .venv/bin/python -m pytest tests/training/test_golden_losses.py`.
"""

import json
import os
from pathlib import Path

import pytest
import torch

from tests import tiny
from tyro_cli.storage.records import read_records
from tyro_cli.training.loop import Trainer

GOLDEN = Path(__file__).parent.parent / "golden" / "losses.json"
CASES = [f"{family}-{tying}" for family in ("llama", "gpt2") for tying in ("none", "in-out")]
BETWEEN_PROCESSORS = 2e-3
"""Nats by which the curve of one processor may lie beside another's: 4e-4 was seen in 40 steps."""


@pytest.mark.parametrize("case", CASES)
def test_training_follows_its_golden_curve(tmp_path: Path, case: str) -> None:
    family, tying = case.split("-", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        training = tiny.training(budget={"steps": 40}, optimizer={"learning_rate": 0.03})
        Trainer(
            tiny.context(tmp_path, family=family, tying=tying, dropout=0.1, training=training)
        ).run()
    finally:
        torch.set_num_threads(threads)
    curve = [
        [
            record["kind"],
            record["step"],
            record.get("loss_nats", record.get("valid_nats_per_token")),
        ]
        for record in read_records(tmp_path / "metrics.jsonl")
    ]
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("WTIE_WRITE_GOLDEN"):
        golden[case] = curve
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    assert [row[:2] for row in curve] == [row[:2] for row in golden[case]]
    expected = [row[2] for row in golden[case]]
    assert [row[2] for row in curve] == pytest.approx(expected, abs=BETWEEN_PROCESSORS)
