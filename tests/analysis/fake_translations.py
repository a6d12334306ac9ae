"""Hand-made records of translation: the counts and scores of two arms, three seeds."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.analysis.fake_runs import NATS_PER_WORD, edit_json
from tests.analysis.fake_studies import make_study
from tyro_cli.analysis.bleu import corpus_bleu

SENTENCES = 30
DATA = {
    "corpus": "kjv-web",
    "overlap": {
        "source_rows": 700,
        "target_rows": 650,
        "shared_rows": 400,
        "shared_target_tokens": 0.625,
        "source_tokens_per_word": 1.25,
        "target_tokens_per_word": 1.5,
    },
    "splits": {"train": {"pairs": 5000, "empty_pairs": 4, "long_pairs": 17, "tokens": 99_000}},
}
SIGNATURES = {"bleu": "nrefs:1|case:mixed|tok:13a|beam:5", "chrf": "nrefs:1|case:mixed|beam:5"}


def counts(arm: str, seed: int) -> np.ndarray:
    """Counts of sentences of 10 tokens; the tied arm matches a little more often."""
    generator = np.random.default_rng(seed)
    matching = generator.integers(4, 9, SENTENCES)
    if arm == "tied":
        matching = matching + (np.arange(SENTENCES) % 5 < 2 + seed % 2)
    columns = [np.full(SENTENCES, 10), np.full(SENTENCES, 10)]
    columns += [np.maximum(matching - order, 0) for order in range(4)]
    columns += [np.full(SENTENCES, 10 - order) for order in range(4)]
    return np.stack(columns, axis=1).astype(np.int64)


def quality(arm: str, seed: int) -> dict[str, Any]:
    """Scores of a cell: chrF is 1 higher in the tied arm."""
    return {
        "bleu": float(corpus_bleu(counts(arm, seed).sum(axis=0))),
        "chrf": 50.0 + seed + (arm == "tied"),
        "copy_bleu": 3.25,
        "copy_chrf": 17.5,
        "sentences": SENTENCES,
        "signatures": dict(SIGNATURES),
    }


def translate(record: dict[str, Any]) -> None:
    """Make a cell's record that of a translation."""
    record["settings"]["task"] = "translation"
    record["quality"] = {
        split: quality(record["arm"], record["seed"]) for split in ("valid", "test")
    }


def keep_counts(run: Path) -> None:
    """Make a run one of translation, and keep each sentence's counts in it."""
    edit_json(run / "manifest.json", lambda record: record.update(task="translation", data=DATA))
    for arm in ("untied", "tied"):
        for seed in range(3):
            path = run / arm / f"seed-{seed}" / "documents.npz"
            with np.load(path) as content:
                arrays = dict(content)
            one = counts(arm, seed)
            np.savez(path, **arrays, valid_bleu=one, test_bleu=one)


def make_translation_study(root: Path, **changes: Any) -> Path:
    """Write a study of two fractions: at 1 the tied arm loses 2 BLEU and 0.3 nats a word."""
    nats = {key: value + 0.3 * (key[0] == "tied") for key, value in NATS_PER_WORD.items()}

    def worse(record: dict[str, Any]) -> None:
        translate(record)
        for one in record["quality"].values():
            one["bleu"] -= 2.0 * (record["arm"] == "tied")

    folder = make_study(
        root,
        {(0,): NATS_PER_WORD, (1,): nats},
        factors=("disjoint",),
        edits={(0,): translate, (1,): worse},
        changes=changes,
    )
    for run in root.glob("tiny-*"):
        keep_counts(run)
    return folder
