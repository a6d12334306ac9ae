"""`wtie eval`, `wtie generate` and `wtie translate`: use the cells of a run after training."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tyro_cli.cli.options import JsonOption, RunArgument
from tyro_cli.cli.streams import print_json, print_line, printable, warn
from tyro_cli.cli.tables import draw_table
from tyro_cli.errors import UsageError

if TYPE_CHECKING:
    from tyro_cli.analysis.columns import Column

CHECKPOINTS = ("best", "last")

ArmOption = Annotated[str | None, typer.Option("--arm", metavar="ARM", help="Only this arm.")]
SeedOption = Annotated[int | None, typer.Option("--seed", metavar="SEED", help="Only this seed.")]
OneArmOption = Annotated[
    str | None,
    typer.Option("--arm", metavar="ARM", help="The arm; the baseline where not given."),
]
OneSeedOption = Annotated[
    int | None,
    typer.Option("--seed", metavar="SEED", help="The seed; the first done where not given."),
]
CheckpointOption = Annotated[
    str,
    typer.Option("--checkpoint", metavar="WHICH", help="best (lowest loss on valid) or last."),
]


def evaluate(
    run: RunArgument,
    text: Annotated[
        Path | None,
        typer.Option(
            "--text", metavar="FILE", help="Score this UTF-8 text instead of valid and test."
        ),
    ] = None,
    arm: ArmOption = None,
    seed: SeedOption = None,
    checkpoint: CheckpointOption = "best",
    as_json: JsonOption = False,
) -> None:
    """Score trained cells on their own splits, or on another text."""
    check_checkpoint(checkpoint)
    from tyro_cli.experiments.use import evaluate_run

    records = evaluate_run(run, text=text, arm=arm, seed=seed, checkpoint=checkpoint)
    if as_json:
        print_json(records)
        return
    from tyro_cli.analysis.columns import Table

    signatures = dict.fromkeys(str(record["signature"]) for record in records)
    draw_table(
        Table(
            "scores",
            f"Scores of {run.name}, {checkpoint} checkpoints",
            score_columns(),
            tuple(records),
            tuple(f"`{signature}`" for signature in signatures),
        )
    )


def score_columns() -> tuple["Column", ...]:
    """Return the columns of `wtie eval`; `--json` has every number."""
    from tyro_cli.analysis.columns import Column

    return (
        Column("arm", "arm"),
        Column("seed", "seed", "integer"),
        Column("split", "text"),
        Column("nats_per_token", "nats/token", "number"),
        Column("token_perplexity", "token ppl", "number", 2),
        Column("word_perplexity", "word ppl", "number", 2),
        Column("bits_per_byte", "bits/byte", "number"),
    )


def generate(
    run: RunArgument,
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="What to continue.")],
    arm: OneArmOption = None,
    seed: OneSeedOption = None,
    max_tokens: Annotated[int, typer.Option(metavar="COUNT", min=1, help="Tokens to draw.")] = 100,
    temperature: Annotated[
        float, typer.Option(metavar="NUMBER", min=0.0, help="0 takes the likeliest token.")
    ] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(metavar="COUNT", min=1, help="Draw among the likeliest only.")
    ] = None,
    random_seed: Annotated[
        int,
        typer.Option(
            metavar="SEED", min=0, max=2**63 - 1, help="Of the draws: one seed, one text."
        ),
    ] = 0,
    checkpoint: CheckpointOption = "best",
    as_json: JsonOption = False,
) -> None:
    """Continue a prompt with one trained cell."""
    check_checkpoint(checkpoint)
    from tyro_cli.experiments.use import generate_text

    pieces = generate_text(
        run,
        prompt=prompt,
        arm=arm,
        seed=seed,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        random_seed=random_seed,
        checkpoint=checkpoint,
    )
    if as_json:
        print_json({"prompt": prompt, "text": "".join(pieces)})
        return
    for piece in pieces:
        sys.stdout.write(printable(piece, sys.stdout))
        sys.stdout.flush()
    print_line()


def translate(
    run: RunArgument,
    arm: OneArmOption = None,
    seed: OneSeedOption = None,
    beam: Annotated[
        int | None,
        typer.Option(
            "--beam",
            metavar="COUNT",
            min=1,
            max=100,
            help="Hypotheses kept, 1 is greedy; the run's own where not given.",
        ),
    ] = None,
    checkpoint: CheckpointOption = "best",
) -> None:
    """Translate the lines of standard input, a sentence a line.

    An empty line stays empty. A line with more tokens than the model reads is cut there, and stderr
    says which. A line that is not UTF-8 ends the command, after the lines before it. What is typed
    is translated line by line.
    """
    check_checkpoint(checkpoint)
    from tyro_cli.experiments.translating import BLOCK_LINES, translate_lines

    for line in translate_lines(
        run,
        sys.stdin.buffer,
        arm=arm,
        seed=seed,
        beam_size=beam,
        checkpoint=checkpoint,
        warn=warn,
        at_a_time=1 if sys.stdin.isatty() else BLOCK_LINES,
    ):
        print_line(line)
        sys.stdout.flush()


def check_checkpoint(checkpoint: str) -> None:
    """Raise `UsageError` where a checkpoint is none that a cell has."""
    if checkpoint not in CHECKPOINTS:
        raise UsageError(f"--checkpoint {checkpoint!r} is unknown", "best or last")
