"""Cells of several processes each, under torchrun: one after the other, all ranks together.

Every rank is a `wtie train` of its own. Rank 0 plans, owns the run and publishes one cell after the
other in torchrun's store; the others do nothing but start a worker for each. The workers of a cell
meet in the same store (`training.processes`). A rank whose worker fails ends, and torchrun then
ends all others; a cell that diverged fails nowhere, because it is done.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tyro_cli.config.schema import Settings
from tyro_cli.errors import CellFailed, ConfigurationError, DeviceError, ProcessLost
from tyro_cli.experiments.launchers.local import CellFailure, Event, run_locally
from tyro_cli.experiments.specs import CellSpec, read_result
from tyro_cli.training.signals import StopRequest, polled_signals
from tyro_cli.training.world import World

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

POLL_SECONDS = 0.1
END = "end"


def check_world(world: World, arms: Mapping[str, Settings], device: str) -> None:
    """Refuse what the processes cannot share equally.

    Args:
        world: Our place among the processes.
        arms: The settings of every arm that may be trained.
        device: `cpu` or `cuda`.

    Raises:
        ConfigurationError: If `WORLD_SIZE` does not divide the windows of a batch, or the arms
            translate.
        DeviceError: If there are fewer GPUs than processes.
    """
    for name, settings in arms.items():
        if settings.task == "translation":
            raise ConfigurationError(
                f"WORLD_SIZE: one process trains a cell that translates, not {world.size}",
                "leave torchrun out; --workers trains several cells at once",
            )
        batch_tokens, context = settings.training.batch_tokens, settings.data.context_length
        windows = batch_tokens // context
        if windows % world.size:
            fitting = max(count for count in range(1, world.size) if windows % count == 0)
            larger = -(-windows // world.size) * world.size * context
            raise ConfigurationError(
                f"WORLD_SIZE: {world.size} processes cannot share a batch equally: "
                f"training.batch_tokens ({batch_tokens}) of the arm '{name}' is {windows} "
                f"window(s) of data.context_length ({context})",
                f"torchrun --nproc-per-node {fitting}, or training.batch_tokens={larger}",
            )
    if device == "cuda":
        import torch

        gpus = torch.cuda.device_count()
        if gpus < world.local_size:
            raise DeviceError(
                f"{world.local_size} processes need a GPU each, torch sees {gpus}",
                f"torchrun --nproc-per-node {gpus}, or --device cpu",
            )


@contextmanager
def leading(world: World) -> Iterator[None]:
    """Tell the other ranks, however the body ends, that no cell will follow."""
    from tyro_cli.training.processes import open_store  # torch: only where it is needed

    store = open_store(world)
    try:
        yield
    finally:
        with suppress(RuntimeError):  # torchrun is gone; the others have seen that for themselves
            store.set(END, "")


def run_together(
    specs: Sequence[CellSpec],
    first: int,
    world: World,
    observe: Callable[[Event], None],
    stop: StopRequest,
) -> list[CellFailure]:
    """Run cells one after the other on all ranks; called by rank 0.

    A failure ends it, for the other ranks end then too; the cells after it stay missing.

    Args:
        specs: Cells in the order in which they are trained.
        first: Number of the first of them: the other ranks count on from call to call.
        world: Our place, rank 0.
        observe: Takes the events of our workers.
        stop: Polled; its signal is passed on to our worker.

    Returns:
        The cells that failed.

    Raises:
        Interrupted: After a stop, when our worker has ended.
    """
    from tyro_cli.training.processes import open_store

    store = open_store(world)
    failures: list[CellFailure] = []
    for number, spec in enumerate(specs, start=first):
        spec = replace(spec, processes=world.size, meeting=_name(number))
        with _answering(stop):
            store.set(spec.meeting, json.dumps(spec.as_record()))
        failures += run_locally([spec], 1, observe, stop)
        if failures and read_result(Path(spec.folder), spec.cell_id) is None:
            break
    return failures


def follow(world: World) -> None:
    """Start a worker for every cell that rank 0 publishes, until it says that none will follow.

    Raises:
        CellFailed: If a worker failed, or torchrun's store does not answer.
        Interrupted: After a signal, when the worker has ended.
    """
    from tyro_cli.training.processes import open_store

    with polled_signals(world.parent) as stop:
        store = open_store(world)
        number = 0
        while (spec := _next_spec(store, number, stop)) is not None:
            failures = run_locally([spec], 1, lambda event: None, stop)
            if failures:
                raise CellFailed(f"rank {world.rank}: {failures[0].in_words()}")
            number += 1


def _next_spec(store: "Store", number: int, stop: StopRequest) -> CellSpec | None:
    with _answering(stop):
        while not store.check([_name(number)]):
            if store.check([END]):
                return None
            stop.poll()
            time.sleep(POLL_SECONDS)
        return CellSpec(**json.loads(store.get(_name(number))))


@contextmanager
def _answering(stop: StopRequest) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        stop.poll()  # torchrun is gone: that is a stop
        raise ProcessLost(
            f"torchrun's store does not answer ({str(error).splitlines()[0]})",
            "start the same command again: it goes on from the last checkpoint",
        ) from error


def _name(number: int) -> str:
    return f"cell-{number}"
