"""A valid experiment file, and helpers that write, load and break it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tyro_cli.config.loading import LoadedExperiment, load_experiment
from tyro_cli.errors import ConfigurationError

VALID = """\
# A comment.
name: tiny
task: language-modeling
data:
  corpus: kjv
  tokenizer: {kind: bpe, vocab_size: 512}
  context_length: 32
model:
  d_model: 16
  num_layers: 1
  num_heads: 2
training:
  budget: {steps: 10}
  batch_tokens: 64
  optimizer: {learning_rate: 3e-4}
arms:
  untied: {}
  tied: {model: {tying: in-out}}
baseline: untied
seeds: [0, 1]
"""

Load = Callable[..., LoadedExperiment]
Problems = Callable[..., str]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a text as `tiny.yaml` in the current directory."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str | bytes = VALID, overrides: Sequence[str] = ()) -> LoadedExperiment:
        path = Path("tiny.yaml")
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_experiment(path, overrides)

    return load_text


@pytest.fixture
def problems(load: Load) -> Problems:
    """Load a text that must be refused, and return the message."""

    def refused(text: str | bytes = VALID, overrides: Sequence[str] = ()) -> str:
        with pytest.raises(ConfigurationError) as caught:
            load(text, overrides)
        assert caught.value.exit_code == 2
        assert caught.value.remedy
        return caught.value.message

    return refused


@pytest.fixture
def valid() -> str:
    """The text of a valid experiment file."""
    return VALID
