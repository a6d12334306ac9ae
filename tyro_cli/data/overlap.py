"""What source and target have in common, measured on the pairs that are trained on.

Invariant: `<eos>`, which every sentence of both sides ends in, counts nowhere.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from tyro_cli.data.tokenizers import EOS_ID

Vocabulary = Mapping[str, int]


def measure_overlap(
    source: np.ndarray,
    target: np.ndarray,
    source_sentences: Iterable[str],
    num_target_words: int,
    vocabularies: tuple[Vocabulary, Vocabulary] | None,
) -> dict[str, int | float | None]:
    """Return how much of the two sides is the same, and into how many tokens words split.

    Args:
        source: Tokens of the source sentences.
        target: Tokens of the target sentences.
        source_sentences: The source sentences, for their words.
        num_target_words: Words of the target.
        vocabularies: Ids by spelling, of the source and of the target; None where the vocabulary
            is joint.

    Returns:
        `source_rows`, `target_rows`: token types that occur on that side. `shared_rows`: rows of a
        joint vocabulary that both sides use; None where each side has rows of its own.
        `shared_target_tokens`: fraction of the target's tokens whose type, by spelling, also
        occurs in the source. `source_tokens_per_word`, `target_tokens_per_word`.
    """
    source_counts = np.bincount(source)
    target_counts = np.bincount(target)
    source_counts[EOS_ID] = target_counts[EOS_ID] = 0
    source_types, target_types = np.flatnonzero(source_counts), np.flatnonzero(target_counts)
    if vocabularies is None:
        shared = np.intersect1d(source_types, target_types)
    else:
        source_ids, target_ids = vocabularies
        spellings = {number: token for token, number in target_ids.items()}
        used = set(source_types.tolist())
        is_shared = [source_ids.get(spellings[number]) in used for number in target_types.tolist()]
        shared = target_types[is_shared]
    num_source_tokens, num_target_tokens = int(source_counts.sum()), int(target_counts.sum())
    num_source_words = sum(len(sentence.split()) for sentence in source_sentences)
    return {
        "source_rows": len(source_types),
        "target_rows": len(target_types),
        "shared_rows": len(shared) if vocabularies is None else None,
        "shared_target_tokens": int(target_counts[shared].sum()) / num_target_tokens,
        "source_tokens_per_word": num_source_tokens / num_source_words,
        "target_tokens_per_word": num_target_tokens / num_target_words,
    }
