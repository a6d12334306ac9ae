"""The account of an arm: rows, bytes, FLOPs, and what a tie saves."""

import json
from typing import Any

import pytest

from tyro_cli.config.schema import Settings
from tyro_cli.ledger.ledger import (
    COMPONENTS,
    ledger_of,
)

V = 61


def settings(batch_tokens: int = 64, micro: int | None = None, **model: Any) -> Settings:
    return Settings.model_validate(
        {
            "task": "language-modeling",
            "data": {"corpus": "kjv", "tokenizer": {"kind": "word"}, "context_length": 8},
            "model": {"d_model": 16, "num_layers": 2, "num_heads": 4} | model,
            "training": {
                "budget": {"steps": 1},
                "batch_tokens": batch_tokens,
                "micro_batch_tokens": micro,
                "optimizer": {"learning_rate": 1e-3},
            },
        }
    )


def test_the_rows_by_hand() -> None:
    ledger = ledger_of(settings(family="gpt2"), V)
    assert {row.component: row.parameters for row in ledger.rows} == {
        "token embedding": 976,
        "positions": 128,
        "attention": 2 * 1088,
        "feed-forward": 2 * 2128,
        "norms": 2 * 64 + 32,
        "head": 976,
    }
    assert tuple(row.component for row in ledger.rows) == COMPONENTS
    assert ledger.total == 8672
    assert ledger.non_embedding == 8672 - 976 - 976 - 128
    assert ledger.checkpoint_bytes == 4 * 8672
    assert ledger.optimizer_bytes == 8 * 8672
    assert sum(row.share for row in ledger.rows) == pytest.approx(1)
    assert ledger.rows[0].share == 976 / 8672


def test_forward_flops_by_hand_and_the_head_costs_the_same_when_tied() -> None:
    untied, tied = (ledger_of(settings(tying=tying), V) for tying in ("none", "in-out"))
    # Two a multiply-add: projections 4 * 16^2, scores and values 2 * 8 * 16; SwiGLU 3 * 16 * 48.
    expected = {
        "token embedding": 0,
        "positions": 0,
        "attention": 2 * 2 * (4 * 256 + 2 * 128),
        "feed-forward": 2 * 2 * 2304,
        "norms": 0,
        "head": 2 * 61 * 16,
    }
    for ledger in (untied, tied):
        assert {row.component: row.forward_flops_per_token for row in ledger.rows} == expected
        assert ledger.forward_flops_per_token == sum(expected.values())
    assert tied.rows[-1].parameters == 0


def test_a_model_without_layers_has_a_ledger() -> None:
    ledger = ledger_of(settings(num_layers=0, tying="in-out"), V)
    assert ledger.total == 61 * 16 + 16
    assert ledger.forward_flops_per_token == 2 * 61 * 16


def test_a_record_is_plain_json_that_reads_back_the_same() -> None:
    record = ledger_of(settings(), V).as_record()
    assert json.loads(json.dumps(record)) == record
    assert record["rows"][0]["component"] == "token embedding"


def test_the_analysis_reads_the_record() -> None:
    from tyro_cli.analysis.formats import LedgerRecord

    for tying in ("none", "in-out"):
        record = ledger_of(settings(tying=tying), V).as_record()
        assert LedgerRecord.model_validate(record).total == record["total"]


def test_the_saving_is_the_formula() -> None:
    untied, tied = settings(), settings(tying="in-out")
    assert ledger_of(untied, V).total - ledger_of(tied, V).total == V * 16
