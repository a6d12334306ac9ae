"""What several processes share, as far as one can tell without starting any."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests import tiny
from tyro_cli.config.schema import Settings
from tyro_cli.errors import (
    BrokenArm,
    ConfigurationError,
    DeviceError,
    Interrupted,
    RunFolderError,
    UsageError,
)
from tyro_cli.evaluation.perplexity import sweep_nats
from tyro_cli.experiments.launchers.torchrun import check_world
from tyro_cli.models import layers
from tyro_cli.training.loop import Trainer
from tyro_cli.training.processes import ALONE, Processes
from tyro_cli.training.world import World, read_world, refuse_torchrun

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "any",
    "TORCHELASTIC_RESTART_COUNT": "2",
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "host",
    "MASTER_PORT": "1234",
}


@pytest.fixture
def under_torchrun(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_what_torchrun_says_is_read(under_torchrun):
    assert read_world() == World(3, 4, 1, 2, "host", 1234, 2)


def test_a_world_of_one_is_alone(under_torchrun):
    under_torchrun.setenv("WORLD_SIZE", "1")
    assert read_world() == World()


def test_what_a_cluster_says_without_torchrun_means_nothing(under_torchrun):
    """Some set WORLD_SIZE for whatever runs there."""
    under_torchrun.delenv("TORCHELASTIC_RUN_ID")
    assert read_world() == World()
    refuse_torchrun("wtie sweep", "leave it out")


@pytest.mark.parametrize("value", ["", "-1", "two"])
def test_a_variable_that_is_no_count_is_named(under_torchrun, value):
    under_torchrun.setenv("RANK", value)
    with pytest.raises(UsageError, match=rf"RANK='{value}' is no count"):
        read_world()


def test_a_command_of_one_process_refuses_several(under_torchrun):
    with pytest.raises(UsageError, match="wtie sweep is one process, torchrun started 4"):
        refuse_torchrun("wtie sweep", "leave torchrun out")


def four_windows() -> dict[str, Settings]:
    return {"untied": tiny.settings()}


@pytest.mark.parametrize("size", [1, 2, 4])
def test_processes_that_divide_the_batch_are_taken(size):
    check_world(World(size=size), four_windows(), "cpu")


@pytest.mark.parametrize(("size", "fewer", "tokens"), [(3, 2, 48), (5, 4, 40), (8, 4, 64)])
def test_processes_that_do_not_divide_the_batch_are_refused_with_what_would_fit(
    size, fewer, tokens
):
    with pytest.raises(ConfigurationError) as caught:
        check_world(World(size=size), four_windows(), "cpu")
    assert caught.value.exit_code == 2
    assert caught.value.message == (
        f"WORLD_SIZE: {size} processes cannot share a batch equally: training.batch_tokens (32) of "
        "the arm 'untied' is 4 window(s) of data.context_length (8)"
    )
    assert caught.value.remedy == (
        f"torchrun --nproc-per-node {fewer}, or training.batch_tokens={tokens}"
    )


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_world(World(size=4, local_size=2), four_windows(), "cuda")
    with pytest.raises(DeviceError, match="4 processes need a GPU each, torch sees 2"):
        check_world(World(size=4, local_size=4), four_windows(), "cuda")


def test_the_shares_of_a_batch_are_the_batch():
    batch = np.arange(12).reshape(6, 2)
    shares = [Processes(rank, 3).share_of(batch) for rank in range(3)]
    assert [len(share) for share in shares] == [2, 2, 2]
    np.testing.assert_array_equal(np.concatenate(shares), batch)
    np.testing.assert_array_equal(ALONE.share_of(batch), batch)


@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_parts_of_a_sweep_are_the_sweep_bit_for_bit(monkeypatch, stride, count):
    monkeypatch.setattr("tyro_cli.evaluation.perplexity.EVALUATION_TOKENS", 2 * tiny.T)
    model, tokens = tiny.tiny_model(), tiny.split(101, 4).tokens
    whole = sweep_nats(model, tokens, stride=stride)
    parts = [sweep_nats(model, tokens, stride=stride, part=(i, count)) for i in range(count)]
    assert ((np.stack(parts) != 0).sum(axis=0) == 1).all()
    assert np.sum(parts, axis=0, dtype=np.float32).tobytes() == whole.tobytes()


class Alike(Processes):
    """Several processes, of which the others do what this one does."""

    def _exchange(self, values, group=None, operation=torch.distributed.ReduceOp.SUM):
        if operation == torch.distributed.ReduceOp.SUM:
            values.mul_(self.count)


def first_step(folder: Path, processes: Processes, monkeypatch, **model) -> tuple:
    """Return the dropout keys, the loss and the gradients of the first step."""
    keys = []
    kept = layers.Dropout.__init__

    def keep(self, key, device):
        keys.append(key)
        kept(self, key, device)

    context = tiny.context(folder, **model)
    object.__setattr__(context, "processes", processes)
    trainer = Trainer(context)
    with monkeypatch.context() as patch:
        patch.setattr(layers.Dropout, "__init__", keep)
        loss = trainer._accumulate(trainer.task.batch(0))
    loss = processes.add_gradients(trainer.model.parameters(), loss)
    return keys, loss, {name: p.grad for name, p in trainer.model.named_parameters()}


def test_masks_are_keyed_by_rank_and_those_of_rank_zero_are_those_of_one_process(
    tmp_path, monkeypatch
):
    alone, *_ = first_step(tmp_path, ALONE, monkeypatch)
    first, *_ = first_step(tmp_path, Alike(0, 2), monkeypatch)
    second, *_ = first_step(tmp_path, Alike(1, 2), monkeypatch)
    assert alone == first
    assert len(second) == 1 and second != first


@pytest.mark.parametrize("micro", [8, 16, 24, 48])
def test_shares_and_micro_batches_weigh_as_their_windows_do(tmp_path, monkeypatch, micro):
    """Losses and gradients of two ranks add up to those of one, whatever the micro-batches."""
    options = {"training": tiny.training(batch_tokens=48, micro_batch_tokens=48)}
    _, loss, gradients = first_step(tmp_path, ALONE, monkeypatch, **options)
    options["training"]["micro_batch_tokens"] = micro
    parts = [first_step(tmp_path, _Unshared(rank, 2), monkeypatch, **options) for rank in (0, 1)]
    assert sum(part[1] for part in parts) == pytest.approx(loss, rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            parts[0][2][name] + parts[1][2][name], gradient, rtol=1e-4, atol=1e-6
        )


class _Unshared(Processes):
    """A rank that keeps what it would add to the sum."""

    def _exchange(self, values, group=None, operation=None):
        pass


def test_one_exchange_holds_every_gradient_once(tmp_path, monkeypatch):
    """A shared matrix is one parameter, so it is summed once."""
    _, loss, gradients = first_step(tmp_path, ALONE, monkeypatch, tying="in-out")
    _, _, halves = first_step(tmp_path, _Unshared(0, 2), monkeypatch, tying="in-out")
    _, doubled_loss, doubled = first_step(tmp_path, Alike(0, 2), monkeypatch, tying="in-out")
    assert "head.weight" not in doubled and doubled.keys() == gradients.keys()
    for name, half in halves.items():
        torch.testing.assert_close(doubled[name], 2 * half, rtol=0, atol=0)
    assert doubled_loss == pytest.approx(loss, rel=0.1)


def test_several_processes_are_part_of_the_fingerprint_and_one_is_not(tmp_path):
    context = tiny.context(tmp_path)
    assert "processes" not in Trainer(context).fingerprint
    object.__setattr__(context, "processes", Processes(0, 2))
    assert Trainer(context).fingerprint["processes"] == 2


def test_another_number_of_processes_is_another_numeric_fingerprint(tmp_path):
    """A cell begun by one process has no word of it in its checkpoints, and means one."""
    polls = iter(range(100))

    def poll() -> None:
        if next(polls) == 12:
            raise Interrupted

    context = tiny.context(tmp_path)
    object.__setattr__(context, "poll", poll)
    with pytest.raises(Interrupted):
        Trainer(context).run()
    trainer = Trainer(tiny.context(tmp_path))
    trainer.fingerprint["processes"] = 2
    with pytest.raises(RunFolderError, match=r"other numerics \(processes 1 -> 2\)"):
        trainer.run()
    Trainer(tiny.context(tmp_path)).run()


class _Beside(Processes):
    """Two processes, the other of which holds other weights."""

    other: nn.Module

    def _exchange(self, values, group=None, operation=None):
        sums = torch.stack([p.detach().view(torch.int32).sum() for p in self.other.parameters()])
        values.copy_(torch.maximum(values, torch.stack((sums, -sums))))


@pytest.mark.parametrize("bit", [1, -1])
def test_a_weight_that_differs_in_its_last_bit_fails_the_cell(bit):
    model, other = tiny.tiny_model(), tiny.tiny_model()
    processes = _Beside(0, 2)
    object.__setattr__(processes, "other", other)
    processes.verify_same_weights(model)
    with torch.no_grad():
        other.blocks[1].attention.output.weight.view(torch.int32)[3, 5] += bit
    with pytest.raises(BrokenArm, match="2 processes no longer hold the same weights"):
        processes.verify_same_weights(model)
