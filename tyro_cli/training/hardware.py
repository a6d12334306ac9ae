"""What a process computes with: device, precision, threads, allocator, and the fingerprint of it.

The numeric fingerprint names everything that may change the last bit of a result. A checkpoint
carries it, and a resume compares it.
"""

import ctypes
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tyro_cli.errors import DeviceError


def resolve_device(asked: str) -> str:
    """Return `cpu` or `cuda` for `auto`, `cpu` or `cuda`.

    Raises:
        DeviceError: If a GPU is asked for and there is none.
    """
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "--device cuda: torch sees no GPU here", "use --device cpu, or install a CUDA torch"
        )
    return asked


def multiplies_bfloat16(device: str) -> bool:
    """Say whether the hardware multiplies bfloat16 natively instead of emulating it."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu: Any = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def is_faster_in_bfloat16(device: str) -> bool:
    """Say whether the hardware is known to multiply bfloat16 faster than float32.

    AVX512_BF16 is several times as fast as float32 on AMD, and slower than float32 on an Intel
    processor whose AMX a virtual machine hides (docs/LOG.md, 2026-11-23 and 2026-12-01). It is
    decided by name, not by a measurement: the precision is a part of what a cell is, and must not
    change with the load of a moment.
    """
    if device == "cuda":
        return multiplies_bfloat16(device)
    cpu: Any = torch.cpu
    if cpu._is_amx_tile_supported():
        return True
    return multiplies_bfloat16(device) and not processor_name().startswith("Intel")


def processor_name() -> str:
    """Return what the processor calls itself, such as `AMD EPYC 7B13`."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux
    return platform.processor() or platform.machine()


def resolve_precision(asked: str, device: str) -> str:
    """Return `fp32` or `bf16`; `auto` takes bf16 where the hardware multiplies it faster."""
    if asked == "auto":
        return "bf16" if is_faster_in_bfloat16(device) else "fp32"
    return asked


def bfloat16_cost(device: str) -> float:
    """Return how many times as long a matrix product takes in bf16 as in float32, measured now."""
    return _product_seconds(torch.bfloat16, device) / _product_seconds(torch.float32, device)


def _product_seconds(dtype: torch.dtype, device: str) -> float:
    """Return the shortest time of a few products `[256, 512] @ [512, 512]`."""
    left, right = (torch.ones(rows, 512, dtype=dtype, device=device) for rows in (256, 512))
    times = []
    for _ in range(4):  # the first one also sets the library up
        started = time.perf_counter()
        (left @ right).sum().item()
        times.append(time.perf_counter() - started)
    return min(times)


def compute_dtype(precision: str) -> torch.dtype:
    """Return the dtype that matrix products run in."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def configure_process(device: str, threads: int, deterministic: bool) -> None:
    """Set threads, determinism and the allocator of this process, once, before any tensor."""
    torch.set_num_threads(threads)
    # use_deterministic_algorithms would import the compiler, only to tell it; `Compiled` does.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # We never read uninitialised memory; filling it would cost 3 % of a step.
    setting: Any = torch.utils.deterministic
    setting.fill_uninitialized_memory = False
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # By default products of a thousand shapes are remembered, each with memory of its own, and
    # batches of translation have that many. Fewer halve a worker's memory, and cost no time.
    os.environ.setdefault("LRU_CACHE_CAPACITY", "32")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        # Keep freed blocks: returning them to the system makes a [700 x 33278] product take 75
        # instead of 28 ms, because its pages are mapped and zeroed anew at every step.
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)


def fingerprint(
    device: str, precision: str, deterministic: bool, processes: int = 1, compiled: bool = False
) -> dict[str, Any]:
    """Return what decides the last bit of a result on this process.

    `processes` stands in it only where there are several, so that a cell of one process keeps the
    fingerprint that it always had.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    if multiplies_bfloat16("cpu"):
        cpu: Any = torch.cpu
        capability += "+amx" if cpu._is_amx_tile_supported() else "+bf16"
    if device == "cuda":
        capability = f"{torch.cuda.get_device_name()} cuda {torch.version.cuda}"
    together = {"processes": processes} if processes > 1 else {}
    return together | {
        "torch": torch.__version__,
        "device": device,
        "capability": capability,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "deterministic": deterministic,
        "compile": compiled,
    }
