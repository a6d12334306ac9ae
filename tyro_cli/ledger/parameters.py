"""Names, shapes and roles of every parameter, from the configuration alone.

This is the specification of the architecture in numbers: the real model must have exactly these
parameters, which is checked in tests and at the start of every cell. A tied model has no
`head.weight`, with three-way tying no `source_embedding.weight` either. Initial values belong to
the models; bytes and FLOPs to `ledger`.

A model has an encoder where the vocabulary of a source is given, and is a language model where it
is None: see `source_vocab_of`.

Shapes: V vocabulary, D d_model, T context_length, F d_ff.
"""

from math import prod
from typing import Literal

from tyro_cli.config.schema import ModelConfig, Settings

Role = Literal["embedding", "head", "matrices", "vectors"]


def source_vocab_of(
    settings: Settings, vocab_size: int, source_vocab_size: int | None = None
) -> int | None:
    """Return the source's number of tokens, or None where the task has no source.

    Args:
        settings: Their task decides.
        vocab_size: V.
        source_vocab_size: What is known of the source's; left out, it is V, as with a joint
            vocabulary.
    """
    if settings.task == "language-modeling":
        return None
    return vocab_size if source_vocab_size is None else source_vocab_size


def parameter_shapes(
    model: ModelConfig,
    vocab_size: int,
    context_length: int,
    source_vocab_size: int | None = None,
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every unique parameter by name, in the order of the forward pass.

    Args:
        model: The architecture.
        vocab_size: V.
        context_length: T, the number of learned positions where there are any.
        source_vocab_size: The encoder's V; None for a language model.
    """
    matrix = (vocab_size, model.d_model)
    positions = (context_length, model.d_model)
    learned = model.resolved_positions == "learned"
    shapes: dict[str, tuple[int, ...]] = {}
    if source_vocab_size is not None:
        if model.tying != "three-way":
            shapes["source_embedding.weight"] = (source_vocab_size, model.d_model)
        if learned:
            shapes["source_positions.weight"] = positions
        shapes.update(_stack_shapes("encoder.", model, model.resolved_encoder_layers, False))
    shapes["embedding.weight"] = matrix
    if learned:
        shapes["positions.weight"] = positions
    has_source = source_vocab_size is not None
    stack = "decoder." if has_source else ""
    shapes.update(_stack_shapes(stack, model, model.num_layers, has_source))
    if model.tying == "none":
        shapes["head.weight"] = matrix
    return shapes


def parameter_counts(
    model: ModelConfig,
    vocab_size: int,
    context_length: int,
    source_vocab_size: int | None = None,
) -> dict[str, int]:
    """Return the number of unique parameters by name, all blocks of a stack under its first one's.

    Blocks are all alike: one is looked at and multiplied, so that depth costs no time.
    """
    one = model.model_copy(update={"num_layers": 1, "num_encoder_layers": 1})
    counts = {}
    for name, shape in parameter_shapes(one, vocab_size, context_length, source_vocab_size).items():
        copies = 1
        if name.startswith("encoder.blocks."):
            copies = model.resolved_encoder_layers
        elif name.startswith(("blocks.", "decoder.blocks.")):
            copies = model.num_layers
        counts[name] = copies * prod(shape)
    return counts


def count_parameters(
    model: ModelConfig,
    vocab_size: int,
    context_length: int,
    source_vocab_size: int | None = None,
) -> int:
    """Return the number of unique parameters; the cost does not grow with the number of layers."""
    return sum(parameter_counts(model, vocab_size, context_length, source_vocab_size).values())


def role_of(name: str, model: ModelConfig) -> Role:
    """Return which of the optimiser's multipliers a parameter takes.

    The shared matrix of a tied model takes `model.tied_role`; norm gains and biases are vectors;
    learned positions and an encoder's own embedding go with the embedding.
    """
    if name == "embedding.weight":
        return "embedding" if model.tying == "none" else model.tied_role
    if name in ("source_embedding.weight", "positions.weight", "source_positions.weight"):
        return "embedding"
    if name == "head.weight":
        return "head"
    if name.endswith(".bias") or name.removesuffix(".weight").endswith("_norm"):
        return "vectors"
    return "matrices"


def _stack_shapes(
    prefix: str, model: ModelConfig, num_layers: int, has_source: bool
) -> dict[str, tuple[int, ...]]:
    """Return the parameters of a stack of blocks and of the norm that follows it, if one does."""
    block = _block_shapes(model, has_source)
    shapes = {
        f"{prefix}blocks.{index}.{name}": shape
        for index in range(num_layers)
        for name, shape in block.items()
    }
    if model.has_final_norm:
        shapes.update(_norm_shapes(f"{prefix}final_norm", model))
    return shapes


def _block_shapes(model: ModelConfig, has_source: bool) -> dict[str, tuple[int, ...]]:
    """Return the parameters of one block, named within it."""
    width, inner = model.d_model, model.resolved_d_ff
    shapes = _norm_shapes("attention_norm", model)
    shapes.update(_linear_shapes("attention.query_key_value", 3 * width, width, model))
    shapes.update(_linear_shapes("attention.output", width, width, model))
    if has_source:
        shapes.update(_norm_shapes("cross_attention_norm", model))
        shapes.update(_linear_shapes("cross_attention.query", width, width, model))
        shapes.update(_linear_shapes("cross_attention.key_value", 2 * width, width, model))
        shapes.update(_linear_shapes("cross_attention.output", width, width, model))
    shapes.update(_norm_shapes("feed_forward_norm", model))
    if model.family == "llama":
        shapes.update(_linear_shapes("feed_forward.gate_up", 2 * inner, width, model))
    else:
        shapes.update(_linear_shapes("feed_forward.up", inner, width, model))
    shapes.update(_linear_shapes("feed_forward.down", width, inner, model))
    return shapes


def _linear_shapes(
    name: str, num_outputs: int, num_inputs: int, model: ModelConfig
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (num_outputs, num_inputs)}
    if model.family == "gpt2":
        shapes[f"{name}.bias"] = (num_outputs,)
    return shapes


def _norm_shapes(name: str, model: ModelConfig) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (model.d_model,)}
    if model.family == "gpt2":
        shapes[f"{name}.bias"] = (model.d_model,)
    return shapes
