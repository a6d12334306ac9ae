"""What a tie saves, said from the records of translation arms."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tiny_translation import TIES, settings
from tyro_cli.analysis.arm_notes import saving_note
from tyro_cli.analysis.formats import LedgerRecord
from tyro_cli.errors import DamagedRecord
from tyro_cli.ledger.ledger import ledger_of


def run(total_of_three_way: int = 0) -> SimpleNamespace:
    arms = {}
    for tying in TIES:
        one = settings(tying=tying)
        record = ledger_of(one, 61).as_record()
        if tying == "three-way" and total_of_three_way:
            record["rows"][0]["parameters"] += total_of_three_way - record["total"]
            record["total"] = total_of_three_way
        ledger = LedgerRecord.model_validate(record)
        arms[tying] = SimpleNamespace(settings=one.model_dump(mode="json"), ledger=ledger)
    return SimpleNamespace(folder=Path("run"), manifest=SimpleNamespace(arms=arms))


@pytest.mark.parametrize(
    ("arm", "baseline", "text"),
    [
        ("in-out", "none", "none - in-out = 976 parameters, exactly V x d = 61 x 16 = 976."),
        (
            "three-way",
            "none",
            "none - three-way = 1,952 parameters, exactly 2 x V x d = 2 x 61 x 16 = 1,952.",
        ),
        (
            "in-out",
            "three-way",
            "in-out - three-way = 976 parameters, exactly V x d = 61 x 16 = 976.",
        ),
    ],
)
def test_the_saving_of_each_tie_is_said_exactly(arm: str, baseline: str, text: str) -> None:
    assert saving_note(run(), arm, baseline) == text  # type: ignore[arg-type]


def test_a_ledger_that_breaks_the_identity_is_refused() -> None:
    with pytest.raises(DamagedRecord, match="the tie alone makes 1,952"):
        saving_note(run(20_000), "three-way", "none")  # type: ignore[arg-type]
