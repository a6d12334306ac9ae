"""A grid of fake runs with several factors, as a study: what charts and pages are drawn of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.analysis.fake_runs import NATS_PER_WORD, edit_json, make_run, sha256, write

LEVELS: dict[str, list[Any]] = {"vocabulary": [61, 122], "data": [0.5, 1.0]}
SHIFTS = {(61, 0.5): 0.30, (122, 0.5): 0.20, (61, 1.0): 0.10, (122, 1.0): 0.0}
"""How much worse than the plain fake run each point is, in nats per word, in both arms."""


def make_grid(
    root: Path,
    *,
    factors: Mapping[str, list[Any]] = LEVELS,
    name: str = "grid",
    seeds: tuple[int, ...] = (0, 1, 2),
    missing: int = 0,
) -> Path:
    """Write a study of every combination of levels and return its folder.

    Args:
        root: The runs root, an existing folder.
        factors: Levels by factor.
        name: The study's name.
        seeds: Seeds of every point, from those of the fake run.
        missing: How many of the last points have no run folder.
    """
    points: list[dict[str, Any]] = [{}]
    for factor, levels in factors.items():
        points = [point | {factor: level} for point in points for level in levels]
    records = []
    for number, levels in enumerate(points):
        run, run_id = f"point-{number}", sha256(f"point {number}")
        records.append({"levels": levels, "run": run, "run_id": run_id})
        if number >= len(points) - missing:
            continue
        shift = SHIFTS.get(tuple(levels.values()), 0.05 * number)
        nats = {cell: one + shift for cell, one in NATS_PER_WORD.items() if cell[1] in seeds}
        folder = make_run(root, nats_per_word=nats).rename(root / run)
        edit_json(folder / "manifest.json", lambda content, own=run_id: content.update(run_id=own))
    folder = root / "grid-0123abcd"
    folder.mkdir()
    (folder / "study.yaml").write_text("name: grid\n")
    write(
        folder / "manifest.json",
        {
            "format": 1,
            "study_id": sha256("study"),
            "name": name,
            "family": "all",
            "factors": {
                factor: {"order": order, "keys": [f"key.{factor}"], "levels": levels}
                for order, (factor, levels) in enumerate(factors.items())
            },
            "points": records,
            "arms": ["untied", "tied"],
            "baseline": "untied",
            "margin": 0.01,
            "seeds": list(seeds),
            "command": ["wtie", "sweep", "--config", "study.yaml"],
        },
    )
    return folder
