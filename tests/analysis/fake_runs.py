"""A small hand-made run folder, in the formats of the real ones, for tests that read records.

`make_run` writes two arms and three seeds; every part can be changed before it is written through
the keyword arguments, or afterwards through `edit_json`. No number comes from training.
"""

import copy
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

V, D = 61, 16
EMBEDDING, ATTENTION, FEED_FORWARD, NORMS = V * D, 4 * D * D, 3 * D * 48, 3 * D

WORDS = {"valid": [80, 120, 40, 160], "test": [100, 50, 200, 150], "train_part": [90, 60, 130, 120]}
TOKENS_PER_WORD, BYTES_PER_WORD = 1.5, 5

NATS_PER_WORD: dict[tuple[str, int], float] = {
    ("untied", 0): 4.50,
    ("untied", 1): 4.52,
    ("untied", 2): 4.51,
    ("tied", 0): 4.46,
    ("tied", 1): 4.47,
    ("tied", 2): 4.475,
}
"""Test nats per word at the best checkpoint: tied wins by 0.04, 0.05 and 0.035."""

SPLIT_FACTORS = {"valid": 1.02, "test": 1.0, "train_part": 0.95}
LAST_FACTOR = 1.005
"""What the other splits, and the last checkpoint, score as multiples of that."""

