"""Trained cells put to use: scored on a text, and asked to continue a prompt.

Everything is taken from the run folder: settings and status from the records, the tokenizer from
the run's own `tokenizer.json`, weights from the verified checkpoints.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tyro_cli.analysis.records import CellRecord, RunRecords, load_run
from tyro_cli.config.schema import Settings
from tyro_cli.data.corpora import read_text
from tyro_cli.data.documents import split_documents
from tyro_cli.data.prepared import (
    TokenSplit,
    default_cache_folder,
    prepare_data,
    tokenize_split,
)
from tyro_cli.data.tokenizers import decode_tokens, encode_prompt, load_tokenizer
from tyro_cli.errors import NothingMatched, RunFolderError, StorageError
from tyro_cli.evaluation.generation import generate_tokens
from tyro_cli.evaluation.perplexity import split_scores, sweep_nats
from tyro_cli.evaluation.signatures import metric_signature
from tyro_cli.experiments.identity import PROTOCOL
from tyro_cli.experiments.limits import available_cores
from tyro_cli.models.language_model import LanguageModel, build_model
from tyro_cli.storage.checkpoints import newest_verified
from tyro_cli.storage.files import read_json
from tyro_cli.training.checkpoints import load_model
from tyro_cli.training.hardware import configure_process


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
    cells = _finished(run, arm, seed)
    configure_process("cpu", available_cores(), deterministic=True)
    tokenizer_sha256 = _sha256(run_folder / "tokenizer.json")
    splits: dict[str, TokenSplit] = {}
    if text is not None:
        tokenizer = load_tokenizer(run_folder / "tokenizer.json")
        data = _settings(cells[0]).data
        documents = split_documents(read_text(text), data.format)
        splits[text.name] = tokenize_split(tokenizer, documents, data.format)
    else:
        data = _settings(cells[0]).data
        prepared = prepare_data(data, base_folder=Path.cwd(), cache_folder=default_cache_folder())
        if prepared.content_sha256 != _trained_on(run_folder):
            raise RunFolderError(
                f"{data.corpus}: its text is not the one that {run_folder} was trained on",
                "put the corpus back, or score another text with --text FILE",
            )
        splits = {name: prepared.splits[name] for name in ("valid", "test")}
    rows = []
    for cell in cells:
        settings, model, step = _load(cell, checkpoint)
        stride = settings.evaluation.stride or settings.data.context_length // 2
        for name, split in splits.items():
            scores = split_scores(sweep_nats(model, split.tokens, stride=stride), split)
            metric = "token_perplexity" if split.num_unknown else "word_perplexity"
            rows.append(
                {"arm": cell.arm, "seed": cell.seed, "step": step, "split": name}
                | scores.as_record()
                | {
                    "signature": metric_signature(
                        metric,
                        settings,
                        split,
                        name,
                        vocab_size=model.embedding.weight.shape[0],
                        tokenizer_sha256=tokenizer_sha256,
                        precision="fp32",
                        protocol=PROTOCOL,
                    )
                }
            )
    return rows


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
    """
    run = load_run(run_folder)
    cell = _finished(run, arm or run.manifest.baseline, seed)[0]
    tokenizer = load_tokenizer(run_folder / "tokenizer.json")
    tokens = encode_prompt(tokenizer, prompt)
    configure_process("cpu", available_cores(), deterministic=True)
    _, model, _ = _load(cell, checkpoint)

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


def _trained_on(run_folder: Path) -> object:
    """Return the content hash of the corpus that the manifest names, if it does."""
    data = read_json(run_folder / "manifest.json").get("data")
    return data.get("content_sha256") if isinstance(data, dict) else None


def _finished(run: RunRecords, arm: str | None, seed: int | None) -> list[CellRecord]:
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


def _settings(cell: CellRecord) -> Settings:
    assert cell.result is not None
    return Settings.model_validate(cell.result.settings)


def _load(cell: CellRecord, checkpoint: str) -> tuple[Settings, LanguageModel, int]:
    assert cell.result is not None
    settings = _settings(cell)
    folder = cell.folder / "checkpoints"
    damaged: list[str] = []
    found = newest_verified(
        folder,
        "last" if checkpoint == "last" else "best",
        on_damage=lambda path, why: damaged.append(f"{path.name}: {why}"),
    )
    if found is None:
        raise StorageError(
            f"{folder}: there is no usable {checkpoint} checkpoint {'; '.join(damaged)}".rstrip(),
            "train the cell again: move its folder away and run the same command",
        )
    step, path = found
    model = build_model(
        settings.model, cell.result.vocab_size, settings.data.context_length, cell.seed
    )
    state = load_model(path, model)
    if state.get("cell_id") != cell.result.cell_id:
        raise RunFolderError(f"{path}: this checkpoint belongs to another cell")
    return settings, model, step


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
