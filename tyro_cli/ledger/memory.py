"""The memory that training one cell takes, in closed form and term by term, without torch.

Invariant: every term is a number of bytes that follows from the configuration and V; the sum is
what a worker holds beside its interpreter and libraries, whose share `experiments.limits` adds. The
coefficients hold for a CPU with glibc; a test trains cells and compares. Whether a machine carries
it is left to `experiments.limits`.
"""

from dataclasses import dataclass
from typing import Literal

from tyro_cli.config.schema import Settings
from tyro_cli.ledger.parameters import parameter_counts, source_vocab_of

Precision = Literal["fp32", "bf16"]

FLOAT32_BYTES = 4
BFLOAT16_BYTES = 2

HEAD_CHUNK_BYTES = 32 * 2**20
"""Logits that the head loss holds at a time: enough for fast products, whatever V and batch are."""

HEAD_SLICE_BYTES = 2**20
"""The part of a chunk that its softmax works on, and of the matrix that takes its gradient.

It stays in the cache.
"""

PLAIN_ATTENTION_POSITIONS = 1024
"""Up to this context the attention probabilities are kept for the backward pass (on a CPU)."""

EVALUATION_TOKENS = 4096
"""Tokens of a forward pass in an evaluation; no result depends on it beyond rounding."""

DECODING_POSITIONS = 32_768
"""Target positions whose keys and values a translation's search may hold, over all hypotheses."""

HEAP_FACTOR = 1.33
"""What the heap grows to for each byte that is alive at the mark.

A worker gives no freed block back to the system, because mapping it anew at every step takes longer
than a large product (`training.hardware`); and new blocks do not fit the holes of old ones exactly.
Cells of 0.2 to 0.6 GiB grew to between 1.2 and 1.4 times their tensors.
"""

SHAPES_BYTES = 128 * 2**20
"""What bfloat16 products of many shapes leave behind: batches of translation are of many.

`training.hardware` lets 128 of them be remembered; each had about 1 MiB.
"""


@dataclass(frozen=True)
class TrainingMemory:
    """What a cell holds at its high-water mark, term by term, in bytes.

    The mark is reached when the head or the last layer is differentiated (all activations, no
    gradients of blocks yet), when the backward pass ends (all gradients, no activations), or in the
    final evaluation (a second set of weights, the best one), which reads more tokens at a time than
    a small training batch has.

    Attributes:
        weights: Parameters, float32.
        moments: The optimiser's two moments, float32.
        gradients: Gradients of all parameters, float32.
        second_gradient: The shared matrix of a tied model gets one gradient as head and one as
            embedding; both exist at the end of the backward pass. With three-way tying there is a
            third, after the second was added to the first.
        head_gradient: The head's part of `gradients`, formed before the activations are freed.
        copies: The matrices in the compute precision; 0 in fp32.
        activations: What one micro-batch keeps for the backward pass.
        head: The head loss's own work: one chunk of logits, slices of its softmax, hidden states
            and their gradient, and the product that is added to the matrix's gradient.
        layer: What one layer holds beside that while it is differentiated.
        evaluation: The work of an evaluation in float32: one chunk of logits and slices of its
            softmax, what one layer holds on its way forward, or a translation's search, whichever
            is more.
        roles: The pass that measures role gradients, in float32, with a gradient for each role.
        mapped: The file of the best checkpoint, in memory while it is read.
        shapes: What is remembered of products, where their shapes are many.
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
    evaluation: int
    roles: int
    mapped: int
    shapes: int
    accumulates: bool

    @property
    def alive(self) -> int:
        """Tensors alive at the largest of the three marks."""
        at_head = self.copies + self.activations + self.head_gradient
        at_head += max(self.head, self.layer)
        if self.accumulates:
            at_head += self.gradients
        at_end = self.gradients + self.second_gradient
        at_evaluation = self.weights + self.evaluation
        return self.weights + self.moments + max(at_head, at_end, at_evaluation, self.roles)

    @property
    def total(self) -> int:
        """What the heap grows to, and the checkpoint that is mapped beside it at the end."""
        return int(HEAP_FACTOR * self.alive) + self.mapped + self.shapes


def training_memory(
    settings: Settings,
    vocab_size: int,
    precision: Precision | None = None,
    source_vocab_size: int | None = None,
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

    In translation N covers both sides, and half of it is taken for each, its sentences as long as
    they may be. A decoder's layer keeps more, for its attention to the source: a target token
    `5 D + H T` (llama; gpt2: `4 D + H T`), D more with dropout, and a source token `2 D`.

    An evaluation keeps nothing for a backward pass: a layer holds the larger of `8 D + 3 H T`
    (attention) and `2 D + 4 F` (llama, gpt2: `2 D + 2 F`) float32 numbers a token. To the tensors
    comes what the heap loses in holes (`HEAP_FACTOR`), and the file of the best checkpoint, which
    is mapped while the final evaluation reads it. A translation's search holds keys and values of
    `DECODING_POSITIONS`, those of one layer twice when it chooses among hypotheses.

    Args:
        settings: What the arm resolves to.
        vocab_size: V.
        precision: What matrix products run in. Left out, the configuration's own, `auto` counting
            as fp32.
        source_vocab_size: Translation: tokens of the source's vocabulary. Left out: V.
    """
    model, training = settings.model, settings.training
    context_length = settings.data.context_length
    if precision is None:
        precision = "bf16" if training.precision == "bf16" else "fp32"
    element_bytes = BFLOAT16_BYTES if precision == "bf16" else FLOAT32_BYTES
    tokens = training.resolved_micro_batch_tokens
    counted = parameter_counts(
        model, vocab_size, context_length, source_vocab_of(settings, vocab_size, source_vocab_size)
    )
    total = sum(counted.values())
    blocks = sum(count for name, count in counted.items() if "blocks." in name)
    matrix = vocab_size * model.d_model
    copies = (blocks + matrix) * BFLOAT16_BYTES if precision == "bf16" else 0
    targets = tokens if settings.task == "language-modeling" else tokens // 2
    chunk = min(HEAD_CHUNK_BYTES, targets * vocab_size * element_bytes)
    slices = min(HEAD_SLICE_BYTES, targets * vocab_size * FLOAT32_BYTES)
    product = min(HEAD_SLICE_BYTES, element_bytes * matrix)
    if precision == "bf16":  # and its wider copy
        product = 3 * product
    activations, layer = _activation_bytes(settings, tokens, element_bytes)
    return TrainingMemory(
        weights=FLOAT32_BYTES * total,
        moments=2 * FLOAT32_BYTES * total,
        gradients=FLOAT32_BYTES * total,
        second_gradient=0 if model.tying == "none" else FLOAT32_BYTES * matrix,
        head_gradient=FLOAT32_BYTES * matrix,
        copies=copies,
        activations=activations,
        head=chunk + slices + product + 2 * element_bytes * targets * model.d_model,
        layer=layer,
        evaluation=_evaluation_bytes(settings, vocab_size),
        roles=_roles_bytes(settings, tokens, vocab_size),
        mapped=FLOAT32_BYTES * total,
        shapes=SHAPES_BYTES if precision == "bf16" and settings.task == "translation" else 0,
        accumulates=tokens < training.batch_tokens,
    )


