"""Names, shapes and roles: by hand, by published counts, and against the real model."""

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tyro_cli.config.schema import ModelConfig
from tyro_cli.ledger.parameters import count_parameters, parameter_shapes, role_of

V, T = 61, 8


def small(family: str = "llama", **changes: object) -> ModelConfig:
    return ModelConfig.model_validate(
        {"family": family, "d_model": 16, "num_layers": 2, "num_heads": 4} | changes
    )


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    num_heads = draw(st.integers(1, 6))
    return small(
        draw(st.sampled_from(["llama", "gpt2"])),
        num_heads=num_heads,
        d_model=2 * num_heads * draw(st.integers(1, 8)),
        num_layers=draw(st.integers(0, 5)),
        d_ff=draw(st.none() | st.integers(1, 99)),
        tying=draw(st.sampled_from(["none", "in-out"])),
        final_norm=draw(st.booleans()),
    )


def test_llama_by_hand() -> None:
    # d_ff: 8/3 * 16 = 42.7, up to 48.
    # A layer: norms 2 * 16, attention 4 * 16^2, SwiGLU 3 * 16 * 48.
    layer = 32 + 1024 + 2304
    assert count_parameters(small(), V, T) == 2 * 61 * 16 + 2 * layer + 16 == 8688


def test_gpt2_by_hand() -> None:
    # A layer: two norms with bias 4 * 16; attention 4 * 16^2 + 4 * 16; 2 * 16 * 64 + 64 + 16.
    layer = 64 + 1088 + 2128
    assert count_parameters(small("gpt2"), V, T) == 2 * 61 * 16 + 8 * 16 + 2 * layer + 32 == 8672


def test_gpt2_has_its_published_number_of_parameters() -> None:
    model = small("gpt2", d_model=768, num_layers=12, num_heads=12, tying="in-out")
    assert count_parameters(model, 50257, 1024) == 124_439_808


def test_llama_2_has_its_published_number_of_parameters() -> None:
    model = small(d_model=4096, num_layers=32, num_heads=32, d_ff=11008)
    assert count_parameters(model, 32000, 4096) == 6_738_415_616


def test_names_and_shapes_of_a_layer_are_the_agreed_ones() -> None:
    assert parameter_shapes(small("gpt2", num_layers=1), V, T) == {
        "embedding.weight": (61, 16),
        "positions.weight": (8, 16),
        "blocks.0.attention_norm.weight": (16,),
        "blocks.0.attention_norm.bias": (16,),
        "blocks.0.attention.query_key_value.weight": (48, 16),
        "blocks.0.attention.query_key_value.bias": (48,),
        "blocks.0.attention.output.weight": (16, 16),
        "blocks.0.attention.output.bias": (16,),
        "blocks.0.feed_forward_norm.weight": (16,),
        "blocks.0.feed_forward_norm.bias": (16,),
        "blocks.0.feed_forward.up.weight": (64, 16),
        "blocks.0.feed_forward.up.bias": (64,),
        "blocks.0.feed_forward.down.weight": (16, 64),
        "blocks.0.feed_forward.down.bias": (16,),
        "final_norm.weight": (16,),
        "final_norm.bias": (16,),
        "head.weight": (61, 16),
    }
    assert parameter_shapes(small(num_layers=1, tying="in-out"), V, T) == {
        "embedding.weight": (61, 16),
        "blocks.0.attention_norm.weight": (16,),
        "blocks.0.attention.query_key_value.weight": (48, 16),
        "blocks.0.attention.output.weight": (16, 16),
        "blocks.0.feed_forward_norm.weight": (16,),
        "blocks.0.feed_forward.gate_up.weight": (96, 16),
        "blocks.0.feed_forward.down.weight": (16, 48),
        "final_norm.weight": (16,),
    }


@given(model=models(), vocab_size=st.integers(2, 500), context_length=st.integers(2, 64))
def test_the_tie_saves_exactly_one_matrix(
    model: ModelConfig, vocab_size: int, context_length: int
) -> None:
    counts = {
        tying: count_parameters(
            model.model_copy(update={"tying": tying}), vocab_size, context_length
        )
        for tying in ("none", "in-out")
    }
    assert counts["none"] - counts["in-out"] == vocab_size * model.d_model


@given(model=models(), vocab_size=st.integers(2, 500), context_length=st.integers(2, 64))
def test_the_count_is_the_sum_of_the_shapes(
    model: ModelConfig, vocab_size: int, context_length: int
) -> None:
    shapes = parameter_shapes(model, vocab_size, context_length)
    assert count_parameters(model, vocab_size, context_length) == sum(map(prod, shapes.values()))


@pytest.mark.parametrize(
    ("family", "d_model", "d_ff"),
    [("llama", 128, 352), ("llama", 96, 256), ("llama", 16, 48), ("gpt2", 128, 512)],
)
def test_the_default_feed_forward_width(family: str, d_model: int, d_ff: int) -> None:
    shapes = parameter_shapes(small(family, d_model=d_model), V, T)
    assert shapes["blocks.1.feed_forward.down.weight"] == (d_model, d_ff)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("tying", ["none", "in-out"])
@pytest.mark.parametrize("num_layers", [0, 2])
@pytest.mark.parametrize("final_norm", [True, False])
def test_the_real_model_has_exactly_these_parameters(
    family: str, tying: str, num_layers: int, final_norm: bool
) -> None:
    from tyro_cli.models.language_model import LanguageModel

    model = small(family, tying=tying, num_layers=num_layers, final_norm=final_norm)
    real = {name: tuple(p.shape) for name, p in LanguageModel(model, V, T).named_parameters()}
    assert parameter_shapes(model, V, T) == real


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("embedding.weight", "embedding"),
        ("positions.weight", "embedding"),
        ("head.weight", "head"),
        ("blocks.0.attention.query_key_value.weight", "matrices"),
        ("blocks.0.attention.query_key_value.bias", "vectors"),
        ("blocks.11.feed_forward.gate_up.weight", "matrices"),
        ("blocks.0.feed_forward_norm.weight", "vectors"),
        ("final_norm.weight", "vectors"),
        ("final_norm.bias", "vectors"),
    ],
)
def test_roles(name: str, role: str) -> None:
    assert role_of(name, small("gpt2")) == role


@pytest.mark.parametrize("tied_role", ["embedding", "head"])
def test_the_shared_matrix_takes_the_role_it_is_told(tied_role: str) -> None:
    tied = small(tying="in-out", tied_role=tied_role)
    assert role_of("embedding.weight", tied) == tied_role
    # An untied model has nothing to share: the setting changes nothing.
    assert role_of("embedding.weight", small(tied_role=tied_role)) == "embedding"


@given(model=models())
def test_a_vector_is_what_has_one_dimension(model: ModelConfig) -> None:
    for name, shape in parameter_shapes(model, V, T).items():
        assert (role_of(name, model) == "vectors") == (len(shape) == 1)
