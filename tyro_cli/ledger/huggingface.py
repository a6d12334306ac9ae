"""What a published model's `config.json` says of its tie: total, embedding share, saving.

The total is counted from the architecture, in closed form, for the model types in `MODEL_TYPES`,
as transformers builds them; no weight is read and nothing is downloaded. The file is untrusted: a
missing or contradictory field is an error that names it. Our own models are counted in `ledger`.
"""

import os
from collections.abc import Callable, Mapping
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
    "phi": False,
    "phi3": False,
    "gpt_neox": False,
    "opt": True,
    "bloom": True,
    "bert": True,
    "marian": True,
}
MODEL_TYPES = tuple(_TIED_BY_DEFAULT)

# Sizes of a head where the file does not say so and d_model / num_heads is not it.
_HEAD_SIZE_BY_DEFAULT = {"gemma": 256, "gemma2": 256, "qwen3": 128}

# Key heads where the file leaves the field out; everywhere else, and where it is null, the query's.
_KEY_HEADS_BY_DEFAULT = {"mistral": 8, "qwen2": 32, "qwen3": 32, "gemma": 16, "gemma2": 4}

# The gated models whose `attention_bias` counts; for the others a file may say what it likes.
_WITH_ATTENTION_BIAS = ("llama", "qwen3", "gemma", "gemma2")

_LARGEST_FIELD = 2**40
_MISSING = object()


@dataclass(frozen=True)
class PublishedModel:
    """The account of a published model.

    Attributes:
        model_type: As the file names it, for example `llama`.
        vocab_size: V, padding rows included; of the target where there are two vocabularies.
        d_model: D, the width of the embedding: the hidden size, but where `opt` projects it.
        num_layers: Number of blocks, of encoder and decoder together.
        tied: Whether embedding and head are one matrix.
        total: Unique parameters.
        embedding: Parameters of the token embedding, V * D, and of a source's of its own.
        positions: Parameters of position tables; fixed sinusoids count as transformers counts them.
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
    def untied_total(self) -> int:
        """Unique parameters where the head is a matrix of its own."""
        return self.total + (self.saving if self.tied else 0)

    @property
    def saving_share(self) -> float:
        """The saving as a fraction of the untied total."""
        return self.saving / self.untied_total

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
    remedy = "give the config.json of a published model, as it lies beside its weights"
    if not os.path.isfile(path):  # Path.is_file raises for a name longer than the system takes.
        raise UsageError(f"there is no file {str(path)[:200]}", remedy)
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
    count = _COUNTS.get(str(model_type))
    return _count_llama(fields, str(model_type)) if count is None else count(fields)


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

    def either(self, name: str, other: str) -> int:
        """Return a positive whole number that may stand under two names."""
        given = [one for one in (name, other) if self.content.get(one) is not None]
        if len(given) == 2 and self.whole(name) != self.whole(other):
            raise self.error(other, f"{self.whole(other)} contradicts {name} {self.whole(name)}")
        return self.whole(given[0] if given else name)

    def tied(self) -> bool:
        """Return whether embedding and head are one matrix."""
        return self.truth("tie_word_embeddings", _TIED_BY_DEFAULT[self.content["model_type"]])

    def divide(self, heads_name: str, width_name: str, width: int) -> int:
        """Return the size of a head."""
        num_heads = self.whole(heads_name)
        size, rest = divmod(width, num_heads)
        if rest:
            raise self.error(heads_name, f"{num_heads} heads do not divide {width_name} {width}")
        return size

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
    _refuse_cross_attention(fields)
    vocab_size, width = fields.whole("vocab_size"), fields.whole("n_embd")
    num_layers, positions = fields.whole("n_layer"), fields.whole("n_positions")
    fields.divide("n_head", "n_embd", width)
    layer = _attention(width) + _feed_forward(width, fields.whole("n_inner", 4 * width)) + 4 * width
    outside = positions * width + 2 * width
    return _published(fields, vocab_size, width, num_layers, layer, outside, positions * width)


def _count_llama(fields: _Fields, model_type: str) -> PublishedModel:
    """Count Llama and its relatives: rotary positions, gated feed-forward, grouped key heads."""
    vocab_size, width = fields.whole("vocab_size"), fields.whole("hidden_size")
    num_layers, inner = fields.whole("num_hidden_layers"), fields.whole("intermediate_size")
    query, key, head_size = _grouped_heads(fields, model_type, width)
    attention = width * (query + 2 * key) + query * width
    if model_type == "qwen2":
        attention += query + 2 * key
    elif model_type in _WITH_ATTENTION_BIAS and fields.truth("attention_bias", False):
        attention += query + 2 * key + width
    feed_forward = 3 * width * inner
    if model_type == "llama" and fields.truth("mlp_bias", False):
        feed_forward += 2 * inner + width
    norms = (4 if model_type == "gemma2" else 2) * width
    if model_type == "qwen3":
        norms += 2 * head_size
    return _published(
        fields, vocab_size, width, num_layers, attention + feed_forward + norms, width
    )


def _count_phi(fields: _Fields) -> PublishedModel:
    """Count Phi 1 and 2: biases everywhere, the head's too, and one norm for a whole block."""
    vocab_size, width = fields.whole("vocab_size"), fields.whole("hidden_size")
    query, key, _ = _grouped_heads(fields, "phi", width)
    attention = (width + 1) * (query + 2 * key) + query * width + width
    if fields.truth("qk_layernorm", False):
        attention += 4 * fields.divide("num_attention_heads", "hidden_size", width)
    layer = attention + _feed_forward(width, fields.whole("intermediate_size")) + 2 * width
    outside = 2 * width + vocab_size
    return _published(fields, vocab_size, width, fields.whole("num_hidden_layers"), layer, outside)


