"""Trained cells put to use: scored on a text, and asked to continue a prompt.

Everything is taken from the run folder: settings and status from the records, the tokenizer from
the run's own `tokenizer.json`, weights from the verified checkpoints.
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from tyro_cli.analysis.records import CellRecord, RunRecords, load_run
from tyro_cli.config.schema import Settings
from tyro_cli.data.corpora import read_text
from tyro_cli.data.documents import split_documents
from tyro_cli.data.pair_splits import PairSplit
from tyro_cli.data.prepared import TokenSplit, default_cache_folder, tokenize_split
from tyro_cli.data.preparing import Prepared, prepare
from tyro_cli.data.tokenizers import decode_tokens, encode_prompt, load_tokenizer
from tyro_cli.errors import (
    DamagedRecord,
    DataError,
    NothingMatched,
    RunFolderError,
    StorageError,
    UsageError,
)
from tyro_cli.evaluation.generation import generate_tokens
from tyro_cli.evaluation.perplexity import SplitScores, split_scores, sweep_nats
from tyro_cli.evaluation.signatures import metric_signature
from tyro_cli.evaluation.translation import pair_nats
from tyro_cli.experiments.identity import PROTOCOL
from tyro_cli.experiments.launchers.ray import STORAGE_RECORD
from tyro_cli.experiments.limits import available_cores
from tyro_cli.ledger.parameters import count_parameters
from tyro_cli.models.language_model import LanguageModel, build_model
from tyro_cli.models.translation_model import TranslationModel, build_translation_model
from tyro_cli.storage.checkpoints import MODEL, checkpoint_path
from tyro_cli.storage.files import read_json
from tyro_cli.storage.manifests import sha256_of_file, verify_manifest
from tyro_cli.storage.tensors import read_tensor_header
from tyro_cli.training.checkpoints import load_model
from tyro_cli.training.hardware import configure_process
from tyro_cli.training.tasks import Model

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0


def evaluate_run(
    run_folder: Path,
    *,
    text: Path | None,
    arm: str | None,
    seed: int | None,
    checkpoint: str,
) -> list[dict[str, Any]]:
    """Score the finished cells of a run, on their own valid and test or on another text.

    Args:
        run_folder: The run.
        text: A UTF-8 text file, split into documents as the run's own text was; None for the
            run's own splits.
        arm: Only this arm.
        seed: Only this seed.
        checkpoint: `best` or `last`.

    Returns:
        One flat record for each cell and split.

    Raises:
        NothingMatched: If no finished cell fits arm and seed.
        RunFolderError: If the corpus is not the one that the run was trained on.
    """
    run = load_run(run_folder)
    cells = finished_cells(run, arm, seed)
    configure_process("cpu", available_cores(), deterministic=True)
    tokenizer_sha256 = sha256_of_file(run_folder / "tokenizer.json")
    splits = _own_splits(run_folder, cells[0]) if text is None else _other_text(run, cells[0], text)
    rows: list[dict[str, Any]] = []
    for cell in cells:
        settings, model, step = load_cell(run, cell, checkpoint)
        for name, split in splits.items():
            metric = "token_perplexity" if split.num_unknown else "word_perplexity"
            signature = metric_signature(
                metric,
                settings,
                split,
                name,
                vocab_size=model.embedding.weight.shape[0],
                tokenizer_sha256=tokenizer_sha256,
                precision="fp32",
                protocol=PROTOCOL,
            )
            rows.append(
                {"arm": cell.arm, "seed": cell.seed, "step": step, "split": name}
                | _scores(settings, model, split).as_record()
                | {"signature": signature}
            )
    return rows


def _own_splits(run_folder: Path, cell: CellRecord) -> dict[str, TokenSplit | PairSplit]:
    """Return valid and test of the text that a run was trained on, read again."""
    prepared = data_of(run_folder, cell, "score another text with --text FILE")
    return {name: prepared.splits[name] for name in ("valid", "test")}


def data_of(run_folder: Path, cell: CellRecord, otherwise: str = "") -> Prepared:
    """Return the data that a run was trained on, read again or from the cache.

    Args:
        run_folder: The run.
        cell: One of its finished cells.
        otherwise: What else the user can do where the data is not there.

    Raises:
        DataError: The corpus cannot be read.
        RunFolderError: It is not the one that the run was trained on.
    """
    settings = settings_of(cell)
    otherwise = otherwise and f", or {otherwise}"
    try:
        prepared = prepare(
            settings.task,
            settings.data,
            cache_folder=default_cache_folder(),
        )
    except DataError as error:
        raise DataError(
            f"the corpus that {run_folder} was trained on: {error.message}",
            f"run the command where the run was started{otherwise}",
        ) from error
    if (prepared.content_sha256, prepared.tokenizer_sha256) != _trained_on(run_folder):
        raise RunFolderError(
            f"{settings.data.corpus}: its text, or the tokenizer trained on it, is not the one "
            f"that {run_folder} was trained on",
            "put the corpus back and install the versions that manifest.json names" + otherwise,
        )
    return prepared


def _other_text(run: RunRecords, cell: CellRecord, text: Path) -> dict[str, TokenSplit | PairSplit]:
    settings = settings_of(cell)
    if settings.task == "translation":
        raise UsageError(
            "--text: a translation model scores pairs of sentences, not a text",
            "leave --text out to score valid and test, or translate the lines of a file with "
            f"wtie translate {run.folder} < FILE",
        )
    tokenizer = load_tokenizer(run.folder / "tokenizer.json", vocab_size=run.manifest.vocab_size)
    documents = split_documents(read_text(text), settings.data.format)
    try:
        return {text.name: tokenize_split(tokenizer, documents, settings.data.format)}
    except DataError as error:
        raise DataError(f"{text}: {error.message}", error.remedy) from error


def _scores(settings: Settings, model: Model, split: TokenSplit | PairSplit) -> SplitScores:
    if isinstance(model, TranslationModel):
        assert isinstance(split, PairSplit)
        return split_scores(pair_nats(model, split), split)
    assert isinstance(split, TokenSplit)
    stride = settings.resolved_stride
    return split_scores(sweep_nats(model, split.tokens, stride=stride), split)


def generate_text(
    run_folder: Path,
    *,
    prompt: str,
    arm: str | None,
    seed: int | None,
    max_tokens: int,
    temperature: float,
    top_k: int | None,
    random_seed: int,
    checkpoint: str,
) -> Iterator[str]:
    """Return the text that one cell continues `prompt` with, piece by piece.

    The cell is that of the baseline arm and the first finished seed, unless they are given.

    Raises:
        NothingMatched: If no finished cell fits arm and seed.
        DataError: If the tokenizer cannot encode the prompt.
        UsageError: If the temperature is not one.
    """
    if not (temperature == 0 or MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE):
        raise UsageError(
            f"--temperature {temperature}: must be 0, or from {MIN_TEMPERATURE} to "
            f"{MAX_TEMPERATURE:g}",
            "0 takes the likeliest token; 0.8 is a usual value",
        )
    run = load_run(run_folder)
    if run.manifest.task == "translation":
        raise UsageError(
            f"{run_folder}: its models translate; they do not continue a prompt",
            f"wtie translate {run_folder} < FILE translates the lines of a file",
        )
    cell = finished_cells(run, arm or run.manifest.baseline, seed)[0]
    tokenizer = load_tokenizer(run_folder / "tokenizer.json", vocab_size=run.manifest.vocab_size)
    tokens = encode_prompt(tokenizer, prompt)
    configure_process("cpu", available_cores(), deterministic=True)
    _, model, _ = load_cell(run, cell, checkpoint)
    assert isinstance(model, LanguageModel)

    def pieces() -> Iterator[str]:
        drawn: list[int] = []
        shown = ""
        for token in generate_tokens(
            model,
            tokens,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            seed=random_seed,
        ):
            drawn.append(token)
            text = decode_tokens(tokenizer, drawn)
            if text.endswith("\N{REPLACEMENT CHARACTER}"):
                continue  # half a character; the next token may complete it
            yield text[len(shown) :]
            shown = text
        yield decode_tokens(tokenizer, drawn)[len(shown) :]

    return pieces()


def _trained_on(run_folder: Path) -> tuple[object, object]:
    """Return the hashes of corpus and tokenizer that the manifest names, if it does."""
    data = read_json(run_folder / "manifest.json").get("data")
    if not isinstance(data, dict):
        return None, None
    return data.get("content_sha256"), data.get("tokenizer_sha256")


def finished_cells(run: RunRecords, arm: str | None, seed: int | None) -> list[CellRecord]:
    """Return the finished cells of an arm and a seed; None takes all.

    Raises:
        NothingMatched: There is none.
    """
    if arm is not None and arm not in run.arms:
        raise NothingMatched(
            f"{run.folder}: there is no arm {arm!r}", f"the arms are: {', '.join(run.arms)}"
        )
    cells = [
        cell
        for cell in run.cells.values()
        if cell.status == "done" and arm in (None, cell.arm) and seed in (None, cell.seed)
    ]
    if not cells:
        raise NothingMatched(
            f"{run.folder}: no finished cell fits the request",
            "`wtie runs show` lists the cells of a run",
        )
    return cells


def settings_of(cell: CellRecord) -> Settings:
    """Return the settings that a finished cell was trained with."""
    assert cell.result is not None
    return Settings.model_validate(cell.result.settings)


def load_cell(run: RunRecords, cell: CellRecord, checkpoint: str) -> tuple[Settings, Model, int]:
    """Return a finished cell's settings, its model, and the step that it is of.

    Args:
        run: The run that the cell is of.
        cell: The cell.
        checkpoint: `best` or `last`.

    Raises:
        StorageError: The checkpoint is damaged or not there.
        RunFolderError: It belongs to another cell.
    """
    assert cell.result is not None
    settings = settings_of(cell)
    vocab_size, source_vocab_size = cell.result.vocab_size, run.manifest.source_vocab_size
    folder = cell.folder / "checkpoints"
    training = cell.result.training
    step = training.steps if checkpoint == "last" else training.best_step or 0
    path = checkpoint_path(folder, "last" if checkpoint == "last" else "best", step)
    try:
        verify_manifest(path)
    except StorageError as error:
        elsewhere = cell.folder / STORAGE_RECORD
        raise StorageError(
            f"there is no usable {checkpoint} checkpoint: {error.message}",
            f"{elsewhere} names the folder that holds them: copy its `checkpoints` to {cell.folder}"
            if elsewhere.exists()
            else f"train the cell again: move {cell.folder} away and run the same command",
        ) from error
    _check_size(path / MODEL, settings, vocab_size, source_vocab_size)
    context_length = settings.data.context_length
    model: Model
    if source_vocab_size is None:
        model = build_model(settings.model, vocab_size, context_length, cell.seed)
    else:
        model = build_translation_model(
            settings.model, source_vocab_size, vocab_size, context_length, cell.seed
        )
    state = load_model(path, model)
    if state.get("cell_id") != cell.result.cell_id:
        raise RunFolderError(f"{path}: this checkpoint belongs to another cell")
    return settings, model, step


def _check_size(
    path: Path, settings: Settings, vocab_size: int, source_vocab_size: int | None
) -> None:
    """Refuse settings that would build another model than the one on disk, however large."""
    stored = sum(prod(entry.shape) for entry in read_tensor_header(path).values())
    counted = count_parameters(
        settings.model, vocab_size, settings.data.context_length, source_vocab_size
    )
    if stored != counted:
        raise DamagedRecord(
            f"{path}: holds {stored:,} parameters, the settings in result.json say {counted:,}",
            "restore the run from a copy, or train the cell again",
        )
