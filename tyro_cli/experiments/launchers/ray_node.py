"""Cells as tasks of a Ray cluster: what a node does. `ray` is what the driver does.

A task runs its cell as the local launcher does, in a process of its own, so signals, numbers and
bytes are the same; it keeps a verified copy of the data, works in a folder of its node, and returns
the records. This module is imported by Ray's workers and stays light.
"""

import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tyro_cli import __version__
from tyro_cli.data.copies import holds, keep_copy
from tyro_cli.data.prepared import default_cache_folder
from tyro_cli.errors import CellFailed, Interrupted, WtieError
from tyro_cli.experiments.identity import PROTOCOL
from tyro_cli.experiments.launchers.local import Event, run_locally
from tyro_cli.experiments.specs import CellSpec
from tyro_cli.storage.system import storage_errors
from tyro_cli.training.signals import StopRequest

RECORDS = (
    "log.txt",
    "metrics.jsonl",
    "performance.json",
    "documents.npz",
    "translations/valid.txt",
    "translations/test.txt",
    "result.json",
)
EXCHANGE_SECONDS = 0.25
FIRST_SIGNAL_CODE = 128
# What the driver says itself, once the records have arrived.
_SAID_BY_DRIVER = ("done", "failed", "stopping")


class CellKilled(Exception):
    """The process of a cell was ended by a signal that was not ours: the task is tried again."""


class Mailbox:
    """An actor beside the driver: events on their way to it, and whether cells must stop."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._is_stopping = False

    def exchange(self, events: list[Event]) -> bool:
        """Take events of a cell; say whether it must stop."""
        self._events += events
        return self._is_stopping

    def take(self) -> list[Event]:
        """Give the events that have come since the last time."""
        events, self._events = self._events, []
        return events

    def stop(self) -> None:
        """Tell every cell to stop, those that have not begun as well."""
        self._is_stopping = True


def versions() -> dict[str, str]:
    """Return what must be the same on driver and node for one study's cells to be pairs."""
    return {"wtie": __version__, "protocol": str(PROTOCOL), "torch": version("torch")}


def run_on_node(
    record: dict[str, Any],
    data_sha256: str,
    data: list[Any],
    mailbox: Any,
    driver_versions: dict[str, str],
) -> dict[str, Any]:
    """Run one cell here and return its records.

    Args:
        record: The cell's spec; its folder is one of this node.
        data_sha256: Hash of the prepared data, as `copies.content_sha256` gives it.
        data: One reference to the data's files in the object store.
        mailbox: The driver's `Mailbox`.
        driver_versions: What `versions` returned on the driver.

    Returns:
        `failure`: None, or message, remedy and exit code; `records`: the content of each file of
        `RECORDS` that there is, by name. Without a failure and a result the cell was stopped.

    Raises:
        CellKilled: A signal ended the process of the cell.
    """
    import ray

    spec = CellSpec(**record)
    failure: tuple[str, str, int] | None = None
    with _correspondence(ray, mailbox) as (events, stop):
        try:
            _check_versions(driver_versions)
            stop.poll()
            cache, folder = default_cache_folder(), Path(spec.prepared_folder)
            if folder.parent != cache / "data" or not holds(folder, data_sha256):
                folder = keep_copy(
                    cache,
                    data_sha256,
                    lambda: ray.get(data[0]),
                    should_stop=stop.poll,
                )
            spec = replace(spec, prepared_folder=str(folder))

            def observe(event: Event) -> None:
                events.put(event | {"seconds": time.monotonic()})

            for failed in run_locally([spec], 1, observe, stop):
                if failed.exit_code < 0 or failed.exit_code > FIRST_SIGNAL_CODE:
                    raise CellKilled(failed.message)
                failure = (failed.message, failed.remedy, failed.exit_code)
        except Interrupted:
            pass
        except WtieError as error:
            failure = (f"{error.message} (on {socket.gethostname()})", error.remedy, 1)
    return {"failure": failure, "records": _records(Path(spec.folder))}


def _check_versions(expected: dict[str, str]) -> None:
    found = versions()
    if found != expected:
        different = [
            f"{name} {found.get(name)}, the driver {value}"
            for name, value in expected.items()
            if found.get(name) != value
        ]
        raise CellFailed(
            f"this node has {'; '.join(different)}: cells that differ in that are no pairs",
            "install the same versions on every node",
        )


@contextmanager
def _correspondence(
    ray: Any, mailbox: Any
) -> Iterator[tuple["queue.SimpleQueue[Event]", StopRequest]]:
    """Send the events that are put into a queue to the driver, and hear whether to stop.

    Ray's processes ignore SIGINT, and so do those that they start; a stop is SIGTERM here.
    """
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    stop = StopRequest()
    has_ended = threading.Event()

    def exchange() -> None:
        ready = [events.get() for _ in range(events.qsize())]
        told = [event for event in ready if event["kind"] not in _SAID_BY_DRIVER]
        with suppress(ray.exceptions.RayError):  # without a driver Ray ends this task
            if ray.get(mailbox.exchange.remote(told)) and stop.signal_number is None:
                stop.handle(signal.SIGTERM, None)

    def correspond() -> None:
        while not has_ended.wait(EXCHANGE_SECONDS):
            exchange()

    exchange()
    thread = threading.Thread(target=correspond, daemon=True)
    thread.start()
    try:
        yield events, stop
    finally:
        has_ended.set()
        thread.join()
        exchange()


def _records(folder: Path) -> dict[str, bytes]:
    found = {}
    for name in RECORDS:
        path = folder / name
        if os.path.lexists(path):
            with storage_errors(path, "read"):
                found[name] = path.read_bytes()
    return found
