"""Times that a user waits before anything happens: the first step, and `wtie --help`."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import (
    ALL_THREADS,
    OUR_THREADS,
    REPOSITORY,
    Call,
    Case,
    Comparison,
    Side,
    Start,
)
from benchmarks.shapes import QUICKSTART, TINY
from tyro_cli.config.loading import load_experiment
from tyro_cli.data.prepared import default_cache_folder, prepare_data
from tyro_cli.experiments.specs import CellSpec

QUICKSTART_FILE = REPOSITORY / "configs" / "quickstart.yaml"
FIRST_STEP = "::first step"
LEAST_CALLS = 5


def first_step_of_worker(
    start: Start, seconds: float, *, config: str, threads: int, overrides: list[str]
) -> float:
    """Return seconds from starting a worker to its first update, its data already prepared."""
    settings = next(iter(load_experiment(Path(config), overrides).arms.values())).settings
    prepared = prepare_data(settings.data, cache_folder=default_cache_folder())
    start()
    with tempfile.TemporaryDirectory() as folder:
        spec = CellSpec(
            cell_id="0" * 64,
            arm="first",
            seed=0,
            settings=settings.model_dump(mode="json"),
            folder=str(Path(folder) / "cell"),
            prepared_folder=str(prepared.folder),
            total_steps=10**6,
            device="cpu",
            precision="bf16",
            threads=threads,
        )
        program = "import sys; from tyro_cli.experiments.worker import main; sys.exit(main())"
        return _seconds_until('"kind": "step"', ["-c", program], json.dumps(spec.as_record()))


def first_step_of_trainer(
    start: Start, seconds: float, *, shape: dict[str, Any], threads: int
) -> float:
    """Return seconds from starting Python to the first update of transformers' `Trainer`."""
    start()
    program = (
        "import json, sys; from benchmarks import ours, peers; ours.WARM_UP_STEPS = 1; "
        f"start = lambda: print({FIRST_STEP!r}, flush=True); "
        f"peers.hugging_face_trainer(start, 0.0, tied=False, threads={threads}, "
        "shape=json.load(sys.stdin))"
    )
    return _seconds_until(FIRST_STEP, ["-c", program], json.dumps(shape))


def _seconds_until(what: str, words: list[str], order: str) -> float:
    """Start Python with an order on its standard input; time it until it prints `what`."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stderr is not None
    try:
        process.stdin.write(order)
        process.stdin.close()
        for line in process.stdout:
            if what in line:
                return time.perf_counter() - started
        raise RuntimeError(f"ended without {what}:\n{process.stderr.read()[-2000:]}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def command(start: Start, seconds: float, *, words: list[str]) -> float:
    """Return the median milliseconds of a Python command."""
    times: list[float] = []

    def call() -> None:
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], cwd=REPOSITORY, capture_output=True, check=True)
        times.append(time.perf_counter() - started)

    call()
    start()
    times.clear()
    while len(times) < LEAST_CALLS or sum(times) < seconds:
        call()
    return 1e3 * sorted(times)[len(times) // 2]


def cases(tiny: bool = False, config: Path = QUICKSTART_FILE) -> tuple[Case, ...]:
    """Return the cases; `tiny` ones run in no time, given a tiny configuration."""
    shape = TINY if tiny else QUICKSTART
    ours = {"config": str(config), "threads": OUR_THREADS, "overrides": []}
    trainer = {"shape": shape.as_arguments(), "threads": ALL_THREADS}
    return (
        Case(
            "first-step",
            "From starting a worker to its first update, against transformers' Trainer",
            "s",
            (
                Comparison(
                    "quickstart",
                    Side("wtie's worker", ((Call("start_up:first_step_of_worker", ours),),)),
                    Side("Trainer", ((Call("start_up:first_step_of_trainer", trainer),),)),
                ),
            ),
            note="Asked for: under 5 seconds on our side. Our data is prepared before; the "
            "Trainer's is random tokens.",
        ),
        Case(
            "help",
            "`wtie --help`, against importing typer and rich alone",
            "ms",
            (
                Comparison(
                    "median of many",
                    Side(
                        "wtie --help",
                        ((Call("start_up:command", {"words": ["-m", "tyro_cli", "--help"]}),),),
                    ),
                    Side(
                        "import typer, rich",
                        ((Call("start_up:command", {"words": ["-c", "import typer, rich"]}),),),
                    ),
                ),
            ),
            goal=1 / 1.5,
            note="The goal is a time within 1.5 times the peer's.",
        ),
    )
