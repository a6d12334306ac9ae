"""The gradients of the two roles: exact against an untied twin, and without a trace."""

import math

import numpy as np
import pytest
import torch

from tests import tiny
from tyro_cli.evaluation.probes.roles import probe_batch, role_gradients, role_record
from tyro_cli.evaluation.probes.rows import NUM_BANDS, frequency_bands
from tyro_cli.models.language_model import LanguageModel


def a_batch(windows: int = 3) -> np.ndarray:
    return probe_batch(tiny.split(200, 5).tokens, tiny.T, windows, seed=0)


def tied_and_twin(**model) -> tuple[LanguageModel, LanguageModel]:
    """A tied model, and an untied one of the same function."""
    tied, twin = tiny.tiny_model(tying="in-out", **model), tiny.tiny_model(**model)
    weights = dict(tied.named_parameters())
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            parameter.copy_(weights[name.replace("head.", "embedding.")])
    return tied, twin


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("scales", [("none", "none"), ("sqrt_d", "inverse_sqrt_d")])
def test_the_two_roles_get_what_an_untied_twin_gets(family: str, scales: tuple[str, str]) -> None:
    options = {"family": family, "embedding_scale": scales[0], "head_scale": scales[1]}
    tied, twin = tied_and_twin(**options)
    batch = a_batch()
    _, input_VD, output_VD = role_gradients(tied, batch)
    tokens = torch.from_numpy(batch)
    twin.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    assert torch.equal(input_VD, twin.embedding.weight.grad)
    assert twin.head is not None
    assert torch.equal(output_VD, twin.head.weight.grad)
    # Measured on the twin they are its own gradients, whose sum the tied matrix gets.
    for one, other in zip(role_gradients(twin, batch), role_gradients(tied, batch), strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    tied.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    torch.testing.assert_close(tied.embedding.weight.grad, input_VD + output_VD)


@pytest.mark.parametrize("tying", ["none", "in-out"])
def test_a_measurement_leaves_nothing_behind(tying: str) -> None:
    model = tiny.tiny_model(tying=tying, dropout=0.2)
    own = dict(model.named_parameters())
    weights = {name: parameter.detach().clone() for name, parameter in own.items()}
    batch = torch.from_numpy(a_batch())
    model.loss(batch[:, :-1], batch[:, 1:]).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in own.items()}
    state = torch.get_rng_state()
    role_record(model, a_batch(), np.zeros(tiny.V, dtype=np.int64))
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in model.named_parameters():
        assert parameter is own[name]
        assert parameter.requires_grad
        assert torch.equal(parameter, weights[name])
        assert torch.equal(parameter.grad, gradients[name])


def test_a_measurement_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        loss_nats, input_VD, _ = role_gradients(tiny.tiny_model(tying="in-out"), a_batch())
    assert abs(loss_nats - math.log(tiny.V)) < 0.2
    assert input_VD.any()


def test_bands_add_up_to_the_whole() -> None:
    model = tiny.tiny_model(tying="in-out")
    counts = np.bincount(tiny.split(2000, 1).tokens, minlength=tiny.V)
    counts[[3, 4]] = 0
    bands = frequency_bands(counts)
    record = role_record(model, a_batch(20), bands)
    _, input_VD, output_VD = role_gradients(model, a_batch(20))
    assert record["bands"]["tokens"] == np.bincount(bands, minlength=NUM_BANDS + 1).tolist()
    assert record["bands"]["tokens"][NUM_BANDS] == 2
    for key, gradient in (("input_norm", input_VD), ("output_norm", output_VD)):
        total = math.sqrt(sum(norm**2 for norm in record["bands"][key]))
        assert record[key] == pytest.approx(total) == pytest.approx(float(gradient.norm()))
    cosine = torch.nn.functional.cosine_similarity(input_VD.flatten(), output_VD.flatten(), dim=0)
    assert record["cosine"] == pytest.approx(float(cosine), abs=1e-6)


def test_what_gets_no_gradient_has_no_cosine() -> None:
    bands = np.zeros(tiny.V, dtype=np.int64)
    batch = a_batch()
    absent = np.setdiff1d(np.arange(tiny.V), batch)
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
