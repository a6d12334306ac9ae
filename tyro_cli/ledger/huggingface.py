"""What a published model's `config.json` says of its tie: total, embedding share, saving.

The total is counted from the architecture, in closed form, for the model types in `MODEL_TYPES`,
as transformers builds them; no weight is read and nothing is downloaded. The file is untrusted: a
missing, repeated or contradictory field is an error that names it and says what to change. Our own
models are counted in `ledger`.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tyro_cli.errors import StorageError, UsageError
from tyro_cli.storage.files import MAX_JSON_BYTES, decode_json
from tyro_cli.storage.system import open_regular, storage_errors

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

# Second names of fields, each with the first: the `attribute_map` of transformers, and `n_embed`,
# which its BLOOM reads apart.
_ALIASES = {
    "gpt2": {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
    },
    "bloom": {
        "n_embed": "hidden_size",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
    },
    "marian": {
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
        "num_attention_heads": "encoder_attention_heads",
    },
}

# What a file must say, by its first name.
_SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
_REQUIRED = {name: (*_SIZES, "intermediate_size") for name in MODEL_TYPES} | {
    "gpt2": ("vocab_size", "n_embd", "n_layer", "n_head", "n_positions"),
    "opt": (*_SIZES, "ffn_dim", "max_position_embeddings"),
    "bloom": ("vocab_size", "hidden_size", "n_layer", "n_head"),
    "bert": (*_SIZES, "intermediate_size", "max_position_embeddings"),
    "marian": (
        *("vocab_size", "d_model", "max_position_embeddings"),
        *("encoder_layers", "encoder_attention_heads", "encoder_ffn_dim"),
        *("decoder_layers", "decoder_attention_heads", "decoder_ffn_dim"),
    ),
}

_PREDICTS_TOKENS = re.compile(
    r"(LMHeadModel|DoubleHeadsModel|For(CausalLM|MaskedLM|PreTraining)|MTModel)$"
)
_DECODER_ALONE = "MarianForCausalLM"

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
        roles: The jobs that one matrix does where it is tied: input and head, and where encoder and
            decoder share it the source's input as well.
        total: Unique parameters.
        embedding: Parameters of the token embedding, V * D, and of a source's of its own.
        positions: Parameters of position tables; fixed sinusoids count as transformers counts them.
        head: Parameters of the head's own matrix; 0 where it is tied.
        without_head: The file's architectures where none of them predicts tokens, else "". What is
            counted is the language model of the same shape.
    """

    model_type: str
    vocab_size: int
    d_model: int
    num_layers: int
    tied: bool
    roles: int
    total: int
    embedding: int
    positions: int
    head: int
    without_head: str = ""

    @property
    def embedding_share(self) -> float:
        """Fraction of the unique parameters that maps tokens in and out, positions left out."""
        return (self.embedding + self.head) / self.total

    @property
    def saving(self) -> int:
        """Parameters that the tie saves, or would save: V * D for each role but the first."""
        return (self.roles - 1) * self.vocab_size * self.d_model

    @property
    def untied_total(self) -> int:
        """Unique parameters where every role has a matrix of its own."""
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
    content = _read(path)
    model_type = content.get("model_type", _MISSING)
    if model_type not in MODEL_TYPES:
        shown = "is missing" if model_type is _MISSING else f"{model_type!r} is not known"
        raise UsageError(
            f"{path}: model_type: {shown}", f"known model types: {', '.join(MODEL_TYPES)}"
        )
    fields = _Fields(path, content)
    fields.refuse_another_architecture()
    fields.settle_names()
    fields.refuse_contradictions()
    count = _COUNTS.get(fields.model_type)
    model = _count_llama(fields, fields.model_type) if count is None else count(fields)
    return replace(model, without_head=fields.architectures_without_head())


def _read(path: Path) -> Mapping[str, Any]:
    """Return the file's content; refuse a name that stands twice, of which JSON keeps the last."""
    remedy = "give the config.json of a published model, as it lies beside its weights"
    if not os.path.isfile(path):  # Path.is_file raises for a name longer than the system takes.
        raise UsageError(f"there is no file {str(path)[:200]}", remedy)
    repeated: list[str] = []

    def note_repeated(pairs: list[tuple[str, Any]]) -> None:
        names = Counter(name for name, _ in pairs)
        repeated.extend(repr(name)[:80] for name, times in names.items() if times > 1)

    try:
        with storage_errors(path, "read"), open_regular(path, MAX_JSON_BYTES) as file:
            data = file.read(MAX_JSON_BYTES)
        content = decode_json(data)  # within limits, so that it is safe to parse once more
        json.loads(data, object_pairs_hook=note_repeated)
    except StorageError as error:
        raise UsageError(error.message, remedy) from error
    except ValueError as error:
        raise UsageError(f"{path} is not the JSON of a configuration: {error}", remedy) from error
    if repeated:
        raise UsageError(
            f"{path}: {repeated[0]} stands twice in one object", "leave one of the two out"
        )
    if not isinstance(content, Mapping):
        raise UsageError(f"{path}: holds no configuration (a JSON object)", remedy)
    return content


