"""The processes that train one cell together, each with the whole model and a share of every batch.

Invariant: all hold the same weights after every step, because all make the update of the summed
gradients; so each may decide alone what the numbers decide (an evaluation, early stopping, a
divergence) and all decide alike. Rank 0 alone writes. A process leaves whenever it must (a signal,
an error); the others notice it at their next exchange, between updates: rank 0 can still save.

What must be agreed on goes over the CPU, gradients over the device. So on GPUs nobody enters an
exchange of gradients before all are there, and it may be short of patience.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from tyro_cli.errors import BrokenArm, ProcessLost
from tyro_cli.training.world import World

MEETING_SECONDS = 300.0  # until the slowest process has loaded its libraries
STORE_TIME = timedelta(minutes=1)
EXCHANGE_TIME = timedelta(minutes=30)  # rank 0 may be writing a large checkpoint
GRADIENT_TIME = timedelta(minutes=1)
SIGNAL_SECONDS = 2.0  # a stop is sent to all; until it must have reached us too
POLL_SECONDS = 0.05
REMEDY = "see the messages of the other ranks and log.txt; the same command goes on from here"


@dataclass(frozen=True)
class Processes:
    """The processes of a cell, seen from one of them; alone by default.

    Attributes:
        rank: Our number, from 0.
        count: All of them.
        poll: Raises `Interrupted` where a stop was asked for.
        device_group: What exchanges gradients between GPUs; None where gradients are on the CPU.
    """

    rank: int = 0
    count: int = 1
    poll: Callable[[], None] = lambda: None
    device_group: Any = None

    def share_of(self, batch: np.ndarray) -> np.ndarray:
        """Return our windows of a batch; `count` divides their number."""
        windows = len(batch) // self.count
        return batch[self.rank * windows : (self.rank + 1) * windows]

    def add_gradients(self, parameters: Iterable[nn.Parameter], loss_nats: float) -> float:
        """Sum the gradients of all processes, in one exchange; return the sum of their losses.

        Raises:
            ProcessLost: If another process ended. No gradient has changed then.
        """
        if self.count == 1:
            return loss_nats
        total = torch.tensor(loss_nats, dtype=torch.float64)
        self._exchange(total)
        having = [parameter for parameter in parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in having if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self._exchange(flat, self.device_group)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for parameter, part in zip(having, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        return total.item()

    def add(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of an array over all processes; where one alone is not 0, it is exact."""
        if self.count > 1:
            self._exchange(torch.from_numpy(values))
        return values

    @contextmanager
    def rank_zero_first(self) -> Iterator[None]:
        """Let rank 0 run the body before the others do, and wait until all have run it."""
        if self.rank > 0:
            self._meet()
        yield
        if self.rank == 0:
            self._meet()
        self._meet()

    def verify_same_weights(self, model: nn.Module) -> None:
        """Check that the bits of all weights have the same sums in every process.

        Raises:
            BrokenArm: If they have not: from then on every process would train a model of its own.
        """
        if self.count == 1:
            return
        sums = torch.stack([p.detach().view(torch.int32).sum() for p in model.parameters()]).cpu()
        extremes = torch.stack((sums, -sums))
        self._exchange(extremes, operation=dist.ReduceOp.MAX)
        if not torch.equal(extremes[0], -extremes[1]):
            raise BrokenArm(
                f"broken arm: the {self.count} processes no longer hold the same weights",
                "train on devices of one kind, or without torchrun",
            )

    def _meet(self) -> None:
        if self.count > 1:
            self._exchange(torch.zeros(1))

    def _exchange(
        self, values: torch.Tensor, group: Any = None, operation: Any = dist.ReduceOp.SUM
    ) -> None:
        """Combine `values` over all processes, in place."""
        try:
            dist.all_reduce(values, operation, group)
        except RuntimeError as error:
            deadline = time.monotonic() + SIGNAL_SECONDS
            while time.monotonic() < deadline:
                self.poll()
                time.sleep(POLL_SECONDS)
            raise ProcessLost(
                f"one of the {self.count} processes of this cell has ended, or does not answer "
                f"({str(error).splitlines()[0]})",
                REMEDY,
            ) from error


ALONE = Processes()


def open_store(world: World) -> Store:
    """Return what all processes of this start can read and write, hosted by torchrun.

    Raises:
        ProcessLost: If it does not answer.
    """
    try:
        store = TCPStore(world.address, world.port, is_master=False, timeout=STORE_TIME)
    except RuntimeError as error:
        raise ProcessLost(
            f"torchrun's store at {world.address}:{world.port} does not answer",
            "start with torchrun --standalone --nproc-per-node N -m tyro_cli train ...",
        ) from error
    return PrefixStore(f"wtie/{world.attempt}", store)


@contextmanager
def joined(
    world: World, meeting: str, device: str, poll: Callable[[], None]
) -> Iterator[Processes]:
    """Exchange with the other processes of a cell while the body runs.

    Args:
        world: Our place among them.
        meeting: A name that no other cell of this start has.
        device: `cpu` (gloo) or `cuda` (gradients over nccl, each process on its own GPU).
        poll: Raises `Interrupted` where a stop was asked for.

    Raises:
        ProcessLost: If not all come.
    """
    store = PrefixStore(meeting, open_store(world))
    store.set(f"here-{world.rank}", "")
    everyone = [f"here-{rank}" for rank in range(world.size)]
    deadline = time.monotonic() + MEETING_SECONDS
    while not store.check(everyone):
        poll()
        if time.monotonic() > deadline:
            raise ProcessLost("not all processes of this cell have started", REMEDY)
        time.sleep(POLL_SECONDS)
    dist.init_process_group(
        "gloo", store=store, rank=world.rank, world_size=world.size, timeout=EXCHANGE_TIME
    )
    device_group = None
    if device == "cuda":
        torch.cuda.set_device(world.local_rank)
        device_group = dist.new_group(backend="nccl", timeout=GRADIENT_TIME)
    yield Processes(world.rank, world.size, poll, device_group)
    # Only here: after an error the others may be gone, and the end of the process closes all.
    dist.destroy_process_group()
