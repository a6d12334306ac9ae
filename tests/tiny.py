"""Tiny settings, data and models for tests: d = 16, V = 61, T = 8."""

from pathlib import Path
from typing import Any

import numpy as np

from tyro_cli.config.schema import ModelConfig, Settings
from tyro_cli.data.prepared import PreparedData, TokenSplit
from tyro_cli.models.language_model import LanguageModel, build_model
from tyro_cli.training.loop import CellContext, Trainer

V, D, T = 61, 16, 8


def settings(**model: Any) -> Settings:
    """Return settings of a tiny experiment; keyword arguments go to the model section."""
    training = model.pop("training", {})
    evaluation = model.pop("evaluation", {})
    return Settings.model_validate(
        {
            "task": "language-modeling",
            "data": {
                "corpus": "nowhere",
                "tokenizer": {"kind": "word", "vocab_size": V},
                "context_length": T,
            },
            "model": {"d_model": D, "num_layers": 2, "num_heads": 2} | model,
            "training": {
                "budget": {"steps": 12},
                "batch_tokens": 4 * T,
                "optimizer": {"learning_rate": 1e-2},
                "precision": "fp32",
            }
            | training,
            "evaluation": {"every_steps": 4} | evaluation,
        }
    )


def training(**changes: Any) -> dict[str, Any]:
    """Return the training section of `settings` with changes, as plain values."""
    return settings().training.model_dump(mode="json", exclude_none=True) | changes


def model_config(**model: Any) -> ModelConfig:
    """Return a tiny model section."""
    return settings(**model).model


def tiny_model(seed: int = 0, **model: Any) -> LanguageModel:
    """Return a tiny initialised model."""
    return build_model(model_config(**model), V, T, seed)


def split(num_tokens: int, seed: int) -> TokenSplit:
    """Return a split of random tokens with a bigram structure, in documents of 50 tokens."""
    generator = np.random.default_rng(seed)
    stream = np.zeros(num_tokens + 1, dtype=np.uint16)
    for index in range(1, len(stream)):
        stream[index] = (stream[index - 1] * 7 + generator.integers(1, 5)) % V
    starts = np.arange(1, num_tokens + 1, 50, dtype=np.int64)
    lengths = np.diff(np.append(starts, num_tokens + 1))
    return TokenSplit(
        tokens=stream,
        document_starts=starts,
        document_words=lengths,
        document_bytes=lengths * 5,
        text_sha256=f"{seed:064x}",
        num_tokens=num_tokens,
        num_words=num_tokens,
        num_bytes=num_tokens * 5,
        num_unknown=0,
    )


def prepared(folder: Path) -> PreparedData:
    """Return data as `prepare_data` would, without a corpus."""
    return PreparedData(
        folder=folder,
        vocab_size=V,
        content_sha256="0" * 64,
        tokenizer_kind="word",
        tokenizer_path=folder / "tokenizer.json",
        tokenizer_sha256="1" * 64,
        train_fraction=1.0,
        splits={"train": split(2000, 1), "valid": split(300, 2), "test": split(333, 3)},
    )


def context(folder: Path, seed: int = 0, **model: Any) -> CellContext:
    """Return what a trainer needs to train a tiny cell under `folder`."""
    chosen = settings(**model)
    folder.mkdir(parents=True, exist_ok=True)
    return CellContext(
        cell_id="c" * 64,
        settings=chosen,
        seed=seed,
        data=prepared(folder),
        total_steps=chosen.training.budget.steps or 12,
        device="cpu",
        precision="bf16" if chosen.training.precision == "bf16" else "fp32",
        folder=folder,
        allow_numeric_drift=False,
        poll=lambda: None,
        warn=lambda text: None,
        report=lambda event: None,
    )


def trained(folder: Path, seed: int = 0, **model: Any) -> Trainer:
    """Return the trainer of a tiny cell that was trained to its end."""
    trainer = Trainer(context(folder, seed, **model))
    trainer.run()
    return trainer
