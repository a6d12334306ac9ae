"""The gradients of the roles of a word's vector: read at the input, compared at the softmax.

Where a translation has one vocabulary, being read by the encoder is a third. A shared matrix
receives the sum of its roles; here they are told apart, by a pass of its own through an untied twin
that lies in the storage of the model. Of an untied model the matrices' own gradients are returned,
which is the same measurement of its twin. Invariant: nothing is left behind: no parameter, `.grad`,
optimiser state or generator is touched.

Shapes: B windows, T positions, D d_model, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tyro_cli.data.pair_batches import PairBatch, batch_of_pairs
from tyro_cli.data.pair_splits import PairSplit
from tyro_cli.evaluation.probes.rows import NUM_BANDS, keyed_generator
from tyro_cli.models.head_loss import head_loss
from tyro_cli.models.language_model import LanguageModel
from tyro_cli.models.translation_model import TranslationModel
from tyro_cli.models.tying import softmax_matrix, source_matrix

Role = Literal["input", "output", "source"]
"""Read by the decoder, compared at the softmax, read by the encoder."""

TWO_ROLES: tuple[Role, ...] = ("input", "output")
THREE_ROLES: tuple[Role, ...] = (*TWO_ROLES, "source")

UNTIED_NAMES: dict[Role, str] = {
    "input": "embedding.weight",
    "output": "head.weight",
    "source": "source_embedding.weight",
}
"""The parameter that has a role for itself in an untied model."""

SLICE_ROWS = 4096

COSINES: dict[tuple[Role, Role], str] = {
    ("input", "output"): "cosine",
    ("input", "source"): "input_source_cosine",
    ("output", "source"): "output_source_cosine",
}
"""What the cosine of two roles is called in a record."""


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
    drawn = np.sort(keyed_generator(seed).permutation(possible)[:num_windows])
    return tokens[drawn[:, None] * length + np.arange(length + 1)].astype(np.int64)


def probe_pairs(split: PairSplit, most_tokens: int, seed: int) -> PairBatch:
    """Return pairs of a split, drawn once without replacement.

    Args:
        split: The pairs.
        most_tokens: Most tokens of both sides, padding included; a first pair that is longer by
            itself is taken alone.
        seed: Key of the draw.
    """
    drawn = keyed_generator(seed).permutation(split.num_pairs)
    longest = sum(
        np.maximum.accumulate(lengths[drawn])
        for lengths in (split.source_lengths, split.target_lengths)
    )
    num_pairs = np.count_nonzero(np.arange(1, len(drawn) + 1) * longest <= most_tokens)
    return batch_of_pairs(split, np.sort(drawn[: max(1, num_pairs)]))


def role_gradients(
    model: LanguageModel | TranslationModel,
    batch: Sequence[np.ndarray],
    roles: Sequence[Role] = TWO_ROLES,
) -> tuple[float, dict[Role, Tensor]]:
    """Return the loss, and its gradient in each role, `[V, D]` float32.

    The loss is the mean nats per target token of the batch, unsmoothed, in float32 and without
    dropout. The gradient of a shared matrix is the sum over the roles that it has.

    Args:
        model: The model.
        batch: What its `hidden` reads, and the targets.
        roles: Which to tell apart; `source` is of a translation model alone.
    """
    twin: Any = _untied_twin(model)
    *inputs, targets = (
        torch.from_numpy(array).to(model.embedding.weight.device) for array in batch
    )
    with torch.enable_grad():
        hidden_BTD = twin.hidden(*inputs, torch.float32, None)
        loss, _ = head_loss(hidden_BTD.flatten(0, 1), softmax_matrix(twin), targets.flatten())
        leaves = [twin.get_parameter(UNTIED_NAMES[role]) for role in roles]
        gradients = torch.autograd.grad(loss, leaves)
    return loss.item(), dict(zip(roles, gradients, strict=True))


def role_record(
    model: LanguageModel | TranslationModel,
    batch: Sequence[np.ndarray],
    bands_V: np.ndarray,
    roles: Sequence[Role] = TWO_ROLES,
) -> dict[str, Any]:
    """Return norms and cosines of the gradients, in all and by band, as plain values.

    Lists have a number a band: `NUM_BANDS` of falling frequency, then the tokens never seen. A
    cosine is None where a gradient is zero, and every number where it is not finite. The rest is as
    in `role_gradients`.
    """
    loss_nats, gradients = role_gradients(model, batch, roles)
    by_band: dict[tuple[Role, Role], np.ndarray] = {}
    for (role, first), (other, second) in combinations_with_replacement(gradients.items(), 2):
        products_V = np.concatenate(
            [  # in slices: whole matrices of float64 would take more memory than the gradients
                (one.double() * another.double()).sum(dim=1).cpu().numpy()
                for one, another in zip(
                    first.split(SLICE_ROWS), second.split(SLICE_ROWS), strict=True
                )
            ]
        )
        by_band[role, other] = np.bincount(bands_V, products_V, minlength=NUM_BANDS + 1)
    bands = [
        _norms_and_cosines({pair: values[band] for pair, values in by_band.items()})
        for band in range(NUM_BANDS + 1)
    ]
    return {
        "loss_nats": _finite(loss_nats),
        **_norms_and_cosines({pair: values.sum() for pair, values in by_band.items()}),
        "bands": {
            "tokens": np.bincount(bands_V, minlength=NUM_BANDS + 1).tolist(),
            **{key: [band[key] for band in bands] for key in bands[0]},
        },
    }


def _untied_twin(model: LanguageModel | TranslationModel) -> LanguageModel | TranslationModel:
    """Return an untied model of the same function whose parameters lie where the model's lie.

    Matrices that the model shares are several leaves of one storage in it.
    """
    config = model.config.model_copy(update={"tying": "none"})
    output = softmax_matrix(model).detach()
    own = model.state_dict() | {UNTIED_NAMES["output"]: output}
    twin: LanguageModel | TranslationModel
    with torch.device("meta"):
        if isinstance(model, TranslationModel):
            source = source_matrix(model).detach()
            own |= {UNTIED_NAMES["source"]: source}
            twin = TranslationModel(config, len(source), len(output), model.context_length)
        else:
            twin = LanguageModel(config, len(output), model.context_length)
    twin.load_state_dict(own, assign=True)
    twin.sinusoids_TD, twin.rotary_2TK = model.sinusoids_TD, model.rotary_2TK
    return twin


def _norms_and_cosines(products: Mapping[tuple[Role, Role], float]) -> dict[str, float | None]:
    """Return what a record says of gradients whose inner products these are."""
    with np.errstate(all="ignore"):  # what is not finite is left out below
        norms = {
            role: np.sqrt(square) for (role, other), square in products.items() if role == other
        }
        cosines = {
            name: products[role, other] / (norms[role] * norms[other])
            for (role, other), name in COSINES.items()
            if (role, other) in products
        }
    return {f"{role}_norm": _finite(norm) for role, norm in norms.items()} | {
        name: _finite(cosine) for name, cosine in cosines.items()
    }


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
