"""The account of a translation model: names, rows, FLOPs, memory, and what each tie saves."""

import json
from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tiny
from tests.tiny_translation import SHAPES, SOURCE_V, TIES, settings
from tyro_cli.config.schema import Arm, Match, ModelConfig
from tyro_cli.ledger.ledger import COMPONENTS, ledger_of
from tyro_cli.ledger.matching import NoMatch, solve_matches
from tyro_cli.ledger.memory import (
    DECODING_POSITIONS,
    SHAPES_BYTES,
    TrainingMemory,
    training_memory,
)
from tyro_cli.ledger.parameters import count_parameters, parameter_shapes, role_of

V, T = 61, 8
ROWS = (COMPONENTS[0], "source embedding", *COMPONENTS[1:])


@st.composite
def models(draw: st.DrawFn) -> ModelConfig:
    num_heads = draw(st.integers(1, 4))
    return settings(
        family=draw(st.sampled_from(["llama", "gpt2"])),
        positions=draw(st.sampled_from([None, "learned", "rotary", "sinusoidal"])),
        norm_place=draw(st.sampled_from(["pre", "post"])),
        num_heads=num_heads,
        d_model=2 * num_heads * draw(st.integers(1, 6)),
        num_layers=draw(st.integers(1, 4)),
        num_encoder_layers=draw(st.none() | st.integers(1, 4)),
        d_ff=draw(st.none() | st.integers(1, 99)),
        tying=draw(st.sampled_from(TIES)),
    ).model


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tying", TIES)
def test_the_real_model_has_exactly_these_parameters(shape: dict[str, Any], tying: str) -> None:
    from tyro_cli.models.translation_model import TranslationModel
    from tyro_cli.models.tying import unique_parameters

    source_vocab_size = V if tying == "three-way" else SOURCE_V
    chosen = settings(tying=tying, **shape)
    real = TranslationModel(chosen.model, source_vocab_size, V, T)
    shapes = parameter_shapes(chosen.model, V, T, source_vocab_size)
    assert shapes == {name: tuple(p.shape) for name, p in real.named_parameters()}
    ledger = ledger_of(chosen, V, source_vocab_size=source_vocab_size)
    assert ledger.total == unique_parameters(real)
    assert ledger.source_vocab_size == source_vocab_size


def test_products_of_many_shapes_are_remembered_in_bfloat16() -> None:
    shapes = {name: training_memory(settings(), V, name).shapes for name in ("fp32", "bf16")}
    assert shapes == {"fp32": 0, "bf16": SHAPES_BYTES}
    assert training_memory(tiny.settings(), V, "bf16").shapes == 0


def test_names_of_a_layer_are_the_agreed_ones() -> None:
    names = list(parameter_shapes(settings(num_layers=1, positions="learned").model, V, T, V))
    assert names == [
        "source_embedding.weight",
        "source_positions.weight",
        "encoder.blocks.0.attention_norm.weight",
        "encoder.blocks.0.attention.query_key_value.weight",
        "encoder.blocks.0.attention.output.weight",
        "encoder.blocks.0.feed_forward_norm.weight",
        "encoder.blocks.0.feed_forward.gate_up.weight",
        "encoder.blocks.0.feed_forward.down.weight",
        "encoder.final_norm.weight",
        "embedding.weight",
        "positions.weight",
        "decoder.blocks.0.attention_norm.weight",
        "decoder.blocks.0.attention.query_key_value.weight",
        "decoder.blocks.0.attention.output.weight",
        "decoder.blocks.0.cross_attention_norm.weight",
        "decoder.blocks.0.cross_attention.query.weight",
        "decoder.blocks.0.cross_attention.key_value.weight",
        "decoder.blocks.0.cross_attention.output.weight",
        "decoder.blocks.0.feed_forward_norm.weight",
        "decoder.blocks.0.feed_forward.gate_up.weight",
        "decoder.blocks.0.feed_forward.down.weight",
        "decoder.final_norm.weight",
        "head.weight",
    ]


@given(model=models(), vocab_size=st.integers(2, 500), context_length=st.integers(2, 64))
def test_in_out_saves_one_matrix_and_three_way_two(
    model: ModelConfig, vocab_size: int, context_length: int
) -> None:
    counts = {
        tying: count_parameters(
            model.model_copy(update={"tying": tying}), vocab_size, context_length, vocab_size
        )
        for tying in TIES
    }
    assert counts["none"] - counts["in-out"] == vocab_size * model.d_model
    assert counts["none"] - counts["three-way"] == 2 * vocab_size * model.d_model
    shapes = parameter_shapes(model, vocab_size, context_length, vocab_size)
    assert counts[model.tying] == sum(map(prod, shapes.values()))


