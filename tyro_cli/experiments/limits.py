"""How much this machine can carry: cores, memory, disk, and how many cells at once.

Memory is what the container's limit and the system leave; estimates come from the ledger. What
does not fit is refused before anything starts, with the number that would.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tyro_cli.errors import DeviceError, StorageError

WORKER_BYTES = 360 * 2**20  # an interpreter with torch, before any tensor (measured 330 to 350)

# What the kernel says of us; elsewhere than on Linux none of it is there.
CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_CONTROL_GROUP = Path("/proc/self/cgroup")
MEMORY_FACTS = Path("/proc/meminfo")


def available_cores() -> int:
    """Return the cores that this process may use: its affinity, and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, _quota_cores() or cores or 1))


def _quota_cores() -> int | None:
    """Return the smallest quota of processor time around us in whole cores, rounded up."""
    old = CONTROL_GROUPS / "cpu"
    texts = [_read(folder / "cpu.max").split() for folder in _control_groups()]
    texts.append([_read(old / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")])
    quotas = []
    for words in texts:
        try:
            quota, period = map(int, words)
        except ValueError:
            continue  # no such limit here ("max", or no such file)
        if quota > 0:
            quotas.append(-(-quota // period))
    return min(quotas, default=None)


def available_memory_bytes() -> int | None:
    """Return the memory that new processes can have; None where the system does not say.

    That is what the system can give without swapping, or what is left below the limit of a control
    group around us, whichever is less; cached files that can be dropped count as left.
    """
    old = CONTROL_GROUPS / "memory"
    groups = [
        (folder, "memory.max", "memory.current", "inactive_file") for folder in _control_groups()
    ]
    groups.append((old, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
    candidates = [
        int(line.split()[1]) * 1024
        for line in _read(MEMORY_FACTS).splitlines()
        if line.startswith("MemAvailable:")
    ]
    for folder, limit, usage, droppable in groups:
        lines = (line.split() for line in _read(folder / "memory.stat").splitlines())
        cached = sum(int(words[1]) for words in lines if words[0] == droppable)
        try:
            candidates.append(int(_read(folder / limit)) - int(_read(folder / usage)) + cached)
        except ValueError:
            continue  # no such limit here ("max", or no such file)
    return min(candidates, default=None)


def _control_groups() -> Iterator[Path]:
    """Yield our control group and those around it: the limit of any of them binds us."""
    names = [line[3:] for line in _read(OWN_CONTROL_GROUP).splitlines() if line.startswith("0::")]
    parts = Path(names[0].lstrip("/")).parts if names else ()
    if ".." in parts:  # it lies outside what our container is shown
        parts = ()
    for depth in range(len(parts), -1, -1):
        yield CONTROL_GROUPS.joinpath(*parts[:depth])


def _read(path: Path) -> str:
    """Return a file of the kernel's, or nothing where it is not there."""
    try:
        return path.read_text()
    except OSError:
        return ""


def choose_workers(
    asked: int | None, num_cells: int, cell_bytes: int, device: str, cells: str
) -> int:
    """Return how many cells run at once.

    Args:
        asked: `--workers`, or None for as many as cells, cores, devices and memory allow.
        num_cells: Cells that are left.
        cell_bytes: Estimate of the memory of the largest of them, without the interpreter.
        device: `cpu` or `cuda`; a GPU takes one cell at a time unless more are asked for.
        cells: Name of the largest cell, for the message.

    Raises:
        DeviceError: If the memory does not carry what was asked for, or not even one cell.
    """
    if num_cells == 0:
        return 1
    room = [(available_memory_bytes(), cell_bytes + WORKER_BYTES, "that are free")]
    if device == "cuda":
        room.append((free_gpu_bytes(), cell_bytes, "that are free on the GPU"))
    known = [(free // each, each, free, where) for free, each, where in room if free is not None]
    fitting, each, free, where = min(known, default=(num_cells, 0, 0, ""))
    if fitting < 1 or (asked is not None and asked > fitting and num_cells > fitting):
        raise DeviceError(
            f"{asked or 1} worker(s) of about {_size(each)} each ({cells}) do not fit "
            f"the {_size(free)} {where}",
            f"use --workers {fitting}"
            if fitting >= 1
            else "make the model smaller, or set training.micro_batch_tokens",
        )
    if asked is not None:
        return min(asked, num_cells)
    cores = 1 if device == "cuda" else available_cores()
    return max(1, min(num_cells, cores, fitting))


def free_gpu_bytes() -> int:
    """Return the free memory of the GPU that torch uses."""
    import torch

    return int(torch.cuda.mem_get_info()[0])


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
