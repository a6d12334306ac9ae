"""A hand-made study on chains: 0, 1 and 2 layers along the irreversibility of a known source."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.analysis.fake_runs import ARM_CHANGES, TOKENS_PER_WORD, edit_json
from tests.analysis.fake_studies import make_study

RATE, UNIGRAM = 2.0, 4.0
LEVELS = (0.0, 0.5, 1.0)
DEPTHS = (0, 1, 2)
FACTORS = {
    "irreversibility": {
        "order": 0,
        "keys": ["data.synthetic.irreversibility"],
        "levels": list(LEVELS),
    },
    "depth": {"order": 1, "keys": ["model.num_layers"], "levels": list(DEPTHS)},
}


def excess(arm: str, level: float, depth: int, seed: int) -> float:
    """Nats a token above the source: what a tied model loses grows with the level, at depth 0."""
    lost = 0.5 * level if (arm, depth) == ("tied", 0) else 0.0
    return lost + 0.03 / (1 + depth) + 0.01 * level + 0.002 * seed


def known(level: float) -> dict[str, Any]:
    """What is known of the source at a level."""
    return {
        "entropy_rate_nats": RATE,
        "unigram_entropy_nats": UNIGRAM,
        "probability_current": level / 2,
        "reversible_excess_nats": level / 2,
        "true_nats_per_token": {"valid": RATE, "test": RATE + 0.1 * level},
    }


def make_chain_study(
    root: Path,
    *,
    arms: Mapping[str, Mapping[str, Any]] = ARM_CHANGES,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a study of every level and depth, its texts told apart, and return its folder.

    Args:
        root: The runs root, an existing folder.
        arms: The settings that each arm changes; the first arm is the baseline.
        changes: Keys of the study's manifest that are replaced.
    """
    points, edits = {}, {}
    for level in LEVELS:

        def edit(record: dict[str, Any], level: float = level) -> None:
            record["known_entropy"] = known(level)
            for lines in record["signatures"].values():
                for metric, line in lines.items():
                    lines[metric] = line.replace("corpus:", f"corpus:{LEVELS.index(level)}")

        for depth in DEPTHS:
            points[level, depth] = {
                (arm, seed): TOKENS_PER_WORD
                * (RATE + 0.1 * level + excess(arm, level, depth, seed))
                for arm in arms
                for seed in range(3)
            }
            edits[level, depth] = edit
    folder = make_study(
        root,
        points,
        factors=tuple(FACTORS),
        arms=arms,
        edits=edits,
        changes={"factors": FACTORS, **(changes or {})},
    )
    for index, (_, depth) in enumerate(points):
        run = root / f"tiny-{index:08x}"
        for path in (run / "manifest.json", *run.rglob("result.json")):
            edit_json(path, lambda record, depth=depth: _set_layers(record, depth))
    return folder


def _set_layers(record: dict[str, Any], depth: int) -> None:
    """Set the number of layers of a manifest's arms, or of one cell."""
    for one in (*record.get("arms", {}).values(), record):
        if "settings" in one:
            one["settings"]["model"]["num_layers"] = depth
