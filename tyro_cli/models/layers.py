"""The layers of a Transformer: norms, attention, feed-forward and dropout.

Parameters are float32; a layer computes in the dtype of its input and casts its weights to it, so
one model trains in bfloat16 and is evaluated in float32. Biases exist in family gpt2 alone.

Shapes: B batch, T positions, D d_model, H heads, K head size, F d_ff.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tyro_cli.config.schema import ModelConfig


class Dropout:
    """A stream of dropout masks that depends on its key alone.

    One object serves one forward pass: two models that call it in the same order with the same
    shapes get the same masks, which is what makes a pair a pair.

    Args:
        key: The generator's seed, from (seed, step, micro-batch, rank).
        device: Where the masks are drawn.
    """

    def __init__(self, key: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(key)

    def __call__(self, x: Tensor, probability: float) -> Tensor:
        """Zero elements with `probability` (to a resolution of 1/65536) and scale the others.

        Sixteen random bits an element: on a CPU this is about seven times faster than
        `torch.nn.functional.dropout`, which draws a whole double for each.
        """
        cut = min(round(probability * 65536), 65535)
        if cut == 0:
            return x
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
        words.random_(torch.iinfo(torch.int64).min, None, generator=self.generator)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        keep = (bits >= cut - 32768).to(x.dtype)
        return x * keep.mul_(65536 / (65536 - cut))


class Linear(nn.Module):
    """A product with a weight `[out, in]` and, if asked, a bias `[out]`, in the input's dtype."""

    def __init__(self, in_features: int, out_features: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., in]` to `[..., out]`."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis (Zhang & Sennrich 2019, eq. 4)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[..., D]`; the mean square is taken in float32."""
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), 1e-5)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al. 2016), with weight and bias."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_model))
        self.bias = nn.Parameter(torch.empty(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[..., D]`; mean and variance are taken in float32."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.layer_norm(x, (x.shape[-1],), weight, bias, 1e-5)


def make_norm(config: ModelConfig) -> nn.Module:
    """Return the family's norm."""
    return RMSNorm(config.d_model) if config.family == "llama" else LayerNorm(config.d_model)


def rotary_tables(context_length: int, head_size: int) -> Tensor:
    """Return cosines and sines `[2, T, K]` (float32) of rotary positions (Su et al. 2021, 3.4.2).

    Both halves of the last axis hold the same angles: T positions times K/2 frequencies with base
    10,000.
    """
    frequencies = 10_000.0 ** (-torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
    angles = torch.outer(torch.arange(context_length, dtype=torch.float64), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return torch.stack((angles.cos(), angles.sin())).float()


def rotate(x_BHTK: Tensor, tables_2TK: Tensor) -> Tensor:
    """Rotate each pair (x[k], x[k + K/2]) by its position's angle."""
    length = x_BHTK.shape[-2]
    cosine, sine = tables_2TK[:, :length].to(x_BHTK.dtype)
    first, second = x_BHTK.chunk(2, dim=-1)
    return x_BHTK * cosine + torch.cat((-second, first), dim=-1) * sine


def attend(query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor) -> Tensor:
    """Return causal softmax attention `[B, H, T, K]` (Vaswani et al. 2017, eq. 1).

    On a CPU plain products and a softmax take half the time of the flash kernel, forward and
    backward together, up to 1,024 positions; elsewhere the flash kernel is used.
    """
    length = query_BHTK.shape[-2]
    if query_BHTK.device.type != "cpu" or length > 1024:
        return F.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, is_causal=True)
    mask_TT = torch.full((length, length), -math.inf, dtype=query_BHTK.dtype).triu_(1)
    scores_BHTT = (query_BHTK * query_BHTK.shape[-1] ** -0.5) @ key_BHTK.transpose(-1, -2)
    return torch.softmax(scores_BHTT + mask_TT, dim=-1) @ value_BHTK


class Attention(nn.Module):
    """Multi-head causal self-attention; query, key and value come from one product."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bias = config.family == "gpt2"
        self.num_heads = config.num_heads
        self.query_key_value = Linear(config.d_model, 3 * config.d_model, bias)
        self.output = Linear(config.d_model, config.d_model, bias)

    def forward(self, x_BTD: Tensor, rotary_2TK: Tensor | None) -> Tensor:
        """Return `[B, T, D]`; `rotary_2TK` is None where positions are learned."""
        B, T, D = x_BTD.shape
        packed = self.query_key_value(x_BTD).view(B, T, 3, self.num_heads, D // self.num_heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        if rotary_2TK is not None:
            query, key = rotate(query, rotary_2TK), rotate(key, rotary_2TK)
        mixed_BHTK = attend(query, key, value)
        return self.output(mixed_BHTK.transpose(1, 2).reshape(B, T, D))


class SwiGLU(nn.Module):
    """Gated feed-forward: down(silu(gate(x)) * up(x)) (Shazeer 2020, eq. 6)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_up = Linear(config.d_model, 2 * config.resolved_d_ff, bias=False)
        self.down = Linear(config.resolved_d_ff, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return `[B, T, D]`."""
        gate_BTF, up_BTF = self.gate_up(x_BTD).chunk(2, dim=-1)
        return self.down(F.silu(gate_BTF) * up_BTF)


class GELUFeedForward(nn.Module):
    """Feed-forward with GELU in its tanh form (Hendrycks & Gimpel 2016), as in GPT-2."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = Linear(config.d_model, config.resolved_d_ff, bias=True)
        self.down = Linear(config.resolved_d_ff, config.d_model, bias=True)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return `[B, T, D]`."""
        return self.down(F.gelu(self.up(x_BTD), approximate="tanh"))


class Block(nn.Module):
    """One pre-norm layer: attention, then feed-forward, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = SwiGLU(config) if config.family == "llama" else GELUFeedForward(config)
        self.residual_dropout = config.dropouts.residual

    def forward(self, x_BTD: Tensor, rotary_2TK: Tensor | None, dropout: Dropout | None) -> Tensor:
        """Return `[B, T, D]`; `dropout` is None outside training."""
        mixed = self.attention(self.attention_norm(x_BTD), rotary_2TK)
        if dropout is not None:
            mixed = dropout(mixed, self.residual_dropout)
        x_BTD = x_BTD + mixed
        changed = self.feed_forward(self.feed_forward_norm(x_BTD))
        if dropout is not None:
            changed = dropout(changed, self.residual_dropout)
        return x_BTD + changed
