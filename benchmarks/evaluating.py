"""Evaluation per token against training per token, and training against the machine's products."""

from benchmarks.measuring import Call, Case, Comparison, Side
from benchmarks.shapes import MIDDLE, TINY

CHUNK_TOKENS = 2048  # of the head at V 8192: see ledger/memory.HEAD_CHUNK_BYTES


def cases(tiny: bool = False) -> tuple[Case, ...]:
    """Return the cases; `tiny` ones run in no time."""
    shape = TINY if tiny else MIDDLE
    where = {"shape": shape.as_arguments()}
    training = Side("training, bf16", ((Call("ours:train", where | {"tied": True}),),))

    def sweep(precision: str, stride: int) -> Side:
        call = Call("ours:sweep", where | {"precision": precision, "stride": stride})
        return Side(f"sweep, {precision}, stride {stride}", ((call,),))

    length = shape.context_length
    steps = tuple(Call("ours:train_per_flop", where | {"tied": tied}) for tied in (False, True))
    product = Call("ours:best_product", where | {"tokens": CHUNK_TOKENS})
    return (
        Case(
            "evaluation-final",
            "The final sweep in float32, against training, for each token scored",
            "s for a million tokens",
            (Comparison(f"V {shape.vocab_size:,}", sweep("fp32", length // 2), training),),
            goal=1.0,
            work=(1e6, "tokens/s"),
            note="A token scored at half a window's stride is read twice by the blocks.",
        ),
        Case(
            "evaluation-training",
            "The sweep during training, against training, for each token",
            "s for a million tokens",
            (Comparison(f"V {shape.vocab_size:,}", sweep("bf16", length), training),),
            goal=2.0,
            work=(1e6, "tokens/s"),
        ),
        Case(
            "product-share",
            "Whole training steps, against the head's fastest product alone, for each FLOP",
            "s for a TFLOP, in each of two processes",
            (
                Comparison(
                    f"V {shape.vocab_size:,}, d {shape.d_model}",
                    Side("training, bf16", (steps,)),
                    Side("product, bf16", ((product, product),)),
                ),
            ),
            goal=0.6,
            work=(2e3, "GFLOP/s"),
            note="FLOPs are the ledger's: three times the forward products, attention in full.",
        ),
    )
