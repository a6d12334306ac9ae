"""Cells as tasks of a Ray cluster: what the driver does. `ray_node` is what a node does.

`ray_connection` is the way to the cluster. Inputs go out and records come back by value, so driver
and nodes share no file system; only checkpoints stay where a cell was trained, in the run folder or
in the storage that was named. A task whose worker is lost is retried and goes on from its
checkpoint, where that is still there. wtie must be installed on every node, in the same version; no
runtime environment is sent.
"""

import math
import secrets
import select
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tyro_cli.data.copies import content_sha256, read_files
from tyro_cli.errors import DeviceError, Interrupted, UsageError, WtieError
from tyro_cli.experiments.launchers.local import CellFailure, Event, show_cursor
from tyro_cli.experiments.launchers.ray_connection import first_line, ray_connected
from tyro_cli.experiments.launchers.ray_node import (
    RECORDS,
    CellKilled,
    Mailbox,
    run_on_node,
    versions,
)
from tyro_cli.experiments.limits import WORKER_BYTES
from tyro_cli.experiments.specs import CellSpec
from tyro_cli.storage.files import read_json, write_bytes, write_json
from tyro_cli.storage.locks import owned
from tyro_cli.storage.names import inside
from tyro_cli.training.signals import StopRequest

MAX_RETRIES = 3
POLL_SECONDS = 0.25
ANSWER_SECONDS = 120.0  # a mailbox that is silent for so long is lost
RETRIED = "its worker was lost; it goes on from its last checkpoint, if any"
STORAGE_RECORD = "storage.json"


@contextmanager
def connected(address: str | None, storage: Path | None) -> Iterator["RayLauncher"]:
    """Give the launcher on a cluster, or on Ray started here, for the length of a block.

    Args:
        address: `HOST:PORT`, `auto`, or None to start Ray here.
        storage: Where cells keep checkpoints on their node; None for the run folder.

    Raises:
        UsageError, DeviceError: As `check_ray`, or machines of the cluster need a storage.
        Interrupted: A signal came while Ray was starting.
    """
    with ray_connected(address) as ray:
        yield RayLauncher(ray, storage)


