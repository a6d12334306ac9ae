"""What a run of the benchmarks found, as Markdown: one table a case, with hardware and versions."""

import platform
import statistics
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.measuring import Case, Outcome, exponent

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "typer", "rich", "numpy")


def describe_case(case: Case, outcomes: Sequence[Outcome]) -> str:
    """Return the section of a case."""
    lines = [f"## {case.name}: {case.title}", "", f"Costs in {case.unit}, lower is better."]
    if case.note:
        lines.append(case.note)
    if case.goal is not None:
        lines.append(f"Goal: a ratio of at least {case.goal:.3g}.")
    lines += ["", "| size | side | costs | median | per second |", "|---|---|---|---:|---:|"]
    for outcome in outcomes:
        comparison = outcome.comparison
        if outcome.why_not:
            lines.append(f"| {comparison.label} | both | not measured: {outcome.why_not} | | |")
            continue
        for side, costs in (
            (comparison.ours, outcome.our_costs),
            (comparison.peer, outcome.peer_costs),
        ):
            median = statistics.median(costs)
            rate = ""
            if case.work is not None:
                rate = f"{case.work[0] / median:,.0f} {case.work[1]}"
            shown = ", ".join(f"{cost:.4g}" for cost in costs)
            lines.append(f"| {comparison.label} | {side.name} | {shown} | {median:.4g} | {rate} |")
    lines += ["", "| size | ratio: median | min | max | goal |", "|---|---:|---:|---:|---|"]
    lines += [_ratio_row(case, outcome) for outcome in outcomes if outcome.ratios]
    lines += _exponents(outcomes)
    return "\n".join(lines) + "\n"


def _ratio_row(case: Case, outcome: Outcome) -> str:
    ratios = outcome.ratios
    median = statistics.median(ratios)
    verdict = ""
    if case.goal is not None:
        verdict = "reached" if median >= case.goal else "missed"
    label = outcome.comparison.label
    return f"| {label} | {median:.3f} | {min(ratios):.3f} | {max(ratios):.3f} | {verdict} |"


def _exponents(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the growth of both sides, over all points and between the last two."""
    points = [
        (outcome.comparison.size, outcome)
        for outcome in outcomes
        if outcome.comparison.size is not None and outcome.ratios
    ]
    if len(points) < 2:
        return []
    sizes = [size for size, _ in points]
    lines = [""]
    for name, costs in (
        (points[0][1].comparison.ours.name, [statistics.median(o.our_costs) for _, o in points]),
        (points[0][1].comparison.peer.name, [statistics.median(o.peer_costs) for _, o in points]),
    ):
        whole, last = exponent(sizes, costs), exponent(sizes[-2:], costs[-2:])
        lines.append(f"- {name}: exponent {whole:.2f} over all, {last:.2f} over the last two.")
    return lines


def describe_run(
    hardware: dict[str, Any],
    commit: str,
    created: datetime,
    seconds: float,
    repeats: int,
    load: float,
) -> str:
    """Return the head of a report: date, hardware, versions and how it was measured."""
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    memory = (hardware["memory_bytes"] or 0) / 2**30
    return "\n".join(
        [
            f"# Benchmarks of {created:%Y-%m-%d %H:%M} UTC",
            "",
            f"- {hardware['processor']}, {hardware['cores']} cores, {memory:.0f} GiB, "
            f"{hardware['system']}",
            f"- {', '.join(versions)}",
            f"- commit {commit}; {repeats} measurements a side in the order A B A B, "
            f"{seconds:g} s each; load average at the start {load:.2f}",
            "",
            "A ratio is the peer's cost over ours: above 1 we are ahead.",
            "",
        ]
    )
