"""`wtie probe`: the word representations of a run's trained cells."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tyro_cli.cli.options import JsonOption, RunArgument
from tyro_cli.cli.streams import print_json, print_line, warn
from tyro_cli.cli.tables import draw_table
from tyro_cli.cli.use import ArmOption, CheckpointOption, SeedOption, check_checkpoint

if TYPE_CHECKING:
    from tyro_cli.analysis.columns import Table


def probe(
    run: RunArgument,
    arm: ArmOption = None,
    seed: SeedOption = None,
    checkpoint: CheckpointOption = "best",
    neighbours: Annotated[
        list[str] | None,
        typer.Option(
            "--neighbours",
            metavar="WORD",
            help="Show the nearest neighbours of this word, too; may be given several times.",
        ),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs",
            metavar="FILE",
            help="Correlate with rated pairs, too: word1, word2, score a line, by tabs or commas.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the embeddings of trained cells, tied and untied.

    Their shape, how much the seeds agree, which untied matrix the tied one is like, and the
    gradients of its roles where training measured them.

    Of a whole run at its best checkpoints the measurements are kept: probes.json in the run folder,
    and tables/probes.*. docs/PROBES.md has every formula and its source.
    """
    check_checkpoint(checkpoint)
    from tyro_cli.analysis.probe_tables import probe_tables
    from tyro_cli.analysis.probes import ProbeRecord
    from tyro_cli.analysis.rendering import table_record, write_tables
    from tyro_cli.evaluation.probes.words import read_rated_pairs
    from tyro_cli.experiments import word_probes
    from tyro_cli.experiments.probing import measure, open_probe, write_probes

    rated = None if pairs is None else (pairs, read_rated_pairs(pairs))
    opened = open_probe(run, arm, seed)
    # What cannot be answered is told before anything is measured.
    places = word_probes.places_of(opened, neighbours or [])
    covered = None if rated is None else word_probes.covered_pairs(opened, *rated)
    record, spaces = measure(opened, checkpoint, warn)
    tables: dict[str, Table] = {}
    answers: dict[str, Any] = {}
    if places:
        answer = word_probes.answer_neighbours(opened, spaces, places)
        answers["neighbours"], tables["neighbours"] = answer.record, answer.table
    if covered is not None:
        answer = word_probes.answer_pairs(spaces, covered)
        answers["pairs"], tables["pairs"] = answer.record, answer.table
    if arm is None and seed is None and checkpoint == "best":
        own = probe_tables(write_probes(run, record))
        write_tables(run, own)
    else:
        own = probe_tables(ProbeRecord.model_validate(record))
        warn("a part of the run, or its last checkpoints: probes.json is left as it is")
    tables = own | tables
    if as_json:
        print_json(
            {"run": str(run), "probes": record}
            | answers
            | {"tables": {name: table_record(table) for name, table in tables.items()}}
        )
        return
    for table in tables.values():
        draw_table(table)
        print_line()
    print_line(f"run: {run}")
