"""What every launcher can do, and which one a start has asked for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tyro_cli.experiments.launchers.local import CellFailure, Event, LocalLauncher
from tyro_cli.experiments.specs import CellSpec
from tyro_cli.training.signals import StopRequest


class Launcher(Protocol):
    """Carries cells to where they are trained, and their records back to the run folder."""

    def choose_workers(
        self, asked: int | None, num_cells: int, cell_bytes: int, device: str, cells: str
    ) -> int:
        """Return how many cells run at once, as `limits.choose_workers` does for this machine."""

    def share_cores(self, num_workers: int) -> int:
        """Return the threads that each of so many cells gets where nothing else says."""

    def run(
        self,
        specs: Sequence[CellSpec],
        num_workers: int,
        observe: Callable[[Event], None],
        stop: StopRequest,
        *,
        fail_fast: bool = False,
    ) -> list[CellFailure]:
        """Run the cells and return those that failed, as `run_locally` does."""


@dataclass(frozen=True)
class LauncherChoice:
    """Which launcher, and what it is told.

    Attributes:
        name: `local` or `ray`.
        address: `HOST:PORT` of a Ray cluster, or `auto`; None starts Ray on this machine.
        storage: Where cells keep checkpoints on the machine that trains them; None for the run
            folder.
    """

    name: Literal["local", "ray"] = "local"
    address: str | None = None
    storage: Path | None = None

    @contextmanager
    def opened(self, num_cells: int) -> Iterator[Launcher]:
        """Give the launcher for the length of a block; nothing is started for no cell.

        Raises:
            UsageError, DeviceError: Ray is not installed, not reachable, or needs a storage.
            Interrupted: A signal came while Ray was starting.
        """
        if self.name == "local" or num_cells == 0:
            yield LocalLauncher()
            return
        from tyro_cli.experiments.launchers.ray import connected

        with connected(self.address, self.storage) as launcher:
            yield launcher
