"""The way to a Ray cluster: whether one can be reached, and the connection while cells run.

Ray takes over signals, standard output and the terminal of the process that connects; here each of
them is kept as it was. What runs on the cluster is left to `ray`.
"""

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tyro_cli.errors import DeviceError, Interrupted, UsageError
from tyro_cli.experiments.limits import available_cores, available_memory_bytes

OBJECT_STORE_BYTES = 200 * 10**6
CONNECT_SECONDS = 10.0
STARTS_IN_FOLDER = Path("/tmp")  # the path of a Unix socket is short: $TMPDIR may be too long
HTTP2_SETTINGS = b"\x04"
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + HTTP2_SETTINGS + bytes(5)


def check_ray(address: str | None) -> None:
    """Find out at little cost whether Ray can be used; nothing is started.

    Args:
        address: `HOST:PORT`, `auto`, or None.

    Raises:
        UsageError: Ray is not installed, or the address is none.
        DeviceError: Nothing answers at the address.
    """
    if find_spec("ray") is None:
        raise UsageError(
            "--launcher ray needs Ray, which is not installed",
            "install the extra `ray`: pip install 'wtie[ray]'",
        )
    if address in (None, "auto"):
        return
    host, colon, port = address.rpartition(":")
    is_port = port.isascii() and port.isdigit() and int(port) < 2**16
    if not (colon and host and is_port) or "/" in host:
        raise UsageError(
            f"--ray-address {address!r} is neither HOST:PORT nor auto",
            "name the head as `ray start --head` printed it, e.g. --ray-address 10.0.0.1:6379, "
            "on a machine that is part of the cluster",
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS) as connection:
            connection.sendall(HTTP2_GREETING)
            answer = connection.recv(9)  # else Ray would ask a stranger for a quarter of an hour
    except OSError as error:
        raise _unreachable(address, error.strerror or str(error)) from error
    if answer[3:4] != HTTP2_SETTINGS:
        raise _unreachable(address, "what answers there is not Ray")


def _unreachable(address: str, why: str) -> DeviceError:
    return DeviceError(
        f"no Ray cluster can be reached at {address}: {why}",
        "start one with `ray start --head`, correct --ray-address, or leave it (and RAY_ADDRESS) "
        "out to start Ray on this machine",
    )


@contextmanager
def ray_connected(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start Ray on this machine, for the length of a block.

    Ray on this machine takes the cores that we may use and an object store of
    `OBJECT_STORE_BYTES`, asks its callers for a token made for this start, and leaves nothing.

    Args:
        address: `HOST:PORT`, `auto`, or None to start Ray here.

    Yields:
        The module `ray`, connected.

    Raises:
        UsageError, DeviceError: As `check_ray`.
        Interrupted: A signal came while Ray was starting.
    """
    check_ray(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with ExitStack() as held:
        # From a thread of its own Ray prints what it thinks of lost workers, to standard output.
        nowhere = held.enter_context(open(os.devnull, "w"))
        held.enter_context(redirect_stdout(nowhere))
        if address is None:
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            folder = tempfile.mkdtemp(prefix="wtie-ray-", dir=STARTS_IN_FOLDER)
            held.callback(shutil.rmtree, folder, ignore_errors=True)
            free = available_memory_bytes()
            options |= {
                "num_cpus": available_cores(),
                "object_store_memory": OBJECT_STORE_BYTES,
                "_memory": None if free is None else max(0, free - OBJECT_STORE_BYTES),
                "include_dashboard": False,
                "_temp_dir": folder,
            }
        import ray

        held.callback(ray.shutdown)
        with _signals_kept(), _quiet():
            try:
                ray.init(address=address or "local", **options)
            except Exception as error:
                if address is None:
                    raise DeviceError(
                        f"Ray could not be started: {first_line(error)}",
                        "try again, or use --launcher local",
                    ) from error
                if "InvalidAuthToken" in f"{error} {error.__cause__}":
                    raise DeviceError(
                        f"the Ray cluster at {address} asks for another token than it was given",
                        "set RAY_AUTH_MODE=token, and its token in RAY_AUTH_TOKEN or in "
                        "~/.ray/auth_token",
                    ) from error
                raise _unreachable(address, first_line(error)) from error
        yield ray


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep our handlers: Ray takes SIGTERM for itself, and ends the process when it comes."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except SystemExit:
        raise Interrupted(signal.SIGTERM) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Ray's native code says while it connects out of the terminal; errors are ours."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def first_line(error: Exception) -> str:
    """Return what an error of Ray says first; the rest is long."""
    return (str(error) or type(error).__name__).strip().splitlines()[0]
