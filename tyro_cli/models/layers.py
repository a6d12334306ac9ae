"""The layers of a Transformer: positions, norms, attention, feed-forward and dropout.

Parameters are float32; a layer computes in the dtype of its input and casts its weights to it, so
one model trains in bfloat16 and is evaluated in float32. Biases exist in family gpt2 alone.

Shapes: B batch, T positions, S positions that are attended to, D d_model, H heads, K head size,
F d_ff.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tyro_cli.config.schema import ModelConfig
from tyro_cli.ledger.memory import PLAIN_ATTENTION_POSITIONS
from tyro_cli.models.shapes import padding_of


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
        return (x * keep).mul_(65536 / (65536 - cut))  # a scale kept in bfloat16 would be rounded


class Linear(nn.Module):
    """A product with a weight `[out, in]` and, if asked, a bias `[out]`, in the input's dtype."""

    def __init__(self, in_features: int, out_features: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map `[..., in]` to `[..., out]`."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        weight = self.weight.to(x.dtype)
        rows = x.shape[:-1].numel()
        padding = padding_of(rows, x.device, x.dtype)
        if padding == 0:
            return F.linear(x, weight, bias)
        padded_NI = F.pad(x.reshape(rows, x.shape[-1]), (0, 0, 0, padding))
        return F.linear(padded_NI, weight, bias)[:rows].unflatten(0, x.shape[:-1])


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


def make_final_norm(config: ModelConfig) -> nn.Module:
    """Return the norm that follows the last block, or nothing where the configuration has none.

    Post-norm blocks end with one of their own.
    """
    return make_norm(config) if config.has_final_norm else nn.Identity()


def embed(tokens_BT: Tensor, matrix_VD: Tensor, factor: float, places_TD: Tensor | None) -> Tensor:
    """Return a row a token times `factor`, plus its place's vector where places are added."""
    x_BTD = F.embedding(tokens_BT, matrix_VD)
    if factor != 1.0:
        x_BTD = x_BTD * factor
    return x_BTD if places_TD is None else x_BTD + places_TD[: tokens_BT.shape[1]]


def sinusoids(context_length: int, d_model: int) -> Tensor:
    """Return the fixed vectors `[T, D]` (float32) of sinusoidal positions (Vaswani et al. 2017, 3.5).

    Even places of the last axis hold sines and odd ones cosines of the same D/2 frequencies.
    """  # noqa: E501
    frequencies = 10_000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    angles = torch.outer(torch.arange(context_length, dtype=torch.float64), frequencies)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :d_model].float()


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


