"""`wtie data`: the corpora there are, what one holds, and tokens prepared ahead of training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from tyro_cli.cli.options import ConfigOption, JsonOption, Overrides, checked_overrides
from tyro_cli.cli.streams import print_json, print_line, result_console, warn

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
    prepared = [
        {
            "folder": str(folder),
            "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        }
        for folder in (sorted(cache.iterdir()) if cache.is_dir() else [])
        if folder.is_dir() and (folder / "tokenizer.json").is_file()
    ]
    if as_json:
        print_json({"built_in": BUILT_IN, "elsewhere": ELSEWHERE, "prepared": prepared})
        return
    for name, text in (*BUILT_IN.items(), *ELSEWHERE.items()):
        print_line(f"{name}: {text}")
    size = sum(entry["bytes"] for entry in prepared)
    print_line(f"prepared: {len(prepared)} in {cache}, {size / 1e6:.1f} MB")


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
    print_line(f"corpus: {corpus.name} ({data.format})")
    _print_splits(splits)


@app.command("prepare")
def prepare(config: ConfigOption, overrides: Overrides = None, as_json: JsonOption = False) -> None:
    """Train the tokenizer and write the token arrays.

    `wtie train` does it where it was not done; a second time it does nothing.
    """
    from tyro_cli.config.loading import load_experiment
    from tyro_cli.data.prepared import default_cache_folder, prepare_data

    loaded = load_experiment(config, checked_overrides(overrides))
    prepared = prepare_data(
        loaded.experiment.data,
        base_folder=Path.cwd(),
        cache_folder=default_cache_folder(),
        on_progress=warn,
    )
    facts = prepared.facts()
    if as_json:
        print_json({"folder": str(prepared.folder), **facts})
        return
    print_line(f"vocabulary: {prepared.vocab_size:,}")
    print_line(f"folder: {prepared.folder}")
    _print_splits(facts["splits"])


def _print_splits(splits: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_edge=False)
    table.add_column("split")
    columns = next(iter(splits.values())).keys()
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right", overflow="fold")
    for split, facts in splits.items():
        values = (facts[column] for column in columns)
        table.add_row(split, *(f"{v:,}" if isinstance(v, int) else str(v)[:12] for v in values))
    result_console().print(table)