def _count_gpt_neox(fields: _Fields) -> PublishedModel:
    """Count GPT-NeoX and Pythia: rotary positions, query, key and value in one matrix."""
    vocab_size, width = fields.whole("vocab_size"), fields.whole("hidden_size")
    fields.divide("num_attention_heads", "hidden_size", width)
    attention = _attention(width, bias=fields.truth("attention_bias", True))
    layer = attention + _feed_forward(width, fields.whole("intermediate_size")) + 4 * width
    return _published(
        fields, vocab_size, width, fields.whole("num_hidden_layers"), layer, 2 * width
    )


def _count_opt(fields: _Fields) -> PublishedModel:
    """Count OPT: two position rows more than it names, an embedding that may be narrower."""
    vocab_size, width = fields.whole("vocab_size"), fields.whole("hidden_size")
    embedding_width = fields.whole("word_embed_proj_dim", width)
    fields.divide("num_attention_heads", "hidden_size", width)
    bias = fields.truth("enable_bias", True)
    norm = 2 * width if fields.truth("layer_norm_elementwise_affine", True) else 0
    feed_forward = _feed_forward(width, fields.whole("ffn_dim"), bias=bias)
    layer = _attention(width, bias=bias) + feed_forward + 2 * norm
    positions = (fields.whole("max_position_embeddings") + 2) * width
    outside = positions
    if fields.truth("do_layer_norm_before", True):
        outside += 0 if fields.truth("_remove_final_layer_norm", False) else norm
    if embedding_width != width:
        outside += 2 * embedding_width * width
    num_layers = fields.whole("num_hidden_layers")
    return _published(fields, vocab_size, embedding_width, num_layers, layer, outside, positions)


def _count_bloom(fields: _Fields) -> PublishedModel:
    """Count BLOOM: ALiBi instead of positions, a norm behind the embedding."""
    vocab_size, width = fields.whole("vocab_size"), fields.either("hidden_size", "n_embed")
    num_layers = fields.either("n_layer", "num_hidden_layers")
    num_heads = fields.either("n_head", "num_attention_heads")
    if width % num_heads:
        raise fields.error("n_head", f"{num_heads} heads do not divide hidden_size {width}")
    layer = _attention(width) + _feed_forward(width, 4 * width) + 4 * width
    return _published(fields, vocab_size, width, num_layers, layer, 4 * width)


def _count_bert(fields: _Fields) -> PublishedModel:
    """Count BERT with its head for masked words: one more layer, a norm and a bias before V."""
    _refuse_cross_attention(fields)
    vocab_size, width = fields.whole("vocab_size"), fields.whole("hidden_size")
    fields.divide("num_attention_heads", "hidden_size", width)
    layer = _attention(width) + _feed_forward(width, fields.whole("intermediate_size")) + 4 * width
    positions = fields.whole("max_position_embeddings") * width
    head = width * width + width + 2 * width + vocab_size
    outside = positions + fields.whole("type_vocab_size", 2) * width + 2 * width + head
    num_layers = fields.whole("num_hidden_layers")
    return _published(fields, vocab_size, width, num_layers, layer, outside, positions)


