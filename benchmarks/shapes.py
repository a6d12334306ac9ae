"""The sizes at which models are timed, and random tokens for them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tyro_cli.config.schema import Settings
from tyro_cli.data.prepared import PreparedData, TokenSplit


@dataclass(frozen=True)
class Shape:
    """A model and its batch.

    Attributes:
        vocab_size: Token types.
        d_model: Width.
        num_layers: Blocks.
        num_heads: Attention heads.
        d_ff: Inner width of the feed-forward.
        context_length: Tokens of a window.
        batch_windows: Windows of a batch.
        dropout: On embedding and residual stream.
    """

    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    d_ff: int
    context_length: int
    batch_windows: int
    dropout: float = 0.0

    @property
    def batch_tokens(self) -> int:
        """Tokens of a step."""
        return self.batch_windows * self.context_length

    def settings(self, tied: bool, precision: str = "bf16") -> Settings:
        """Return an experiment of family `gpt2`, so that a peer can have the same layers."""
        return Settings.model_validate(
            {
                "task": "language-modeling",
                "data": {
                    "corpus": "random",
                    "tokenizer": {"kind": "word", "vocab_size": self.vocab_size},
                    "context_length": self.context_length,
                },
                "model": {
                    "family": "gpt2",
                    "d_model": self.d_model,
                    "num_layers": self.num_layers,
                    "num_heads": self.num_heads,
                    "d_ff": self.d_ff,
                    "dropout": {
                        "embedding": self.dropout,
                        "residual": self.dropout,
                        "output": 0.0,
                    },
                    "tying": "in-out" if tied else "none",
                },
                "training": {
                    "budget": {"steps": 10**6},
                    "batch_tokens": self.batch_tokens,
                    "optimizer": {"learning_rate": 1e-3},
                    "precision": precision,
                },
                "evaluation": {"every_steps": 10**6},
            }
        )

    def tokens(self, num_tokens: int) -> np.ndarray:
        """Return a stream of random tokens."""
        generator = np.random.default_rng(0)
        dtype = np.uint16 if self.vocab_size <= 2**16 else np.uint32
        return generator.integers(self.vocab_size, size=num_tokens).astype(dtype)

    def prepared(self, folder: Path) -> PreparedData:
        """Return random data as `prepare_data` would, without a corpus."""
        split = token_split(self.tokens(64 * (self.batch_tokens + self.context_length)))
        return PreparedData(
            folder=folder,
            vocab_size=self.vocab_size,
            content_sha256="0" * 64,
            tokenizer_kind="word",
            tokenizer_path=folder / "tokenizer.json",
            tokenizer_sha256="0" * 64,
            train_fraction=1.0,
            splits={"train": split, "valid": split, "test": split},
        )

    def as_arguments(self) -> dict[str, Any]:
        """Return plain values, for a process."""
        return asdict(self)


def token_split(tokens: np.ndarray) -> TokenSplit:
    """Return a stream as a split of one document."""
    num_tokens = len(tokens) - 1
    return TokenSplit(
        tokens=tokens,
        document_starts=np.ones(1, dtype=np.int64),
        document_words=np.full(1, num_tokens),
        document_bytes=np.full(1, num_tokens),
        text_sha256="0" * 64,
        num_tokens=num_tokens,
        num_words=num_tokens,
        num_bytes=num_tokens,
        num_unknown=0,
    )


TINY = Shape(61, 16, 1, 2, 32, 8, 2)
QUICKSTART = Shape(2048, 128, 2, 4, 512, 128, 8)
MIDDLE = Shape(8192, 256, 4, 4, 1024, 256, 16)
WORDS = Shape(33_278, 200, 2, 2, 200, 35, 20, dropout=0.2)
