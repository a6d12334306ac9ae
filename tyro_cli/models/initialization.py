"""Initial values: one table, and one generator a parameter.

Every parameter is drawn from a generator of its own, keyed by (seed, parameter name). So whatever
two arms have in common, with the same shape, starts bit-identical, whatever else they own; the head
of an untied model has a draw of its own. Draws are made on the CPU in float32, whatever the device.
"""

import hashlib
import math

import torch
from torch import nn

from tyro_cli.config.schema import ModelConfig


def keyed_seed(*key: object) -> int:
    """Return a 63-bit integer that depends on every part of `key` and on nothing else."""
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def standard_deviation(name: str, config: ModelConfig) -> float:
    """Return the standard deviation of the normal draw of a matrix (GPT-2's values).

    | parameter | initial value |
    |---|---|
    | embeddings, head | normal, std `embedding_std`, by default min(0.02, 2.5 / d_model): a tied model gives the token just read a logit of up to std * d_model |
    | learned positions | normal, std 0.02, at most 2.5 / d_model as well |
    | matrices that write to a residual stream (attention.output, cross_attention.output, feed_forward.down) | normal, std 0.02 / sqrt(how many of them write to it): 2 a layer, 3 in a decoder with an encoder (Radford et al. 2019, section 2.3) |
    | every other matrix | normal, std 0.02 |
    | norm weights | 1 |
    | biases | 0 |
    """  # noqa: E501 (a table row cannot be broken)
    if name in ("embedding.weight", "source_embedding.weight", "head.weight"):
        return config.resolved_embedding_std
    if name in ("positions.weight", "source_positions.weight"):
        return min(0.02, 2.5 / config.d_model)
    if name.endswith(("attention.output.weight", "feed_forward.down.weight")):
        if name.startswith("encoder."):
            return 0.02 / math.sqrt(2 * config.resolved_encoder_layers)
        return 0.02 / math.sqrt((3 if name.startswith("decoder.") else 2) * config.num_layers)
    return 0.02


@torch.no_grad()
def initialize(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fill every parameter of `model` in place, as `standard_deviation` tabulates."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
            continue
        generator = torch.Generator().manual_seed(keyed_seed("initial", seed, name))
        draw = torch.empty(parameter.shape, dtype=torch.float32)
        draw.normal_(0.0, standard_deviation(name, config), generator=generator)
        parameter.copy_(draw)


def parameter_digests(model: nn.Module) -> dict[str, dict[str, object]]:
    """Return shape and sha256 of every parameter's float32 bytes, by name: the pair's proof."""
    return {
        name: {
            "shape": list(parameter.shape),
            "sha256": hashlib.sha256(
                parameter.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
            ).hexdigest(),
        }
        for name, parameter in model.named_parameters()
    }
