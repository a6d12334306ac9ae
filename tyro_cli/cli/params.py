"""`wtie params`: the ledger of an experiment, or of a published model; nothing is trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tyro_cli.cli.options import JsonOption, Overrides, checked_overrides, load_checked
from tyro_cli.cli.streams import print_json, print_line, warn
from tyro_cli.cli.tables import draw_table
from tyro_cli.errors import UsageError

if TYPE_CHECKING:
    from tyro_cli.config.loading import LoadedExperiment


def params(
    overrides: Overrides = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="The experiment: a YAML file."),
    ] = None,
    hf: Annotated[
        Path | None,
        typer.Option(
            "--hf", metavar="CONFIG.json", help="The config.json of a published model instead."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count parameters, bytes and FLOPs; nothing is trained."""
    words = checked_overrides(overrides)
    if (config is None) == (hf is None):
        raise UsageError(
            "say what to count: one of --config FILE and --hf CONFIG.json",
            "wtie params --config configs/quickstart.yaml",
        )
    if hf is not None:
        _count_published_model(hf, words, as_json=as_json)
    else:
        assert config is not None
        _count_experiment(config, words, as_json=as_json)


def _count_experiment(config: Path, overrides: list[str], *, as_json: bool) -> None:
    loaded = load_checked(config, overrides)
    from tyro_cli.analysis.formats import Manifest
    from tyro_cli.analysis.records import RunRecords
    from tyro_cli.analysis.tables import parameter_table
    from tyro_cli.ledger.ledger import ledger_of
    from tyro_cli.ledger.matching import NoMatch, solve_matches

    vocab_size, source_vocab_size = _vocab_sizes(loaded)
    try:
        solved = solve_matches(loaded.arms, vocab_size, source_vocab_size)
    except NoMatch as error:
        raise loaded.error(f"arms.{error.arm}.match", error.message, error.remedy) from error
    arms = {
        name: {
            "order": order,
            "settings": arm.arm.settings.as_record(),
            "match": arm.as_record(),
            "ledger": ledger_of(
                arm.arm.settings, vocab_size, source_vocab_size=source_vocab_size
            ).as_record(),
        }
        for order, (name, arm) in enumerate(solved.items())
    }
    if as_json:
        print_json({"vocab_size": vocab_size, "arms": arms})
        return
    experiment = loaded.experiment
    manifest = Manifest.model_validate(
        {
            "format": 1,
            "run_id": "",
            "name": experiment.name,
            "task": experiment.task,
            "baseline": experiment.baseline,
            "margin": experiment.analysis.margin,
            "vocab_size": vocab_size,
            "arms": arms,
            "plans": [],
        }
    )
    draw_table(parameter_table(RunRecords(config.parent, manifest, {})))
    if experiment.training.precision == "auto":
        print_line()
        print_line("Training memory is counted for fp32; hardware that takes bf16 needs less.")


def _vocab_sizes(loaded: "LoadedExperiment") -> tuple[int, int | None]:
    """Return the sizes of the vocabulary, and of the source's where there is one.

    Only a `word` vocabulary that no one counted needs the data.
    """
    from tyro_cli.config.schema import BYTE_VOCAB_SIZE
    from tyro_cli.data.prepared import default_cache_folder
    from tyro_cli.data.preparing import prepare

    data = loaded.experiment.data
    if data.tokenizer.kind == "byte":
        return BYTE_VOCAB_SIZE, None
    if data.tokenizer.vocab_size is not None:
        return data.tokenizer.vocab_size, None
    warn("the vocabulary is counted from the corpus")
    prepared = prepare(
        loaded.experiment.task,
        data,
        cache_folder=default_cache_folder(),
        on_progress=warn,
    )
    return prepared.vocab_size, prepared.source_vocab_size


def _count_published_model(path: Path, overrides: list[str], *, as_json: bool) -> None:
    from tyro_cli.analysis.columns import Column, Row, Table
    from tyro_cli.ledger.huggingface import hf_ledger

    if overrides:
        raise UsageError(f"{overrides[0]!r} changes nothing with --hf", "leave it out")
    model = hf_ledger(path)
    if as_json:
        print_json(model.as_record())
        return
    rest = model.total - model.embedding - model.positions - model.head
    counts = {
        "token embedding": model.embedding,
        "positions": model.positions,
        "head": model.head,
        "everything else": rest,
        "total": model.total,
    }
    rows: tuple[Row, ...] = tuple(
        {"quantity": name, "value": count, "share": count / model.total}
        for name, count in counts.items()
    )
    roles, times = ("", "") if model.roles == 2 else (" in all three roles", "2 x ")
    tie = f"is tied{roles}, which saves" if model.tied else "is not tied; a tie would save"
    shape = f"{model.vocab_size:,} x {model.d_model:,}"
    note = (
        f"The {model.model_type} model {tie} {times}V x d = {times}{shape} = {model.saving:,} "
        f"parameters, {100 * model.saving_share:.1f} % of the untied total."
    )
    notes = [note]
    if model.without_head:
        notes.append(
            f"{model.without_head} predicts no tokens: what is counted is the language model of "
            "the same shape, with its head and without theirs."
        )
    columns = (
        Column("quantity", "unique parameters"),
        Column("value", "count", "integer"),
        Column("share", "share", "percent", 1),
    )
    draw_table(Table("published", f"Parameters of {path}", columns, rows, tuple(notes)))