def _count_marian(fields: _Fields) -> PublishedModel:
    """Count Marian: an encoder and a decoder, whose embeddings are one matrix or two."""
    source_size, width = fields.whole("vocab_size"), fields.whole("d_model")
    target_size = fields.whole("decoder_vocab_size", source_size)
    shared = fields.truth("share_encoder_decoder_embeddings", True)
    if shared and target_size != source_size:
        raise fields.error(
            "decoder_vocab_size",
            f"{target_size} contradicts vocab_size {source_size}, as it shares",
        )
    if shared and not fields.tied():
        raise fields.error(
            "tie_word_embeddings",
            "false contradicts share_encoder_decoder_embeddings, which makes the head the same "
            "matrix too",
        )
    sides = {"encoder": 1, "decoder": 2}
    layers = 0
    for side, num_attentions in sides.items():
        fields.divide(f"{side}_attention_heads", "d_model", width)
        feed_forward = _feed_forward(width, fields.whole(f"{side}_ffn_dim"))
        layer = num_attentions * (_attention(width) + 2 * width) + feed_forward + 2 * width
        layers += fields.whole(f"{side}_layers") * layer
    positions = 2 * fields.whole("max_position_embeddings") * width
    num_layers = sum(fields.whole(f"{side}_layers") for side in sides)
    source = 0 if shared else source_size * width
    return _published(
        fields, target_size, width, num_layers, 0, layers + positions, positions, source
    )


_COUNTS: dict[str, Callable[[_Fields], PublishedModel]] = {
    "gpt2": _count_gpt2,
    "phi": _count_phi,
    "gpt_neox": _count_gpt_neox,
    "opt": _count_opt,
    "bloom": _count_bloom,
    "bert": _count_bert,
    "marian": _count_marian,
}


def _refuse_cross_attention(fields: _Fields) -> None:
    if fields.truth("add_cross_attention", False):
        raise fields.error("add_cross_attention", "a decoder beside an encoder is not counted")


def _grouped_heads(fields: _Fields, model_type: str, width: int) -> tuple[int, int, int]:
    """Return the widths of all query heads and of all key heads, and the size of a head."""
    num_heads = fields.whole("num_attention_heads")
    is_given = "num_key_value_heads" in fields.content
    default = num_heads if is_given else _KEY_HEADS_BY_DEFAULT.get(model_type, num_heads)
    key_heads = fields.whole("num_key_value_heads", default)
    if num_heads % key_heads:
        raise fields.error(
            "num_key_value_heads",
            f"{key_heads} do not divide num_attention_heads {num_heads}",
        )
    head_size = fields.whole("head_dim", _HEAD_SIZE_BY_DEFAULT.get(model_type, 0))
    if not head_size:
        head_size = fields.divide("num_attention_heads", "hidden_size", width)
    return num_heads * head_size, key_heads * head_size, head_size


def _attention(width: int, *, bias: bool = True) -> int:
    """Return the parameters of query, key, value and output, each width by width."""
    return 4 * width * width + 4 * width * bias


def _feed_forward(width: int, inner: int, *, bias: bool = True) -> int:
    """Return the parameters of a feed-forward without a gate."""
    return 2 * width * inner + (inner + width) * bias


def _published(
    fields: _Fields,
    vocab_size: int,
    width: int,
    num_layers: int,
    layer: int,
    outside: int,
    positions: int = 0,
    source: int = 0,
) -> PublishedModel:
    """Add up the layers, what is outside them (positions among it), embeddings and head."""
    matrix = vocab_size * width
    tied = fields.tied()
    head = 0 if tied else matrix
    return PublishedModel(
        model_type=fields.content["model_type"],
        vocab_size=vocab_size,
        d_model=width,
        num_layers=num_layers,
        tied=tied,
        total=matrix + source + head + num_layers * layer + outside,
        embedding=matrix + source,
        positions=positions,
        head=head,
    )
