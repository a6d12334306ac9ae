"""Translation by beam search, batched over sentences; a beam of size 1 is greedy search.

A hypothesis is finished by `<eos>` and ranked by log probability / length^penalty, its `<eos>`
counted (Wu et al. 2016, section 7, has the idea; this is its simplest form). What a sentence
becomes depends on no other sentence: batches are made for speed alone, and equal scores are decided
by the hypothesis that stood higher and then by the lower token id, never by chance.

Shapes: B sentences, K hypotheses a sentence, C candidates a hypothesis, M candidates a sentence,
R = B * K rows, T tokens so far, V tokens of the vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tyro_cli.data.tokenizers import EOS_ID
from tyro_cli.ledger.memory import DECODING_POSITIONS, EVALUATION_TOKENS
from tyro_cli.models.translation_model import Decoding, TranslationModel


@dataclass(frozen=True)
class Translation:
    """The best finished hypothesis of a sentence.

    Attributes:
        tokens: Token ids, without the final `<eos>`.
        log_probability: Of all tokens and the `<eos>`, in nats, at most 0.
        score: What it was ranked by: `log_probability / length^penalty`.
    """

    tokens: list[int]
    log_probability: float
    score: float


def translate(
    model: TranslationModel,
    sources: Sequence[Sequence[int] | np.ndarray],
    *,
    beam_size: int,
    length_penalty: float,
    dtype: torch.dtype = torch.float32,
    poll: Callable[[], None] = lambda: None,
) -> list[Translation]:
    """Return the translation of every sentence, in their order.

    Args:
        model: A trained model; its device decides where the search runs.
        sources: Token ids as the encoder was trained on them, 1 to the model's context_length each.
        beam_size: K, hypotheses kept a sentence.
        length_penalty: The exponent, at least 0; 0 ranks by log probability alone.
        dtype: What products run in.
        poll: Called before every token; raises to stop.
    """
    assert all(0 < len(source) <= model.context_length for source in sources)
    device = model.embedding.weight.device
    found: dict[int, Translation] = {}
    # The longest first: if memory is short, that shows at once.
    order = sorted(range(len(sources)), key=lambda index: -len(sources[index]))
    most = max(1, DECODING_POSITIONS // (model.context_length * beam_size))
    while order:
        longest = len(sources[order[0]])
        size = min(most, max(1, EVALUATION_TOKENS // longest))
        batch, order = order[:size], order[size:]
        source_BS = torch.zeros((len(batch), longest), dtype=torch.int64)
        for row, index in enumerate(batch):
            source_BS[row, : len(sources[index])] = torch.as_tensor(sources[index])
        lengths_B = torch.tensor([len(sources[index]) for index in batch])
        decoding = Decoding(model, source_BS.to(device), lengths_B.to(device), dtype)
        best = _search(decoding, len(batch), beam_size, length_penalty, model.context_length, poll)
        found.update(zip(batch, best, strict=True))
    return [found[index] for index in range(len(sources))]


def _search(
    decoding: Decoding,
    num_sentences: int,
    beam_size: int,
    length_penalty: float,
    longest: int,
    poll: Callable[[], None],
) -> list[Translation]:
    """Return the best finished hypothesis of every sentence of a batch.

    Of a step's candidates those with `<eos>` that stand among the K best are finished, and the K
    best others live on. A sentence is over when K hypotheses are finished, or when no live one can
    beat the best of them: its log probability only falls, so at most it reaches its present one
    divided by `longest`^penalty. A hypothesis of `longest` tokens has to end with `<eos>`.
    """
    best: dict[int, Translation] = {}
    num_finished = [0] * num_sentences
    playing = list(range(num_sentences))
    tokens_BKT = torch.full((num_sentences, beam_size, 1), EOS_ID)
    # The rows of a sentence are equal at first: one of them is a hypothesis.
    totals_BK = torch.full((num_sentences, beam_size), -torch.inf, dtype=torch.float64)
    totals_BK[:, 0] = 0.0
    while playing:
        poll()
        length = tokens_BKT.shape[-1]
        log_probabilities_RV = decoding.step(tokens_BKT[:, :, -1].flatten())
        if length == longest:
            ends_R = log_probabilities_RV[:, EOS_ID].clone()
            log_probabilities_RV.fill_(-torch.inf)[:, EOS_ID] = ends_R
        totals_BM, parents_BM, tokens_BM = _candidates(log_probabilities_RV, totals_BK)
        is_end_BM = tokens_BM == EOS_ID
        counts_BK = is_end_BM[:, :beam_size] & totals_BM[:, :beam_size].isfinite()
        for row, rank in counts_BK.nonzero().tolist():
            sentence, total = playing[row], totals_BM[row, rank].item()
            prefix = tokens_BKT[row, parents_BM[row, rank], 1:].tolist()
            ended = Translation(prefix, total, total / length**length_penalty)
            num_finished[sentence] += 1
            if sentence not in best or ended.score > best[sentence].score:
                best[sentence] = ended

        live_BK = is_end_BM.byte().sort(stable=True).indices[:, :beam_size]
        totals_BK = totals_BM.gather(1, live_BK)
        parents_BK = parents_BM.gather(1, live_BK)
        reachable = (totals_BK[:, 0] / longest**length_penalty).tolist()
        rows = [
            row
            for row, sentence in enumerate(playing)
            if num_finished[sentence] < beam_size
            and (sentence not in best or reachable[row] > best[sentence].score)
        ]
        kept_B = torch.tensor(rows, dtype=torch.int64)
        rows_R = (kept_B.unsqueeze(1) * beam_size + parents_BK[kept_B]).flatten()
        decoding.select(rows_R, None if len(rows) == len(playing) else kept_B)
        totals_BK = totals_BK[kept_B]
        chosen_BK1 = tokens_BM.gather(1, live_BK)[kept_B].unsqueeze(2)
        tokens_BKT = tokens_BKT.flatten(0, 1)[rows_R].view(len(rows), beam_size, length)
        tokens_BKT = torch.cat((tokens_BKT, chosen_BK1), dim=2)
        playing = [playing[row] for row in rows]
    return [best[sentence] for sentence in range(num_sentences)]


def _candidates(log_probabilities_RV: Tensor, totals_BK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the 2 K best continuations of every sentence: totals, hypotheses, tokens `[B, M]`.

    At most one of a hypothesis' continuations ends it, so at least K of these go on.
    """
    num_sentences, beam_size = totals_BK.shape
    num_candidates = min(2 * beam_size, log_probabilities_RV.shape[1])
    values_RC, tokens_RC = _largest(log_probabilities_RV, num_candidates)
    sums_RC = totals_BK.flatten().unsqueeze(1) + values_RC.cpu()
    totals_BM, places_BM = _largest(sums_RC.view(num_sentences, -1), 2 * beam_size)
    tokens_BM = tokens_RC.cpu().view(num_sentences, -1).gather(1, places_BM)
    return totals_BM, places_BM // num_candidates, tokens_BM


def _largest(scores_RN: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return values and places of the largest scores of each row; of equal ones the first ones."""
    # `topk` takes any of equal scores where there are more of them than places; one more place
    # shows where that is so.
    values, places = scores_RN.topk(min(count + 1, scores_RN.shape[1]))
    unclear_R = (values[:, count - 1 : count] == values[:, count:]).any(dim=1)
    values, places = values[:, :count], places[:, :count]
    if unclear_R.any():
        ordered = scores_RN[unclear_R].sort(descending=True, stable=True)
        values[unclear_R] = ordered.values[:, :count]
        places[unclear_R] = ordered.indices[:, :count]
    places, order = places.sort()
    values, order = values.gather(1, order).sort(descending=True, stable=True)
    return values, places.gather(1, order)