class RayLauncher:
    """Cells on the nodes of the cluster that this process is connected to; see `choice.Launcher`.

    Args:
        ray: The module, connected.
        storage: Where cells keep checkpoints on their node; None for the run folder.

    Raises:
        UsageError: The cluster has other machines, and no storage was named.
    """

    def __init__(self, ray: Any, storage: Path | None) -> None:
        self.ray = ray
        self.storage = None if storage is None else storage.absolute()
        self.cell_bytes = 0
        nodes = [node for node in ray.nodes() if node["Alive"]]
        self.nodes: list[dict[str, float]] = [node["Resources"] for node in nodes]
        self.own_node: str = ray.get_runtime_context().get_node_id()
        self.raylet_path = next(
            node["RayletSocketName"] for node in nodes if node["NodeID"] == self.own_node
        )
        hosts = {node["NodeID"]: node["NodeManagerHostname"] for node in nodes}
        others = sorted(set(hosts.values()) - {hosts[self.own_node]})
        if others and storage is None:
            raise UsageError(
                f"the cluster has other machines ({', '.join(others[:3])}), which need a place for "
                "checkpoints",
                "name a folder on every machine with --storage; in one that all share, a cell can "
                "go on elsewhere",
            )

    def choose_workers(
        self, asked: int | None, num_cells: int, cell_bytes: int, device: str, cells: str
    ) -> int:
        """Return how many cells run at once on all nodes.

        Raises:
            DeviceError: No node has the memory for one, or a core, or the GPU that was asked for.
        """
        self.cell_bytes = cell_bytes + WORKER_BYTES
        kind = "GPU" if device == "cuda" else "CPU"
        slots = int(self._total(kind))
        fitting = sum(int(node.get("memory", 0) // self.cell_bytes) for node in self.nodes)
        if fitting < 1 or slots < 1:
            lacking = f"{self.cell_bytes / 2**20:,.0f} MiB of memory" if slots else f"a {kind}"
            raise DeviceError(
                f"no node of the Ray cluster has {lacking} for one cell ({cells})",
                "add a node that has, or use --launcher local",
            )
        return min(num_cells, asked or min(slots, fitting))

    def share_cores(self, num_workers: int) -> int:
        """Return the threads of each of so many cells: no more than one node has."""
        return max(1, min(int(self._total("CPU")) // num_workers, self._largest("CPU")))

    def _total(self, kind: str) -> float:
        return sum(node.get(kind, 0) for node in self.nodes)

    def _largest(self, kind: str) -> int:
        return int(max(node.get(kind, 0) for node in self.nodes))

    def run(
        self,
        specs: Sequence[CellSpec],
        num_workers: int,
        observe: Callable[[Event], None],
        stop: StopRequest,
        *,
        fail_fast: bool = False,
    ) -> list[CellFailure]:
        """Run the cells and return those that failed; arguments as those of `run_locally`.

        Raises:
            Interrupted: After a stop, when every task has ended.
            WtieError: The cluster was lost.
        """
        ray = self.ray
        stop.on_second = show_cursor  # the tasks end with their driver
        place = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(self.own_node, False)
        mailbox = ray.remote(num_cpus=0, scheduling_strategy=place)(Mailbox).remote()
        sent = self._send_data(specs)
        waiting, running, started = list(specs), dict[Any, CellSpec](), set[str]()
        failures: list[CellFailure] = []
        ending = False
        try:
            with self._raylet() as raylet:
                while running or (waiting and not ending):
                    if select.select([raylet], [], [], 0)[0]:
                        raise ConnectionError("its part on this machine has ended")
                    if stop.signal_number is not None and not ending:
                        ending = True
                        observe({"kind": "stopping"})
                        mailbox.stop.remote()
                    while waiting and len(running) < num_workers and not ending:
                        spec = waiting.pop(0)
                        running[self._submit(spec, num_workers, mailbox, sent)] = spec
                    ended, _ = ray.wait(list(running), timeout=POLL_SECONDS)
                    for event in ray.get(mailbox.take.remote(), timeout=ANSWER_SECONDS):
                        if event["kind"] == "started" and event["cell"] in started:
                            observe({"kind": "warning", "cell": event["cell"], "text": RETRIED})
                        started.add(event["cell"])
                        observe(event)
                    for task in ended:
                        failure = self._settle(task, running.pop(task), observe)
                        if failure is not None and stop.signal_number is None and not ending:
                            failures.append(failure)
                            if fail_fast:
                                ending = True
                                observe({"kind": "stopping"})
                                mailbox.stop.remote()
        except (ray.exceptions.RayError, ConnectionError) as error:
            if stop.signal_number is None:
                raise WtieError(
                    f"the Ray cluster was lost: {first_line(error)}",
                    "start it again; the same command goes on with what is missing",
                ) from error
        if stop.signal_number is not None:
            raise Interrupted(stop.signal_number)
        return failures

    def _raylet(self) -> socket.socket:
        """Connect to this node's part of Ray, which ends the connection only when it ends.

        Some seconds after that Ray ends our process, without a word.
        """
        raylet = socket.socket(socket.AF_UNIX)
        raylet.connect(self.raylet_path)
        return raylet

    def _send_data(self, specs: Sequence[CellSpec]) -> dict[str, tuple[str, list[Any]]]:
        """Put the prepared data of all cells into the object store, each once, by its folder.

        A reference in a list is not resolved before a node asks for it.
        """
        folders = sorted({spec.prepared_folder for spec in specs})
        return {
            folder: (content_sha256(Path(folder)), [self.ray.put(read_files(Path(folder)))])
            for folder in folders
        }

    def _submit(
        self,
        spec: CellSpec,
        num_workers: int,
        mailbox: Any,
        sent: dict[str, tuple[str, list[Any]]],
    ) -> Any:
        task = self.ray.remote(
            num_cpus=min(spec.threads, self._largest("CPU")),
            num_gpus=self._gpus_of_cell(num_workers) if spec.device == "cuda" else 0,
            memory=self.cell_bytes,
            max_calls=1,  # a process of its own for every cell
            max_retries=MAX_RETRIES,
            retry_exceptions=[CellKilled],
        )(run_on_node)
        record = spec.as_record() | {
            "folder": str(self._working_folder(spec)),
            "prepared_folder": str(Path(spec.prepared_folder).absolute()),
        }
        return task.remote(record, *sent[spec.prepared_folder], mailbox, versions())

    def _gpus_of_cell(self, num_workers: int) -> float:
        """Return the part of a GPU that each of so many cells gets, in Ray's steps of 1/10,000."""
        cells_a_gpu = math.ceil(num_workers / self._total("GPU"))
        return math.floor(10_000 / cells_a_gpu) / 10_000

    def _working_folder(self, spec: CellSpec) -> Path:
        """Return where a cell keeps its checkpoints: its own folder, or one in the storage.

        That one is written down beside the cell's records, so the cell goes on in it; a cell that
        was moved aside to begin anew is given another.
        """
        folder = Path(spec.folder).absolute()
        if self.storage is None:
            return folder
        parent = inside(self.storage, *folder.parts[-3:-1])
        path = folder / STORAGE_RECORD
        if path.exists():
            record = read_json(path)
            named = Path(str(record.get("folder"))) if isinstance(record, dict) else Path()
            if named.parent == parent and named.name.startswith(f"{folder.name}-"):
                return named
        named = parent / f"{folder.name}-{secrets.token_hex(4)}"
        write_json(path, {"folder": str(named)})
        return named

    def _keep(self, spec: CellSpec, records: Mapping[str, bytes]) -> None:
        """Write what a cell has recorded into its folder here."""
        if not records:
            return  # of a lost worker: an orphan of it may own the folder still
        folder = Path(spec.folder)
        with owned(folder, f"cell {spec.name}"):
            for name in RECORDS:
                data = records.get(name)
                path = folder / name
                if data is not None and not (path.exists() and path.read_bytes() == data):
                    write_bytes(path, data)

    def _settle(
        self, task: Any, spec: CellSpec, observe: Callable[[Event], None]
    ) -> CellFailure | None:
        """Write what a task returned into the cell's folder, the result last; say how it ended.

        Raises:
            RayError: The cluster is lost, not only this task.
        """
        again = "the same command (without --fresh) goes on from the last checkpoint, if any"
        try:
            outcome = self.ray.get(task)
        except CellKilled as error:
            outcome = {"failure": (str(error.args[0]), again, 1), "records": {}}
        except (
            self.ray.exceptions.RayTaskError,
            self.ray.exceptions.WorkerCrashedError,
            self.ray.exceptions.NodeDiedError,
            self.ray.exceptions.OutOfMemoryError,
        ) as error:
            why = f"its worker was lost {1 + MAX_RETRIES} times: {first_line(error)}"
            outcome = {"failure": (why, again, 1), "records": {}}
        self._keep(spec, outcome["records"])
        if outcome["failure"] is None:
            if "result.json" in outcome["records"]:
                observe({"kind": "done", "cell": spec.name})
            return None
        message, remedy, exit_code = outcome["failure"]
        observe({"kind": "failed", "cell": spec.name, "message": message})
        return CellFailure(spec.name, message, remedy, exit_code)
