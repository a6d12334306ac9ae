"""`wtie eval` and `wtie generate`: use the cells of a run after training."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tyro_cli.cli.options import JsonOption, RunArgument
from tyro_cli.cli.streams import print_json, print_line, printable, result_console
from tyro_cli.errors import UsageError

CHECKPOINTS = ("best", "last")

ArmOption = Annotated[str | None, typer.Option("--arm", metavar="ARM", help="Only this arm.")]
SeedOption = Annotated[int | None, typer.Option("--seed", metavar="SEED", help="Only this seed.")]
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
    _check_checkpoint(checkpoint)
    from tyro_cli.experiments.use import evaluate_run

    records = evaluate_run(run, text=text, arm=arm, seed=seed, checkpoint=checkpoint)
    if as_json:
        print_json(records)
        return
    from rich.table import Table

    columns = list(dict.fromkeys(key for record in records for key in record))
    signatures = list(dict.fromkeys(r["signature"] for r in records if r.get("signature")))
    table = Table(box=None, pad_edge=False, show_edge=False)
    for column in columns:
        if column != "signature":
            is_number = any(isinstance(record.get(column), int | float) for record in records)
            table.add_column(
                column.replace("_", " "),
                justify="right" if is_number else "left",
                overflow="fold",
                vertical="bottom",
            )
    for record in records:
        table.add_row(*(_shown(record.get(column)) for column in columns if column != "signature"))
    result_console().print(table)
    for signature in signatures:
        print_line(f"signature: {signature}")


def generate(
    run: RunArgument,
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="What to continue.")],
    arm: Annotated[
        str | None,
        typer.Option("--arm", metavar="ARM", help="The arm; the baseline where not given."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="SEED", help="The seed; the first done where not given."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(metavar="COUNT", min=1, help="Tokens to draw.")] = 100,
    temperature: Annotated[
        float, typer.Option(metavar="NUMBER", min=0.0, help="0 takes the likeliest token.")
    ] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(metavar="COUNT", min=1, help="Draw among the likeliest only.")
    ] = None,
    random_seed: Annotated[
        int, typer.Option(metavar="SEED", min=0, help="Of the draws: one seed, one text.")
    ] = 0,
    checkpoint: CheckpointOption = "best",
    as_json: JsonOption = False,
) -> None:
    """Continue a prompt with one trained cell."""
    _check_checkpoint(checkpoint)
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


def _check_checkpoint(checkpoint: str) -> None:
    if checkpoint not in CHECKPOINTS:
        raise UsageError(f"--checkpoint {checkpoint!r} is unknown", "best or last")


def _shown(value: object) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return f"{value:,.4f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