def test_the_saving_is_the_formula() -> None:
    totals = [ledger_of(settings(tying=tying), V).total for tying in TIES]
    assert [totals[0] - total for total in totals] == [0, V * 16, 2 * V * 16]
    # With separate vocabularies the tie saves the target's matrix.
    none, tied = (settings("separate", tying=tying) for tying in ("none", "in-out"))
    totals = [ledger_of(one, V, source_vocab_size=SOURCE_V).total for one in (none, tied)]
    assert totals[0] - totals[1] == V * 16


def test_the_rows_by_hand() -> None:
    chosen = settings(family="gpt2", num_layers=1, num_encoder_layers=2)
    ledger = ledger_of(chosen, V, source_vocab_size=SOURCE_V)
    attention = 4 * 256 + 4 * 16
    assert {row.component: row.parameters for row in ledger.rows} == {
        "token embedding": 61 * 16,
        "source embedding": 47 * 16,
        "positions": 2 * 8 * 16,
        "attention": (2 + 2) * attention,
        "feed-forward": 3 * (2 * 16 * 64 + 64 + 16),
        "norms": (2 * 2 + 3 + 2) * 32,
        "head": 61 * 16,
    }
    assert tuple(row.component for row in ledger.rows) == ROWS
    outside = (61 + 47 + 61 + 16) * 16
    assert ledger.non_embedding == ledger.total - outside
    three_way = ledger_of(settings(tying="three-way"), V)
    assert [row.parameters for row in three_way.rows[:2]] == [61 * 16, 0]


def test_forward_flops_by_hand_whatever_the_tie() -> None:
    # A source token: an encoder block each. A target token: a block with two attentions; keys and
    # values of the source token are the cross-attention's, its query and output the target's.
    expected = {
        "attention": 2 * ((3 + 2) * (4 * 256 + 2 * 8 * 16) + 2 * (4 * 256 + 2 * 8 * 16)),
        "feed-forward": 2 * (3 + 2) * 3 * 16 * 48,
        "head": 2 * 61 * 16,
    }
    for tying in TIES:
        ledger = ledger_of(settings(tying=tying, num_encoder_layers=3), V)
        flops = {row.component: row.forward_flops_per_token for row in ledger.rows}
        assert flops == dict.fromkeys(ROWS, 0) | expected
        assert ledger.forward_flops_per_token == sum(expected.values())


