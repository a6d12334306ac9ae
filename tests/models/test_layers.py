"""Layers: causality, attention, rotary positions, norms and dropout."""

import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from tyro_cli.models.initialization import initialize, standard_deviation
from tyro_cli.models.language_model import LanguageModel
from tyro_cli.models.layers import Dropout, attend, rotary_tables, rotate


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_no_position_sees_what_follows_it(family: str) -> None:
    model = tiny.tiny_model(family=family)
    tokens = torch.arange(tiny.T).unsqueeze(0)
    changed = tokens.clone()
    changed[0, 5:] += 7
    first, second = (model.hidden(t, torch.float32, None) for t in (tokens, changed))
    assert torch.equal(first[:, :5], second[:, :5])
    assert not torch.equal(first[:, 5], second[:, 5])


def test_plain_attention_equals_the_fused_kernel() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 4, generator=generator).double() for _ in range(3))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(attend(q, k, v), expected)


def test_rotary_products_depend_on_distance_alone() -> None:
    tables = rotary_tables(40, 8)
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(8, generator=generator).expand(1, 1, 40, 8) for _ in range(2))
    products = rotate(q, tables)[0, 0] @ rotate(k, tables)[0, 0].t()
    for distance in (0, 3, 17):
        diagonal = products.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-4)
    assert (products[3, 0] - products[0, 0]).abs() > 1e-3


def test_gpt2_knows_positions() -> None:
    model = tiny.tiny_model(family="gpt2", num_layers=0)
    hidden = model.hidden(torch.full((1, tiny.T), 3), torch.float32, None)[0]
    assert not torch.allclose(hidden[0], hidden[1])


def test_dropout_zeroes_the_asked_fraction_and_keeps_the_mean() -> None:
    ones = torch.ones(400, 501)
    dropped = Dropout(3, ones.device)(ones, 0.3)
    zero_fraction = (dropped == 0).float().mean().item()
    assert abs(zero_fraction - 0.3) < 0.005
    assert dropped[dropped != 0].unique().numel() == 1
    assert abs(dropped.mean().item() - 1.0) < 0.01
    # every lane of the 64-bit draws takes part equally
    lanes = (dropped.flatten()[: 400 * 500] == 0).view(-1, 4).float().mean(0)
    assert (lanes - 0.3).abs().max() < 0.01


def test_a_probability_near_one_is_still_dropout() -> None:
    dropped = Dropout(1, torch.device("cpu"))(torch.ones(64, 64), 0.999999)
    assert torch.isfinite(dropped).all() and (dropped == 0).float().mean() > 0.99


def test_no_dropout_returns_the_input_itself() -> None:
    x = torch.ones(3)
    assert Dropout(1, x.device)(x, 0.0) is x


@pytest.mark.parametrize("place", ["embedding", "residual", "output"])
def test_every_place_of_dropout_acts(place: str) -> None:
    places = {"embedding": 0.0, "residual": 0.0, "output": 0.0} | {place: 0.5}
    model = tiny.tiny_model(dropout=places)
    tokens = torch.arange(tiny.T).unsqueeze(0)
    plain = model.hidden(tokens, torch.float32, None)
    dropped = model.hidden(tokens, torch.float32, Dropout(0, torch.device("cpu")))
    assert not torch.equal(plain, dropped)


def test_initial_values_follow_their_table() -> None:
    config = tiny.model_config(family="gpt2", d_model=64, num_heads=4, num_layers=2)
    model = LanguageModel(config, 500, 32)
    initialize(model, config, 0)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            expected = 1.0 if name.endswith("norm.weight") else 0.0
            assert (parameter == expected).all(), name
        else:
            assert parameter.std().item() == pytest.approx(
                standard_deviation(name, config), rel=0.05
            ), name
    assert standard_deviation("blocks.0.feed_forward.down.weight", config) == 0.01
    assert standard_deviation("head.weight", tiny.model_config(d_model=512)) == 2.5 / 512


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_bfloat16_stays_near_float32(family: str) -> None:
    model = tiny.tiny_model(family=family)
    tokens = torch.arange(tiny.T).unsqueeze(0)
    exact = model.hidden(tokens, torch.float32, None)
    rough = model.hidden(tokens, torch.bfloat16, None)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() / exact.norm() < 0.02


def test_scales_act_where_they_say() -> None:
    plain, scaled = tiny.tiny_model(), tiny.tiny_model(head_scale="inverse_sqrt_d")
    tokens = torch.arange(4).unsqueeze(0)
    torch.testing.assert_close(scaled.logits(tokens) * tiny.D**0.5, plain.logits(tokens))
    model = tiny.tiny_model(embedding_scale="sqrt_d", num_layers=0)
    torch.testing.assert_close(  # a norm undoes a common factor
        model.hidden(tokens, torch.float32, None),
        tiny.tiny_model(num_layers=0).hidden(tokens, torch.float32, None),
        rtol=0.05,
        atol=0.05,
    )
    assert model.embedding_factor == tiny.D**0.5
