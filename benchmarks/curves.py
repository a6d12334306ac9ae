"""How the cost of a step grows with the vocabulary and with the context, on one thread.

Each point is a comparison of its own: with all logits at once along V, with torch's fused attention
along T. The exponent fitted to each side's medians says how fast it grows: blocks cost the same at
any V, so it is below 1 along V and rises towards 1.
"""

from dataclasses import replace

from benchmarks.measuring import Call, Case, Comparison, Side
from benchmarks.shapes import TINY, Shape

UNIT = "s for a million tokens"
WORK = (1e6, "tokens/s")
ALONG_V = Shape(1024, 256, 2, 4, 1024, 256, 16)
ALONG_T = Shape(2048, 256, 2, 4, 1024, 64, 64)
PLAIN_BYTES_PER_LOGIT = 16  # bfloat16 and float32 logits, their log-softmax and its gradient


def _side(name: str, shape: Shape, **choice: str) -> Side:
    needed = 0
    if choice.get("loss") == "plain":
        needed = PLAIN_BYTES_PER_LOGIT * shape.vocab_size * shape.batch_tokens
    call = Call("ours:step", {"shape": shape.as_arguments()} | choice)
    return Side(name, ((call,),), needed)


def cases(tiny: bool = False) -> tuple[Case, ...]:
    """Return the cases; `tiny` ones run in no time."""
    vocabularies = (31, 61) if tiny else (1024, 4096, 16_384, 65_536, 131_072)
    contexts = (4, 8) if tiny else (64, 128, 256, 512, 1024)
    along_v, along_t = (TINY, TINY) if tiny else (ALONG_V, ALONG_T)
    by_vocabulary, by_context = [], []
    for vocab_size in vocabularies:
        shape = replace(along_v, vocab_size=vocab_size)
        ours = _side("wtie's head loss", shape)
        peer = _side("all logits at once", shape, loss="plain")
        by_vocabulary.append(Comparison(f"V {vocab_size:,}", ours, peer, vocab_size))
    for length in contexts:
        windows = along_t.batch_tokens // length
        shape = replace(along_t, context_length=length, batch_windows=windows)
        ours = _side("wtie's attention", shape)
        peer = _side("fused attention", shape, attention="flash")
        by_context.append(Comparison(f"T {length:,}", ours, peer, length))
    return (
        Case(
            "curve-vocabulary",
            f"Cost against V (d {along_v.d_model}, {along_v.num_layers} layers, "
            f"T {along_v.context_length}, {along_v.batch_tokens:,} tokens a step, one thread)",
            UNIT,
            tuple(by_vocabulary),
            work=WORK,
        ),
        Case(
            "curve-context",
            f"Cost against T (V {along_t.vocab_size:,}, d {along_t.d_model}, "
            f"{along_t.num_layers} layers, {along_t.batch_tokens:,} tokens a step, one thread)",
            UNIT,
            tuple(by_context),
            work=WORK,
        ),
    )
