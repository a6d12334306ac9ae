"""Quality of translations: corpus BLEU and chrF, as sacrebleu computes and signs them.

Cased, on the text as it is (Post 2018). Beside the scores stand those of copying the source, which
a corpus of names and numbers makes better than nothing. Each sentence's counts are kept, from which
the analysis computes the BLEU of any exchange of sentences between two arms without the text.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from tyro_cli.errors import DataError

BLEU_ORDER = 4
BLEU_COUNTS = 2 + 2 * BLEU_ORDER
"""Numbers a sentence: length, reference's length, matching and all n-grams of order 1 to 4."""


def check_sacrebleu() -> None:
    """Raise where sacrebleu is not installed: before training, not after it.

    Raises:
        DataError: Names the extra.
    """
    try:
        import_module("sacrebleu")
    except ImportError as error:
        raise DataError(
            f"translation is scored by a package that is not installed ({error.name})",
            "install the extra `mt`: pip install 'wtie[mt]'",
        ) from error


def translation_quality(
    hypotheses: Sequence[str], references: Sequence[str], sources: Sequence[str]
) -> dict[str, Any]:
    """Return the quality of translations as a record.

    Args:
        hypotheses: The translations, one a source.
        references: What a person made of each source.
        sources: What was translated.

    Returns:
        `bleu`, `chrf`, `copy_bleu`, `copy_chrf` (0 to 100), `sentences`, and `signatures` of the
        two metrics.
    """
    assert len(hypotheses) == len(references) == len(sources) > 0
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    bleu, chrf = BLEU(), CHRF()
    record: dict[str, Any] = {
        "bleu": bleu.corpus_score(hypotheses, [references]).score,
        "chrf": chrf.corpus_score(hypotheses, [references]).score,
        "copy_bleu": bleu.corpus_score(sources, [references]).score,
        "copy_chrf": chrf.corpus_score(sources, [references]).score,
        "sentences": len(hypotheses),
    }
    record["signatures"] = {
        "bleu": bleu.get_signature().format(short=False),
        "chrf": chrf.get_signature().format(short=False),
    }
    return record


def bleu_counts(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return int64 `[sentences, BLEU_COUNTS]`, whose sums decide a corpus BLEU.

    Columns: length of the translation, length of the reference, matching n-grams of order 1 to 4,
    all n-grams of order 1 to 4, in tokens of `13a`.
    """
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(effective_order=True)  # silences a warning; the counts do not depend on it
    counts = np.empty((len(hypotheses), BLEU_COUNTS), dtype=np.int64)
    for row, hypothesis, reference in zip(counts, hypotheses, references, strict=True):
        score = bleu.sentence_score(hypothesis, [reference])
        row[:] = (score.sys_len, score.ref_len, *score.counts, *score.totals)
    return counts
