"""Lines translated by a trained cell, in the order in which they come.

Lines are taken a block at a time, so that a pipe is served while it is written to. One line is one
sentence: an empty one stays empty, and a longer one than the model reads is cut, and said.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from tyro_cli.analysis.records import load_run
from tyro_cli.data.tokenizers import EOS_ID, encode_documents, is_word_tokenizer, load_tokenizer
from tyro_cli.errors import DataError, UsageError
from tyro_cli.evaluation.translation import Search, search_of, translations_of
from tyro_cli.experiments.limits import available_cores
from tyro_cli.experiments.use import finished_cells, load_cell
from tyro_cli.models.translation_model import TranslationModel
from tyro_cli.training.hardware import configure_process

BLOCK_LINES = 64


def translate_lines(
    run_folder: Path,
    lines: Iterable[bytes],
    *,
    arm: str | None,
    seed: int | None,
    beam_size: int | None,
    checkpoint: str,
    warn: Callable[[str], None],
    at_a_time: int = BLOCK_LINES,
) -> Iterator[str]:
    """Yield the translation of every line.

    The cell is that of the baseline arm and the first finished seed, unless they are given.

    Args:
        run_folder: A run that translates.
        lines: UTF-8 lines, with or without their line end.
        arm: Only this arm.
        seed: Only this seed.
        beam_size: Instead of the run's own.
        checkpoint: `best` or `last`.
        warn: Told of lines that are cut.
        at_a_time: Lines of a block; 1 answers each before it asks for the next.

    Raises:
        UsageError: The run's models do not translate.
        NothingMatched: If no finished cell fits arm and seed.
        DataError: A line is not UTF-8; the lines before it were translated.
    """
    run = load_run(run_folder)
    if run.manifest.task != "translation":
        raise UsageError(
            f"{run_folder}: its models continue a text; they do not translate",
            f"wtie generate {run_folder} --prompt TEXT continues one",
        )
    cell = finished_cells(run, arm or run.manifest.baseline, seed)[0]
    own = run_folder / "source-tokenizer.json"
    target_tokenizer = load_tokenizer(
        run_folder / "tokenizer.json", vocab_size=run.manifest.vocab_size
    )
    source_tokenizer = target_tokenizer
    if own.exists():
        source_tokenizer = load_tokenizer(own, vocab_size=run.manifest.source_vocab_size)
    configure_process("cpu", available_cores(), deterministic=True)
    settings, model, _ = load_cell(run, cell, checkpoint)
    assert isinstance(model, TranslationModel)
    search = search_of(settings)
    if beam_size is not None:
        search = Search(beam_size, search.length_penalty)
    ends = [] if is_word_tokenizer(source_tokenizer) else [EOS_ID]
    numbered = enumerate(lines, start=1)
    while block := list(islice(numbered, at_a_time)):
        texts: list[str] = []
        problem = None
        for number, line in block:
            try:
                texts.append(_decoded(line, number))
            except DataError as error:
                problem = error
                break
        sources = []
        encoded = encode_documents(source_tokenizer, texts)
        for number, ids in enumerate(encoded, start=block[0][0]):
            tokens = np.array([*ids, *ends], dtype=np.int64)
            if len(tokens) > model.context_length:
                warn(
                    f"line {number:,}: {len(tokens):,} tokens, the model reads "
                    f"{model.context_length:,}; the rest is left out"
                )
                tokens = np.append(tokens[: model.context_length - 1], EOS_ID)
            sources.append(tokens)
        spoken = [index for index, text in enumerate(texts) if text]
        found = translations_of(
            model,
            [sources[index] for index in spoken],
            target_tokenizer,
            search,
            has_own_script=settings.data.disjoint_fraction > 0,
        )
        translated = dict(zip(spoken, found, strict=True))
        yield from (translated.get(index, "") for index in range(len(texts)))
        if problem is not None:
            raise problem


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input, line {number:,}: not valid UTF-8 at byte {error.start} "
            f"(0x{error.object[error.start]:02x})",
            "convert the text to UTF-8, for example with: iconv -f latin1 -t utf-8",
        ) from error
