"""Small experiments and their data for the tests of this room; no corpus is read."""

from pathlib import Path

import numpy as np

from tyro_cli.config.loading import LoadedExperiment, load_experiment
from tyro_cli.data.prepared import PreparedData, TokenSplit

V = 61

BASE = """\
name: small
task: language-modeling
data:
  corpus: kjv
  tokenizer: {kind: word}
  context_length: 8
model: {d_model: 16, num_layers: 2, num_heads: 4}
training:
  budget: {steps: 4}
  batch_tokens: 32
  optimizer: {learning_rate: 2e-3}
"""

ARMS = """\
arms:
  untied: {}
  tied: {model: {tying: in-out}}
baseline: untied
seeds: [0, 1]
"""


def load(folder: Path, arms: str = ARMS, *overrides: str, base: str = BASE) -> LoadedExperiment:
    """Write an experiment file and load it."""
    path = folder / "experiment.yaml"
    path.write_text(base + arms)
    return load_experiment(path, overrides)


def prepared_data(
    folder: Path, *, num_tokens: int = 400, vocab_size: int = V, text: str = "a"
) -> PreparedData:
    """Return data as `prepare_data` would; `text` stands for the corpus."""
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(f'{{"trained on": "{text}"}}')

    def split(num_tokens: int) -> TokenSplit:
        ones = np.ones(1, dtype=np.int64)
        tokens = np.ones(num_tokens + 1, dtype=np.uint16)
        return TokenSplit(tokens, ones, ones, ones, text * 64, num_tokens, 1, 1, 0)

    return PreparedData(
        folder=folder,
        vocab_size=vocab_size,
        content_sha256=text * 64,
        tokenizer_kind="word",
        tokenizer_path=tokenizer,
        tokenizer_sha256=text * 64,
        train_fraction=1.0,
        splits={"train": split(num_tokens), "valid": split(50), "test": split(50)},
    )
