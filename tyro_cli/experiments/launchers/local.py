"""Cells as worker processes on this machine.

Each worker is a fresh interpreter in a session of its own, so a Ctrl-C reaches it only through us:
the first stop is passed on and every worker writes a checkpoint; the second ends them at once.
Events come back as JSON lines; what a worker prints besides goes to its cell's log.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import tyro_cli
from tyro_cli.errors import Interrupted
from tyro_cli.experiments.limits import available_cores, choose_workers
from tyro_cli.experiments.specs import CellSpec
from tyro_cli.storage.system import make_folder, storage_errors
from tyro_cli.training.signals import StopRequest

Event = dict[str, Any]
POLL_SECONDS = 0.1
READER_SECONDS = 5.0
SHOW_CURSOR = b"\x1b[?25h\n"

# `-m` would put the user's current folder before the standard library.
PACKAGE_PARENT = Path(tyro_cli.__file__).resolve().parent.parent
WORKER = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from tyro_cli.experiments.worker import main; sys.exit(main())"
)


@dataclass(frozen=True)
class CellFailure:
    """Why a cell did not finish.

    Attributes:
        name: `ARM/seed-N`.
        message: What went wrong.
        remedy: What to do about it; may be empty.
        exit_code: Of the worker.
    """

    name: str
    message: str
    remedy: str
    exit_code: int

    def in_words(self) -> str:
        """Return name, message and remedy on one line."""
        return f"{self.name}: {self.message}" + (f" ({self.remedy})" if self.remedy else "")


@dataclass
class _Worker:
    spec: CellSpec
    process: "subprocess.Popen[str]"
    reader: threading.Thread
    failure: Event | None = None


def run_locally(
    specs: Sequence[CellSpec],
    num_workers: int,
    observe: Callable[[Event], None],
    stop: StopRequest,
    *,
    fail_fast: bool = False,
) -> list[CellFailure]:
    """Run the cells, `num_workers` at a time, and return those that failed.

    Args:
        specs: Cells in the order in which they start.
        num_workers: Worker processes alive at once, at least 1.
        observe: Takes the events of all workers, each with the name of its `cell`.
        stop: Polled; its signal is passed on to the workers.
        fail_fast: After the first failure start no cell more, and let those that run save and end.

    Raises:
        Interrupted: After a stop, when every worker has ended.
    """
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    waiting, running, failures = list(specs), dict[str, _Worker](), list[CellFailure]()

    def end_at_once() -> None:
        for worker in running.values():
            worker.process.kill()
        show_cursor()

    def pass_on(signal_number: int) -> None:
        observe({"kind": "stopping"})
        for worker in running.values():
            worker.process.send_signal(signal_number)

    stop.on_second = end_at_once
    passed_on = False
    try:
        while running or (waiting and stop.signal_number is None):
            while waiting and len(running) < num_workers and stop.signal_number is None:
                spec = waiting.pop(0)
                running[spec.name] = _start(spec, events)
                observe(
                    {
                        "kind": "started",
                        "cell": spec.name,
                        "total_steps": spec.total_steps,
                        "batch_tokens": spec.settings["training"]["batch_tokens"],
                    }
                )
            if stop.signal_number is not None and not passed_on:
                passed_on = True
                pass_on(stop.signal_number)
            _drain(events, running, observe)
            for name in [n for n, worker in running.items() if worker.process.poll() is not None]:
                running[name].reader.join(timeout=READER_SECONDS)
                _drain(events, running, observe)
                worker = running.pop(name)
                failure = _failure_of(worker)
                if failure is not None and stop.signal_number is None and not passed_on:
                    failures.append(failure)
                    observe({"kind": "failed", "cell": name, "message": failure.message})
                    if fail_fast:
                        waiting.clear()
                        passed_on = True
                        pass_on(signal.SIGTERM)
    finally:
        for worker in running.values():
            worker.process.kill()
            worker.process.wait()
    if stop.signal_number is not None:
        raise Interrupted(stop.signal_number)
    return failures


class LocalLauncher:
    """Cells on this machine; see `choice.Launcher`."""

    def choose_workers(
        self, asked: int | None, num_cells: int, cell_bytes: int, device: str, cells: str
    ) -> int:
        """Return how many cells run at once."""
        return choose_workers(asked, num_cells, cell_bytes, device, cells)

    def share_cores(self, num_workers: int) -> int:
        """Return the threads of each of so many cells."""
        return max(1, available_cores() // num_workers)

    def run(
        self,
        specs: Sequence[CellSpec],
        num_workers: int,
        observe: Callable[[Event], None],
        stop: StopRequest,
        *,
        fail_fast: bool = False,
    ) -> list[CellFailure]:
        """Run the cells and return those that failed."""
        return run_locally(specs, num_workers, observe, stop, fail_fast=fail_fast)


def show_cursor() -> None:
    """Show the cursor of a terminal again, which the live table has hidden."""
    if sys.stderr.isatty():
        os.write(2, SHOW_CURSOR)


def _start(spec: CellSpec, events: "queue.SimpleQueue[Event]") -> _Worker:
    folder = Path(spec.folder)
    make_folder(folder)
    environment = os.environ | {
        "OMP_NUM_THREADS": str(spec.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONUNBUFFERED": "1",
        "WTIE_STARTED": repr(time.time()),
        "WTIE_PARENT": str(os.getpid()),
    }
    log_path = folder / "log.txt"
    with storage_errors(log_path, "write"), log_path.open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", WORKER, str(PACKAGE_PARENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        json.dump(spec.as_record(), process.stdin)
        process.stdin.close()
    except BrokenPipeError:
        pass  # the worker died at once; its exit code tells
    reader = threading.Thread(target=_forward, args=(process.stdout, events), daemon=True)
    reader.start()
    return _Worker(spec, process, reader)


def _forward(stream: IO[str], events: "queue.SimpleQueue[Event]") -> None:
    with stream:
        for line in stream:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue  # a library printed something; it is not ours
            if isinstance(event, dict) and "kind" in event and "cell" in event:
                events.put(event)


def _drain(
    events: "queue.SimpleQueue[Event]",
    running: dict[str, _Worker],
    observe: Callable[[Event], None],
) -> None:
    """Pass on the events at hand; wait a moment for the first."""
    timeout = POLL_SECONDS
    while True:
        try:
            event = events.get(timeout=timeout)
        except queue.Empty:
            return
        timeout = 0.0
        worker = running.get(event["cell"])
        if event["kind"] == "failed" and worker is not None:
            worker.failure = event  # shown when the process has ended
        else:
            observe(event)


def _failure_of(worker: _Worker) -> CellFailure | None:
    code = worker.process.returncode
    if code == 0:
        return None
    event = worker.failure or {
        "message": f"the worker ended with exit code {code}"
        + (" (killed, perhaps for want of memory)" if code == -9 else ""),
        "remedy": f"see {Path(worker.spec.folder) / 'log.txt'}; the same command (without "
        "--fresh) goes on from the last checkpoint",
    }
    return CellFailure(worker.spec.name, event["message"], event["remedy"], code)
