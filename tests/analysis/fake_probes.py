"""A hand-made record of probes, for tests that read it: two arms, any seeds, numbers by formula."""

from itertools import combinations
from typing import Any

from tyro_cli.analysis.probes import ProbeRecord

SHAPES = {
    "mean_norm": 1.0,
    "mean_cosine": 0.1,
    "partition_ratio": 0.8,
    "effective_rank": 12.0,
    "norm_frequency_correlation": 0.5,
    "norm_frequency_slope": 0.2,
}
BASE = {("tied", "tied"): 0.6, ("untied", "input"): 0.3, ("untied", "output"): 0.5}
"""How alike a matrix is across seeds, before what the seeds add."""


def agreement(first: tuple[str, int, str], second: tuple[str, int, str]) -> float:
    """Return how alike two matrices are: tied and output more than tied and input."""
    seeds = first[1] + second[1]
    if first[0] == second[0]:
        return BASE[first[0], first[2]] + 0.01 * seeds
    untied = first if first[0] == "untied" else second
    value = {"input": 0.2, "output": 0.4}[untied[2]] + 0.003 * first[1] + 0.001 * second[1]
    return value + (0.1 if first[1] == second[1] else 0.0)


def measures(value: float) -> dict[str, float]:
    return {
        "neighbour_overlap": value,
        "linear_cka": value + 0.1,
        "similarity_correlation": value - 0.1,
        "procrustes_residual": 1 - value,
    }


def gradients(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "loss_nats": 4.0,
        "input_norm": 1.0,
        "output_norm": 1.0 + step,
        "cosine": 0.01 * step,
        "bands": {
            "tokens": [1, 2, 5, 10, 40, 3],
            "input_norm": [0.5, 0.4, 0.3, 0.2, 0.1, 0.0],
            "output_norm": [1.0, 0.8, 0.6, 0.4, 0.2, 0.1],
            "cosine": [0.1, 0.2, 0.3, 0.4, 0.5, None],
        },
    }


def three_roles(step: int) -> dict[str, Any]:
    """A record of a translation with one vocabulary."""
    record = gradients(step)
    bands = {
        "source_norm": [0.25, 0.2, 0.15, 0.1, 0.05, 0.3],
        "input_source_cosine": [0.6, 0.5, 0.4, 0.3, 0.2, None],
        "output_source_cosine": [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6],
    }
    return record | {
        "source_norm": 0.5,
        "input_source_cosine": 0.3,
        "output_source_cosine": -0.2,
        "bands": record["bands"] | bands,
    }


def make_probes(num_seeds: int = 3, **changes: Any) -> dict[str, Any]:
    """Return the record as plain values; keyword arguments replace parts of it."""
    matrices = [(arm, seed, matrix) for arm, matrix in BASE for seed in range(num_seeds)]
    names = [dict(zip(("arm", "seed", "matrix"), one, strict=True)) for one in matrices]
    return {
        "format": 1,
        "name": "fake",
        "run_id": "0" * 64,
        "checkpoint": "best",
        "settings": {"min_count": 10, "num_neighbours": 10, "num_bands": 5},
        "rows": {"target": {"vocab_size": 61, "counted": 50, "sampled": 50}},
        "cells": [
            {"arm": arm, "seed": seed, "cell_id": "c" * 64, "step": 40}
            for arm in ("untied", "tied")
            for seed in range(num_seeds)
        ],
        "shapes": [
            name
            | {"values": {key: value * (1 + 0.1 * name["seed"]) for key, value in SHAPES.items()}}
            for name in names
        ],
        "agreements": [
            {
                "first": names[i],
                "second": names[j],
                "observed": measures(agreement(matrices[i], matrices[j])),
                "shuffled": measures(0.02),
            }
            for i, j in combinations(range(len(names)), 2)
            if matrices[i][0] != matrices[j][0] or matrices[i][2] == matrices[j][2]
        ],
        "role_gradients": [
            {"arm": arm, "seed": seed, "records": [gradients(step) for step in (1, 21, 41)]}
            for arm in ("untied", "tied")
            for seed in range(num_seeds)
        ],
    } | changes


def probes(num_seeds: int = 3, **changes: Any) -> ProbeRecord:
    return ProbeRecord.model_validate(make_probes(num_seeds, **changes))