class _Fields:
    """The file's fields by their first names, read with a clear error each."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self.path = path
        self.content = dict(content)
        self.model_type = str(content["model_type"])
        self.aliases = _ALIASES.get(self.model_type, {})
        self.second_names: dict[str, str] = {}  # of the fields that the file gives under these

    def refuse_another_architecture(self) -> None:
        """Refuse a file whose `architectures` are all of another model type."""
        architectures = self.listed("architectures") or []
        own = re.compile(self.model_type.replace("_", "") + r"(?!\d)")  # gemma, but not gemma2
        if architectures and not any(
            own.match(re.sub("[-_]", "", str(name).lower())) for name in architectures
        ):
            names = ", ".join(map(str, architectures))[:200]
            raise self.error(
                "architectures",
                f"{names} contradicts model_type {self.model_type}",
                "correct model_type or architectures",
            )
        if _DECODER_ALONE in architectures:
            raise self.error(
                "architectures",
                f"{_DECODER_ALONE} is a decoder alone, which is not counted here",
                "give the config.json of the whole translation model (MarianMTModel)",
            )

    def architectures_without_head(self) -> str:
        """Return the file's `architectures` where there are some and none predicts tokens."""
        names = list(map(str, self.listed("architectures") or []))
        return "" if any(map(_PREDICTS_TOKENS.search, names)) else ", ".join(names)[:200]

    def settle_names(self) -> None:
        """Bring every field to its first name; refuse two names that disagree."""
        for alias, name in self.aliases.items():
            value = self.content.pop(alias, None)
            first = self.content.get(name)
            if value is not None and first is None:
                self.content[name], self.second_names[name] = value, alias
            elif value not in (None, first):
                raise self.error(
                    alias,
                    f"{value!r} contradicts {name} {first!r}, which is the same field",
                    f"correct one of them, or leave {alias} out",
                )

    def refuse_contradictions(self) -> None:
        """Refuse a file that lacks fields, all named, or whose fields do not fit together."""
        missing = [name for name in _REQUIRED[self.model_type] if self.content.get(name) is None]
        if missing:
            names = ", ".join(missing)
            raise self.error(
                names, "is missing" if len(missing) == 1 else "are missing", f"add {names}"
            )
        vocab_size, padding = self.whole("vocab_size"), self.content.get("pad_token_id")
        if padding is not None and (type(padding) is not int or padding >= vocab_size):
            raise self.error(
                "pad_token_id",
                f"must be a whole number below vocab_size {vocab_size}, not {padding!r}",
                "correct pad_token_id or vocab_size",
            )
        name, types = self.aliases.get("num_hidden_layers", "num_hidden_layers"), "layer_types"
        layer_types = self.listed(types)
        if layer_types is not None and len(layer_types) != self.whole(name):
            raise self.error(
                types,
                f"{len(layer_types)} entries contradict {self.named(name)} {self.whole(name)}",
                f"correct {self.named(name)} or {types}",
            )

    def whole(self, name: str, default: int | None = None) -> int:
        """Return a positive whole number; null counts as absent where there is a default."""
        value = self.content.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(name, f"must be a whole number, not {value!r}")
        if not 1 <= value <= _LARGEST_FIELD:
            raise self.error(name, f"must be between 1 and {_LARGEST_FIELD:,}, not {value}")
        return value

    def listed(self, name: str) -> list[Any] | None:
        """Return a list, or None where the file does not say."""
        value = self.content.get(name)
        if not isinstance(value, list | None):
            raise self.error(name, f"must be a list, not {value!r}")
        return value

    def tied(self) -> bool:
        """Return whether embedding and head are one matrix."""
        return self.truth("tie_word_embeddings", _TIED_BY_DEFAULT[self.model_type])

    def divide(self, heads_name: str, whole_name: str, default: int | None = None) -> int:
        """Return what is left to each of the heads: a size, or query heads to a key head."""
        num_heads, whole = self.whole(heads_name, default), self.whole(whole_name)
        size, rest = divmod(whole, num_heads)
        heads, divided = self.named(heads_name), f"{self.named(whole_name)} {whole}"
        if rest and self.content.get(heads_name) is None:
            problem = f"is missing, and {num_heads}, the default of {self.model_type}, does not"
            raise self.error(heads_name, f"{problem} divide {divided}", f"add {heads}")
        if rest:
            raise self.error(
                heads_name,
                f"{num_heads} heads do not divide {divided}",
                f"correct {heads} or {self.named(whole_name)}",
            )
        return size

    def truth(self, name: str, default: bool) -> bool:
        """Return a boolean."""
        value = self.content.get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, not {value!r}")
        return value

    def named(self, name: str) -> str:
        """Return the name under which the file gives a field."""
        return self.second_names.get(name, name)

    def error(self, name: str, problem: str, remedy: str = "") -> UsageError:
        """Make the error for one field."""
        name = self.named(name)
        return UsageError(f"{self.path}: {name}: {problem}", remedy or f"correct {name}")


