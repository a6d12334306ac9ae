"""`wtie params`: the ledger of an experiment, or of a published model; nothing is trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tyro_cli.cli.options import JsonOption, Overrides, checked_overrides
from tyro_cli.cli.streams import print_json
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
    from tyro_cli.cli.tables import draw_ledgers
    from tyro_cli.config.loading import load_experiment
    from tyro_cli.experiments.confounds import check_confounds
    from tyro_cli.ledger.ledger import ledger_of
    from tyro_cli.ledger.matching import solve_matches

    loaded = load_experiment(config, overrides)
    check_confounds(loaded)
    vocab_size = _vocab_size(loaded)
    solved = solve_matches(loaded.arms, vocab_size)
    ledgers = {name: ledger_of(arm.arm.settings, vocab_size) for name, arm in solved.items()}
    if as_json:
        print_json({name: ledger.as_record() for name, ledger in ledgers.items()})
        return
    draw_ledgers(ledgers)


def _vocab_size(loaded: "LoadedExperiment") -> int:
    """Return the vocabulary's size; only a `word` one that no one counted needs the data."""
    from tyro_cli.cli.streams import warn
    from tyro_cli.config.schema import BYTE_VOCAB_SIZE

    data = loaded.experiment.data
    if data.tokenizer.kind == "byte":
        return BYTE_VOCAB_SIZE
    if data.tokenizer.vocab_size is not None:
        return data.tokenizer.vocab_size
    from tyro_cli.data.prepared import default_cache_folder, prepare_data

    warn("the vocabulary is counted from the corpus")
    prepared = prepare_data(
        data, base_folder=Path.cwd(), cache_folder=default_cache_folder(), on_progress=warn
    )
    return prepared.vocab_size


def _count_published_model(path: Path, overrides: list[str], *, as_json: bool) -> None:

    if overrides:
        raise UsageError(f"{overrides[0]!r} changes nothing with --hf", "edit the file instead")
