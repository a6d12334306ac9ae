"""The contracts of the tie and of the pair: what makes a comparison of two arms fair.

Each test names the line that it guards; tests/README.md lists them with the break that was tried.
"""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tyro_cli.data.batches import TrainingBatches
from tyro_cli.errors import BrokenArm
from tyro_cli.ledger.ledger import ledger_of
from tyro_cli.ledger.parameters import parameter_shapes
from tyro_cli.models.initialization import parameter_digests
from tyro_cli.models.language_model import LanguageModel
from tyro_cli.models.layers import Dropout
from tyro_cli.models.tying import (
    VocabularyMatrix,
    softmax_matrix,
    tie_metadata,
    unique_parameters,
    verify_tie,
)
from tyro_cli.storage.records import read_records
from tyro_cli.training import loop
from tyro_cli.training.checkpoints import load_model, save_checkpoint
from tyro_cli.training.loop import Trainer
from tyro_cli.training.optimizer import make_optimizer

FAMILIES = ["llama", "gpt2"]
TOKENS = torch.randint(tiny.V, (4, tiny.T + 1), generator=torch.Generator().manual_seed(3))


def shares(model: LanguageModel) -> bool:
    """Say whether embedding and softmax use one storage."""
    return softmax_matrix(model).data_ptr() == model.embedding.weight.data_ptr()


def loss_of(model: LanguageModel) -> torch.Tensor:
    return model.loss(TOKENS[:, :-1], TOKENS[:, 1:])


@pytest.mark.parametrize("family", FAMILIES)
def test_sharing_is_on_when_tied_and_off_when_not(family: str) -> None:
    tied, untied = (tiny.tiny_model(family=family, tying=t) for t in ("in-out", "none"))
    assert shares(tied) and not shares(untied)
    assert [n for n, _ in tied.named_parameters() if n.startswith("head")] == []
    assert "head.weight" not in tied.state_dict() and "head.weight" in untied.state_dict()
    verify_tie(tied)
    verify_tie(untied)


def test_a_tied_softmax_really_uses_the_embedding() -> None:
    model = tiny.tiny_model(tying="in-out")
    context = torch.tensor([[1, 2, 3]])  # without token 5, which only the output side sees
    before = model.logits(context)
    with torch.no_grad():
        model.embedding.weight[5] += 1.0
    changed = model.logits(context) != before
    assert changed[0, 5] and changed.sum() == 1


def test_the_tie_survives_a_dtype_move() -> None:
    model = tiny.tiny_model(tying="in-out")
    assert shares(model)
    model.to(torch.float64).to(torch.float32)
    assert shares(model)
    verify_tie(model)


def test_the_tie_survives_deepcopy() -> None:
    model = tiny.tiny_model(tying="in-out")
    twin = copy.deepcopy(model)
    assert shares(twin)
    assert twin.embedding.weight.data_ptr() != model.embedding.weight.data_ptr()


@pytest.mark.parametrize("tying", ["none", "in-out"])
def test_the_tie_survives_save_and_load_with_the_same_loss(tmp_path: Path, tying: str) -> None:
    model = tiny.tiny_model(seed=1, tying=tying)
    path = save_checkpoint(tmp_path, "best", 7, model, None, {})
    other = tiny.tiny_model(seed=2, tying=tying)
    load_model(path, other)
    assert shares(other) == (tying == "in-out")
    assert loss_of(other).item() == loss_of(model).item()
    assert len(load_file(path / "model.safetensors")) == len(list(model.parameters()))


def test_the_tie_survives_one_optimizer_step_and_stays_one_entry() -> None:
    model = tiny.tiny_model(tying="in-out")
    config = tiny.settings(tying="in-out")
    optimizer = make_optimizer(model, config.model, config.training.optimizer)
    entries = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(entries) == len(set(entries)) == len(list(model.parameters()))
    assert entries.count(id(model.embedding.weight)) == 1
    before = model.embedding.weight.detach().clone()
    loss_of(model).backward()
    optimizer.step()
    assert shares(model) and not torch.equal(before, model.embedding.weight)


@pytest.mark.slow
def test_the_tie_survives_compile() -> None:
    model = tiny.tiny_model(tying="in-out")
    twin = copy.deepcopy(model)
    model.hidden = torch.compile(model.hidden, backend="aot_eager")  # type: ignore[method-assign]
    for one in (model, twin):
        loss_of(one).backward()
    torch.testing.assert_close(model.embedding.weight.grad, twin.embedding.weight.grad)
    assert shares(model)
    verify_tie(model)