def _activation_bytes(settings: Settings, tokens: int, element_bytes: int) -> tuple[int, int]:
    """Return what a micro-batch keeps for the backward pass, and what its largest layer keeps."""
    model = settings.model
    width, dropouts = model.d_model, model.dropouts
    llama = model.family == "llama"
    # RMSNorm keeps its input and its normalised form, in float32 whatever the precision.
    upcast = FLOAT32_BYTES * width if llama and element_bytes < FLOAT32_BYTES else 0
    probabilities = _probabilities(settings)
    layer = (10 if llama else 8) * width + (4 if llama else 2) * model.resolved_d_ff + probabilities
    if dropouts.residual:
        layer += 2 * width
    layer_bytes = element_bytes * layer + 2 * upcast
    norm_bytes = 0
    if model.has_final_norm:
        norm_bytes = element_bytes * (2 if llama else 1) * width + upcast
    place_bytes = element_bytes * width
    embedding, output = bool(dropouts.embedding), bool(dropouts.output)
    if settings.task == "language-modeling":
        outside_bytes = norm_bytes + (embedding + output) * place_bytes
        kept = tokens * layer_bytes if model.num_layers else 0
        return model.num_layers * kept + tokens * outside_bytes, kept
    side = tokens // 2
    cross = (5 if llama else 4) * width + probabilities + bool(dropouts.residual) * width
    decoder_layer = layer_bytes + element_bytes * (cross + 2 * width) + upcast
    # Beside what a side's norm and dropouts keep: the encoded source, for keys and values.
    outside_bytes = 2 * norm_bytes + (1 + 2 * embedding + output) * place_bytes
    encoder = model.resolved_encoder_layers * layer_bytes
    decoder = model.num_layers * decoder_layer
    return side * (encoder + decoder + outside_bytes), side * decoder_layer


def _roles_bytes(settings: Settings, tokens: int, vocab_size: int) -> int:
    """Return what the measurement of role gradients holds; 0 where it is not asked for."""
    if settings.evaluation.role_gradients_every_steps is None:
        return 0
    activations, layer = _activation_bytes(settings, tokens, FLOAT32_BYTES)
    logits = min(HEAD_CHUNK_BYTES, FLOAT32_BYTES * tokens * vocab_size)
    num_roles = 2 if settings.task == "language-modeling" else 3
    gradients = num_roles * FLOAT32_BYTES * vocab_size * settings.model.d_model
    return activations + max(layer, logits) + gradients


def _probabilities(settings: Settings) -> int:
    """Return how many attention probabilities a token's layer keeps at most."""
    longest, num_heads = settings.data.context_length, settings.model.num_heads
    if settings.task == "translation":  # its sentences are of every length up to the longest
        return num_heads * min(longest, PLAIN_ATTENTION_POSITIONS)
    return num_heads * longest if longest <= PLAIN_ATTENTION_POSITIONS else 0


def _evaluation_bytes(settings: Settings, vocab_size: int) -> int:
    """Return what an evaluation holds at its mark, in float32."""
    model, context_length = settings.model, settings.data.context_length
    width, llama = model.d_model, model.family == "llama"
    tokens = max(context_length, EVALUATION_TOKENS)
    logits = FLOAT32_BYTES * tokens * vocab_size
    head = min(HEAD_CHUNK_BYTES, logits) + min(HEAD_SLICE_BYTES, logits)
    attention = 8 * width + 3 * _probabilities(settings)
    feed_forward = 2 * width + (4 if llama else 2) * model.resolved_d_ff
    num_layers = model.num_layers
    if settings.task == "translation":
        num_layers += model.resolved_encoder_layers
    layer = max(attention, feed_forward) if num_layers else 0
    forward = max(head, FLOAT32_BYTES * tokens * layer)
    if settings.task == "language-modeling":
        return forward
    hypotheses = max(settings.evaluation.resolved_beam_size, DECODING_POSITIONS // context_length)
    positions = (model.num_layers + 1) * hypotheses * context_length + model.num_layers * tokens
    log_probabilities = 3 * hypotheses * vocab_size
    return max(forward, FLOAT32_BYTES * (2 * width * positions + log_probabilities))
