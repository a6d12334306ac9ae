"""The account of an arm: parameters, bytes and FLOPs in closed form, without torch.

Invariant: the rows sum to the total, and the total is the number of parameters in distinct storages
of the real model. A shared matrix is counted once, as the token embedding; its product with the
hidden state costs FLOPs all the same, in the row of the head; an encoder that reads with it has an
empty row of its own. Names and shapes come from
`parameters`, memory from `memory`; what the numbers mean for a verdict is left to the analysis.
"""

from dataclasses import asdict, dataclass
from typing import Any

from tyro_cli.config.schema import ModelConfig, Settings
from tyro_cli.ledger.memory import FLOAT32_BYTES, Precision, training_memory
from tyro_cli.ledger.parameters import parameter_counts, source_vocab_of

COMPONENTS = ("token embedding", "positions", "attention", "feed-forward", "norms", "head")

SOURCE_EMBEDDING = "source embedding"
"""The component that a translation model has beside them, after the token embedding."""

MATRICES_SAVED = {"none": 0, "in-out": 1, "three-way": 2}
"""How many matrices of V * D parameters a tie saves."""


@dataclass(frozen=True)
class LedgerRow:
    """One component of a model.

    Attributes:
        component: One of `COMPONENTS`, or `SOURCE_EMBEDDING`.
        parameters: Unique parameters.
        share: Fraction of the total, 0 to 1.
        forward_flops_per_token: FLOPs of its matrix products for one (target) token.
    """

    component: str
    parameters: int
    share: float
    forward_flops_per_token: int


@dataclass(frozen=True)
class Ledger:
    """The account of one arm.

    Attributes:
        vocab_size: V, as the corpus and tokenizer gave it.
        d_model: D.
        tying: `none`, `in-out` or `three-way`.
        rows: One row a component, in the order of `COMPONENTS`.
        total: Unique parameters.
        non_embedding: Unique parameters without embeddings, positions and head.
        checkpoint_bytes: The weights in float32.
        optimizer_bytes: Two moments in float32.
        training_memory_bytes: Estimate; see `memory.training_memory`.
        forward_flops_per_token: FLOPs of all matrix products for one token; see `forward_flops`.
        source_vocab_size: Tokens of the source's vocabulary; None for a language model.
    """

    vocab_size: int
    d_model: int
    tying: str
    rows: tuple[LedgerRow, ...]
    total: int
    non_embedding: int
    checkpoint_bytes: int
    optimizer_bytes: int
    training_memory_bytes: int
    forward_flops_per_token: int
    source_vocab_size: int | None = None

    def as_record(self) -> dict[str, Any]:
        """Return the ledger as the manifest keeps it: plain values, rows as a list.

        `source_vocab_size` stands in it for a translation model alone.
        """
        record = asdict(self)
        record["rows"] = list(record["rows"])
        if self.source_vocab_size is None:
            del record["source_vocab_size"]
        return record


def ledger_of(
    settings: Settings,
    vocab_size: int,
    precision: Precision | None = None,
    source_vocab_size: int | None = None,
) -> Ledger:
    """Return the account of one arm.

    Args:
        settings: What the arm resolves to.
        vocab_size: V.
        precision: What matrix products run in; it decides the memory estimate alone. Left out,
            the configuration's own, `auto` counting as fp32.
        source_vocab_size: Translation: tokens of the source's vocabulary. Left out: V.
    """
    model, context_length = settings.model, settings.data.context_length
    source_vocab_size = source_vocab_of(settings, vocab_size, source_vocab_size)
    flops = forward_flops(
        model, vocab_size, context_length, translates=source_vocab_size is not None
    )
    parameters = dict.fromkeys(flops, 0)
    counted = parameter_counts(model, vocab_size, context_length, source_vocab_size)
    for name, count in counted.items():
        parameters[_component_of(name)] += count
    total = sum(parameters.values())
    embeddings = ("token embedding", SOURCE_EMBEDDING, "positions", "head")
    return Ledger(
        vocab_size=vocab_size,
        d_model=model.d_model,
        tying=model.tying,
        rows=tuple(
            LedgerRow(name, parameters[name], parameters[name] / total, flops[name])
            for name in parameters
        ),
        total=total,
        non_embedding=total - sum(parameters.get(name, 0) for name in embeddings),
        checkpoint_bytes=FLOAT32_BYTES * total,
        optimizer_bytes=2 * FLOAT32_BYTES * total,
        training_memory_bytes=training_memory(
            settings, vocab_size, precision, source_vocab_size
        ).total,
        forward_flops_per_token=sum(flops.values()),
        source_vocab_size=source_vocab_size,
    )


def forward_flops(
    model: ModelConfig, vocab_size: int, context_length: int, *, translates: bool = False
) -> dict[str, int]:
    """Return the forward FLOPs for one token by component, in the order of the ledger's rows.

    The convention is that of Kaplan et al. 2020, section 2.1, and of PaLM (Chowdhery et al. 2022,
    appendix B): two FLOPs for each multiply-add of a matrix product, and nothing for norms, biases,
    activations, softmax and look-ups. As in PaLM, the attention scores and the weighted sum of
    values count over the whole context_length, without the saving that a causal mask allows. The
    head counts whether it is tied or not. Training costs about three times as much.

    A translation model's are those of one target token whose source is as long as the target: with
    it comes one source token, which passes the encoder once and gives every decoder block a key
    and a value.
    """
    width, inner = model.d_model, model.resolved_d_ff
    projections = 4 * width * width
    scores_and_values = 2 * context_length * width
    feed_forward = (3 if model.family == "llama" else 2) * width * inner
    encoder_layers = model.resolved_encoder_layers if translates else 0
    attentions = (2 if translates else 1) * model.num_layers + encoder_layers
    first, *others = COMPONENTS
    flops = dict.fromkeys([first, SOURCE_EMBEDDING, *others] if translates else COMPONENTS, 0)
    flops["attention"] = 2 * attentions * (projections + scores_and_values)
    flops["feed-forward"] = 2 * (model.num_layers + encoder_layers) * feed_forward
    flops["head"] = 2 * vocab_size * width
    return flops


def _component_of(name: str) -> str:
    """Return the row of the ledger that a parameter belongs to."""
    if name == "embedding.weight":
        return "token embedding"
    if name == "source_embedding.weight":
        return SOURCE_EMBEDDING
    if name in ("positions.weight", "source_positions.weight"):
        return "positions"
    if name == "head.weight":
        return "head"
    if "_norm." in name:
        return "norms"
    return "attention" if "attention." in name else "feed-forward"