def test_forward_flops_are_those_that_torch_counts() -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from tyro_cli.models.translation_model import build_translation_model

    chosen = settings(num_encoder_layers=3)
    model = build_translation_model(chosen.model, V, V, T, seed=0)
    tokens = torch.ones((2, T), dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model.hidden(tokens, torch.full((2,), T), tokens, torch.float32, None)
    ledger = ledger_of(chosen, V)
    assert counter.get_total_flops() == 2 * T * (
        ledger.forward_flops_per_token - ledger.rows[-1].forward_flops_per_token
    )


def test_a_record_names_the_sources_vocabulary_and_reads_back() -> None:
    from tyro_cli.analysis.formats import LedgerRecord

    record = ledger_of(settings("separate"), V, source_vocab_size=SOURCE_V).as_record()
    assert json.loads(json.dumps(record)) == record
    assert LedgerRecord.model_validate(record).source_vocab_size == SOURCE_V


@pytest.mark.parametrize("tied_role", ["embedding", "head"])
def test_roles(tied_role: str) -> None:
    for tying in TIES:
        model = settings(tying=tying, tied_role=tied_role).model
        shared = "embedding" if tying == "none" else tied_role
        assert role_of("embedding.weight", model) == shared
        assert role_of("source_embedding.weight", model) == "embedding"
        assert role_of("source_positions.weight", model) == "embedding"
        assert role_of("decoder.blocks.0.cross_attention.query.weight", model) == "matrices"
        assert role_of("decoder.blocks.0.cross_attention_norm.weight", model) == "vectors"
        assert role_of("encoder.final_norm.weight", model) == "vectors"


@given(model=models())
def test_a_vector_is_what_has_one_dimension(model: ModelConfig) -> None:
    for name, shape in parameter_shapes(model, V, T, V).items():
        assert (role_of(name, model) == "vectors") == (len(shape) == 1)


def arm(name: str, match: tuple[str, str] | None = None, **model: Any) -> Arm:
    wanted = (
        None if match is None else Match.model_validate({"parameters_of": match[0], "by": match[1]})
    )
    return Arm(name=name, settings=settings(**model), match=wanted)


def test_an_arm_is_matched_with_both_sides_counted() -> None:
    arms = {
        "none": arm("none", num_layers=1),
        "wide": arm("wide", ("none", "d_ff"), num_layers=1, tying="three-way"),
    }
    solved = solve_matches(arms, V)
    assert solved["none"].parameters == ledger_of(arms["none"].settings, V).total
    # Two blocks of 3 * 16 numbers a unit of d_ff buy back two matrices of 61 * 16.
    assert solved["wide"].value == 48 + round(2 * 61 / 6)
    assert solved["wide"].parameters == ledger_of(solved["wide"].arm.settings, V).total
    source = solve_matches(arms, V, SOURCE_V)["none"]
    assert solved["none"].parameters - source.parameters == (V - SOURCE_V) * 16


def test_layers_are_matched_from_one_on() -> None:
    """A decoder without any never looks at its source."""
    arms = {"none": arm("none", d_model=8), "deep": arm("in-out", ("none", "num_layers"))}
    with pytest.raises(NoMatch):
        solve_matches(arms, V)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("norm_place", ["pre", "post"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_activations_are_what_the_real_model_keeps(
    family: str, norm_place: str, dropout: float, precision: str
) -> None:
    """The estimate counts the bytes that autograd saves, but for masks and token numbers."""
    import torch

    from tyro_cli.models.layers import Dropout
    from tyro_cli.models.translation_model import build_translation_model

    shape = {"family": family, "norm_place": norm_place, "dropout": dropout, "d_model": 64}
    chosen = settings(batch_tokens=128, num_layers=3, num_encoder_layers=2, **shape)
    model = build_translation_model(chosen.model, V, V, T, seed=0)
    own = [*model.parameters(), *model.buffers()]
    kept = {tensor.untyped_storage().data_ptr(): 0 for tensor in own}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(storage.data_ptr(), storage.nbytes())
        alive.append(tensor)  # so that no address is used twice
        return tensor

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    tokens = torch.arange(64).view(8, T) % V
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        lengths = torch.full((8,), T)
        model.hidden(tokens, lengths, tokens, dtype, Dropout(0, torch.device("cpu")))
    memory: TrainingMemory = training_memory(chosen, V, precision)  # type: ignore[arg-type]
    copies = memory.copies - 2 * V * 64 if precision == "bf16" else 0
    allowed = 0.01 if precision == "bf16" else 0.005
    assert memory.activations + copies == pytest.approx(sum(kept.values()), rel=allowed)


def test_the_search_is_part_of_the_evaluation() -> None:
    shape = {"d_model": 256, "num_layers": 3, "num_heads": 4}
    memory = training_memory(settings(**shape), V)
    # Keys and values of three layers, and of one while it is chosen from.
    assert memory.evaluation >= 4 * DECODING_POSITIONS * 2 * 256 * 4
    assert memory.evaluation < 1.5 * 4 * DECODING_POSITIONS * 2 * 256 * 4


def test_the_head_sees_half_of_a_batch() -> None:
    smaller, larger = (training_memory(settings(batch_tokens=n), V).head for n in (64, 128))
    # A chunk of logits and a slice of its softmax; hidden states and their gradient.
    assert larger - smaller == 32 * (2 * 4 * V + 2 * 4 * 16)


def test_long_contexts_keep_the_probabilities_of_their_shorter_sentences() -> None:
    def activations(context_length: int) -> int:
        chosen = settings(batch_tokens=8192)
        data = chosen.data.model_copy(update={"context_length": context_length})
        return training_memory(chosen.model_copy(update={"data": data}), V).activations

    # 2 heads, half of the tokens a side; 2 encoder blocks, 2 of the decoder with two attentions.
    assert activations(1024) - activations(1023) == 4096 * 4 * 2 * (2 + 4)
    assert activations(2048) == activations(1024)


def test_a_source_vocabulary_of_its_own_counts() -> None:
    one, other = (training_memory(settings("separate"), V, None, n) for n in (SOURCE_V, 1000))
    assert other.weights - one.weights == 4 * (1000 - SOURCE_V) * 16
    assert other.head == one.head
