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
    """Return the cores that this process may use: its affinity, and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, _quota_cores() or cores or 1))


def _quota_cores() -> int | None:
    """Return the container's quota of processor time in whole cores, rounded up."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            old = Path("/sys/fs/cgroup/cpu")
            quota = (old / "cpu.cfs_quota_us").read_text()
            period = (old / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        return -(-int(quota) // int(period)) if int(quota) > 0 else None
    except ValueError:
        return None  # "max"


def available_memory_bytes() -> int | None:
    """Return the memory that new processes can have; None where the system does not say."""
    candidates = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                candidates.append(int(line.split()[1]) * 1024)
    except OSError:
        return None
    old = "memory/memory"
    limits = (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (f"{old}.limit_in_bytes", f"{old}.usage_in_bytes", f"{old}.stat", "total_inactive_file"),
    )
    for names in limits:
        limit, usage, statistics = (Path("/sys/fs/cgroup") / name for name in names[:3])
        try:
            lines = (line.split() for line in statistics.read_text().splitlines())
            cached = sum(int(value) for key, value in lines if key == names[3])
            free = int(limit.read_text()) - int(usage.read_text()) + cached
        except (OSError, ValueError):
            continue  # no such limit here ("max")
        candidates.append(free)
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
        raise DeviceError(
            f"{asked or 1} worker(s) of about {_size(each)} each ({cells}) do not fit "
            f"the {_size(memory_bytes or 0)} that are free",
            f"use --workers {fitting}"
            if fitting >= 1
            else "make the model smaller, or set training.micro_batch_tokens",
        )
    if asked is not None:
        return min(asked, num_cells)
    cores = 1 if device == "cuda" else available_cores()
    return max(1, min(num_cells, cores, fitting))


def _size(num_bytes: int) -> str:
    """Write a number of bytes in GiB, or below one in MiB."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"


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
            f"{folder}: the checkpoints need about {_size(needed_bytes)}, {_size(free)} are free",
            "free some space, or choose another place with --out",
        )