def _count_gpt2(fields: _Fields) -> PublishedModel:
    """Count GPT-2: biases everywhere, learned positions, query, key and value in one matrix."""
    _refuse_cross_attention(fields)
    vocab_size, width = fields.whole("vocab_size"), fields.whole("n_embd")
    num_layers, positions = fields.whole("n_layer"), fields.whole("n_positions")
    fields.divide("n_head", "n_embd")
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
        attention += 4 * fields.divide("num_attention_heads", "hidden_size")
    layer = attention + _feed_forward(width, fields.whole("intermediate_size")) + 2 * width
    outside = 2 * width + vocab_size
    return _published(fields, vocab_size, width, fields.whole("num_hidden_layers"), layer, outside)


def _count_gpt_neox(fields: _Fields) -> PublishedModel:
    """Count GPT-NeoX and Pythia: rotary positions, query, key and value in one matrix."""
    vocab_size, width = fields.whole("vocab_size"), fields.whole("hidden_size")
    fields.divide("num_attention_heads", "hidden_size")
    attention = _attention(width, bias=fields.truth("attention_bias", True))
    layer = attention + _feed_forward(width, fields.whole("intermediate_size")) + 4 * width
    return _published(
        fields, vocab_size, width, fields.whole("num_hidden_layers"), layer, 2 * width
    )


def _count_opt(fields: _Fields) -> PublishedModel:
    """Count OPT: two position rows more than it names, an embedding that may be narrower."""
    vocab_size, width = fields.whole("vocab_size"), fields.whole("hidden_size")
    embedding_width = fields.whole("word_embed_proj_dim", width)
    fields.divide("num_attention_heads", "hidden_size")
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
    vocab_size, width = fields.whole("vocab_size"), fields.whole("hidden_size")
    fields.divide("n_head", "hidden_size")
    layer = _attention(width) + _feed_forward(width, 4 * width) + 4 * width
    return _published(fields, vocab_size, width, fields.whole("n_layer"), layer, 4 * width)


def _count_bert(fields: _Fields) -> PublishedModel:
    """Count BERT with its head for masked words: one more layer, a norm and a bias before V."""
    _refuse_cross_attention(fields)
    vocab_size, width = fields.whole("vocab_size"), fields.whole("hidden_size")
    fields.divide("num_attention_heads", "hidden_size")
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
            f"{target_size} contradicts vocab_size {source_size}, as both are of one matrix",
            "correct one of them, or set share_encoder_decoder_embeddings to false",
        )
    if shared and not fields.tied():
        raise fields.error(
            "tie_word_embeddings",
            "false contradicts share_encoder_decoder_embeddings, which makes the head the same "
            "matrix too",
            "set both to true, or both to false",
        )
    sides = {"encoder": 1, "decoder": 2}
    layers = 0
    for side, num_attentions in sides.items():
        fields.divide(f"{side}_attention_heads", "d_model")
        feed_forward = _feed_forward(width, fields.whole(f"{side}_ffn_dim"))
        layer = num_attentions * (_attention(width) + 2 * width) + feed_forward + 2 * width
        layers += fields.whole(f"{side}_layers") * layer
    positions = 2 * fields.whole("max_position_embeddings") * width
    num_layers = sum(fields.whole(f"{side}_layers") for side in sides)
    source = 0 if shared else source_size * width
    outside = layers + positions
    roles = 3 if shared else 2
    return _published(fields, target_size, width, num_layers, 0, outside, positions, source, roles)


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
        raise fields.error(
            "add_cross_attention",
            "a decoder beside an encoder is not counted",
            "set add_cross_attention to false to count the model alone",
        )


def _grouped_heads(fields: _Fields, model_type: str, width: int) -> tuple[int, int, int]:
    """Return the widths of all query heads and of all key heads, and the size of a head."""
    num_heads = fields.whole("num_attention_heads")
    head_size = fields.whole("head_dim", _HEAD_SIZE_BY_DEFAULT.get(model_type, 0))
    if not head_size:
        head_size = fields.divide("num_attention_heads", "hidden_size")
    is_given = "num_key_value_heads" in fields.content
    default = num_heads if is_given else _KEY_HEADS_BY_DEFAULT.get(model_type, num_heads)
    queries_to_a_key = fields.divide("num_key_value_heads", "num_attention_heads", default)
    query = num_heads * head_size
    return query, query // queries_to_a_key, head_size


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
    roles: int = 2,
) -> PublishedModel:
    """Add up the layers, what is outside them (positions among it), embeddings and head."""
    matrix = vocab_size * width
    tied = fields.tied()
    head = 0 if tied else matrix
    return PublishedModel(
        model_type=fields.model_type,
        vocab_size=vocab_size,
        d_model=width,
        num_layers=num_layers,
        tied=tied,
        roles=roles,
        total=matrix + source + head + num_layers * layer + outside,
        embedding=matrix + source,
        positions=positions,
        head=head,
    )
