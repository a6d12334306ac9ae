"""Which results are the same: hashes of everything that decides a cell's numbers, and nothing else.

Invariant: names, paths, arms' names, baseline, margin and seeds planned are in no hash; the content
of the corpus stands for its path. What two ways of writing mean alike hashes alike, and `auto`
precision is replaced by what it came to. `PROTOCOL` is raised whenever the same configuration would
give other numbers than before.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tyro_cli.config.paths import with_values, without
from tyro_cli.config.schema import (
    ROLE_GRADIENTS,
    TRANSLATION_KEYS,
    Settings,
    without_later_keys,
)

PROTOCOL = 1


def cell_id(settings: Settings, seed: int, content_sha256: str, precision: str) -> str:
    """Return the identity of a cell, 64 hex digits.

    Args:
        settings: What the arm resolves to, its match solved.
        seed: The replicate.
        content_sha256: Hash of the corpus: all three splits and their format.
        precision: What `training.precision` came to: `fp32` or `bf16`.
    """
    return _sha256(_identity(settings, content_sha256, precision) | {"seed": seed})


def run_id(base: Settings, content_sha256: str, precision: str) -> str:
    """Return the identity of a run, 64 hex digits: arms and seeds are not in it.

    Args:
        base: The experiment's own settings, before any arm.
        content_sha256: Hash of the corpus: all three splits and their format.
        precision: What `training.precision` came to: `fp32` or `bf16`.
    """
    return _sha256(_identity(base, content_sha256, precision) | {"run": True})


def settings_sha256(settings: Settings, precision: str) -> str:
    """Return the hash of an arm's settings alone: what a redefined arm differs in."""
    return _sha256({"settings": identifying_settings(settings, precision)})


def resolved_record(settings: Settings) -> dict[str, Any]:
    """Return settings as plain values, with what follows from other settings filled in.

    Dropout is written by place, d_ff and embedding_std as the number that is used, and the
    micro-batch and the stride as what leaving them out means: two ways to write one thing are
    equal.
    """
    record = without(settings.model_dump(mode="json"), ROLE_GRADIENTS)
    model, training, evaluation = record["model"], record["training"], record["evaluation"]
    model["dropout"] = settings.model.dropouts.model_dump(mode="json")
    model["d_ff"] = settings.model.resolved_d_ff
    model["embedding_std"] = settings.model.resolved_embedding_std
    model["positions"] = settings.model.resolved_positions
    training["micro_batch_tokens"] = settings.training.resolved_micro_batch_tokens
    if settings.task == "translation":
        _fill_in_translation(record, settings)
        return record
    evaluation["stride"] = settings.resolved_stride
    return without(record, *TRANSLATION_KEYS)


def _fill_in_translation(record: dict[str, Any], settings: Settings) -> None:
    """Write what leaving out a key of translation means."""
    data, model, evaluation = record["data"], record["model"], record["evaluation"]
    data["tokenizer"]["sharing"] = data["tokenizer"]["sharing"] or "joint"
    data["unusable_pairs"] = data["unusable_pairs"] or "drop"
    data["target_script"] = data["target_script"] or {"disjoint_fraction": 0.0}
    record["training"]["label_smoothing"] = settings.training.label_smoothing or 0.0
    model["num_encoder_layers"] = settings.model.resolved_encoder_layers
    evaluation["beam_size"] = settings.evaluation.resolved_beam_size
    evaluation["length_penalty"] = settings.evaluation.resolved_length_penalty
    del evaluation["stride"]


def identifying_settings(settings: Settings, precision: str) -> dict[str, Any]:
    """Return the settings that decide a cell's numbers, as plain values."""
    model = settings.model
    left_out = ["data.corpus", "data.splits", "data.languages", "data.synthetic"]  # content says it
    if model.resolved_positions == ("learned" if model.family == "gpt2" else "rotary"):
        left_out.append("model.positions")  # a later key, too
    if settings.data.tokenizer.kind in ("word", "byte"):
        # The corpus decides the size; writing it out only checks it.
        left_out.append("data.tokenizer.vocab_size")
    record = without(without_later_keys(resolved_record(settings)), *left_out)
    return with_values(record, {"training.precision": precision})


def _identity(settings: Settings, content_sha256: str, precision: str) -> dict[str, Any]:
    return {
        "protocol": PROTOCOL,
        "settings": identifying_settings(settings, precision),
        "content_sha256": content_sha256,
    }


def _sha256(value: Mapping[str, Any]) -> str:
    """Hash canonical JSON: sorted keys, no spaces, shortest decimals that read back the same."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
