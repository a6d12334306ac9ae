"""Loss curves that may not change in silence: float32, one thread, tolerance 1e-4.

Each is trained in a process of its own that takes the same instructions on every x86 processor: in
these 40 steps, what one rounds differently grows to 4e-4. A change of these numbers raises
`PROTOCOL` and gets a CHANGELOG line under **Numbers**. To write them anew: `WTIE_WRITE_GOLDEN=1
.venv/bin/python -m pytest tests/training/test_golden_losses.py`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.workplace import REPOSITORY
from tyro_cli.storage.records import read_records

GOLDEN = Path(__file__).parent.parent / "golden" / "losses.json"
CASES = [f"{family}-{tying}" for family in ("llama", "gpt2") for tying in ("none", "in-out")]
SAME_INSTRUCTIONS = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE"}
TRAIN = """
import sys
from pathlib import Path

import torch

from tests import tiny
from tyro_cli.training.loop import Trainer

torch.set_num_threads(1)
folder, family, tying = sys.argv[1:]
training = tiny.training(budget={"steps": 40}, optimizer={"learning_rate": 0.03})
context = tiny.context(Path(folder), family=family, tying=tying, dropout=0.1, training=training)
Trainer(context).run()
"""


@pytest.mark.parametrize("case", CASES)
def test_training_follows_its_golden_curve(tmp_path: Path, case: str) -> None:
    subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path), *case.split("-", 1)],
        cwd=REPOSITORY,
        env=os.environ | SAME_INSTRUCTIONS,
        check=True,
    )
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
    assert [row[2] for row in curve] == pytest.approx(expected, abs=1e-4)
