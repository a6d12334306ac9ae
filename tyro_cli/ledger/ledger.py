"""The account of an arm: parameters, bytes and FLOPs in closed form, without torch.

Invariant: the rows sum to the total, and the total is the number of parameters in distinct storages
of the real model. A shared matrix is counted once, as the token embedding; its product with the
hidden state costs FLOPs all the same, in the row of the head. Names and shapes come from
`parameters`, memory from `memory`; what the numbers mean for a verdict is left to the analysis.
"""

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from tyro_cli.config.schema import ModelConfig, Settings
from tyro_cli.ledger.memory import FLOAT32_BYTES, Precision, training_memory
from tyro_cli.ledger.parameters import count_parameters, parameter_shapes

COMPONENTS = ("token embedding", "positions", "attention", "feed-forward", "norms", "head")


@dataclass(frozen=True)
class LedgerRow:
    """One component of a model.

    Attributes:
        component: One of `COMPONENTS`.
        parameters: Unique parameters.
        share: Fraction of the total, 0 to 1.
        forward_flops_per_token: FLOPs of its matrix products for one token.
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
        tying: `none` or `in-out`.
        rows: One row a component, in the order of `COMPONENTS`.
        total: Unique parameters.
        non_embedding: Unique parameters without token embedding, positions and head.
        checkpoint_bytes: The weights in float32.
        optimizer_bytes: Two moments in float32.
        training_memory_bytes: Estimate; see `memory.training_memory`.
        forward_flops_per_token: FLOPs of all matrix products for one token; see `forward_flops`.
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

    def as_record(self) -> dict[str, Any]:
        """Return the ledger as the manifest keeps it: plain values, rows as a list."""
        record = asdict(self)
        record["rows"] = list(record["rows"])
        return record


def ledger_of(settings: Settings, vocab_size: int, precision: Precision | None = None) -> Ledger:
    """Return the account of one arm.

    Args:
        settings: What the arm resolves to.
        vocab_size: V.
        precision: What matrix products run in; it decides the memory estimate alone. Left out,
            the configuration's own, `auto` counting as fp32.
    """
    model, context_length = settings.model, settings.data.context_length
    parameters = dict.fromkeys(COMPONENTS, 0)
    # Blocks are all alike: one is looked at and multiplied, so that depth costs no time.
    for layers, factor in ((0, 1), (1, model.num_layers)):
        shapes = parameter_shapes(
            model.model_copy(update={"num_layers": layers}), vocab_size, context_length
        )
        for name, shape in shapes.items():
            if name.startswith("blocks.") == bool(layers):
                parameters[_component_of(name)] += factor * prod(shape)
    total = sum(parameters.values())
    assert total == count_parameters(model, vocab_size, context_length)
    flops = forward_flops(model, vocab_size, context_length)
    embeddings = ("token embedding", "positions", "head")
    return Ledger(
        vocab_size=vocab_size,
        d_model=model.d_model,
        tying=model.tying,
        rows=tuple(
            LedgerRow(name, parameters[name], parameters[name] / total, flops[name])
            for name in COMPONENTS
        ),
        total=total,
        non_embedding=total - sum(parameters[name] for name in embeddings),
        checkpoint_bytes=FLOAT32_BYTES * total,
        optimizer_bytes=2 * FLOAT32_BYTES * total,
        training_memory_bytes=training_memory(settings, vocab_size, precision).total,
        forward_flops_per_token=sum(flops.values()),
    )


def forward_flops(model: ModelConfig, vocab_size: int, context_length: int) -> dict[str, int]:
    """Return the forward FLOPs for one token by component.

    The convention is that of Kaplan et al. 2020, section 2.1, and of PaLM (Chowdhery et al. 2022,
    appendix B): two FLOPs for each multiply-add of a matrix product, and nothing for norms, biases,
    activations, softmax and look-ups. As in PaLM, the attention scores and the weighted sum of
    values count over the whole context_length, without the saving that a causal mask allows. The
    head counts whether it is tied or not. Training costs about three times as much.
    """
    width, inner = model.d_model, model.resolved_d_ff
    projections = 4 * width * width
    scores_and_values = 2 * context_length * width
    feed_forward = (3 if model.family == "llama" else 2) * width * inner
    flops = dict.fromkeys(COMPONENTS, 0)
    flops["attention"] = 2 * model.num_layers * (projections + scores_and_values)
    flops["feed-forward"] = 2 * model.num_layers * feed_forward
    flops["head"] = 2 * vocab_size * width
    return flops


def savings(first: Ledger, second: Ledger) -> int:
    """Return how many parameters `second` has fewer than `first`."""
    return first.total - second.total


def expected_saving(first: Settings, second: Settings, vocab_size: int) -> int | None:
    """Return what the formula V * D says `second` saves, where only the tie differs.

    Returns:
        V * D if only `second` is tied, -V * D if only `first` is, 0 if the models are equal, and
        None where the models differ in anything else that may change the number of parameters.
    """
    if first.data.context_length != second.data.context_length:
        return None
    if _same_shape(first.model) != _same_shape(second.model):
        return None
    matrix = vocab_size * first.model.d_model
    tied = (first.model.tying != "none", second.model.tying != "none")
    return {(False, True): matrix, (True, False): -matrix}.get(tied, 0)


def _same_shape(model: ModelConfig) -> tuple[object, ...]:
    """Return what decides the number of parameters, the tie left out."""
    return (model.family, model.d_model, model.num_layers, model.resolved_d_ff)


def _component_of(name: str) -> str:
    """Return the row of the ledger that a parameter belongs to."""
    if name == "embedding.weight":
        return "token embedding"
    if name == "positions.weight":
        return "positions"
    if name == "head.weight":
        return "head"
    if "_norm." in name:
        return "norms"
    return "attention" if ".attention." in name else "feed-forward"
