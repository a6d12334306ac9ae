"""Every state a disk can be in when a cell dies: after each call, and after each loss of power.

A cell is trained once while every call it makes of the system is watched. Before each call the disk
is as a kill at that moment would leave it; what of it a loss of power would leave is kept beside it
by a model of the page cache: contents and names count only once they were synced.
"""

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open

from tests.faults.cells import SmallRun, stable_digests
from tests.storage.disk import before_each_call
from tyro_cli.storage.checkpoints import list_checkpoints
from tyro_cli.storage.records import read_records
from tyro_cli.training.checkpoints import resume
from tyro_cli.training.loop import Trainer

Policy = Literal["lost", "names kept", "random"]
POLICIES: tuple[Policy, ...] = ("lost", "names kept", "random")


class PageCache:
    """What of a folder is on the disk, and not only in memory.

    Args:
        root: The folder; all that is in it counts as synced.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[int, bytes] = {}
        self.folders: dict[int, dict[str, tuple[int, bool]]] = {}
        self._renames: dict[int, list[tuple[str, str, int, bool]]] = {}
        self._pinned: dict[int, int] = {}
        for inode, path in self._paths().items():
            self._sync(inode, path)

    def note(self, name: str, arguments: tuple) -> None:
        """Take note of a call that succeeds."""
        if name == "fsync":
            inode = os.fstat(arguments[0]).st_ino
            path = self._paths().get(inode)
            if path is not None:
                self._sync(inode, path)
        elif name in ("rename", "replace"):
            source, target = Path(arguments[0]), Path(arguments[1])
            if source.parent != target.parent or not source.is_relative_to(self.root):
                return
            folder = source.parent.stat().st_ino
            entry = (source.name, target.name, source.stat().st_ino, source.is_dir())
            self._renames.setdefault(folder, []).append(entry)

    def materialize(self, target: Path, policy: Policy, draw: random.Random) -> None:
        """Write what a loss of power leaves.

        Args:
            target: An empty place.
            policy: `lost`: all that was not synced. `names kept`: the contents that were not
                synced, while files have their names. `random`: some of what was not synced.
            draw: Decides which.
        """
        paths = self._paths()
        self._write(self.root.stat().st_ino, target, policy, draw, paths)

    def close(self) -> None:
        """Let go of everything."""
        for descriptor in self._pinned.values():
            os.close(descriptor)

    def _paths(self) -> dict[int, Path]:
        paths = {self.root.stat().st_ino: self.root}
        for folder, folders, names in os.walk(self.root):
            for name in folders + names:
                path = Path(folder, name)
                paths[path.stat().st_ino] = path
        return paths

    def _sync(self, inode: int, path: Path) -> None:
        if inode not in self._pinned:  # so that its number is given to no other file
            self._pinned[inode] = os.open(path, os.O_RDONLY)
        if path.is_dir():
            self.folders[inode] = _entries(path)
            self._renames.pop(inode, None)
        else:
            self.files[inode] = path.read_bytes()

    def _write(
        self, inode: int, target: Path, policy: Policy, draw: random.Random, paths: dict[int, Path]
    ) -> None:
        target.mkdir()
        for name, (child, is_folder) in self._names(inode, policy, draw, paths).items():
            if is_folder:
                self._write(child, target / name, policy, draw, paths)
            else:
                (target / name).write_bytes(self._content(child, policy, draw, paths))

    def _names(
        self, inode: int, policy: Policy, draw: random.Random, paths: dict[int, Path]
    ) -> dict[str, tuple[int, bool]]:
        durable = dict(self.folders.get(inode, {}))
        current = _entries(paths[inode]) if inode in paths else {}
        if policy == "lost":
            return durable
        if policy == "names kept":
            return current
        renamed = set()
        for source, new, child, is_folder in self._renames.get(inode, []):
            renamed |= {source, new}
            if draw.random() < 0.5:
                durable.pop(source, None)
                durable[new] = (child, is_folder)
        for name in sorted((current.keys() ^ durable.keys()) - renamed):
            if draw.random() < 0.5:
                if name in current:
                    durable[name] = current[name]
                else:
                    del durable[name]
        return durable

    def _content(
        self, inode: int, policy: Policy, draw: random.Random, paths: dict[int, Path]
    ) -> bytes:
        durable = self.files.get(inode, b"")
        if policy != "random" or inode not in paths:
            return durable
        current = paths[inode].read_bytes()
        if not current.startswith(durable):
            return draw.choice((durable, current))
        kept = draw.randint(len(durable), len(current))
        tail = b"\0" * (len(current) - kept) if draw.random() < 0.3 else b""
        return current[:kept] + tail


def _entries(folder: Path) -> dict[str, tuple[int, bool]]:
    return {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(folder)}


@dataclass
class Reference:
    """What an uninterrupted cell leaves on its way.

    Attributes:
        checkpoints: Content of every `last` checkpoint that there ever was, by step.
        lines: The records of metrics.jsonl.
        files: The files of the finished cell.
    """

    checkpoints: dict[int, dict[str, bytes]]
    lines: list[dict[str, Any]]
    files: dict[str, bytes]

    def lines_behind(self, step: int) -> list[dict[str, Any]]:
        """Return the records that a checkpoint of a step counts on."""
        return [line for line in self.lines if line["step"] <= step]


def reference_of(run: SmallRun, name: str, folder: Path) -> Reference:
    """Train a cell without a fault."""
    checkpoints: dict[int, dict[str, bytes]] = {}

    def look() -> None:
        for step, path in list_checkpoints(folder / "checkpoints", "last"):
            if step not in checkpoints:
                checkpoints[step] = {p.name: p.read_bytes() for p in path.iterdir()}

    run.train(name, folder, poll=look)
    return Reference(checkpoints, read_records(folder / "metrics.jsonl"), stable_digests(folder))


class Recovery:
    """Looks at what a start would find in a folder, without training on.

    Args:
        run: The run.
        name: The cell.
        reference: What an uninterrupted one leaves.
        scratch: A place for a trainer of its own.
    """

    def __init__(self, run: SmallRun, name: str, reference: Reference, scratch: Path) -> None:
        self.reference = reference
        scratch.mkdir(parents=True, exist_ok=True)
        self.trainer = Trainer(run.context(name, scratch))
        self.fingerprint = dict(self.trainer.fingerprint, deterministic=True)

    def step_of(self, folder: Path, *, may_be_damaged: bool = False) -> int:
        """Return the step that a start resumes from; fail where it is not sound."""
        told: list[str] = []
        state = resume(
            folder / "checkpoints",
            self.trainer.context.cell_id,
            self.trainer.model,
            self.trainer.optimizer,
            self.fingerprint,
            allow_numeric_drift=False,
            warn=told.append,
        )
        assert may_be_damaged or not told, told
        if state is None:
            return 0
        step = int(state["step"])
        path = next(p for s, p in list_checkpoints(folder / "checkpoints", "last") if s == step)
        found = {file.name: file.read_bytes() for file in path.iterdir()}
        assert found == self.reference.checkpoints[step], f"a mixture at step {step}"
        wanted = self.reference.lines_behind(step)
        assert read_records(folder / "metrics.jsonl")[: len(wanted)] == wanted
        self._assert_loaded(path)
        return step

    def _assert_loaded(self, path: Path) -> None:
        with safe_open(path / "model.safetensors", "pt") as stored:
            for key, value in self.trainer.model.named_parameters():
                assert (stored.get_tensor(key) == value).all(), key


def watched_training(
    run: SmallRun,
    name: str,
    folder: Path,
    visit: Callable[[int, str, tuple], None],
    note: Callable[[str, tuple], None],
    report: Callable[[dict[str, Any]], None] = lambda event: None,
) -> int:
    """Train a cell, and look at the disk before each call it makes; return the number of calls.

    Args:
        run: The run.
        name: The cell.
        folder: Where it is trained.
        visit: Called before each call, unless the call before it only opened a file for reading:
            the disk is the same then.
        note: Called at each call.
        report: Takes the events of the worker.
    """
    calls, busy, changed = 0, False, True

    def act(call: str, arguments: tuple) -> None:
        nonlocal calls, busy, changed
        if busy:
            return
        calls += 1
        busy = True
        try:
            if changed:
                visit(calls, call, arguments)
            note(call, arguments)
            changed = not _only_reads(call, arguments)
        finally:
            busy = False

    with before_each_call(act):
        run.train(name, folder, report)
    return calls


def _only_reads(call: str, arguments: tuple) -> bool:
    if call != "open":
        return False
    how = arguments[1] if len(arguments) > 1 else "r"
    if isinstance(how, int):
        return not how & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    return not set(how) & set("wxa+")


def killed_copy(folder: Path, target: Path) -> Path:
    """Copy a cell as a kill at this moment leaves it."""
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        shutil.copytree(folder, target)
    else:
        target.mkdir()
    return target


def tear(folder: Path, copy: Path, descriptor: int, data: bytes) -> bool:
    """Let a write get half-way in the copy of a folder; say whether the file is in it."""
    inode = os.fstat(descriptor).st_ino
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_ino == inode:
            with (copy / path.relative_to(folder)).open("ab") as file:
                file.write(bytes(data)[: len(data) // 2])
            return True
    return False
