"""Sizes that come again: what is added to a batch in bfloat16, and that it changes no loss."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tiny import V
from tests.tiny_translation import SHAPES, batch_of, settings, tiny_model
from tyro_cli.models import head_loss, layers, translation_model
from tyro_cli.models.shapes import padding_of, rounded_up
from tyro_cli.models.translation_model import TranslationModel, build_translation_model

CPU = torch.device("cpu")
LONGEST = 50
PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.bmm.default, torch.ops.aten.addmm.default}


class Products(TorchDispatchMode):
    """Notes the shape of every matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[tuple[int, ...], ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS:
            self.seen.add(tuple(tuple(one.shape) for one in args[-2:]))
        return func(*args, **(kwargs or {}))


def test_sizes_have_three_significant_bits_and_grow_by_a_quarter_at_most():
    sizes = [rounded_up(size) for size in range(1, 5000)]
    for size, rounded in enumerate(sizes, start=1):
        assert size <= rounded < 1.25 * size
        assert set(f"{rounded:b}"[3:]) <= {"0"}
    assert len({one for one in sizes if 1024 < one <= 2048}) == 4
    assert sizes[:9] == [1, 2, 3, 4, 5, 6, 7, 8, 10]


def test_only_bfloat16_on_a_cpu_is_padded():
    assert padding_of(129, CPU, torch.bfloat16) == 31
    assert padding_of(129, CPU, torch.float32) == 0
    assert padding_of(129, torch.device("cuda"), torch.bfloat16) == 0


def long_model(**model: Any) -> TranslationModel:
    return build_translation_model(settings(**model).model, V, V, LONGEST, seed=0)


def sentences(lengths: list[int], first: int) -> list[list[int]]:
    return [[first + place % 7 for place in range(length)] for length in lengths]


def passes(model: Any, pairs: list[tuple[int, int]], dtype: torch.dtype) -> Any:
    """Return objective, nats, the nats of every token and the gradients of one batch."""
    batch = batch_of(sentences([s for s, _ in pairs], 3), sentences([t for _, t in pairs], 5))
    model.zero_grad()
    objective, nats = model.loss(*batch, dtype, None, 0.1)
    objective.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return objective.detach(), nats, model.nats(*batch, dtype), gradients


@pytest.fixture
def unpadded(monkeypatch) -> Callable[[], None]:
    def patch() -> None:
        for module in (layers, head_loss, translation_model):
            monkeypatch.setattr(module, "padding_of", lambda size, device, dtype: 0)

    return patch


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(map(str, s.values())))
def test_what_is_added_changes_no_loss_and_no_gradient(shape, unpadded):
    model, pairs = tiny_model(**shape), [(4, 7), (2, 3), (5, 6)]
    with Products() as products:
        padded = passes(model, pairs, torch.bfloat16)
    unpadded()
    with Products() as others:
        plain = passes(model, pairs, torch.bfloat16)
    assert products.seen != others.seen
    assert padded[2].shape == plain[2].shape
    for ours, theirs in zip(padded[:3], plain[:3], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
    for ours, theirs in zip(padded[3], plain[3], strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=0.05 * scale + 1e-6)


def test_batches_of_many_shapes_need_few_products(unpadded):
    model = long_model()
    lengths = [(source, source + more) for source in range(17, 33, 2) for more in (0, 1, 3)]
    batches = [[pair] * (512 // sum(pair)) for pair in lengths]

    def count() -> int:
        with Products() as products:
            for pairs in batches:
                passes(model, pairs, torch.bfloat16)
        return len(products.seen)

    padded = count()
    unpadded()
    assert padded < count() / 4


def test_float32_is_left_as_it_is(unpadded):
    model, pairs = tiny_model(), [(4, 6), (2, 3), (5, 5)]
    ours = passes(model, pairs, torch.float32)
    unpadded()
    theirs = passes(model, pairs, torch.float32)
    assert all(map(torch.equal, [*ours[:3], *ours[3]], [*theirs[:3], *theirs[3]]))


def test_no_more_positions_than_the_model_has():
    model = long_model(positions="learned")
    batch = batch_of(sentences([LONGEST - 1], 3), sentences([LONGEST - 1], 5))
    assert rounded_up(LONGEST) > LONGEST
    assert model.nats(*batch, torch.bfloat16).shape == (1, LONGEST)
