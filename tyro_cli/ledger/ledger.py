"""The account of an arm: parameters, bytes and FLOPs in closed form, without torch.

Invariant: the rows sum to the total, and the total is the number of parameters in distinct storages
of the real model. A shared matrix is counted once, as the token embedding; its product with the
hidden state costs FLOPs all the same, in the row of the head. Names and shapes come from
`parameters`; what the numbers mean for a verdict is left to the analysis.
"""

from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Literal

from tyro_cli.config.schema import ModelConfig, Settings
from tyro_cli.ledger.parameters import count_parameters, parameter_shapes

Precision = Literal["fp32", "bf16"]

FLOAT32_BYTES = 4
BFLOAT16_BYTES = 2

HEAD_CHUNK_BYTES = 32 * 2**20
"""Logits that the head loss holds at a time, whatever the vocabulary and the batch."""

HEAD_SLICE_BYTES = 2 * 2**20
"""The part of a chunk that its softmax works on."""

PLAIN_ATTENTION_POSITIONS = 1024
"""Up to this context the attention probabilities are kept for the backward pass (on a CPU)."""

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
class TrainingMemory:
    """What training holds at its high-water mark, term by term, in bytes.

    The mark is reached when the head or the last layer is differentiated (all activations, no
    gradients of blocks yet) or when the backward pass ends (all gradients, no activations).

    Attributes:
        weights: Parameters, float32.
        moments: The optimiser's two moments, float32.
        gradients: Gradients of all parameters, float32.
        second_gradient: The shared matrix of a tied model gets one gradient as head and one as
            embedding; both exist at the end of the backward pass.
        head_gradient: The head's part of `gradients`, formed before the activations are freed.
        copies: The matrices in the compute precision; 0 in fp32.
        activations: What one micro-batch keeps for the backward pass.
        head: The head loss's own work: one chunk of logits, slices of its softmax, hidden states
            and their gradient, and the product that is added to the matrix's gradient.
        layer: What one layer holds beside that while it is differentiated.
        accumulates: Whether gradients of an earlier micro-batch lie beside the activations.
    """

    weights: int
    moments: int
    gradients: int
    second_gradient: int
    head_gradient: int
    copies: int
    activations: int
    head: int
    layer: int
    accumulates: bool

    @property
    def total(self) -> int:
        """The larger of the two marks; what the process itself takes is not in it."""
        always = self.weights + self.moments
        at_head = self.copies + self.activations + self.head_gradient
        at_head += max(self.head, self.layer)
        if self.accumulates:
            at_head += self.gradients
        at_end = self.gradients + self.second_gradient
        return always + max(at_head, at_end)


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
        training_memory_bytes: Estimate; see `training_memory`.
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


def training_memory(
    settings: Settings, vocab_size: int, precision: Precision | None = None
) -> TrainingMemory:
    """Estimate the memory of training one cell, term by term.

    The closed form counts the tensors that are alive at once; its coefficients were read off the
    tensors that the backward pass of each family keeps, on a CPU with torch 2.13. With N tokens in
    a micro-batch and e bytes an element (4 in fp32, 2 in bf16) it keeps

        llama: N * e * (10 D + 4 F + H T) a layer, and 4 N D bytes for each norm in bf16
        gpt2:  N * e * ( 8 D + 2 F + H T) a layer

    and N * e * D for each place with dropout (two of them in a layer). H T, the attention
    probabilities, is there up to T = 1024. A layer that is differentiated needs as much again. The
    full logits never exist: the head works in chunks. Against the high-water mark that torch's
    memory profiler saw in a step, eight shapes in both precisions gave
    ratios of 0.95 to 1.11.

    Args:
        settings: What the arm resolves to.
        vocab_size: V.
        precision: What matrix products run in. Left out, the configuration's own, `auto` counting
            as fp32.
    """
    model, training = settings.model, settings.training
    context_length = settings.data.context_length
    if precision is None:
        precision = "bf16" if training.precision == "bf16" else "fp32"
    element_bytes = BFLOAT16_BYTES if precision == "bf16" else FLOAT32_BYTES
    tokens = training.micro_batch_tokens or training.batch_tokens
    total = count_parameters(model, vocab_size, context_length)
    matrix = vocab_size * model.d_model
    blocks = total - count_parameters(
        model.model_copy(update={"num_layers": 0}), vocab_size, context_length
    )
    copies = (blocks + matrix) * BFLOAT16_BYTES if precision == "bf16" else 0
    chunk = min(HEAD_CHUNK_BYTES, tokens * vocab_size * element_bytes)
    slices = min(HEAD_SLICE_BYTES, tokens * vocab_size * FLOAT32_BYTES)
    product = element_bytes * matrix
    if precision == "bf16":
        slices, product = 2 * slices, product + FLOAT32_BYTES * matrix
    layer, outside = _activation_bytes(model, context_length, tokens, element_bytes)
    return TrainingMemory(
        weights=FLOAT32_BYTES * total,
        moments=2 * FLOAT32_BYTES * total,
        gradients=FLOAT32_BYTES * total,
        second_gradient=0 if model.tying == "none" else FLOAT32_BYTES * matrix,
        head_gradient=FLOAT32_BYTES * matrix,
        copies=copies,
        activations=model.num_layers * layer + outside,
        head=chunk + slices + product + 2 * element_bytes * tokens * model.d_model,
        layer=layer if model.num_layers else 0,
        accumulates=tokens < training.batch_tokens,
    )


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


def _activation_bytes(
    model: ModelConfig, context_length: int, tokens: int, element_bytes: int
) -> tuple[int, int]:
    """Return what a micro-batch keeps for the backward pass: for each layer, and outside them."""
    width, dropouts = model.d_model, model.dropouts
    llama = model.family == "llama"
    # RMSNorm keeps its input and its normalised form, in float32 whatever the precision.
    upcast = FLOAT32_BYTES * width if llama and element_bytes < FLOAT32_BYTES else 0
    layer = (10 if llama else 8) * width + (4 if llama else 2) * model.resolved_d_ff
    if context_length <= PLAIN_ATTENTION_POSITIONS:
        layer += model.num_heads * context_length
    if dropouts.residual:
        layer += 2 * width
    layer_bytes = element_bytes * layer + 2 * upcast
    outside = (2 if llama else 1) + bool(dropouts.embedding) + bool(dropouts.output)
    outside_bytes = element_bytes * outside * width + upcast
    return tokens * layer_bytes, tokens * outside_bytes
