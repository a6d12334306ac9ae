"""Both arms of an experiment: our two workers at once, against a peer training one after the other.

Equal work on both sides: a cost is the wall-clock for a million tokens of each arm, start-up left
out. Ours is what the slower of two worker processes takes, each with half of the cores; the peer's
is the sum over its two runs, each with all of them.
"""

from benchmarks.measuring import ALL_THREADS, OUR_THREADS, Call, Case, Comparison, Side
from benchmarks.shapes import MIDDLE, QUICKSTART, TINY, WORDS, Shape

UNIT = "s for a million tokens of each arm"
WORK = (2e6, "tokens/s")


def _pair(shape: Shape, ours: str, peer: str, our_name: str, peer_name: str) -> Comparison:
    arguments = {"shape": shape.as_arguments()}

    def call(function: str, tied: bool, threads: int) -> Call:
        return Call(function, arguments | {"tied": tied, "threads": threads}, threads)

    our_calls = tuple(call(ours, tied, OUR_THREADS) for tied in (False, True))
    peer_calls = tuple((call(peer, tied, ALL_THREADS),) for tied in (False, True))
    label = (
        f"V {shape.vocab_size:,}, d {shape.d_model}, {shape.num_layers} layers, "
        f"T {shape.context_length}, batch {shape.batch_windows}"
    )
    return Comparison(label, Side(our_name, (our_calls,)), Side(peer_name, peer_calls))


def cases(tiny: bool = False) -> tuple[Case, ...]:
    """Return the cases; `tiny` ones run in no time."""
    quickstart, middle, words = (TINY, TINY, TINY) if tiny else (QUICKSTART, MIDDLE, WORDS)
    trainer = ("ours:train", "peers:hugging_face_trainer", "wtie, bf16", "Trainer, bf16")
    shipped = ("ours:train", "peers:word_language_model", "wtie, bf16 and AdamW", "classic loop")
    same = (
        "ours:train_float32_sgd",
        "peers:word_language_model",
        "wtie's model, float32 and SGD",
        "classic loop",
    )
    return (
        Case(
            "pair-2048",
            "A pair at the quickstart's size, against transformers' Trainer",
            UNIT,
            (_pair(quickstart, *trainer),),
            work=WORK,
        ),
        Case(
            "pair-8192",
            "A pair at V 8192, against transformers' Trainer",
            UNIT,
            (_pair(middle, *trainer),),
            goal=2.6,
            work=WORK,
        ),
        Case(
            "pair-33278",
            "A pair of word models as shipped, against the classic loop in float32 with SGD",
            UNIT,
            (_pair(words, *shipped),),
            goal=5.0,
            work=WORK,
        ),
        Case(
            "pair-33278-float32-sgd",
            "A pair of word models in float32 with SGD on both sides",
            UNIT,
            (_pair(words, *same),),
            goal=2.0,
            work=WORK,
        ),
    )
