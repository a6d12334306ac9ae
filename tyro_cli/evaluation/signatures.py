"""Signatures: one line a metric that says how its number was computed.

Two numbers may stand beside each other only if their signatures are equal. What a metric does not
depend on is left out of its signature: word perplexity compares across tokenizers, token
perplexity does not.
"""

from tyro_cli.config.schema import Settings
from tyro_cli.data.pair_splits import PairSplit
from tyro_cli.data.prepared import TokenSplit
from tyro_cli.data.preparing import Prepared
from tyro_cli.evaluation.translation import search_of

NAMES = {
    "nats_per_token": "token_nats",
    "token_perplexity": "token_ppl",
    "nats_per_word": "word_nats",
    "word_perplexity": "word_ppl",
    "bits_per_byte": "bits_per_byte",
}


def metric_signature(
    metric: str,
    settings: Settings,
    split: TokenSplit | PairSplit,
    split_name: str,
    *,
    vocab_size: int,
    tokenizer_sha256: str,
    precision: str,
    protocol: int,
) -> str:
    """Return the signature of one metric (a key of `NAMES`) on one split."""
    parts = [NAMES[metric], f"corpus:{split.text_sha256[:6]}", f"split:{split_name}"]
    if metric in ("nats_per_word", "word_perplexity"):
        wikitext = settings.data.format == "wikitext"
        parts.append(f"words:{'eos-per-line' if wikitext else 'whitespace'}")
    if metric in ("nats_per_token", "token_perplexity"):
        kind = settings.data.tokenizer.kind
        parts.append(f"tok:{kind}-{vocab_size}-{tokenizer_sha256[:6]}")
    if split.num_unknown:
        parts.append(f"unknown:{split.num_unknown}/{split.num_words}")
    ending = [f"prec:{precision}", f"protocol:{protocol}"]
    return "|".join(parts + _context(settings, split) + ending)


def _context(settings: Settings, split: TokenSplit | PairSplit) -> list[str]:
    """Return what a scored token sees: a window of the text, or its sentence and the source."""
    if isinstance(split, PairSplit):
        parts = ["ctx:sentence"]
        if script := settings.data.target_script:
            parts.append(f"disjoint:{script.disjoint_fraction:g}")
        if dropped := split.num_empty + split.num_long:
            parts.append(f"dropped:{dropped}/{dropped + split.num_pairs}")
        return parts
    context = settings.data.context_length
    return [f"ctx:{context}", f"stride:{settings.resolved_stride}"]


def search_signature(settings: Settings) -> str:
    """Return how translations are searched for, as BLEU's signature says it."""
    search = search_of(settings)
    return f"beam:{search.beam_size}|lenpen:{search.length_penalty:g}"


def signatures(
    settings: Settings, data: Prepared, split_name: str, *, precision: str, protocol: int
) -> dict[str, str]:
    """Return the signature of every metric on one split (`valid` or `test`)."""
    return {
        metric: metric_signature(
            metric,
            settings,
            data.splits[split_name],
            split_name,
            vocab_size=data.vocab_size,
            tokenizer_sha256=data.tokenizer_sha256,
            precision=precision,
            protocol=protocol,
        )
        for metric in NAMES
    }
