"""Names, shapes and roles of every parameter, from the configuration alone.

This is the specification of the architecture in numbers: the real model must have exactly these
parameters, which is checked in tests and at the start of every cell. A tied model has no
`head.weight`. Initial values belong to the models; bytes and FLOPs to `ledger`.

Shapes: V vocabulary, D d_model, T context_length, F d_ff.
"""

from math import prod
from typing import Literal

from tyro_cli.config.schema import ModelConfig

Role = Literal["embedding", "head", "matrices", "vectors"]


def parameter_shapes(
    model: ModelConfig, vocab_size: int, context_length: int
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every unique parameter by name, in the order of the forward pass.

    Args:
        model: The architecture.
        vocab_size: V.
        context_length: T, the number of learned positions where the family has them.
    """
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocab_size, model.d_model)}
    if model.family == "gpt2":
        shapes["positions.weight"] = (context_length, model.d_model)
    block = _block_shapes(model)
    for index in range(model.num_layers):
        shapes.update({f"blocks.{index}.{name}": shape for name, shape in block.items()})
    shapes.update(_norm_shapes("final_norm", model))
    if model.tying == "none":
        shapes["head.weight"] = (vocab_size, model.d_model)
    return shapes


def count_parameters(model: ModelConfig, vocab_size: int, context_length: int) -> int:
    """Return the number of unique parameters; the cost does not grow with the number of layers."""
    outer = parameter_shapes(model.model_copy(update={"num_layers": 0}), vocab_size, context_length)
    block = sum(prod(shape) for shape in _block_shapes(model).values())
    return sum(prod(shape) for shape in outer.values()) + model.num_layers * block


def role_of(name: str, model: ModelConfig) -> Role:
    """Return which of the optimiser's multipliers a parameter takes.

    The shared matrix of a tied model takes `model.tied_role`; norm gains and biases are vectors;
    learned positions go with the embedding.
    """
    if name == "embedding.weight":
        return "embedding" if model.tying == "none" else model.tied_role
    if name == "positions.weight":
        return "embedding"
    if name == "head.weight":
        return "head"
    if name.endswith(".bias") or name.removesuffix(".weight").endswith("_norm"):
        return "vectors"
    return "matrices"


def _block_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the parameters of one block, named within it."""
    width, inner = model.d_model, model.resolved_d_ff
    shapes = _norm_shapes("attention_norm", model)
    shapes.update(_linear_shapes("attention.query_key_value", 3 * width, width, model))
    shapes.update(_linear_shapes("attention.output", width, width, model))
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
