"""What a machine can carry: limits as the kernel tells them, and what is refused before a start."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.faults.cells import SmallRun
from tests.storage.disk import before_each_call
from tyro_cli.errors import DeviceError, StorageError
from tyro_cli.experiments import limits
from tyro_cli.experiments.limits import (
    WORKER_BYTES,
    available_cores,
    available_memory_bytes,
    check_disk,
    choose_workers,
)
from tyro_cli.experiments.run import disk_bytes
from tyro_cli.ledger.ledger import ledger_of

MIB = 2**20


class Kernel:
    """The files in which a kernel tells its limits, made up."""

    def __init__(self, place: Path, monkeypatch) -> None:
        self.place = place
        self.groups = place / "cgroup"
        self.groups.mkdir()
        monkeypatch.setattr(limits, "CONTROL_GROUPS", self.groups)
        monkeypatch.setattr(limits, "OWN_CONTROL_GROUP", place / "own")
        monkeypatch.setattr(limits, "MEMORY_FACTS", place / "meminfo")

    def puts_us_in(self, text: str) -> None:
        (self.place / "own").write_text(f"{text}\n")

    def has_available(self, num_bytes: int) -> None:
        text = f"MemTotal: 1 kB\nMemAvailable: {num_bytes // 1024} kB\nSwapFree: 0 kB\n"
        (self.place / "meminfo").write_text(text)

    def limits_memory(self, group: str, limit: str, usage: int, droppable: int = 0) -> None:
        folder = self.groups / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{usage}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {droppable}\n")


@pytest.fixture
def kernel(tmp_path, monkeypatch) -> Kernel:
    return Kernel(tmp_path, monkeypatch)


def test_a_system_that_says_nothing_limits_nothing(kernel):
    assert available_memory_bytes() is None
    assert choose_workers(None, 1, 2**50, "cpu", "a") == 1


def test_available_memory_counts(kernel):
    kernel.has_available(5000 * MIB)
    assert available_memory_bytes() == 5000 * MIB


def test_the_limit_of_a_container_counts_less_what_is_used_plus_what_can_be_dropped(kernel):
    kernel.has_available(5000 * MIB)
    kernel.limits_memory("", str(1000 * MIB), 700 * MIB, droppable=200 * MIB)
    assert available_memory_bytes() == 500 * MIB
    kernel.limits_memory("", "max", 700 * MIB)
    assert available_memory_bytes() == 5000 * MIB


def test_the_limit_of_every_group_around_us_counts(kernel):
    kernel.has_available(5000 * MIB)
    kernel.puts_us_in("1:name=x:/other\n0::/slice/unit")
    kernel.limits_memory("slice/unit", "max", 0)
    kernel.limits_memory("slice", str(900 * MIB), 100 * MIB)
    kernel.limits_memory("other", str(1 * MIB), 0)
    assert available_memory_bytes() == 800 * MIB
    kernel.limits_memory("slice/unit", str(300 * MIB), 100 * MIB)
    assert available_memory_bytes() == 200 * MIB
    kernel.puts_us_in("0::/../../outside")  # a container's view of a group outside of it
    assert available_memory_bytes() == 5000 * MIB


def test_the_older_kind_of_group_counts(kernel):
    kernel.has_available(5000 * MIB)
    folder = kernel.groups / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(f"{600 * MIB}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{500 * MIB}\n")
    (folder / "memory.stat").write_text(f"total_inactive_file {50 * MIB}\n")
    assert available_memory_bytes() == 150 * MIB


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("150000 100000", 2), ("300000 100000", 3), ("", 8)]
)
def test_a_quota_of_processor_time_counts_in_whole_cores(kernel, monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    kernel.puts_us_in("0::/slice")
    (kernel.groups / "slice").mkdir()
    (kernel.groups / "slice" / "cpu.max").write_text(quota)
    assert available_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("250000", 3)])
def test_the_older_quota_counts(kernel, monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    folder = kernel.groups / "cpu"
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores() == cores


def test_as_many_cells_run_at_once_as_memory_carries(kernel, monkeypatch):
    monkeypatch.setattr(limits, "available_cores", lambda: 8)
    cell = 640 * MIB
    kernel.has_available(3 * (cell + WORKER_BYTES))
    assert choose_workers(None, 10, cell, "cpu", "a") == 3
    assert choose_workers(3, 10, cell, "cpu", "a") == 3
    assert choose_workers(None, 2, cell, "cpu", "a") == 2
    assert choose_workers(4, 2, cell, "cpu", "a") == 2
    assert choose_workers(None, 0, cell, "cpu", "a") == 1
    monkeypatch.setattr(limits, "free_gpu_bytes", lambda: 10 * cell)
    assert choose_workers(None, 10, cell, "cuda", "a") == 1


def test_the_memory_of_the_gpu_counts_where_a_cell_runs_there(kernel, monkeypatch):
    kernel.has_available(64 * 2**30)
    monkeypatch.setattr(limits, "free_gpu_bytes", lambda: 1500 * MIB)
    assert choose_workers(2, 10, 640 * MIB, "cuda", "a") == 2
    with pytest.raises(DeviceError) as caught:
        choose_workers(3, 10, 640 * MIB, "cuda", "tied")
    assert caught.value.message == (
        "3 worker(s) of about 640.0 MiB each (tied) do not fit the 1.5 GiB that are free on the GPU"
    )
    assert caught.value.remedy == "use --workers 2"


def test_more_workers_than_memory_carries_are_refused_with_a_number_that_fits(kernel):
    kernel.has_available(2 * (640 * MIB + WORKER_BYTES) + MIB)
    with pytest.raises(DeviceError) as caught:
        choose_workers(3, 10, 640 * MIB, "cpu", "tied")
    assert caught.value.message == (
        "3 worker(s) of about 1000.0 MiB each (tied) do not fit the 2.0 GiB that are free"
    )
    assert caught.value.remedy == "use --workers 2"


def test_a_cell_that_does_not_fit_is_refused_with_what_would_help(kernel):
    kernel.has_available(640 * MIB)  # the tensors would fit, the process would not
    for asked in (None, 1):
        with pytest.raises(DeviceError) as caught:
            choose_workers(asked, 1, 640 * MIB, "cpu", "tied")
        assert "640.0 MiB that are free" in caught.value.message
        assert "training.micro_batch_tokens" in caught.value.remedy


def test_a_disk_that_would_fill_is_refused_with_what_would_help(tmp_path, monkeypatch):
    seen = []

    def usage(path):
        seen.append(path)
        return SimpleNamespace(free=50)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    folder = tmp_path / "runs" / "not" / "there"
    check_disk(folder, 50)
    with pytest.raises(StorageError) as caught:
        check_disk(folder, 51 * MIB)
    assert str(folder) in caught.value.message
    assert "need about 51.0 MiB" in caught.value.message
    assert "--out" in caught.value.remedy
    assert set(seen) == {tmp_path}


def bytes_below(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        total += sum(os.stat(os.path.join(place, name)).st_size for name in names)
    return total


def test_the_disk_that_cells_take_is_what_was_estimated_within_a_quarter(tmp_path, monkeypatch):
    """Looked at before each call, so that no moment is missed; one cell after the other."""
    monkeypatch.setattr(os, "fsync", os.fstat)
    run = SmallRun(tmp_path, steps=10, every=2, model={"d_model": 64})
    ledgers = [
        ledger_of(run.plan.arms[cell.arm].settings, run.prepared.vocab_size)
        for cell in run.plan.cells
    ]
    estimate = disk_bytes(ledgers, num_workers=1)
    highest = before = bytes_below(run.folder)

    def look(call: str, arguments: tuple) -> None:
        nonlocal highest
        if call in ("rename", "replace"):
            highest = max(highest, bytes_below(run.folder))

    with before_each_call(look):
        run.train_all()
    measured = highest - before
    assert 0.75 * measured <= estimate <= 1.25 * measured, (estimate, measured)
    assert disk_bytes(ledgers, num_workers=2) > estimate
    assert disk_bytes([], num_workers=1) == 0
