"""The gradients of the roles: exact against an untied twin, and without a trace."""

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import tiny, tiny_translation
from tests.data.test_pair_batches import lengths_of_pairs, size, split_of
from tests.test_three_way_contracts import equal_twin
from tests.tiny_translation import BATCH, SHAPES, SOURCE_V, TIES
from tyro_cli.evaluation.probes.roles import (
    COSINES,
    THREE_ROLES,
    TWO_ROLES,
    UNTIED_NAMES,
    Role,
    probe_batch,
    probe_pairs,
    role_gradients,
    role_record,
)
from tyro_cli.evaluation.probes.rows import NUM_BANDS, frequency_bands
from tyro_cli.models.language_model import LanguageModel

PAIRS = [tensor.numpy() for tensor in BATCH]
SCALES = [("none", "none"), ("sqrt_d", "inverse_sqrt_d")]
SHARING: dict[str, tuple[Role, ...]] = {
    "none": (),
    "in-out": ("input", "output"),
    "three-way": THREE_ROLES,
}
"""The roles that one matrix has, by what is tied."""


def a_batch(windows: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Windows of a text: what is read, and the targets."""
    tokens = probe_batch(tiny.split(200, 5).tokens, tiny.T, windows, seed=0)
    return tokens[:, :-1], tokens[:, 1:]


def tied_and_twin(**model) -> tuple[LanguageModel, LanguageModel]:
    """A tied model, and an untied one of the same function."""
    tied, twin = tiny.tiny_model(tying="in-out", **model), tiny.tiny_model(**model)
    weights = dict(tied.named_parameters())
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(weights[name.replace("head.", "embedding.")])
    return tied, twin


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("scales", SCALES)
def test_the_two_roles_get_what_an_untied_twin_gets(family: str, scales: tuple[str, str]) -> None:
    options = {"family": family, "embedding_scale": scales[0], "head_scale": scales[1]}
    tied, twin = tied_and_twin(**options)
    batch = a_batch()
    loss_nats, gradients = role_gradients(tied, batch)
    loss = twin.loss(*map(torch.from_numpy, batch))
    loss.backward()
    assert loss_nats == loss.item()
    assert torch.equal(gradients["input"], twin.embedding.weight.grad)
    assert twin.head is not None
    assert torch.equal(gradients["output"], twin.head.weight.grad)
    # Measured on the twin they are its own gradients, whose sum the tied matrix gets.
    twin_nats, own = role_gradients(twin, batch)
    assert twin_nats == loss_nats
    assert all(torch.equal(own[role], gradients[role]) for role in TWO_ROLES)
    tied.loss(*map(torch.from_numpy, batch)).backward()
    torch.testing.assert_close(tied.embedding.weight.grad, gradients["input"] + gradients["output"])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("tying", TIES)
@pytest.mark.parametrize("scales", SCALES)
def test_the_three_roles_get_what_an_untied_twin_gets(
    shape: dict[str, Any], tying: str, scales: tuple[str, str]
) -> None:
    options = shape | {"embedding_scale": scales[0], "head_scale": scales[1]}
    model = tiny_translation.tiny_model(tying=tying, **options)
    twin = equal_twin(model, **options)
    loss_nats, gradients = role_gradients(model, PAIRS, THREE_ROLES)
    loss, _ = twin.loss(*BATCH)
    loss.backward()
    assert loss_nats == loss.item()
    for role in THREE_ROLES:
        assert gradients[role].any()
        assert torch.equal(gradients[role], twin.get_parameter(UNTIED_NAMES[role]).grad)
    model.loss(*BATCH)[0].backward()
    if shared := [gradients[role] for role in SHARING[tying]]:
        torch.testing.assert_close(model.embedding.weight.grad, torch.stack(shared).sum(dim=0))


def test_the_roles_of_a_target_are_measured_beside_another_vocabulary() -> None:
    """The encoder's own rows are those of other tokens, and have no part in it."""
    model = tiny_translation.tiny_model(source_vocab_size=SOURCE_V, tying="in-out")
    _, gradients = role_gradients(model, PAIRS)
    model.loss(*BATCH)[0].backward()
    assert set(gradients) == set(TWO_ROLES)
    torch.testing.assert_close(
        model.embedding.weight.grad, gradients["input"] + gradients["output"]
    )
    record = role_record(model, PAIRS, np.zeros(tiny.V, dtype=np.int64))
    assert not [key for key in (*record, *record["bands"]) if "source" in key]


@pytest.mark.parametrize("tying", TIES)
@pytest.mark.parametrize("task", ["language-modeling", "translation"])
def test_a_measurement_leaves_nothing_behind(task: str, tying: str) -> None:
    if task == "translation":
        model: Any = tiny_translation.tiny_model(tying=tying, dropout=0.2)
        batch, roles = PAIRS, THREE_ROLES
    elif tying != "three-way":
        model = tiny.tiny_model(tying=tying, dropout=0.2)
        batch, roles = [*a_batch()], TWO_ROLES
    else:
        return
    own = dict(model.named_parameters())
    weights = {name: parameter.detach().clone() for name, parameter in own.items()}
    model.hidden(*map(torch.from_numpy, batch[:-1]), torch.float32, None).sum().backward()
    gradients = {name: parameter.grad for name, parameter in own.items()}
    copies = {name: one if one is None else one.clone() for name, one in gradients.items()}
    state, buffers = torch.get_rng_state(), dict(model.named_buffers())
    role_record(model, batch, np.zeros(tiny.V, dtype=np.int64), roles)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
    for name, parameter in model.named_parameters():
        assert parameter is own[name]
        assert parameter.requires_grad
        assert torch.equal(parameter, weights[name])
        assert parameter.grad is gradients[name]
        assert parameter.grad is None or torch.equal(parameter.grad, copies[name])


def test_a_measurement_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        loss_nats, gradients = role_gradients(tiny.tiny_model(tying="in-out"), a_batch())
    assert abs(loss_nats - math.log(tiny.V)) < 0.2
    assert gradients["input"].any()


def test_bands_add_up_to_the_whole() -> None:
    model = tiny.tiny_model(tying="in-out")
    counts = np.bincount(tiny.split(2000, 1).tokens, minlength=tiny.V)
    counts[[3, 4]] = 0
    bands = frequency_bands(counts)
    record = role_record(model, a_batch(20), bands)
    _, gradients = role_gradients(model, a_batch(20))
    assert record["bands"]["tokens"] == np.bincount(bands, minlength=NUM_BANDS + 1).tolist()
    assert record["bands"]["tokens"][NUM_BANDS] == 2
    assert_agrees(record, gradients)


def assert_agrees(record: dict[str, Any], gradients: dict[Role, torch.Tensor]) -> None:
    """Check norms and cosines of a record, and that the bands add up to the whole."""
    for role, gradient in gradients.items():
        total = math.sqrt(sum(norm**2 for norm in record["bands"][f"{role}_norm"]))
        assert record[f"{role}_norm"] == pytest.approx(total) == pytest.approx(gradient.norm())
    for pair in combinations(gradients, 2):
        first, second = (gradients[role].flatten() for role in pair)
        cosine = torch.nn.functional.cosine_similarity(first, second, dim=0)
        assert record[COSINES[pair]] == pytest.approx(float(cosine), abs=1e-6)
    assert {key for key in record if key.endswith(("_norm", "cosine"))} == {
        key for key in record["bands"] if key != "tokens"
    }


def test_bands_of_three_roles_add_up_to_the_whole() -> None:
    model = tiny_translation.tiny_model(tying="three-way")
    bands = np.arange(tiny.V) % (NUM_BANDS + 1)
    record = role_record(model, PAIRS, bands, THREE_ROLES)
    assert_agrees(record, role_gradients(model, PAIRS, THREE_ROLES)[1])
    assert len([key for key in record if key.endswith(("_norm", "cosine"))]) == 6


def test_what_gets_no_gradient_has_no_cosine() -> None:
    bands = np.zeros(tiny.V, dtype=np.int64)
    batch = a_batch()
    absent = np.setdiff1d(np.arange(tiny.V), np.concatenate(batch, axis=1))
    bands[absent] = 1
    record = role_record(tiny.tiny_model(tying="in-out"), batch, bands)
    assert record["bands"]["input_norm"][1] == 0
    assert record["bands"]["output_norm"][1] > 0
    assert record["bands"]["cosine"][1:] == [None] * NUM_BANDS


def test_numbers_that_are_not_finite_are_left_out() -> None:
    model = tiny.tiny_model(tying="in-out")
    with torch.no_grad():
        model.embedding.weight[0, 0] = float("inf")
    record = role_record(model, a_batch(), np.zeros(tiny.V, dtype=np.int64))
    assert record["loss_nats"] is None
    assert record["output_norm"] is None
    assert record["cosine"] is None


def test_the_batch_is_windows_of_the_text_drawn_once() -> None:
    tokens = np.arange(200)
    batch = probe_batch(tokens, 8, 3, seed=0)
    assert batch.shape == (3, 9)
    assert (np.diff(batch, axis=1) == 1).all()
    assert (batch[:, 0] % 8 == 0).all()
    assert np.array_equal(batch, probe_batch(tokens, 8, 3, seed=0))
    assert not np.array_equal(batch, probe_batch(tokens, 8, 3, seed=1))
    assert len(probe_batch(tokens, 8, 99, seed=0)) == 24
    assert probe_batch(np.arange(5), 8, 3, seed=0).tolist() == [[0, 1, 2, 3, 4]]


@given(lengths_of_pairs, st.integers(2, 200), st.integers(0, 2**31 - 1))
def test_the_pairs_are_as_many_of_those_drawn_as_fit(
    lengths: list[tuple[int, int]], most_tokens: int, seed: int
) -> None:
    split = split_of(lengths)
    batch = probe_pairs(split, most_tokens, seed)
    assert (np.diff(batch.pairs) > 0).all()
    assert size(batch) <= most_tokens or len(batch.pairs) == 1
    assert np.array_equal(batch.pairs, probe_pairs(split, most_tokens, seed).pairs)
    # One token less leaves some out; those that fit a smaller budget are among them.
    fewer = probe_pairs(split, size(batch) - 1, seed)
    assert len(fewer.pairs) < len(batch.pairs) or len(batch.pairs) == 1
    assert set(fewer.pairs) <= set(batch.pairs)


def test_the_pairs_are_drawn_by_their_key() -> None:
    split = split_of([(3, 4)] * 50)
    drawn = [probe_pairs(split, 40, seed).pairs.tolist() for seed in (0, 1)]
    assert drawn[0] != drawn[1]
    assert [len(pairs) for pairs in drawn] == [5, 5]
    assert probe_pairs(split, 10**6, 0).pairs.tolist() == list(range(50))
