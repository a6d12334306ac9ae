"""A user's folder: a small corpus, an experiment, and `wtie` started as a process of its own."""

import copy
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.folders import digests

REPOSITORY = Path(__file__).resolve().parents[2]

# A busy machine is no failure: these only end a test that hangs.
COMMAND_SECONDS = 180.0
# What "within seconds" may take on a machine with other work to do.
PROMPT_SECONDS = 15.0

EXPERIMENT: dict[str, Any] = {
    "name": "tiny",
    "task": "language-modeling",
    "data": {"corpus": "corpus", "tokenizer": {"kind": "byte"}, "context_length": 8},
    "model": {"d_model": 16, "num_layers": 1, "num_heads": 2, "dropout": 0.1},
    "training": {
        "budget": {"steps": 12},
        "batch_tokens": 32,
        "optimizer": {"learning_rate": 1e-2},
        "precision": "fp32",
    },
    "evaluation": {"every_steps": 4, "stride": 8},
    "arms": {"untied": {}, "tied": {"model": {"tying": "in-out"}}},
    "baseline": "untied",
    "seeds": [0],
}

STUDY_FACTORS: Mapping[str, Any] = {"width": {"model.d_model": [8, 16]}}
SWEEP = ("sweep", "--threads", "1", "--workers", "2")

# Files that may differ between two ways to the same run: times, what was said on the way, locks,
# and the manifest, which is compared without its times.
_MAY_DIFFER = re.compile(r"performance\..*|log\.txt|\..*\.lock(\.json)?|manifest\.json")


@dataclass(frozen=True)
class Finished:
    """What one command left."""

    exit_code: int
    stdout: str
    stderr: str