ARM_CHANGES: dict[str, dict[str, Any]] = {"untied": {}, "tied": {"model": {"tying": "in-out"}}}
MANIFEST_PATH = "manifest.json"
BATCH_STEPS = (20, 40, 60)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def settings(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an arm, with some values replaced, section by section."""
    base: dict[str, Any] = {
        "task": "language-modeling",
        "data": {"corpus": "kjv", "context_length": 8, "format": "plain"},
        "model": {
            "family": "llama",
            "d_model": D,
            "num_layers": 1,
            "num_heads": 2,
            "d_ff": 48,
            "tying": "none",
            "tied_role": "head",
            "embedding_std": None,
        },
        "training": {
            "batch_tokens": 64,
            "precision": "fp32",
            "optimizer": {"kind": "adamw", "learning_rate": 0.002},
        },
        "evaluation": {"stride": 4},
    }
    return merged(base, changes)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def ledger(tying: str) -> dict[str, Any]:
    counts = {
        "token embedding": EMBEDDING,
        "positions": 0,
        "attention": ATTENTION,
        "feed-forward": FEED_FORWARD,
        "norms": NORMS,
        "head": 0 if tying == "in-out" else EMBEDDING,
    }
    flops = {"attention": 2560, "feed-forward": 2 * FEED_FORWARD, "head": 2 * EMBEDDING}
    total = sum(counts.values())
    return {
        "vocab_size": V,
        "d_model": D,
        "tying": tying,
        "rows": [
            {
                "component": name,
                "parameters": count,
                "share": count / total,
                "forward_flops_per_token": flops.get(name, 0),
            }
            for name, count in counts.items()
        ],
        "total": total,
        "non_embedding": total - counts["token embedding"] - counts["head"],
        "checkpoint_bytes": 4 * total,
        "optimizer_bytes": 8 * total,
        "training_memory_bytes": 30 * total,
        "forward_flops_per_token": sum(flops.values()),
    }


def manifest(
    arms: Mapping[str, Mapping[str, Any]], plans: list[dict[str, Any]], margin: float
) -> dict[str, Any]:
    baseline = next(iter(arms))
    records = {}
    for order, (arm, changes) in enumerate(arms.items()):
        resolved = settings(changes)
        records[arm] = {
            "order": order,
            "settings": resolved,
            "settings_sha256": sha256(json.dumps(resolved, sort_keys=True)),
            "differences": {},
            "match": None,
            "ledger": ledger(resolved["model"]["tying"]),
        }
    return {
        "format": 1,
        "run_id": sha256("run"),
        "name": "tiny",
        "task": "language-modeling",
        "baseline": baseline,
        "margin": margin,
        "vocab_size": V,
        "arms": records,
        "plans": plans,
        "threads": 1,
        "device": "cpu",
        "precision": "fp32",
        "data": {"corpus": "kjv"},
        "versions": {"torch": "2.13.0"},
        "hardware": {"cpu": "none"},
        "git": {"commit": None, "dirty": False},
        "command": ["wtie", "train"],
        "created": "2026-01-01T00:00:00Z",
    }


def split_scores(split: str, nats_per_word: float) -> dict[str, Any]:
    words = sum(WORDS[split])
    tokens, num_bytes = int(words * TOKENS_PER_WORD), words * BYTES_PER_WORD
    nats = nats_per_word * words
    return {
        "nats": nats,
        "tokens": tokens,
        "words": words,
        "bytes": num_bytes,
        "unknown_words": 0,
        "nats_per_token": nats / tokens,
        "token_perplexity": math.exp(nats / tokens),
        "nats_per_word": nats / words,
        "word_perplexity": math.exp(nats / words),
        "bits_per_byte": nats / math.log(2) / num_bytes,
    }


def evaluation(step: int, nats_per_word: float) -> dict[str, Any]:
    scores = {
        split: split_scores(split, nats_per_word * factor)
        for split, factor in SPLIT_FACTORS.items()
    }
    gap = scores["valid"]["nats_per_token"] - scores["train_part"]["nats_per_token"]
    return {"step": step, **scores, "generalisation_gap_nats": gap}


def signatures(split: str, stride: int = 4) -> dict[str, str]:
    names = {
        "nats_per_token": ("token_nats", f"tok:bpe-{V}-0123ab|"),
        "token_perplexity": ("token_ppl", f"tok:bpe-{V}-0123ab|"),
        "nats_per_word": ("word_nats", "words:whitespace|"),
        "word_perplexity": ("word_ppl", "words:whitespace|"),
        "bits_per_byte": ("bits_per_byte", ""),
    }
    text = f"corpus:{sha256(split)[:6]}|split:{split}"
    return {
        metric: f"{name}|{text}|{own}ctx:8|stride:{stride}|prec:fp32|protocol:1"
        for metric, (name, own) in names.items()
    }


def initial_parameters(seed: int, tying: str) -> dict[str, Any]:
    shapes = {
        "embedding.weight": [V, D],
        "blocks.0.attention_norm.weight": [D],
        "blocks.0.attention.query_key_value.weight": [3 * D, D],
        "blocks.0.attention.output.weight": [D, D],
        "blocks.0.feed_forward_norm.weight": [D],
        "blocks.0.feed_forward.gate_up.weight": [96, D],
        "blocks.0.feed_forward.down.weight": [D, 48],
        "final_norm.weight": [D],
    }
    if tying == "none":
        shapes["head.weight"] = [V, D]
    return {
        name: {"shape": shape, "sha256": sha256(f"{seed} {name} {shape}")}
        for name, shape in shapes.items()
    }


def result(arm: str, seed: int, changes: Mapping[str, Any], nats_per_word: float) -> dict[str, Any]:
    resolved = settings(changes)
    tying = resolved["model"]["tying"]
    total = ledger(tying)["total"]
    return {
        "format": 1,
        "cell_id": sha256(f"{arm} {seed}"),
        "arm": arm,
        "seed": seed,
        "status": "done",
        "diverged": None,
        "settings": resolved,
        "vocab_size": V,
        "parameters": {"total": total, "unique_storage": total, "tied": tying != "none"},
        "pairing": {
            "initial_parameters": initial_parameters(seed, tying),
            "batches": [[step, sha256(f"batches {seed} {step}")] for step in BATCH_STEPS],
            "fingerprint": {
                "torch": "2.13.0",
                "device": "cpu",
                "capability": "AVX512",
                "threads": 1,
                "precision": "fp32",
                "deterministic": True,
            },
            "numeric_drift": [],
        },
        "training": {
            "steps": 60,
            "planned_steps": 60,
            "tokens": 3840,
            "best_step": 40,
            "stopped_early": False,
            "still_improving": False,
            "learning_rate": resolved["training"]["optimizer"]["learning_rate"],
        },
        "evaluations": {
            "best": evaluation(40, nats_per_word),
            "last": evaluation(60, nats_per_word * LAST_FACTOR),
        },
        "signatures": {split: signatures(split) for split in ("valid", "test")},
    }


def diverge(record: dict[str, Any], step: int = 33) -> None:
    """Turn the record of a cell that is done into that of one that diverged."""
    record["status"] = "diverged"
    record["diverged"] = {"step": step, "batch_sha256": sha256("batch"), "what": "loss is nan"}
    record["evaluations"] = None
    record["training"]["steps"] = step
    record["pairing"]["batches"] = [m for m in record["pairing"]["batches"] if m[0] <= step]


def documents(record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Per-document sums that add up to the best checkpoint's scores; tied arms vary otherwise."""
    arrays: dict[str, np.ndarray] = {}
    tilt = np.array([2.0, -1.0, -3.0, 2.0]) if record["parameters"]["tied"] else np.zeros(4)
    for split in ("valid", "test"):
        words = np.array(WORDS[split], dtype=np.int64)
        scores = record["evaluations"]["best"][split]
        arrays[f"{split}_nats"] = words * (scores["nats"] / words.sum()) + tilt
        arrays[f"{split}_tokens"] = (words * TOKENS_PER_WORD).astype(np.int64)
        arrays[f"{split}_words"] = words
        arrays[f"{split}_bytes"] = words * BYTES_PER_WORD
    return arrays


def make_run(
    root: Path,
    *,
    nats_per_word: Mapping[tuple[str, int], float] = NATS_PER_WORD,
    arms: Mapping[str, Mapping[str, Any]] = ARM_CHANGES,
    plans: list[dict[str, Any]] | None = None,
    margin: float = 0.01,
    edit: Callable[[dict[str, Any]], None] | None = None,
    name: str = "tiny-0123abcd",
    run_id: str = "run",
) -> Path:
    """Write a run folder and return it.

    Args:
        root: The runs root, an existing folder.
        nats_per_word: Test nats per word of every cell that is done.
        arms: The settings that each arm changes; the first arm is the baseline.
        plans: What was planned; by default all the seeds in `nats_per_word` for all arms, so that
            a cell planned but not given there is unfinished.
        margin: Relative margin of equivalence.
        edit: Changes the record of each cell before it is written.
        name: Name of the folder.
        run_id: What the identity of the run is the hash of.
    """
    folder = root / name
    folder.mkdir()
    if plans is None:
        seeds = sorted({seed for _, seed in nats_per_word})
        plans = [{"seeds": seeds, "arms": list(arms), "after_results": False}]
    write(folder / MANIFEST_PATH, manifest(arms, plans, margin) | {"run_id": sha256(run_id)})
    (folder / "experiment.yaml").write_text("name: tiny\n")
    (folder / "resolved.yaml").write_text("name: tiny\n")
    for (arm, seed), value in nats_per_word.items():
        record = result(arm, seed, arms[arm], value)
        if edit is not None:
            edit(record)
        cell = folder / arm / f"seed-{seed}"
        cell.mkdir(parents=True)
        write(cell / "result.json", record)
        if record["status"] == "done":
            np.savez(cell / "documents.npz", **documents(record))
        write(
            cell / "performance.json",
            {
                "train_seconds": 12.5 + seed,
                "train_tokens_per_second": 3840 / (12.5 + seed),
                "evaluation_seconds": 1.25,
                "final_evaluation_seconds": 2.0,
                "peak_memory_bytes": 300 * 2**20,
                "start_up_seconds": 3.0,
            },
        )
        (cell / "metrics.jsonl").write_text(
            "".join(json.dumps(line, sort_keys=True) + "\n" for line in metrics(record))
        )
        (cell / "log.txt").write_text("")
    return folder


def values(differences: Sequence[float], arm: str = "tied") -> dict[tuple[str, int], float]:
    """Test nats per word of pairs with these differences to the baseline, from seed 0 on."""
    baseline = {("untied", seed): 4.5 + 0.01 * seed for seed in range(len(differences))}
    return baseline | {
        (arm, seed): 4.5 + 0.01 * seed + difference for seed, difference in enumerate(differences)
    }


def metrics(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A loss curve of one training line and one evaluation for each recorded step."""
    lines: list[dict[str, Any]] = []
    for step, batches_sha256 in record["pairing"]["batches"]:
        loss = 4.0 - step / 100
        lines.append(
            {
                "kind": "train",
                "step": step,
                "loss_nats": loss,
                "gradient_norm": 1.0,
                "learning_rate": 0.002,
            }
        )
        lines.append(
            {
                "kind": "evaluation",
                "step": step,
                "tokens": 64 * step,
                "valid_nats_per_token": loss + 0.1,
                "batches_sha256": batches_sha256,
            }
        )
    return lines


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    """Read a JSON file, change its content in place, and write it again."""
    value = json.loads(path.read_text())
    change(value)
    write(path, value)
