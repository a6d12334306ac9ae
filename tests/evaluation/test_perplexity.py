"""The sweep against a token-by-token oracle, and the sums made of it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from tyro_cli.evaluation.perplexity import (
    SplitScores,
    document_scores,
    split_scores,
    sweep_nats,
)


def oracle(model: object, tokens: np.ndarray, stride: int) -> np.ndarray:
    """Score token by token: each from the window that the sweep's rule gives it."""
    length, context = len(tokens) - 1, tiny.T
    nats = np.full(length, np.nan)
    starts = [0]
    while starts[-1] + context < length:
        starts.append(min(starts[-1] + stride, max(length - context, 0)))
    for start in starts:
        window = torch.tensor(tokens[start : start + context + 1].astype(np.int64))
        for position in range(start, min(start + context, length)):
            if np.isnan(nats[position]):
                logits = model.logits(window[: position - start + 1].unsqueeze(0))[0]  # type: ignore[attr-defined]
                target = int(tokens[position + 1])
                nats[position] = -F.log_softmax(logits, -1)[target].item()
    return nats


@pytest.mark.parametrize("length", [3, 8, 9, 20, 31])
@pytest.mark.parametrize("stride", [1, 3, 4, 8])
def test_the_sweep_scores_every_token_once_in_its_window(length: int, stride: int) -> None:
    model, tokens = tiny.tiny_model(), tiny.split(length, 7).tokens
    nats = sweep_nats(model, tokens, stride=stride)
    np.testing.assert_allclose(nats, oracle(model, tokens, stride), rtol=1e-4)


def test_more_context_is_what_a_smaller_stride_buys() -> None:
    model, tokens = tiny.tiny_model(), tiny.split(64, 7).tokens
    disjoint, overlapping = (sweep_nats(model, tokens, stride=s) for s in (8, 4))
    assert (disjoint[:8] == overlapping[:8]).all()
    assert not np.allclose(disjoint[8:12], overlapping[8:12])


def test_a_sweep_touches_no_generator() -> None:
    state = torch.get_rng_state()
    sweep_nats(tiny.tiny_model(dropout=0.5), tiny.split(40, 7).tokens, stride=4)
    assert torch.equal(torch.get_rng_state(), state)


def test_rates_are_sums_divided_once() -> None:
    record = SplitScores(nats=100.0, tokens=50, words=20, bytes=80).as_record()
    assert record["nats_per_token"] == 2.0 and record["nats_per_word"] == 5.0
    assert record["token_perplexity"] == math.exp(2.0)
    assert record["word_perplexity"] == math.exp(5.0)
    assert record["bits_per_byte"] == pytest.approx(100 / math.log(2) / 80)


def test_word_rates_are_absent_where_the_vocabulary_does_not_cover_the_text() -> None:
    split = replace(tiny.split(30, 1), num_unknown=2)
    record = split_scores(np.ones(30, dtype=np.float32), split).as_record()
    assert record["nats_per_word"] is record["word_perplexity"] is record["bits_per_byte"] is None
    assert record["unknown_words"] == 2 and record["nats_per_token"] == 1.0


def test_a_huge_perplexity_is_not_a_number_but_no_crash() -> None:
    assert SplitScores(1e6, 10, 10, 10).as_record()["token_perplexity"] is None


def test_document_sums_add_up_to_the_split() -> None:
    split = tiny.split(333, 3)
    nats = np.arange(333, dtype=np.float32)
    scores = document_scores(nats, split)
    assert scores["nats"].sum() == nats.sum(dtype=np.float64)
    assert scores["nats"][0] == nats[:50].sum() and scores["tokens"].sum() == 333
    assert scores["tokens"][-1] == 33