@pytest.mark.parametrize("tying", ["none", "in-out"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_layers", [0, 2])
def test_the_ledger_equals_the_model(family: str, tying: str, num_layers: int) -> None:
    settings = tiny.settings(family=family, tying=tying, num_layers=num_layers)
    model = tiny.tiny_model(family=family, tying=tying, num_layers=num_layers)
    assert ledger_of(settings, tiny.V).total == unique_parameters(model)
    shapes = parameter_shapes(settings.model, tiny.V, tiny.T)
    assert shapes == {name: tuple(p.shape) for name, p in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_untied_minus_tied_is_vocabulary_times_width(family: str) -> None:
    untied, tied = (tiny.tiny_model(family=family, tying=t) for t in ("none", "in-out"))
    assert unique_parameters(untied) - unique_parameters(tied) == tiny.V * tiny.D


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_initial_parameters_are_bit_equal(family: str) -> None:
    untied, tied = (
        parameter_digests(tiny.tiny_model(seed=5, family=family, tying=t))
        for t in ("none", "in-out")
    )
    assert set(untied) - set(tied) == {"head.weight"}
    assert {name: untied[name] for name in tied} == tied
    assert untied["head.weight"]["sha256"] != untied["embedding.weight"]["sha256"]
    assert parameter_digests(tiny.tiny_model(seed=6, family=family, tying="in-out")) != tied


def test_the_first_batches_of_two_arms_are_equal(tmp_path: Path) -> None:
    hashes = []
    for tying in ("none", "in-out"):
        trained = tiny.trained(tmp_path / tying, tying=tying)
        hashes.append([row[2] for row in trained.progress.evaluations])
    assert hashes[0] == hashes[1] and len(set(hashes[0])) == 3
    tokens = tiny.split(2000, 1).tokens
    first, other = (TrainingBatches(tokens, tiny.T, 4, seed).batch(0) for seed in (0, 1))
    assert (first != other).any()


def test_dropout_masks_depend_on_the_key_alone() -> None:
    ones = torch.ones(3, 50)
    masks = [Dropout(key, ones.device)(ones, 0.5) for key in (1, 1, 2)]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scales", [("none", "none"), ("sqrt_d", "inverse_sqrt_d")])
def test_the_shared_gradient_is_the_sum_of_two(family: str, scales: tuple[str, str]) -> None:
    embedding_scale, head_scale = scales
    common = {"family": family, "embedding_scale": embedding_scale, "head_scale": head_scale}
    tied = tiny.tiny_model(tying="in-out", **common).double()
    untied = tiny.tiny_model(tying="none", **common).double()
    assert untied.head is not None
    with torch.no_grad():
        untied.head.weight.copy_(untied.embedding.weight)
    for model in (tied, untied):
        hidden = model.hidden(TOKENS[:, :-1], torch.float64, None).flatten(0, 1)
        logits = hidden @ softmax_matrix(model).t()
        torch.nn.functional.cross_entropy(logits, TOKENS[:, 1:].flatten()).backward()
    total = untied.embedding.weight.grad + untied.head.weight.grad
    torch.testing.assert_close(tied.embedding.weight.grad, total, rtol=1e-12, atol=1e-14)
    assert untied.head.weight.grad.abs().max() > 0 < untied.embedding.weight.grad.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_training_loss_gives_the_shared_matrix_both_gradients(family: str) -> None:
    tied, untied = (tiny.tiny_model(family=family, tying=t) for t in ("in-out", "none"))
    assert untied.head is not None
    with torch.no_grad():
        untied.head.weight.copy_(untied.embedding.weight)
    for model in (tied, untied):
        loss_of(model).backward()
    total = untied.embedding.weight.grad + untied.head.weight.grad
    torch.testing.assert_close(tied.embedding.weight.grad, total, rtol=1e-4, atol=1e-6)
    assert untied.head.weight.grad.abs().max() > 0 < untied.embedding.weight.grad.abs().max()


@pytest.mark.parametrize(("tied_role", "rate"), [("head", 3.0), ("embedding", 0.5)])
def test_the_shared_matrix_takes_the_role_it_is_given(tied_role: str, rate: float) -> None:
    roles = {"embedding": {"rate": 0.5}, "head": {"rate": 3.0}}
    training = {"optimizer": {"learning_rate": 0.01, "roles": roles}}
    config = tiny.settings(tying="in-out", tied_role=tied_role)
    config = tiny.settings(
        tying="in-out",
        tied_role=tied_role,
        training=config.training.model_dump(mode="json", exclude_none=True) | training,
    )
    model = tiny.tiny_model(tying="in-out", tied_role=tied_role)
    optimizer = make_optimizer(model, config.model, config.training.optimizer)
    rates = [
        group["base_rate"]
        for group in optimizer.param_groups
        if any(p is model.embedding.weight for p in group["params"])
    ]
    assert rates == [pytest.approx(0.01 * rate)]


def test_how_often_evaluation_runs_changes_no_training_loss(tmp_path: Path) -> None:
    losses = []
    for every in (1, 5):
        folder = tmp_path / str(every)
        Trainer(tiny.context(folder, dropout=0.2, evaluation={"every_steps": every})).run()
        records = read_records(folder / "metrics.jsonl")
        losses.append([r["loss_nats"] for r in records if r["kind"] == "train"])
    assert losses[0] == losses[1] and len(losses[0]) == 12


def test_both_arms_draw_the_same_dropout_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: dict[str, list[int]] = {"none": [], "in-out": []}

    class Recorded(Dropout):
        def __init__(self, key: int, device: torch.device) -> None:
            keys[tying].append(key)
            super().__init__(key, device)

    monkeypatch.setattr(loop, "Dropout", Recorded)
    for tying in keys:
        training = tiny.training(micro_batch_tokens=16, budget={"steps": 3})
        context = tiny.context(tmp_path / tying, tying=tying, dropout=0.1, training=training)
        Trainer(context).run()
    assert keys["none"] == keys["in-out"] and len(set(keys["none"])) == 6


def test_a_tie_that_breaks_on_the_way_to_the_device_fails_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(model: LanguageModel, device: str) -> LanguageModel:
        model.head = VocabularyMatrix(tiny.V, tiny.D)
        return model

    monkeypatch.setattr(LanguageModel, "to", moved)
    with pytest.raises(BrokenArm, match="two matrices"):
        Trainer(tiny.context(tmp_path, tying="in-out"))


@pytest.mark.parametrize("moment", ["at a check", "at a save"])
def test_a_tie_that_breaks_in_training_fails_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    if moment == "at a check":
        monkeypatch.setattr(loop, "TIE_CHECK_STEPS", 2)
        every = 12
    else:
        every = 3
    trainer = Trainer(tiny.context(tmp_path, tying="in-out", evaluation={"every_steps": every}))
    original = trainer._accumulate

    def break_the_tie(batch: np.ndarray) -> float:
        if trainer.progress.step == 1:
            trainer.model.head = VocabularyMatrix(tiny.V, tiny.D)
            torch.nn.init.normal_(trainer.model.head.weight, std=0.02)
        return original(batch)

    trainer._accumulate = break_the_tie  # type: ignore[method-assign]
    with pytest.raises(BrokenArm, match="two matrices"):
        trainer.run()
    assert trainer.progress.step == (2 if moment == "at a check" else 3)


def test_a_broken_tie_is_caught() -> None:
    model = tiny.tiny_model(tying="in-out")
    model.head = VocabularyMatrix(tiny.V, tiny.D)
    with pytest.raises(BrokenArm, match="two matrices"):
        verify_tie(model)
    untied = tiny.tiny_model(tying="none")
    untied.head = None
    with pytest.raises(BrokenArm, match="one matrix"):
        verify_tie(untied)
    assert tie_metadata(untied)["tying"] == "in-out"


def test_a_checkpoint_of_the_other_arm_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, "best", 1, tiny.tiny_model(tying="in-out"), None, {})
    with pytest.raises(BrokenArm, match=r"head\.weight"):
        load_model(path, tiny.tiny_model(tying="none"))


def test_an_arm_whose_head_never_learns_is_broken(tmp_path: Path) -> None:
    trainer = Trainer(tiny.context(tmp_path, tying="none"))
    assert trainer.model.head is not None
    trainer.model.head.weight.register_hook(torch.zeros_like)
    with pytest.raises(BrokenArm, match=r"gradient ever reached head\.weight"):
        trainer.run()


def test_a_tensor_that_never_moves_breaks_the_arm(tmp_path: Path) -> None:
    trainer = Trainer(tiny.context(tmp_path, tying="none"))
    for group in trainer.optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p is not trainer.model.embedding.weight]
    with pytest.raises(BrokenArm, match=r"never moved in training: embedding\.weight"):
        trainer.run()


def test_an_ill_initialized_arm_fails_before_its_first_step(tmp_path: Path) -> None:
    with pytest.raises(BrokenArm, match="the loss starts at"):
        Trainer(tiny.context(tmp_path, embedding_std=3.0)).run()
    assert read_records(tmp_path / "metrics.jsonl") == []
