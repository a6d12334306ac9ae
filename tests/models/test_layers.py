"""Layers: causality, attention, positions, norms and dropout."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from tyro_cli.models.initialization import initialize, standard_deviation
from tyro_cli.models.language_model import LanguageModel
from tyro_cli.models.layers import (
    Dropout,
    attend,
    padding_mask,
    rotary_tables,
    rotate,
    sinusoids,
)


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


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.3])
def test_dropout_scales_by_the_exact_inverse_in_bfloat16(probability: float) -> None:
    """A scale rounded to bfloat16 would be off by up to 0.3 % in every element alike."""
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    dropped = Dropout(1, x.device)(x, probability)
    kept = dropped != 0
    scale = 65536 / (65536 - round(probability * 65536))
    assert torch.equal(dropped[kept], (x.float() * scale).bfloat16()[kept])


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


def test_a_padding_mask_hides_what_stands_behind_a_length() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 4, generator=generator).double() for _ in range(3))
    found = attend(q[:, :, :5], k, v, padding_mask(torch.tensor([9, 4]), 9, torch.float64))
    expected = F.scaled_dot_product_attention(q[:, :, :5], k, v)
    torch.testing.assert_close(found[0], expected[0])
    shorter = F.scaled_dot_product_attention(q[:, :, :5], k[:, :, :4], v[:, :, :4])
    torch.testing.assert_close(found[1], shorter[1])


def test_the_last_query_alone_sees_all_positions() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 4, generator=generator).double() for _ in range(3))
    torch.testing.assert_close(attend(q[:, :, -1:], k, v), attend(q, k, v)[:, :, -1:])
    with pytest.raises(AssertionError):
        attend(q[:, :, -2:], k, v)


@pytest.mark.parametrize("queries", [1, 1100])
def test_long_attention_means_the_same(queries: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, 1100, 2, generator=generator).double() for _ in range(3))
    mask = padding_mask(torch.tensor([700]), 1100, torch.float64)
    scores = q @ k.transpose(-1, -2) / 2**0.5
    expected = torch.softmax(scores + mask, dim=-1) @ v
    last = slice(1100 - queries, None)
    torch.testing.assert_close(attend(q[:, :, last], k, v, mask), expected[:, :, last])
    causal = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(attend(q[:, :, last], k, v), causal[:, :, last])


def test_sinusoids_follow_their_formula() -> None:
    table = sinusoids(30, 6)
    for place in (0, 1, 29):
        for pair in range(3):
            angle = place / 10_000 ** (2 * pair / 6)
            expected = [math.sin(angle), math.cos(angle)]
            assert table[place, 2 * pair : 2 * pair + 2].tolist() == pytest.approx(expected)
    assert torch.equal(sinusoids(30, 5), sinusoids(30, 5)[:, :5]) and sinusoids(3, 5).shape == (
        3,
        5,
    )


@pytest.mark.parametrize("positions", ["learned", "rotary", "sinusoidal"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_family_takes_every_kind_of_positions(family: str, positions: str) -> None:
    model = tiny.tiny_model(family=family, positions=positions, num_layers=1).double()
    names = [name for name, _ in model.named_parameters()]
    assert ("positions.weight" in names) == (positions == "learned")
    hidden = [
        model.hidden(torch.tensor([tokens]), torch.float64, None)[0, -1]
        for tokens in ([1, 2, 3], [2, 1, 3])
    ]
    assert not torch.allclose(hidden[0], hidden[1], rtol=1e-6, atol=1e-9)


def test_the_familys_positions_written_out_are_its_default() -> None:
    tokens = torch.arange(tiny.T).unsqueeze(0)
    for family, positions in (("llama", "rotary"), ("gpt2", "learned")):
        models = [tiny.tiny_model(family=family, positions=p) for p in (None, positions)]
        assert torch.equal(*(m.hidden(tokens, torch.float32, None) for m in models))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_post_norm_normalises_each_sum(family: str) -> None:
    model = tiny.tiny_model(family=family, norm_place="post", num_layers=1)
    assert not any(name.startswith("final_norm") for name, _ in model.named_parameters())
    block = model.blocks[0]
    x = torch.randn(2, 5, tiny.D, generator=torch.Generator().manual_seed(0))
    rotary = None if model.rotary_2TK is None else model.rotary_2TK[:, :5]
    y = block.attention_norm(x + block.attention(x, rotary))
    expected = block.feed_forward_norm(y + block.feed_forward(y))
    torch.testing.assert_close(block(x, rotary, None), expected)
    assert not torch.allclose(expected, tiny.tiny_model(family=family).blocks[0](x, rotary, None))