def fixed_positions(
    config: ModelConfig, context_length: int
) -> tuple[Tensor | None, Tensor | None]:
    """Return the tables of sinusoidal and of rotary positions, None for a kind that is not used."""
    if config.resolved_positions == "sinusoidal":
        return sinusoids(context_length, config.d_model), None
    if config.resolved_positions == "rotary":
        return None, rotary_tables(context_length, config.d_model // config.num_heads)
    return None, None


def attend(
    query_BHTK: Tensor, key_BHSK: Tensor, value_BHSK: Tensor, mask_B11S: Tensor | None = None
) -> Tensor:
    """Return softmax attention `[B, H, T, K]` (Vaswani et al. 2017, eq. 1).

    On a CPU plain products and a softmax take half the time of the flash kernel, forward and
    backward together, up to 1,024 positions; elsewhere the flash kernel is used.

    Args:
        query_BHTK: Queries.
        key_BHSK: Keys.
        value_BHSK: Values.
        mask_B11S: What is added to the scores: see `padding_mask`. Without one, attention is
            causal: the queries are then all S positions, or the last one alone.
    """
    length, keys = query_BHTK.shape[-2], key_BHSK.shape[-2]
    assert mask_B11S is not None or length in (1, keys)
    if query_BHTK.device.type != "cpu" or length > PLAIN_ATTENTION_POSITIONS:
        is_causal = mask_B11S is None and length > 1
        return F.scaled_dot_product_attention(
            query_BHTK, key_BHSK, value_BHSK, attn_mask=mask_B11S, is_causal=is_causal
        )
    mask = mask_B11S
    if mask is None:
        mask = torch.full((length, keys), -math.inf, dtype=query_BHTK.dtype)
        mask = mask.triu_(keys - length + 1)
    scores_BHTS = (query_BHTK * query_BHTK.shape[-1] ** -0.5) @ key_BHSK.transpose(-1, -2)
    return torch.softmax(scores_BHTS + mask, dim=-1) @ value_BHSK


def padding_mask(lengths_B: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """Return `[B, 1, 1, S]`, S = `length`: 0 at the first `lengths_B` positions, -inf behind them.

    Every row needs one position: a softmax over nothing is not a number.
    """
    padded_BS = torch.arange(length, device=lengths_B.device) >= lengths_B.unsqueeze(1)
    mask_BS = torch.zeros(padded_BS.shape, dtype=dtype, device=lengths_B.device)
    return mask_BS.masked_fill_(padded_BS, -math.inf)[:, None, None]


class Cache:
    """Keys and values `[B, H, S, K]` of the positions that one self-attention has read so far."""

    def __init__(self) -> None:
        self.held: tuple[Tensor, Tensor] | None = None

    def extend(self, key_BHTK: Tensor, value_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        """Append positions and return all keys and values."""
        if self.held is None:
            self.held = (key_BHTK, value_BHTK)
        else:
            key_BHSK, value_BHSK = self.held
            self.held = (
                torch.cat((key_BHSK, key_BHTK), dim=-2),
                torch.cat((value_BHSK, value_BHTK), dim=-2),
            )
        return self.held

    def select(self, rows: Tensor) -> None:
        """Keep rows of the batch, in this order and as often as they are named."""
        assert self.held is not None, "there is nothing to select from"
        self.held = (self.held[0][rows], self.held[1][rows])


class Attention(nn.Module):
    """Multi-head self-attention; query, key and value come from one product."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bias = config.family == "gpt2"
        self.num_heads = config.num_heads
        self.query_key_value = Linear(config.d_model, 3 * config.d_model, bias)
        self.output = Linear(config.d_model, config.d_model, bias)

    def forward(
        self,
        x_BTD: Tensor,
        rotary_2TK: Tensor | None,
        mask_B11T: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Return `[B, T, D]`.

        Args:
            x_BTD: What is read: all positions, or the next one where there is a cache.
            rotary_2TK: Tables of these positions; None where positions are added.
            mask_B11T: An encoder's padding mask; None in a decoder, which is causal.
            cache: What was read before, if anything.
        """
        B, T, D = x_BTD.shape
        packed = self.query_key_value(x_BTD).view(B, T, 3, self.num_heads, D // self.num_heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        if rotary_2TK is not None:
            query, key = rotate(query, rotary_2TK), rotate(key, rotary_2TK)
        if cache is not None:
            key, value = cache.extend(key, value)
        mixed_BHTK = attend(query, key, value, mask_B11T)
        return self.output(mixed_BHTK.transpose(1, 2).reshape(B, T, D))


class Source(NamedTuple):
    """What the attention of one decoder block sees of the source."""

    key_BHSK: Tensor
    value_BHSK: Tensor
    mask_B11S: Tensor


class CrossAttention(nn.Module):
    """Multi-head attention from the target to the source; key and value come from one product."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bias = config.family == "gpt2"
        self.num_heads = config.num_heads
        self.query = Linear(config.d_model, config.d_model, bias)
        self.key_value = Linear(config.d_model, 2 * config.d_model, bias)
        self.output = Linear(config.d_model, config.d_model, bias)

    def source(self, encoded_BSD: Tensor, mask_B11S: Tensor) -> Source:
        """Return keys and values of the encoded source: once for all target positions."""
        B, S, D = encoded_BSD.shape
        packed = self.key_value(encoded_BSD).view(B, S, 2, self.num_heads, D // self.num_heads)
        key, value = packed.permute(2, 0, 3, 1, 4)
        return Source(key, value, mask_B11S)

    def forward(self, x_BTD: Tensor, source: Source) -> Tensor:
        """Return `[B, T, D]`.

        In a beam search each of the source's rows has several rows of hypotheses, side by side:
        they are asked together, as if they were positions, so that no key is copied.
        """
        B, _, D = x_BTD.shape
        rows = len(source.key_BHSK)
        query = self.query(x_BTD).view(rows, -1, self.num_heads, D // self.num_heads)
        mixed = attend(query.transpose(1, 2), source.key_BHSK, source.value_BHSK, source.mask_B11S)
        return self.output(mixed.transpose(1, 2).reshape(B, -1, D))


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
    """One layer: self-attention, in a decoder with a source attention to it, and feed-forward.

    Each is added to the residual stream. With pre-norm it reads a normalised copy of the stream;
    with post-norm the sum is normalised (Xiong et al. 2020, figure 1).
    """

    def __init__(self, config: ModelConfig, has_source: bool = False) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config)
        if has_source:
            self.cross_attention_norm = make_norm(config)
            self.cross_attention = CrossAttention(config)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = SwiGLU(config) if config.family == "llama" else GELUFeedForward(config)
        self.residual_dropout = config.dropouts.residual
        self.is_pre_norm = config.norm_place == "pre"

    def forward(
        self,
        x_BTD: Tensor,
        rotary_2TK: Tensor | None,
        dropout: Dropout | None,
        mask_B11T: Tensor | None = None,
        source: Source | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Return `[B, T, D]`; `dropout` is None outside training. The rest is as in `Attention`."""
        read_BTD = self._read(x_BTD, self.attention_norm)
        change_BTD = self.attention(read_BTD, rotary_2TK, mask_B11T, cache)
        x_BTD = self._add(x_BTD, change_BTD, self.attention_norm, dropout)
        if source is not None:
            read_BTD = self._read(x_BTD, self.cross_attention_norm)
            change_BTD = self.cross_attention(read_BTD, source)
            x_BTD = self._add(x_BTD, change_BTD, self.cross_attention_norm, dropout)
        change_BTD = self.feed_forward(self._read(x_BTD, self.feed_forward_norm))
        return self._add(x_BTD, change_BTD, self.feed_forward_norm, dropout)

    def _read(self, x_BTD: Tensor, norm: nn.Module) -> Tensor:
        return norm(x_BTD) if self.is_pre_norm else x_BTD

    def _add(
        self, x_BTD: Tensor, change_BTD: Tensor, norm: nn.Module, dropout: Dropout | None
    ) -> Tensor:
        if dropout is not None:
            change_BTD = dropout(change_BTD, self.residual_dropout)
        x_BTD = x_BTD + change_BTD
        return x_BTD if self.is_pre_norm else norm(x_BTD)
