"""Cross-entropy of a softmax over the vocabulary, without its logits.

Tokens are taken in chunks: only one chunk's logits exist at a time, never `[tokens, V]`. Products
run in the dtype of the hidden states; softmax, loss and the accumulated gradient of the matrix are
float32. The backward pass recomputes nothing: gradients are formed while a chunk is at hand.

Shapes: N tokens, D d_model, V vocabulary, C tokens of a chunk, S tokens of a slice of it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tyro_cli.ledger.memory import HEAD_CHUNK_BYTES, HEAD_SLICE_BYTES
from tyro_cli.models.shapes import padding_of

IGNORED = -1


def _chunk_tokens(hidden_ND: Tensor, matrix_VD: Tensor) -> int:
    return max(1, HEAD_CHUNK_BYTES // (len(matrix_VD) * hidden_ND.element_size()))


def _padded(hidden_ND: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Add tokens that do not count, where a number of tokens that comes again costs less."""
    padding = padding_of(len(hidden_ND), hidden_ND.device, hidden_ND.dtype)
    if padding == 0:
        return hidden_ND, targets_N
    return F.pad(hidden_ND, (0, 0, 0, padding)), F.pad(targets_N, (0, padding), value=IGNORED)


def _slice_rows(row_bytes: int) -> int:
    """Return how many rows have about `HEAD_SLICE_BYTES`."""
    return max(1, HEAD_SLICE_BYTES // row_bytes)


def _softmax_slices(
    logits_CV: Tensor,
    targets_C: Tensor,
    nats_C: Tensor,
    *,
    weights_C: Tensor | None = None,
    smoothing: float = 0.0,
    uniform_nats_C: Tensor | None = None,
) -> None:
    """Write the nats of every target; with `weights_C`, turn logits into their weighted gradient.

    `logits_CV` is overwritten with weight * (softmax - wanted) where weights are given; what is
    wanted is one-hot, of which label smoothing spreads a part over all V tokens. `uniform_nats_C`
    takes the nats of a token drawn from all V alike.
    """
    vocab_size = logits_CV.shape[1]
    step = _slice_rows(4 * vocab_size)
    scratch_SV = torch.empty(
        min(step, len(logits_CV)), vocab_size, dtype=torch.float32, device=logits_CV.device
    )
    for start in range(0, len(logits_CV), step):
        part = slice(start, start + step)
        # One slice is worked on in one place, which stays in the cache.
        below_SV = scratch_SV[: len(logits_CV[part])].copy_(logits_CV[part])
        target_S1 = targets_C[part].clamp(min=0).unsqueeze(1)
        below_SV.sub_(below_SV.amax(dim=1, keepdim=True))
        target_below_S1 = below_SV.gather(1, target_S1)
        if uniform_nats_C is not None:
            uniform_nats_C[part] = -below_SV.mean(dim=1)
        powers_SV = below_SV.exp_()
        total_S1 = powers_SV.sum(dim=1, keepdim=True)
        log_normalizer_S1 = total_S1.log()
        nats_C[part] = (log_normalizer_S1 - target_below_S1).squeeze(1)
        if uniform_nats_C is not None:
            uniform_nats_C[part] += log_normalizer_S1.squeeze(1)
        if weights_C is None:
            continue
        weight_S1 = weights_C[part].unsqueeze(1)
        gradient_SV = powers_SV.mul_(weight_S1 / total_S1)
        if smoothing:
            gradient_SV.sub_(weight_S1 * (smoothing / vocab_size))
        gradient_SV.scatter_add_(1, target_S1, weight_S1 * (smoothing - 1.0))
        logits_CV[part] = gradient_SV


class _HeadLoss(torch.autograd.Function):
    """Means over the targets that count: the objective, and the nats; see `head_loss`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        matrix_VD: Tensor,
        targets_N: Tensor,
        chunk_tokens: int,
        smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        counted = targets_N != IGNORED
        scale = 1.0 / max(int(counted.sum()), 1)
        weights_N = counted.to(torch.float32).mul_(scale)
        compute_VD = matrix_VD.to(hidden_ND.dtype)
        nats_N = torch.empty(len(targets_N), dtype=torch.float32, device=hidden_ND.device)
        uniform_nats_N = torch.empty_like(nats_N) if smoothing else None
        hidden_gradient = torch.empty_like(hidden_ND)
        matrix_gradient = torch.zeros_like(matrix_VD)
        step = _slice_rows(hidden_ND[0].nbytes)
        for start in range(0, len(targets_N), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            hidden_CD = hidden_ND[part]
            logits_CV = hidden_CD @ compute_VD.t()
            _softmax_slices(
                logits_CV,
                targets_N[part],
                nats_N[part],
                weights_C=weights_N[part],
                smoothing=smoothing,
                uniform_nats_C=None if uniform_nats_N is None else uniform_nats_N[part],
            )
            torch.mm(logits_CV, compute_VD, out=hidden_gradient[part])
            for first in range(0, len(matrix_VD), step):
                rows = slice(first, first + step)
                matrix_gradient[rows] += logits_CV[:, rows].t() @ hidden_CD
        ctx.save_for_backward(hidden_gradient, matrix_gradient)
        nats = (nats_N.double() * counted).sum().mul_(scale)
        objective = nats
        if uniform_nats_N is not None:
            uniform_nats = (uniform_nats_N.double() * counted).sum().mul_(scale)
            objective = (1.0 - smoothing) * nats + smoothing * uniform_nats
        beside = nats.float()
        ctx.mark_non_differentiable(beside)
        return objective.float(), beside

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden_gradient, matrix_gradient = ctx.saved_tensors
        upstream = gradients[0]
        return (
            # In float32: a factor rounded to bfloat16 would scale the body unlike the matrix.
            (hidden_gradient.float() * upstream).to(hidden_gradient.dtype),
            matrix_gradient.mul_(upstream),
            None,
            None,
            None,
        )


def head_loss(
    hidden_ND: Tensor,
    matrix_VD: Tensor,
    targets_N: Tensor,
    *,
    label_smoothing: float = 0.0,
    chunk_tokens: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return what to minimise and the mean nats of next-token predictions, two float32 scalars.

    Without label smoothing they are equal. With it the objective is
    `(1 - e) * nats + e * (mean over V of -log p)` (Szegedy et al. 2016, section 7, as
    `torch.nn.functional.cross_entropy` has it); nats are what a perplexity is made of, so a record
    takes them and not the objective. Only the objective has a gradient.

    Args:
        hidden_ND: Final hidden states, bfloat16 or float32; logits are `hidden @ matrix.T`.
        matrix_VD: The softmax matrix, float32; its gradient is accumulated in float32.
        targets_N: Target tokens, int64; `IGNORED` (-1) counts neither in the sums nor in the means.
        label_smoothing: The part e of the target's probability that goes to all V tokens alike.
        chunk_tokens: Tokens whose logits exist at a time; by default about 32 MiB of logits.
    """
    if chunk_tokens is None:
        chunk_tokens = _chunk_tokens(hidden_ND, matrix_VD)
    hidden_ND, targets_N = _padded(hidden_ND, targets_N)
    return _HeadLoss.apply(hidden_ND, matrix_VD, targets_N, chunk_tokens, label_smoothing)


@torch.no_grad()
def target_nats(hidden_ND: Tensor, matrix_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Return the nats `[N]` (float32) of each target, for evaluation: no gradient is formed."""
    tokens = len(targets_N)
    hidden_ND, targets_N = _padded(hidden_ND, targets_N)
    compute_VD = matrix_VD.to(hidden_ND.dtype)
    chunk_tokens = _chunk_tokens(hidden_ND, matrix_VD)
    nats_N = torch.empty(len(targets_N), dtype=torch.float32, device=hidden_ND.device)
    for start in range(0, len(targets_N), chunk_tokens):
        part = slice(start, start + chunk_tokens)
        _softmax_slices(hidden_ND[part] @ compute_VD.t(), targets_N[part], nats_N[part])
    return nats_N[:tokens]
