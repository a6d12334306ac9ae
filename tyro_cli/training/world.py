"""What torchrun says of the processes that it started, read without torch.

A variable such as `WORLD_SIZE` alone says nothing: clusters set it for other programs as well. We
are one of several processes only where torchrun has left its own mark.
"""

import os
from dataclasses import dataclass

from tyro_cli.errors import UsageError


@dataclass(frozen=True)
class World:
    """Our place among the processes that torchrun started; alone where it started one or none.

    Attributes:
        rank: Our number among all, from 0. Rank 0 plans, writes and speaks.
        size: All processes.
        local_rank: Our number on this machine, which is that of our GPU.
        local_size: Processes on this machine.
        address: Where torchrun's store listens.
        port: The port of that store.
        attempt: How often torchrun has started all processes anew.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: str = ""
    port: int = 0
    attempt: int = 0

    @property
    def parent(self) -> int | None:
        """The process whose death is a stop: torchrun, where it started several of us."""
        return os.getppid() if self.size > 1 else None


def read_world() -> World:
    """Return what torchrun says of this process.

    Raises:
        UsageError: If it does not say all that is needed.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("WORLD_SIZE") == "1":
        return World()
    return World(
        rank=_count("RANK"),
        size=_count("WORLD_SIZE"),
        local_rank=_count("LOCAL_RANK"),
        local_size=_count("LOCAL_WORLD_SIZE"),
        address=os.environ.get("MASTER_ADDR", "localhost"),
        port=_count("MASTER_PORT"),
        attempt=_count("TORCHELASTIC_RESTART_COUNT"),
    )


def refuse_torchrun(command: str, remedy: str) -> None:
    """Raise `UsageError` where torchrun started several processes of a command that is one."""
    size = read_world().size
    if size > 1:
        raise UsageError(f"{command} is one process, torchrun started {size}", remedy)


def _count(name: str) -> int:
    text = os.environ.get(name, "")
    if not (text.isascii() and text.isdigit()):
        raise UsageError(
            f"{name}={text!r} is no count, though torchrun sets it",
            "start with torchrun --nproc-per-node N -m tyro_cli train ..., and leave its variables "
            "as they are",
        )
    return int(text)
