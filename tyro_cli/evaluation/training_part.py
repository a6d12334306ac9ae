"""A fixed part of the training text, of the validation split's size.

The generalisation gap compares the loss on valid with the loss, in evaluation mode, on this part.
It is a sample of whole documents, the same in every arm and seed.
"""

import numpy as np

from tyro_cli.data.prepared import PreparedData, TokenSplit, keep_fraction


def training_part(data: PreparedData) -> TokenSplit:
    """Return training documents of as many tokens as valid has (the last one cut), in order."""
    train, wanted = data.splits["train"], data.splits["valid"].num_tokens
    starts = np.asarray(train.document_starts)
    lengths = np.diff(starts, append=len(train.tokens))
    kept = keep_fraction(lengths, min(1.0, wanted / train.num_tokens))
    pieces = [train.tokens[starts[i] : starts[i] + lengths[i]] for i in kept]
    tokens = np.concatenate([train.tokens[:1], *pieces])[: wanted + 1]
    return TokenSplit(
        tokens=tokens,
        document_starts=1 + np.cumsum(lengths[kept]) - lengths[kept],
        document_words=train.document_words[kept],
        document_bytes=train.document_bytes[kept],
        text_sha256="",
        num_tokens=len(tokens) - 1,
        num_words=0,
        num_bytes=0,
        num_unknown=0,
    )
