"""What a published model's `config.json` says of its tie: total, embedding share, saving.

The total is counted from the architecture, in closed form, for the model types in `MODEL_TYPES`;
no weight is read and nothing is downloaded. The file is untrusted: a missing or contradictory field
is an error that names it. Our own models are counted in `ledger`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tyro_cli.errors import StorageError, UsageError
from tyro_cli.storage.files import read_json

# Whether embedding and head are one matrix where the file does not say so: transformers' defaults.
_TIED_BY_DEFAULT = {
    "gpt2": True,
    "llama": False,
    "mistral": False,
    "qwen2": False,
    "qwen3": False,
    "gemma": True,
    "gemma2": True,
}
MODEL_TYPES = tuple(_TIED_BY_DEFAULT)

# Sizes of a head where the file does not say so and d_model / num_heads is not it.
_HEAD_SIZE_BY_DEFAULT = {"gemma": 256, "gemma2": 256, "qwen3": 128}

_LARGEST_FIELD = 2**40
_MISSING = object()


@dataclass(frozen=True)
class PublishedModel:
    """The account of a published model.

    Attributes:
        model_type: As the file names it, for example `llama`.
        vocab_size: V, padding rows included.
        d_model: D, the hidden size.
        num_layers: Number of blocks.
        tied: Whether embedding and head are one matrix.
        total: Unique parameters.
        embedding: Parameters of the token embedding, V * D.
        positions: Parameters of learned positions.
        head: Parameters of the head's own matrix; 0 where it is tied.
    """

    model_type: str
    vocab_size: int
    d_model: int
    num_layers: int
    tied: bool
    total: int
    embedding: int
    positions: int
    head: int

    @property
    def embedding_share(self) -> float:
        """Fraction of the unique parameters that maps tokens in and out, positions left out."""
        return (self.embedding + self.head) / self.total

    @property
    def saving(self) -> int:
        """Parameters that the tie saves, or would save: V * D."""
        return self.vocab_size * self.d_model

    @property
    def saving_share(self) -> float:
        """The saving as a fraction of the untied total."""
        return self.saving / (self.total + (self.saving if self.tied else 0))

    def as_record(self) -> dict[str, Any]:
        """Return all numbers as plain values."""
        return asdict(self) | {
            "embedding_share": self.embedding_share,
            "saving": self.saving,
            "saving_share": self.saving_share,
        }


def hf_ledger(path: Path) -> PublishedModel:
    """Count a published model from its `config.json`.

    Raises:
        UsageError: The file is no such configuration, lacks a field, or contradicts itself.
    """
    remedy = "give the config.json of a decoder-only model, as it lies beside its weights"
    if not path.is_file():
        raise UsageError(f"there is no file {path}", remedy)
    try:
        content = read_json(path)
    except StorageError as error:
        raise UsageError(error.message, remedy) from error
    if not isinstance(content, Mapping):
        raise UsageError(f"{path}: holds no configuration (a JSON object)", remedy)
    fields = _Fields(path, content)
    model_type = content.get("model_type", _MISSING)
    if model_type not in MODEL_TYPES:
        shown = "is missing" if model_type is _MISSING else f"{model_type!r} is not known"
        raise UsageError(
            f"{path}: model_type: {shown}", f"known model types: {', '.join(MODEL_TYPES)}"
        )
    return _count_gpt2(fields) if model_type == "gpt2" else _count_llama(fields, str(model_type))


class _Fields:
    """The file's fields, read with a clear error each."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = path
        self.content = content

    def whole(self, name: str, default: int | None = None) -> int:
        """Return a positive whole number; null counts as absent where there is a default."""
        value = self.content.get(name)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.error(name, "is missing")
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(name, f"must be a whole number, not {value!r}")
        if not 1 <= value <= _LARGEST_FIELD:
            raise self.error(name, f"must be between 1 and {_LARGEST_FIELD:,}, not {value}")
        return value

    def truth(self, name: str, default: bool) -> bool:
        """Return a boolean."""
        value = self.content.get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, not {value!r}")
        return value

    def error(self, name: str, problem: str) -> UsageError:
        """Make the error for one field."""
        return UsageError(
            f"{self.path}: {name}: {problem}", "check the file against the published one"
        )


def _count_gpt2(fields: _Fields) -> PublishedModel:
    """Count GPT-2: biases everywhere, learned positions, query, key and value in one matrix."""
    vocab_size, width = fields.whole("vocab_size"), fields.whole("n_embd")
    num_layers, positions = fields.whole("n_layer"), fields.whole("n_positions")
    num_heads = fields.whole("n_head")
    if width % num_heads:
        raise fields.error("n_head", f"{num_heads} heads do not divide n_embd {width}")
    inner = fields.whole("n_inner", 4 * width)
    attention = 4 * width * width + 4 * width
    feed_forward = 2 * width * inner + inner + width
    layer = attention + feed_forward + 4 * width
    tied = fields.truth("tie_word_embeddings", _TIED_BY_DEFAULT["gpt2"])
    outside = positions * width + 2 * width
    return _published(
        "gpt2", vocab_size, width, num_layers, tied, num_layers * layer + outside, positions * width
    )


def _count_llama(fields: _Fields, model_type: str) -> PublishedModel:
    """Count Llama and its relatives: rotary positions, gated feed-forward, grouped key heads."""
    vocab_size, width = fields.whole("vocab_size"), fields.whole("hidden_size")
    num_layers, inner = fields.whole("num_hidden_layers"), fields.whole("intermediate_size")
    num_heads = fields.whole("num_attention_heads")
    key_heads = fields.whole("num_key_value_heads", num_heads)
    if num_heads % key_heads:
        raise fields.error(
            "num_key_value_heads",
            f"{key_heads} do not divide num_attention_heads {num_heads}",
        )
    head_size = fields.whole("head_dim", _HEAD_SIZE_BY_DEFAULT.get(model_type, 0))
    if not head_size:
        head_size, rest = divmod(width, num_heads)
        if rest:
            raise fields.error(
                "num_attention_heads", f"{num_heads} heads do not divide hidden_size {width}"
            )
    query, key = num_heads * head_size, key_heads * head_size
    attention = width * (query + 2 * key) + query * width
    if model_type == "qwen2":
        attention += query + 2 * key
    elif fields.truth("attention_bias", False):
        attention += query + 2 * key + width
    feed_forward = 3 * width * inner
    if model_type == "llama" and fields.truth("mlp_bias", False):
        feed_forward += 2 * inner + width
    norms = (4 if model_type == "gemma2" else 2) * width
    if model_type == "qwen3":
        norms += 2 * head_size
    layer = attention + feed_forward + norms
    tied = fields.truth("tie_word_embeddings", _TIED_BY_DEFAULT[model_type])
    return _published(
        model_type, vocab_size, width, num_layers, tied, num_layers * layer + width, 0
    )


def _published(
    model_type: str,
    vocab_size: int,
    width: int,
    num_layers: int,
    tied: bool,
    others: int,
    positions: int,
) -> PublishedModel:
    """Add embedding and head to all other parameters (positions among them)."""
    matrix = vocab_size * width
    head = 0 if tied else matrix
    return PublishedModel(
        model_type=model_type,
        vocab_size=vocab_size,
        d_model=width,
        num_layers=num_layers,
        tied=tied,
        total=matrix + head + others,
        embedding=matrix,
        positions=positions,
        head=head,
    )
