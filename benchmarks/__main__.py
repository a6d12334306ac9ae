"""`make bench`: measure the cases that are named, or all of them, and write what came out.

    python -m benchmarks [CASE ...] [--seconds S] [--repeats N]

A report goes to benchmarks/results/, named by the date; it is written anew after every case, so a
run that is stopped keeps what it has.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import (
    compiling,
    curves,
    evaluating,
    memory,
    pairs,
    quality,
    start_up,
    tokenizing,
    translating,
)
from benchmarks.measuring import REPOSITORY, Case, MeasurementFailed, run_case
from benchmarks.report import describe_case, describe_run
from tyro_cli.experiments.environment import describe_environment

RESULTS = REPOSITORY / "benchmarks" / "results"
# Programs that print figures of their own, with no side against side.
FIGURES = {"kernels": "benchmarks.kernels", "tokenizer-determinism": "benchmarks.determinism"}


def all_cases() -> dict[str, Case]:
    """Return every case by name."""
    groups = (
        pairs,
        memory,
        curves,
        evaluating,
        compiling,
        translating,
        start_up,
        tokenizing,
        quality,
    )
    return {case.name: case for group in groups for case in group.cases()}


def parse(words: Sequence[str], names: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of: {', '.join(names)}")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="timed in each process (default: 10)"
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="measurements of each side (default: 3)"
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder (default: benchmarks/results)"
    )
    chosen = parser.parse_args(words)
    unknown = [name for name in chosen.cases if name not in names]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(names)}")
    if chosen.repeats < 1 or chosen.seconds <= 0:
        parser.error("--seconds must be above 0, --repeats at least 1")
    return chosen


def figures(name: str) -> str:
    """Return the section of a program that prints figures of its own."""
    finished = subprocess.run(
        [sys.executable, "-m", FIGURES[name]],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise MeasurementFailed(f"{FIGURES[name]} ended with exit code {finished.returncode}")
    return f"## {name}\n\n```\n{finished.stdout}```\n"


def main(words: Sequence[str]) -> int:
    """Measure, print and write; return 1 if a case failed."""
    cases = all_cases()
    names = [*cases, *FIGURES]
    chosen = parse(words, names)
    created = datetime.now(UTC)
    environment = describe_environment([], "cpu")
    git = environment["git"]
    commit = "unknown"
    if git is not None:
        commit = git["commit"][:12] + (", with changes" if git["dirty"] else "")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    head = describe_run(
        environment["hardware"], commit, created, chosen.seconds, chosen.repeats, load
    )
    print(head)
    sections, failed = [head], False
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / f"{created:%Y-%m-%d-%H%M}.md"
    for name in chosen.cases or names:
        try:
            if name in FIGURES:
                section = figures(name)
            else:
                case = cases[name]
                outcomes = list(run_case(case, chosen.seconds, chosen.repeats))
                section = describe_case(case, outcomes)
        except MeasurementFailed as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr)
            section = f"## {name}\n\nFailed; nothing was measured.\n"
        print(section, flush=True)
        sections.append(section)
        path.write_text("\n".join(sections), encoding="utf-8")
    print(f"written to {path}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
