"""The translation model: what it sees, that padding changes nothing, and one step at a time."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.tiny import D, T, V
from tests.tiny_translation import (
    BATCH,
    FAMILIES,
    SHAPES,
    SOURCE_V,
    SOURCES,
    TARGETS,
    TIES,
    batch_of,
    settings,
    tiny_model,
)
from tyro_cli.models.head_loss import IGNORED
from tyro_cli.models.initialization import standard_deviation
from tyro_cli.models.layers import Dropout, padding_mask
from tyro_cli.models.translation_model import Decoding, TranslationModel, build_translation_model
from tyro_cli.models.tying import softmax_matrix

shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(map(str, s.values())))


def exact_nats(model: TranslationModel, batch: Any) -> torch.Tensor:
    """Return the sum of nats in float64; the head loss works in float32."""
    hidden = model.hidden(*batch[:3], torch.float64, None).flatten(0, 1)
    logits = hidden @ softmax_matrix(model).t()
    targets = batch.target_out_BT.flatten()
    return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


@shapes
def test_a_padded_batch_has_the_loss_of_its_sentences(shape: dict[str, Any]) -> None:
    model = tiny_model(**shape).double()
    alone = [batch_of([s], [t]) for s, t in zip(SOURCES, TARGETS, strict=True)]
    together = exact_nats(model, BATCH)
    one_by_one = sum(exact_nats(model, one) for one in alone)
    torch.testing.assert_close(together, one_by_one, rtol=1e-12, atol=0.0)
    first = torch.autograd.grad(together, list(model.parameters()))
    second = torch.autograd.grad(one_by_one, list(model.parameters()))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)

    model = model.float()
    counts = [len(target) + 1 for target in TARGETS]
    total = sum(n * model.loss(*one)[1].item() for n, one in zip(counts, alone, strict=True))
    assert model.loss(*BATCH)[1].item() == pytest.approx(total / sum(counts), rel=1e-5)


@shapes
def test_what_stands_at_padding_means_nothing(shape: dict[str, Any]) -> None:
    model = tiny_model(**shape)
    source, target = BATCH.source_BS.clone(), BATCH.target_in_BT.clone()
    source[1, 2:], source[3, 1:], target[0, 3:] = 44, 45, 46
    changed = BATCH._replace(source_BS=source, target_in_BT=target)
    assert torch.equal(model.nats(*changed), model.nats(*BATCH))


def test_nats_are_unsmoothed_and_zero_at_padding() -> None:
    model = tiny_model()
    nats = model.nats(*BATCH)
    counted = BATCH.target_out_BT != IGNORED
    assert nats.dtype == torch.float32 and nats.shape == counted.shape
    assert (nats[~counted] == 0).all() and (nats[counted] > 0).all()
    objective, reported = model.loss(*BATCH, label_smoothing=0.3)
    assert reported.item() == pytest.approx((nats.sum() / counted.sum()).item(), rel=1e-6)
    expected = F.cross_entropy(
        model.hidden(*BATCH[:3], torch.float32, None).flatten(0, 1) @ softmax_matrix(model).t(),
        BATCH.target_out_BT.flatten(),
        ignore_index=IGNORED,
        label_smoothing=0.3,
    )
    torch.testing.assert_close(objective, expected)
    assert objective.requires_grad and not reported.requires_grad


@shapes
def test_the_decoder_is_causal_and_the_encoder_is_not(shape: dict[str, Any]) -> None:
    model = tiny_model(**shape)
    before = model.hidden(*BATCH[:3], torch.float32, None)
    target = BATCH.target_in_BT.clone()
    target[1, 5:] += 9
    after = model.hidden(*BATCH[:2], target, torch.float32, None)
    assert torch.equal(before[1, :5], after[1, :5]) and not torch.equal(before[1, 5], after[1, 5])
    source = BATCH.source_BS.clone()
    source[2, 4] += 9  # its last token
    mask = padding_mask(BATCH.source_lengths_B, T, torch.float32)
    first, second = (model.encode(s, mask, torch.float32, None) for s in (BATCH.source_BS, source))
    assert not torch.equal(first[2, 0], second[2, 0])
    assert torch.equal(first[[0, 1, 3]], second[[0, 1, 3]])
    changed = model.hidden(source, *BATCH[1:3], torch.float32, None)
    assert not torch.equal(before[2, 0], changed[2, 0])


@pytest.mark.parametrize("positions", ["learned", "rotary", "sinusoidal"])
def test_both_sides_know_the_order_of_their_words(positions: str) -> None:
    model = tiny_model(positions=positions).double()
    mask = padding_mask(torch.tensor([3]), 3, torch.float64)
    encoded = [
        model.encode(torch.tensor([s]), mask, torch.float64, None) for s in ([1, 2, 3], [3, 2, 1])
    ]
    assert not torch.allclose(encoded[0], encoded[1].flip(1), rtol=1e-6, atol=1e-9)
    lengths, source = torch.tensor([1]), torch.tensor([[4]])
    hidden = [
        model.hidden(source, lengths, torch.tensor([t]), torch.float64, None)[0, -1]
        for t in ([1, 2, 3], [2, 1, 3])
    ]
    assert not torch.allclose(hidden[0], hidden[1], rtol=1e-6, atol=1e-9)


def test_learned_positions_have_a_matrix_a_side() -> None:
    model = tiny_model(positions="learned")
    names = dict(model.named_parameters())
    for name, changes_encoder in (("positions.weight", False), ("source_positions.weight", True)):
        twin = tiny_model(positions="learned")
        with torch.no_grad():
            twin.get_parameter(name)[0] += 1.0
        mask = padding_mask(BATCH.source_lengths_B, T, torch.float32)
        encoded = [m.encode(BATCH.source_BS, mask, torch.float32, None) for m in (model, twin)]
        assert torch.equal(*encoded) != changes_encoder
        assert not torch.equal(*(m.nats(*BATCH) for m in (model, twin)))
        assert names[name].shape == (T, D)


@shapes
def test_one_token_at_a_time_gives_the_probabilities_of_all_at_once(shape: dict[str, Any]) -> None:
    model = tiny_model(**shape).double()
    hidden = model.hidden(*BATCH[:3], torch.float64, None)
    expected = torch.log_softmax(hidden @ softmax_matrix(model).t(), dim=-1)
    decoding = Decoding(model, BATCH.source_BS, BATCH.source_lengths_B, torch.float64)
    for place in range(T):
        found = decoding.step(BATCH.target_in_BT[:, place])
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected[:, place], rtol=1e-11, atol=1e-11)


def test_rows_of_one_sentence_share_its_source_and_can_be_chosen() -> None:
    model = tiny_model().double()
    sources, lengths = BATCH.source_BS[:3], BATCH.source_lengths_B[:3]
    prefixes = [[0, 4, 6], [0, 12, 13], [0, 5, 5], [0, 6, 4]]
    owners = [2, 2, 0, 0]
    decoding = Decoding(model, sources, lengths, torch.float64)
    decoding.step(torch.zeros(6, dtype=torch.int64))
    decoding.step(torch.tensor([5, 6, 1, 1, 4, 12]))  # two rows for each of three sentences
    decoding.select(torch.tensor([4, 5, 0, 1]), torch.tensor([2, 0]))
    found = decoding.step(torch.tensor([6, 13, 5, 4]))
    for row, (owner, prefix) in enumerate(zip(owners, prefixes, strict=True)):
        hidden = model.hidden(
            sources[[owner]], lengths[[owner]], torch.tensor([prefix]), torch.float64, None
        )
        logits = hidden[0, -1] @ softmax_matrix(model).t()
        torch.testing.assert_close(found[row], torch.log_softmax(logits, dim=-1))


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_stays_near_float32(family: str) -> None:
    model = tiny_model(family=family)
    exact = model.hidden(*BATCH[:3], torch.float32, None)
    rough = model.hidden(*BATCH[:3], torch.bfloat16, None)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() / exact.norm() < 0.02
    decoding = Decoding(model, BATCH.source_BS, BATCH.source_lengths_B, torch.bfloat16)
    assert decoding.step(BATCH.target_in_BT[:, 0]).dtype == torch.float32


@pytest.mark.parametrize(
    ("place", "encoder", "decoder"),
    [("embedding", True, True), ("residual", True, True), ("output", False, True)],
)
def test_dropout_acts_on_both_sides(place: str, encoder: bool, decoder: bool) -> None:
    places = {"embedding": 0.0, "residual": 0.0, "output": 0.0} | {place: 0.5}
    model = tiny_model(dropout=places)
    mask = padding_mask(BATCH.source_lengths_B, T, torch.float32)
    dropout = Dropout(0, torch.device("cpu"))
    encoded = model.encode(BATCH.source_BS, mask, torch.float32, None)
    dropped = model.encode(BATCH.source_BS, mask, torch.float32, dropout)
    assert torch.equal(encoded, dropped) != encoder
    sources = model.decoder.sources(encoded, mask)
    plain = model.decode(BATCH.target_in_BT, sources, torch.float32, None)
    assert torch.equal(
        plain, model.decode(BATCH.target_in_BT, sources, torch.float32, dropout)
    ) != (decoder)


def test_scales_act_where_they_say() -> None:
    plain, scaled = tiny_model(), tiny_model(head_scale="inverse_sqrt_d")
    first, second = (m.hidden(*BATCH[:3], torch.float32, None) for m in (plain, scaled))
    torch.testing.assert_close(second * D**0.5, first)
    scaled = tiny_model(embedding_scale="sqrt_d")
    with torch.no_grad():
        for matrix in (plain.embedding, plain.source_embedding):
            assert matrix is not None
            matrix.weight *= D**0.5
    torch.testing.assert_close(
        scaled.hidden(*BATCH[:3], torch.float32, None),
        plain.hidden(*BATCH[:3], torch.float32, None),
    )


def test_vocabularies_may_differ() -> None:
    model = tiny_model(sharing="separate", source_vocab_size=SOURCE_V)
    assert model.source_embedding is not None
    assert model.source_embedding.weight.shape == (SOURCE_V, D)
    assert softmax_matrix(model).shape == model.embedding.weight.shape == (V, D)
    assert model.loss(*BATCH)[0].isfinite()


@pytest.mark.parametrize("tying", TIES)
def test_initial_values_follow_their_table(tying: str) -> None:
    config = settings(
        family="gpt2", d_model=64, num_heads=4, num_encoder_layers=3, tying=tying
    ).model
    model = build_translation_model(config, 500, 500, 40, seed=0)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            expected = 1.0 if name.endswith("norm.weight") else 0.0
            assert (parameter == expected).all(), name
        else:
            wanted = standard_deviation(name, config)
            assert parameter.std().item() == pytest.approx(wanted, rel=0.05), name
    # Three sublayers write to the decoder's stream in each of 2 layers, two to the encoder's in 3.
    for name in ("attention.output", "cross_attention.output", "feed_forward.down"):
        wanted = standard_deviation(f"decoder.blocks.1.{name}.weight", config)
        assert wanted == pytest.approx(0.02 / 6**0.5)
    assert standard_deviation("encoder.blocks.2.feed_forward.down.weight", config) == (
        pytest.approx(0.02 / 6**0.5)
    )
    assert standard_deviation("source_positions.weight", config) == 0.02
    wide = settings(d_model=512).model
    assert standard_deviation("source_embedding.weight", wide) == 2.5 / 512
