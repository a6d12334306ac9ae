"""The contracts of the tie for translation: encoder input, decoder input and softmax.

Each test names the line that it guards; tests/README.md lists them with the break that was tried.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tests import tiny
from tests.tiny_translation import BATCH, FAMILIES, TIES, settings, tiny_model
from tyro_cli.errors import BrokenArm
from tyro_cli.models.head_loss import IGNORED
from tyro_cli.models.initialization import parameter_digests
from tyro_cli.models.layers import padding_mask
from tyro_cli.models.translation_model import TranslationModel
from tyro_cli.models.tying import (
    VocabularyMatrix,
    softmax_matrix,
    source_matrix,
    tie_metadata,
    unique_parameters,
    verify_tie,
)
from tyro_cli.training.checkpoints import load_model, save_checkpoint
from tyro_cli.training.optimizer import make_optimizer

MATRICES = {"none": 3, "in-out": 2, "three-way": 1}


def storages(model: TranslationModel) -> int:
    """Count the storages of the three vocabulary matrices."""
    matrices = (source_matrix(model), model.embedding.weight, softmax_matrix(model))
    return len({matrix.untyped_storage().data_ptr() for matrix in matrices})


def loss_of(model: TranslationModel) -> torch.Tensor:
    return model.loss(*BATCH, label_smoothing=0.1)[0]


def equal_twin(model: TranslationModel, **common: Any) -> TranslationModel:
    """Return an untied model with the weights of a tied one."""
    twin = tiny_model(tying="none", **common).to(model.embedding.weight.dtype)
    assert twin.source_embedding is not None and twin.head is not None
    with torch.no_grad():
        twin.source_embedding.weight.copy_(source_matrix(model))
        twin.head.weight.copy_(softmax_matrix(model))
    return twin


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tying", TIES)
def test_a_model_has_as_many_matrices_as_its_tie_says(family: str, tying: str) -> None:
    model = tiny_model(family=family, tying=tying)
    assert storages(model) == MATRICES[tying]
    names = {name for name in model.state_dict() if "embedding" in name or "head" in name}
    own = {
        "none": {"source_embedding.weight", "head.weight"},
        "in-out": {"source_embedding.weight"},
    }
    assert names == {"embedding.weight"} | own.get(tying, set())
    assert len(names) == MATRICES[tying]
    verify_tie(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_tie_saves_exactly_its_matrices(family: str) -> None:
    counts = [unique_parameters(tiny_model(family=family, tying=tying)) for tying in TIES]
    assert counts[0] - counts[1] == counts[1] - counts[2] == tiny.V * tiny.D


def test_all_three_places_really_use_the_shared_matrix() -> None:
    model = tiny_model(tying="three-way")
    mask = padding_mask(BATCH.source_lengths_B, tiny.T, torch.float32)

    def seen() -> tuple[torch.Tensor, torch.Tensor]:
        encoded = model.encode(BATCH.source_BS, mask, torch.float32, None)
        hidden = model.hidden(*BATCH[:3], torch.float32, None)
        return encoded.detach(), (hidden @ softmax_matrix(model).t()).detach()

    before = seen()
    with torch.no_grad():
        model.embedding.weight[60] += 1.0  # a token that neither side reads
    encoded, logits = seen()
    assert torch.equal(encoded, before[0])
    assert (logits != before[1]).any(dim=0).any(dim=0).nonzero().flatten().tolist() == [60]
    with torch.no_grad():
        model.embedding.weight[7] += 1.0  # the first token of the second source alone
    changed = (seen()[0] != encoded).flatten(1).any(dim=1)
    assert changed.tolist() == [False, True, False, False]


@pytest.mark.parametrize("tying", TIES)
def test_the_tie_survives_a_dtype_move_and_deepcopy(tying: str) -> None:
    model = tiny_model(tying=tying)
    assert storages(model) == MATRICES[tying]
    model.to(torch.float64).to(torch.float32)
    twin = copy.deepcopy(model)
    for one in (model, twin):
        assert storages(one) == MATRICES[tying]
        verify_tie(one)
    assert twin.embedding.weight.data_ptr() != model.embedding.weight.data_ptr()


@pytest.mark.parametrize("tying", TIES)
def test_the_tie_survives_save_and_load_with_the_same_loss(tmp_path: Path, tying: str) -> None:
    model = tiny_model(seed=1, tying=tying)
    path = save_checkpoint(tmp_path, "best", 7, model, None, {})  # type: ignore[arg-type]
    other = tiny_model(seed=2, tying=tying)
    state = load_model(path, other)  # type: ignore[arg-type]
    assert storages(other) == MATRICES[tying]
    assert loss_of(other).item() == loss_of(model).item()
    assert len(load_file(path / "model.safetensors")) == len(list(model.parameters()))
    assert state["tie"] == {
        "tying": tying,
        "softmax_matrix": "head.weight" if tying == "none" else "embedding.weight",
        "source_matrix": (
            "embedding.weight" if tying == "three-way" else "source_embedding.weight"
        ),
        "unique_parameters": unique_parameters(model),
    }


@pytest.mark.parametrize("stored", TIES)
@pytest.mark.parametrize("wanted", TIES)
def test_a_checkpoint_of_another_arm_is_refused(tmp_path: Path, stored: str, wanted: str) -> None:
    if stored == wanted:
        return
    model = tiny_model(tying=stored)
    path = save_checkpoint(tmp_path, "best", 1, model, None, {})  # type: ignore[arg-type]
    with pytest.raises(BrokenArm, match=r"head\.weight|source_embedding\.weight"):
        load_model(path, tiny_model(tying=wanted))  # type: ignore[arg-type]


@pytest.mark.parametrize("tying", TIES)
def test_the_tie_survives_an_optimizer_step_and_is_one_entry(tying: str) -> None:
    model, config = tiny_model(tying=tying), settings(tying=tying)
    optimizer = make_optimizer(model, config.model, config.training.optimizer)
    entries = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(entries) == len(set(entries)) == len(list(model.parameters()))
    for matrix in (source_matrix(model), model.embedding.weight, softmax_matrix(model)):
        assert entries.count(id(matrix)) == 1
    before = [parameter.detach().clone() for parameter in model.parameters()]
    loss_of(model).backward()
    optimizer.step()
    assert storages(model) == MATRICES[tying]
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert not torch.equal(parameter, old)


@pytest.mark.parametrize(("tied_role", "rate"), [("head", 3.0), ("embedding", 0.5)])
def test_the_shared_matrix_takes_the_role_it_is_given(tied_role: str, rate: float) -> None:
    model = tiny_model(tying="three-way", tied_role=tied_role)
    roles = {"embedding": {"rate": 0.5}, "head": {"rate": 3.0}}
    optimizer_config = settings().training.optimizer.model_dump() | {"roles": roles}
    config = type(settings().training.optimizer).model_validate(optimizer_config)
    optimizer = make_optimizer(model, model.config, config)
    rates = [
        group["base_rate"]
        for group in optimizer.param_groups
        if any(p is model.embedding.weight for p in group["params"])
    ]
    assert rates == [pytest.approx(0.01 * rate)]


@pytest.mark.slow
def test_the_tie_survives_compile() -> None:
    model = tiny_model(tying="three-way", num_layers=1)
    twin = copy.deepcopy(model)
    model.hidden = torch.compile(model.hidden, backend="aot_eager")  # type: ignore[method-assign]
    for one in (model, twin):
        loss_of(one).backward()
    torch.testing.assert_close(model.embedding.weight.grad, twin.embedding.weight.grad)
    assert storages(model) == 1
    verify_tie(model)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tying", ["in-out", "three-way"])
@pytest.mark.parametrize("scales", [("none", "none"), ("sqrt_d", "inverse_sqrt_d")])
def test_the_shared_gradient_is_the_sum_of_an_untied_twins(
    family: str, tying: str, scales: tuple[str, str]
) -> None:
    common = {"family": family, "embedding_scale": scales[0], "head_scale": scales[1]}
    tied = tiny_model(tying=tying, **common).double()
    untied = equal_twin(tied, **common)
    for model in (tied, untied):
        hidden = model.hidden(*BATCH[:3], torch.float64, None).flatten(0, 1)
        logits = hidden @ softmax_matrix(model).t()
        targets = BATCH.target_out_BT.flatten()
        F.cross_entropy(logits, targets, ignore_index=IGNORED).backward()
    parts = [untied.embedding.weight.grad, softmax_matrix(untied).grad]
    if tying == "three-way":
        parts.append(source_matrix(untied).grad)
    assert all(part is not None and part.abs().max() > 0 for part in parts)
    total = torch.stack([part for part in parts if part is not None]).sum(dim=0)
    torch.testing.assert_close(tied.embedding.weight.grad, total, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_training_loss_gives_the_shared_matrix_all_three_gradients(family: str) -> None:
    tied = tiny_model(family=family, tying="three-way")
    untied = equal_twin(tied, family=family)
    for model in (tied, untied):
        loss_of(model).backward()
    matrices = (source_matrix(untied), untied.embedding.weight, softmax_matrix(untied))
    total = torch.zeros(tiny.V, tiny.D)
    for matrix in matrices:
        assert matrix.grad is not None and matrix.grad.abs().max() > 0
        total += matrix.grad
    torch.testing.assert_close(tied.embedding.weight.grad, total, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_initial_parameters_are_bit_equal(family: str) -> None:
    none, in_out, three_way = (
        parameter_digests(tiny_model(seed=5, family=family, tying=tying)) for tying in TIES
    )
    assert set(none) - set(in_out) == {"head.weight"}
    assert set(in_out) - set(three_way) == {"source_embedding.weight"}
    assert {name: none[name] for name in in_out} == in_out
    assert {name: none[name] for name in three_way} == three_way
    own = ("embedding.weight", "source_embedding.weight", "head.weight")
    assert len({str(none[name]["sha256"]) for name in own}) == 3
    other = parameter_digests(tiny_model(seed=6, family=family, tying="three-way"))
    assert other != three_way


def test_a_broken_tie_is_caught() -> None:
    tied = tiny_model(tying="three-way")
    tied.source_embedding = VocabularyMatrix(tiny.V, tiny.D)
    with pytest.raises(BrokenArm, match="read with two matrices"):
        verify_tie(tied)
    assert tie_metadata(tied)["tying"] == "in-out"
    tied = tiny_model(tying="three-way")
    tied.head = VocabularyMatrix(tiny.V, tiny.D)
    with pytest.raises(BrokenArm, match="softmax use two matrices"):
        verify_tie(tied)
    for tying in ("none", "in-out"):
        model = tiny_model(tying=tying)
        model.source_embedding = None
        with pytest.raises(BrokenArm, match="read with one matrix"):
            verify_tie(model)
        model = tiny_model(tying=tying)
        assert model.source_embedding is not None
        model.source_embedding.weight = model.embedding.weight
        with pytest.raises(BrokenArm, match="read with one matrix"):
            verify_tie(model)


def test_a_language_models_metadata_says_nothing_of_a_source() -> None:
    model = tiny.tiny_model(tying="in-out")
    assert tie_metadata(model) == {
        "tying": "in-out",
        "softmax_matrix": "embedding.weight",
        "unique_parameters": unique_parameters(model),
    }
