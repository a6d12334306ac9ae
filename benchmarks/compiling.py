"""Whole steps with blocks compiled by `torch.compile`, against the same steps without it."""

from benchmarks.measuring import Call, Case, Comparison, Side
from benchmarks.shapes import MIDDLE, QUICKSTART, TINY


def cases(tiny: bool = False) -> tuple[Case, ...]:
    """Return the case; a `tiny` one compiles a small model."""

    def side(name: str, **arguments: object) -> Side:
        return Side(name, ((Call("ours:step", arguments),),))

    shapes = (TINY,) if tiny else (QUICKSTART, MIDDLE)
    return (
        Case(
            "compile",
            "A step as it is shipped, against one whose blocks are compiled",
            "s for a million tokens, one thread, compilation left out",
            tuple(
                Comparison(
                    f"V {shape.vocab_size:,}, d {shape.d_model}",
                    side("as shipped", shape=shape.as_arguments()),
                    side("compiled blocks", shape=shape.as_arguments(), compiled=True),
                )
                for shape in shapes
            ),
            work=(1e6, "tokens/s"),
            note="A ratio above 1 says that compiling is slower. It takes a minute first.",
        ),
    )
