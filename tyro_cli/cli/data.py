"""`wtie data`: the corpora there are, what one holds, and tokens prepared ahead of training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from tyro_cli.cli.options import (
    ConfigOption,
    JsonOption,
    Overrides,
    checked_overrides,
    folder_bytes,
)
from tyro_cli.cli.streams import print_json, print_line, warn
from tyro_cli.cli.tables import draw_table

BUILT_IN = {
    "kjv": "the King James text, about 4.1 MB; a document is a chapter (extra: corpora)",
}
ELSEWHERE = {
    "FOLDER": "train.txt, valid.txt, test.txt; wiki.train.tokens or .raw; or the hub's parquet",
    "hf:OWNER/NAME[:CONFIG][@REVISION]": "a dataset of the Hugging Face hub",
}

app = typer.Typer(
    help="List corpora, show one, or prepare its tokens.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("ls")
def list_(as_json: JsonOption = False) -> None:
    """List the corpora there are, and what is prepared."""
    from tyro_cli.data.prepared import default_cache_folder

    cache = default_cache_folder() / "data"
    prepared = {
        folder.name: folder_bytes(folder)
        for folder in (sorted(cache.iterdir()) if cache.is_dir() else [])
        if (folder / "tokenizer.json").is_file()
    }
    if as_json:
        record = {"built_in": BUILT_IN, "elsewhere": ELSEWHERE, "folder": str(cache)}
        print_json(record | {"prepared_bytes": prepared})
        return
    for name, text in (*BUILT_IN.items(), *ELSEWHERE.items()):
        print_line(f"{name}: {text}")
    size = sum(prepared.values()) / 2**20
    print_line(f"prepared: {len(prepared)} under {cache}, {size:.1f} MiB")


@app.command("info")
def info(config: ConfigOption, overrides: Overrides = None, as_json: JsonOption = False) -> None:
    """Show what a corpus holds, before any tokenizer."""
    from tyro_cli.config.loading import load_experiment
    from tyro_cli.data.corpora import load_corpus
    from tyro_cli.data.documents import count_words, split_documents

    data = load_experiment(config, checked_overrides(overrides)).experiment.data
    corpus = load_corpus(data, base_folder=Path.cwd(), on_progress=warn)
    splits = {}
    for split, text in corpus.texts.items():
        documents = split_documents(text, data.format)
        splits[split] = {
            "documents": len(documents),
            "words": sum(count_words(document, data.format) for document in documents),
            "bytes": len(text.encode("utf-8")),
            "sha256": corpus.text_sha256[split],
        }
    if as_json:
        print_json({"corpus": corpus.name, "format": data.format, "splits": splits})
        return
    _draw_splits(f"{corpus.name}, format {data.format}", splits)


@app.command("prepare")
def prepare(config: ConfigOption, overrides: Overrides = None, as_json: JsonOption = False) -> None:
    """Train the tokenizer and write the token arrays.

    `wtie train` does it where it was not done; a second time it does nothing.
    """
    from tyro_cli.config.loading import load_experiment
    from tyro_cli.data.prepared import default_cache_folder, prepare_data

    data = load_experiment(config, checked_overrides(overrides)).experiment.data
    prepared = prepare_data(
        data,
        base_folder=Path.cwd(),
        cache_folder=default_cache_folder(),
        on_progress=warn,
    )
    facts = prepared.facts()
    if as_json:
        print_json({"folder": str(prepared.folder), **facts})
        return
    tokenizer = f"{prepared.tokenizer_kind} vocabulary of {prepared.vocab_size:,}"
    _draw_splits(f"{data.corpus}, {tokenizer}", facts["splits"])
    print_line(f"folder: {prepared.folder}")


def _draw_splits(title: str, splits: Mapping[str, Mapping[str, Any]]) -> None:
    from tyro_cli.analysis.columns import Column, Table

    keys = next(iter(splits.values()))
    columns = [Column("split", "split")]
    for key, value in keys.items():
        if isinstance(value, int):
            columns.append(Column(key, key.replace("_", " "), "integer"))
        else:
            columns.append(Column(key, key.replace("_", " ")))
    rows = tuple(
        {"split": split}
        | {key: value[:12] if isinstance(value, str) else value for key, value in facts.items()}
        for split, facts in splits.items()
    )
    draw_table(Table("splits", title, tuple(columns), rows))
