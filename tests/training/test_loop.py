"""The loop: exact resume, accumulation, early stopping, divergence, and what a stop leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.folders import digests
from tyro_cli.errors import DamagedRecord, Diverged, Interrupted, RunFolderError
from tyro_cli.storage.checkpoints import list_checkpoints
from tyro_cli.storage.manifests import write_manifest
from tyro_cli.storage.records import read_records
from tyro_cli.training.loop import Trainer


def interrupted_run(folder: Path, stop_at: int, **model: Any) -> None:
    """Train until the `stop_at`-th poll, then go on to the end, as often as needed."""
    polls = 0

    def poll() -> None:
        nonlocal polls
        polls += 1
        if polls == stop_at:
            raise Interrupted

    context = tiny.context(folder, **model)
    object.__setattr__(context, "poll", poll)
    with pytest.raises(Interrupted):
        Trainer(context).run()
    Trainer(tiny.context(folder, **model)).run()


@pytest.mark.parametrize("stop_at", [1, 2, 3, 8, 9, 10, 11, 12, 17, 25, 30])
def test_a_stopped_cell_ends_with_the_same_bytes(tmp_path: Path, stop_at: int) -> None:
    options: dict[str, Any] = {"dropout": 0.1, "training": {"micro_batch_tokens": 16}}
    options["training"] = (
        tiny.settings().training.model_dump(mode="json", exclude_none=True) | options["training"]
    )
    Trainer(tiny.context(tmp_path / "whole", **options)).run()
    interrupted_run(tmp_path / "stopped", stop_at, **options)
    assert digests(tmp_path / "stopped") == digests(tmp_path / "whole")


def test_a_cell_killed_at_a_checkpoint_ends_with_the_same_bytes(tmp_path: Path) -> None:
    Trainer(tiny.context(tmp_path / "whole")).run()
    context = tiny.context(tmp_path / "killed")

    def poll() -> None:
        if list_checkpoints(context.folder / "checkpoints", "last"):
            raise KeyboardInterrupt  # as abrupt as a kill: nothing is saved on the way out

    object.__setattr__(context, "poll", poll)
    with pytest.raises(KeyboardInterrupt):
        Trainer(context).run()
    assert [s for s, _ in list_checkpoints(context.folder / "checkpoints", "last")] == [4]
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"kind":"train","step":5,"loss_nats":9}\n{"kind":"tra')
    Trainer(tiny.context(tmp_path / "killed")).run()
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")


def test_a_finished_cell_keeps_best_and_last_without_optimizer_state(tmp_path: Path) -> None:
    trained = tiny.trained(tmp_path)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"best-{trained.progress.best_step:08d}", "last-00000012"]
    assert not list((tmp_path / "checkpoints").rglob("optimizer.safetensors"))


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    Trainer(tiny.context(tmp_path, training=tiny.training(budget={"steps": 60}))).run()
    losses = [r["loss_nats"] for r in read_records(tmp_path / "metrics.jsonl") if "loss_nats" in r]
    assert losses[-1] < losses[0] - 0.5


def test_accumulated_gradients_equal_those_of_the_whole_batch(tmp_path: Path) -> None:
    weights = []
    for micro in (8, 16, 32):
        folder = tmp_path / str(micro)
        training = tiny.training(micro_batch_tokens=micro, budget={"steps": 3})
        Trainer(tiny.context(folder, training=training)).run()
        weights.append(load_file(folder / "checkpoints" / "last-00000003" / "model.safetensors"))
    for other in weights[1:]:
        for name, tensor in weights[0].items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-5)


def test_early_stopping_ends_a_cell_that_no_longer_improves(tmp_path: Path) -> None:
    training = tiny.training(
        budget={"steps": 400},
        early_stopping={"patience": 2},
        optimizer={"learning_rate": 0.05},
        schedule={"kind": "constant"},
    )
    trained = tiny.trained(tmp_path, training=training)
    progress = trained.progress
    assert progress.stopped_early and progress.step < 400
    assert progress.evaluations_since_best() == 2
    assert progress.step == progress.best_step + 8


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_before_the_update(tmp_path: Path, where: str) -> None:
    trainer = Trainer(tiny.context(tmp_path))
    weight = trainer.model.blocks[0].attention.output.weight
    if where == "gradient":
        calls = 0

        def spoil(gradient: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return gradient * float("nan") if calls == 6 else gradient

        weight.register_hook(spoil)
    else:
        original = trainer._accumulate
        trainer._accumulate = (  # type: ignore[method-assign]
            lambda batch: float("nan") if trainer.progress.step == 5 else original(batch)
        )
    with pytest.raises(Diverged, match=rf"step 6: the {where} is not a finite number"):
        trainer.run()
    assert trainer.progress.step == 5
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    assert [s for s, _ in list_checkpoints(tmp_path / "checkpoints", "last")] == [5]
    assert trainer.divergence is not None and trainer.divergence["step"] == 6


@pytest.mark.parametrize("best_step", ["x", "8", -4, 10**9, None])
def test_an_older_checkpoint_that_cannot_be_right_stops_no_sound_cell(
    tmp_path: Path, best_step: object
) -> None:
    """Nobody has verified it: the newest one is what training goes on from."""
    frequent = tiny.training(checkpoint_every_steps=3)
    context = tiny.context(tmp_path, training=frequent)
    object.__setattr__(context, "poll", _after(9))
    with pytest.raises(Interrupted):
        Trainer(context).run()
    checkpoints = tmp_path / "checkpoints"
    older, newest = (path for _, path in reversed(list_checkpoints(checkpoints, "last")))
    state = json.loads((older / "state.json").read_text())
    state["progress"]["best_step"] = best_step
    (older / "state.json").write_text(json.dumps(state))
    trainer = Trainer(tiny.context(tmp_path, training=frequent))
    trainer.run()
    assert trainer.progress.finished and newest.name != older.name


def test_a_checkpoint_of_another_cell_or_other_numerics_is_refused(tmp_path: Path) -> None:
    context = tiny.context(tmp_path)
    object.__setattr__(context, "poll", _after(6))
    with pytest.raises(Interrupted):
        Trainer(context).run()
    other = tiny.context(tmp_path)
    object.__setattr__(other, "cell_id", "d" * 64)
    with pytest.raises(RunFolderError, match="another cell"):
        Trainer(other).run()
    trainer = Trainer(tiny.context(tmp_path))
    trainer.fingerprint["threads"] = 99
    with pytest.raises(RunFolderError, match=r"threads .* -> 99"):
        trainer.run()
    allowed = tiny.context(tmp_path)
    object.__setattr__(allowed, "allow_numeric_drift", True)
    trainer = Trainer(allowed)
    trainer.fingerprint["threads"] = 99
    trainer.run()
    progress = trainer.progress
    assert progress.step == 12 and len(progress.numeric_drift) == 1


def test_the_proof_of_the_start_is_that_of_the_weights_that_were_trained(tmp_path: Path) -> None:
    context = tiny.context(tmp_path)
    object.__setattr__(context, "poll", _after(6))
    begun = Trainer(context)
    with pytest.raises(Interrupted):
        begun.run()
    resumed = Trainer(tiny.context(tmp_path))
    resumed.initial_parameters = {  # as a machine would draw them whose arithmetic is another one
        name: digest | {"sha256": "0" * 64} for name, digest in begun.initial_parameters.items()
    }
    resumed.run()
    assert resumed.initial_parameters == begun.initial_parameters


def test_a_checkpoint_whose_start_has_other_tensors_is_damaged(tmp_path: Path) -> None:
    context = tiny.context(tmp_path)
    object.__setattr__(context, "poll", _after(6))
    with pytest.raises(Interrupted):
        Trainer(context).run()
    for _, path in list_checkpoints(tmp_path / "checkpoints", "last"):
        state = json.loads((path / "state.json").read_text())
        state["initial_parameters"].popitem()
        (path / "state.json").write_text(json.dumps(state))
        write_manifest(path)
    with pytest.raises(DamagedRecord, match="initial_parameters"):
        Trainer(tiny.context(tmp_path)).run()


def _after(polls: int) -> Any:
    left = polls

    def poll() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Interrupted

    return poll
