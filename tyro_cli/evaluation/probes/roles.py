"""The gradients of the two roles of a word's vector: read at the input, compared at the softmax.

A tied matrix receives the sum of both; here they are told apart, by a pass of its own in which
input and softmax read two leaves of the same storage. Of an untied model the two matrices' own
gradients are returned, which is the same measurement of its twin. Invariant: nothing is left
behind: no parameter, `.grad`, optimiser state or generator is touched.

Shapes: B windows, T positions, D d_model, V vocabulary.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tyro_cli.evaluation.probes.rows import NUM_BANDS
from tyro_cli.models.head_loss import head_loss
from tyro_cli.models.language_model import LanguageModel
from tyro_cli.models.tying import softmax_matrix


def probe_batch(tokens: np.ndarray, context_length: int, num_windows: int, seed: int) -> np.ndarray:
    """Return windows of a text, int64 `[B, T + 1]`, drawn once without replacement.

    Args:
        tokens: The stream, at least two tokens.
        context_length: T; less where the text is shorter.
        num_windows: B; fewer where the text has no more that do not overlap.
        seed: Key of the draw.
    """
    length = min(context_length, len(tokens) - 1)
    possible = (len(tokens) - 1) // length
    generator = np.random.Generator(np.random.Philox(key=seed))
    drawn = np.sort(generator.permutation(possible)[:num_windows])
    return tokens[drawn[:, None] * length + np.arange(length + 1)].astype(np.int64)


def role_gradients(model: LanguageModel, batch: np.ndarray) -> tuple[float, Tensor, Tensor]:
    """Return the loss, and its gradients at the input and at the softmax, each `[V, D]` float32.

    The loss is the mean nats per token of the batch, in float32 and without dropout. The sum of the
    two is the gradient of a tied model's matrix.
    """
    tokens = torch.from_numpy(batch).to(model.embedding.weight.device)
    with torch.enable_grad():
        input_VD = model.embedding.weight.detach().requires_grad_()
        output_VD = softmax_matrix(model).detach().requires_grad_()
        loss = functional_call(
            _TwoRoles(model),
            {"model.embedding.weight": input_VD},
            (tokens[:, :-1], tokens[:, 1:], output_VD),
        )
        gradients = torch.autograd.grad(loss, (input_VD, output_VD))
    return loss.item(), *gradients


def role_record(model: LanguageModel, batch: np.ndarray, bands_V: np.ndarray) -> dict[str, Any]:
    """Return norms and cosines of the two gradients, in all and by band, as plain values.

    Lists have a number a band: `NUM_BANDS` of falling frequency, then the tokens never seen. A
    cosine is None where a gradient is zero, and every number where it is not finite.
    """
    loss_nats, input_VD, output_VD = role_gradients(model, batch)
    sums = [
        (first.double() * second.double()).sum(dim=1).cpu().numpy()
        for first, second in (
            (input_VD, input_VD),
            (output_VD, output_VD),
            (input_VD, output_VD),
        )
    ]
    by_band = np.stack([np.bincount(bands_V, one, minlength=NUM_BANDS + 1) for one in sums])
    bands = [_norms_and_cosine(*values) for values in by_band.T]
    return {
        "loss_nats": _finite(loss_nats),
        **_norms_and_cosine(*by_band.sum(axis=1)),
        "bands": {
            "tokens": np.bincount(bands_V, minlength=NUM_BANDS + 1).tolist(),
            **{key: [band[key] for band in bands] for key in bands[0]},
        },
    }


class _TwoRoles(nn.Module):
    """A language model whose softmax reads a matrix that is handed to it."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor, matrix_VD: Tensor) -> Tensor:
        """Return the mean nats per target token."""
        hidden_BTD = self.model.hidden(inputs_BT, torch.float32, None)
        return head_loss(hidden_BTD.flatten(0, 1), matrix_VD, targets_BT.flatten())[0]


def _norms_and_cosine(
    input_square: float, output_square: float, product: float
) -> dict[str, float | None]:
    with np.errstate(all="ignore"):  # what is not finite is left out below
        norms = np.sqrt([input_square, output_square])
        cosine = product / norms.prod() if norms.all() else float("nan")
    return {
        "input_norm": _finite(norms[0]),
        "output_norm": _finite(norms[1]),
        "cosine": _finite(cosine),
    }


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
