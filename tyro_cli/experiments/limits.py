"""How much this machine can carry: cores, memory, disk, and how many cells at once.

Memory is what the container's limit and the system leave; estimates come from the ledger. What
does not fit is refused before anything starts, with the number that would.
"""

import os
import shutil
from pathlib import Path

from tyro_cli.errors import DeviceError, StorageError

WORKER_BYTES = 400 * 2**20  # an interpreter with torch, before any tensor (measured 0.3 GiB)


def available_cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory_bytes() -> int | None:
    """Return the memory that new processes can have; None where the system does not say."""
    candidates = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                candidates.append(int(line.split()[1]) * 1024)
    except OSError:
        return None
    limits = (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    )
    for limit, usage in limits:
        try:
            candidates.append(int(Path(limit).read_text()) - int(Path(usage).read_text()))
        except (OSError, ValueError):
            continue  # no such limit here ("max")
    return min(candidates, default=None)


def choose_workers(
    asked: int | None, num_cells: int, cell_bytes: int, device: str, cells: str
) -> int:
    """Return how many cells run at once.

    Args:
        asked: `--workers`, or None for as many as cells, cores, devices and memory allow.
        num_cells: Cells that are left.
        cell_bytes: Estimate of the memory of the largest of them, without the interpreter.
        device: `cpu` or `cuda`; a GPU takes one cell at a time.
        cells: Name of the largest cell, for the message.

    Raises:
        DeviceError: If the memory does not carry what was asked for, or not even one cell.
    """
    if num_cells == 0:
        return 1
    memory_bytes = available_memory_bytes()
    each = cell_bytes + WORKER_BYTES
    fitting = num_cells if memory_bytes is None else memory_bytes // each
    if fitting < 1 or (asked is not None and asked > fitting and num_cells > fitting):
        have = (memory_bytes or 0) / 2**30
        raise DeviceError(
            f"{asked or 1} worker(s) of about {each / 2**30:.1f} GiB each ({cells}) do not fit "
            f"the {have:.1f} GiB that are free",
            f"use --workers {fitting}"
            if fitting >= 1
            else "make the model smaller, or set training.micro_batch_tokens",
        )
    if asked is not None:
        return min(asked, num_cells)
    cores = 1 if device == "cuda" else available_cores()
    return max(1, min(num_cells, cores, fitting))


def check_disk(folder: Path, needed_bytes: int) -> None:
    """Refuse a start that would fill the disk.

    Raises:
        StorageError: If less than `needed_bytes` are free where `folder` is or will be.
    """
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise StorageError(
            f"{folder}: the checkpoints need about {needed_bytes / 2**30:.2f} GiB, "
            f"{free / 2**30:.2f} GiB are free",
            "free some space, or choose another place with --out",
        )