class Started:
    """A command that runs; its stderr is read line by line as it comes."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self._output: list[str] = []
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read_errors, daemon=True),
            threading.Thread(target=self._read_output, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                with self._changed:
                    self.lines.append(line)
                    self._changed.notify_all()

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            self._output.append(stream.read())

    @property
    def stderr(self) -> str:
        """What was said so far."""
        with self._changed:
            return "".join(self.lines)

    def wait_for(self, text: str, times: int = 1, seconds: float = COMMAND_SECONDS) -> None:
        """Wait until so many lines on stderr hold the text, or the process has ended."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while sum(text in line for line in self.lines) < times:
                if self.process.poll() is not None:
                    break
                assert time.monotonic() < deadline, f"no {text!r} in:\n{''.join(self.lines)}"
                self._changed.wait(0.05)

    def send(self, number: int) -> None:
        """Send a signal to the command alone, not to its workers."""
        self.process.send_signal(number)

    def end(self) -> None:
        """End the command and its workers at once, if they run."""
        if self.process.poll() is None:
            workers = children_of(self.process.pid)
            kill([self.process.pid, *workers])
            self.process.wait()

    def finish(self, seconds: float = COMMAND_SECONDS) -> Finished:
        """Wait for the end; kill it and fail where it takes longer."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"still running after {seconds} s:\n{self.stderr}") from None
        for reader in self._readers:
            reader.join(PROMPT_SECONDS)
        return Finished(code, "".join(self._output), self.stderr)


class Workplace:
    """A folder to work in, and the commands given there.

    Args:
        folder: An empty folder.
        cache: Where tokens are cached; tests may share it.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("COV_", "FORCE_COLOR", "CLICOLOR", "WTIE_", "HF_"))
        } | {
            "WTIE_CACHE": str(cache),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(folder / "hub-cache"),
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            # Threads that wait for each other by spinning are slow where others work as well.
            "OMP_WAIT_POLICY": "PASSIVE",
            "NO_COLOR": "1",
        }
        self._started: list[Started] = []
        write_corpus(folder / "corpus")
        self.experiment()

    @property
    def runs(self) -> Path:
        """The runs root."""
        return self.folder / "runs"

    def run_folder(self, root: str | Path = "runs") -> Path:
        """Return the only run under a root."""
        folders = [path for path in (self.folder / root).iterdir() if path.is_dir()]
        assert len(folders) == 1, folders
        return folders[0]

    def experiment(self, changes: Mapping[str, Any] | None = None, file: str = "a.yaml") -> str:
        """Write the tiny experiment with dotted keys changed; return the file's name."""
        content = copy.deepcopy(EXPERIMENT)
        for path, value in (changes or {}).items():
            *parents, last = path.split(".")
            section = content
            for key in parents:
                section = section.setdefault(key, {})
            section[last] = value
        (self.folder / file).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return file

    def study(
        self,
        factors: Mapping[str, Any] = STUDY_FACTORS,
        file: str = "s.yaml",
        **more: Any,
    ) -> str:
        """Write a study of the tiny experiment; return the file's name."""
        content = {"name": "sizes", "experiment": "a.yaml", "factors": dict(factors), **more}
        (self.folder / file).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return file

    def study_folder(self, root: str | Path = "runs") -> Path:
        """Return the only study under a root."""
        (found,) = (self.folder / root).glob("*/study.yaml")
        return found.parent

    def run_folders(self, root: str | Path = "runs") -> list[Path]:
        """Return the runs under a root, by name."""
        return sorted(path.parent for path in (self.folder / root).glob("*/resolved.yaml"))

    def start(
        self,
        *words: object,
        environment: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> Started:
        """Start `wtie` with these words, where asked for under another Python module."""
        started = Started(
            subprocess.Popen(
                [sys.executable, *under, "-m", "tyro_cli", *map(str, words)],
                cwd=self.folder,
                env=self.environment | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                # A shell starts what runs in the background deaf to Ctrl-C, and we inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        )
        self._started.append(started)
        return started

    def leave(self) -> None:
        """End whatever a failed test left running."""
        for started in self._started:
            started.end()

    def wtie(self, *words: object, environment: Mapping[str, str] | None = None) -> Finished:
        """Run `wtie` with these words to its end."""
        return self.start(*words, environment=environment).finish()

    def train(self, *words: object, config: str = "a.yaml") -> Finished:
        """Run `wtie train` on the experiment."""
        return self.wtie("train", "--config", config, "--threads", "1", *words)

    def sweep(self, *words: object, config: str = "s.yaml") -> Finished:
        """Run `wtie sweep` on the study."""
        return self.wtie(*SWEEP, "--config", config, *words)


def write_corpus(
    folder: Path, num_train_documents: int = 60, num_other_documents: int = 10
) -> Path:
    """Write a corpus of short made-up documents: train.txt, valid.txt and test.txt."""
    generator = random.Random(0)
    syllables = ("ba", "ko", "ri", "tu", "me", "sa", "lo", "ni", "pe", "da")
    words = ["".join(generator.choices(syllables, k=1 + index % 3)) for index in range(80)]
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {
        "train": num_train_documents,
        "valid": num_other_documents,
        "test": num_other_documents,
    }
    for split, num_documents in sizes.items():
        documents = (
            " ".join(generator.choices(words, k=generator.randint(15, 40))) + ".\n\n"
            for _ in range(num_documents)
        )
        (folder / f"{split}.txt").write_text("".join(documents), encoding="utf-8")
    return folder


def durable_digests(run_folder: Path, but: Sequence[str] = ()) -> dict[str, str]:
    """Return the hash of each file of a run that is the same whichever way it was trained.

    Args:
        run_folder: The run.
        but: Keys of the manifest to leave out, beside its time.
    """
    files = {
        name: digest
        for name, digest in digests(run_folder).items()
        if not _MAY_DIFFER.fullmatch(Path(name).name)
    }
    manifest = json.loads((run_folder / "manifest.json").read_text(encoding="utf-8"))
    for key in ("created", *but):
        del manifest[key]
    content = json.dumps(manifest, indent=1).encode()
    return files | {"manifest.json": hashlib.sha256(content).hexdigest()}


def assert_same_run(one: Path, other: Path, but: Sequence[str] = ()) -> None:
    """Compare two run folders byte by byte; name the files that differ."""
    first, second = durable_digests(one, but), durable_digests(other, but)
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def assert_same_study(one: Path, other: Path) -> None:
    """Compare the studies under two roots, with their runs and their tables, byte by byte."""
    first, second = ([path.parent for path in root.glob("*/study.yaml")] for root in (one, other))
    assert [folder.name for folder in first] == [folder.name for folder in second]
    for folder, same in zip(first, second, strict=True):
        tables = digests(folder / "tables")
        assert len(tables) == 8
        assert tables == digests(same / "tables")
    runs = [sorted(path.parent for path in root.glob("*/resolved.yaml")) for root in (one, other)]
    assert [run.name for run in runs[0]] == [run.name for run in runs[1]]
    for run, same in zip(*runs, strict=True):
        assert_same_run(run, same)


def results(folder: Path) -> dict[str, int]:
    """Return when each result of a run, or of all runs under a root, was written."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("seed-*/result.json")
    }


def children_of(process: int) -> list[int]:
    """Return the processes that a process has started and that have not ended."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in listing.splitlines()]
    return [int(pid) for pid, ppid, stat in rows if int(ppid) == process and stat[0] != "Z"]


def is_running(process: int) -> bool:
    """Say whether a process is there and is no zombie."""
    shown = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False
    ).stdout
    return bool(shown.strip()) and not shown.strip().startswith("Z")


def kill(processes: list[int]) -> None:
    """End processes of ours at once."""
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_until(holds: Callable[[], bool], what: str, seconds: float = PROMPT_SECONDS) -> None:
    """Wait until something holds; fail in words where it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def assert_told(finished: Finished, exit_code: int, *parts: str) -> None:
    """Check that a command refused in words: exit code, message and remedy, nothing else."""
    assert finished.exit_code == exit_code, finished.stderr
    assert finished.stdout == ""
    for part in parts:
        assert part in finished.stderr
    assert "Traceback" not in finished.stderr
    assert "bug in wtie" not in finished.stderr
    assert "\n  fix: " in finished.stderr
