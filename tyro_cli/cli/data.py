"""`wtie data`: the corpora there are, what one holds, and tokens prepared ahead of training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from tyro_cli.cli.options import (
    ConfigOption,
    JsonOption,
    Overrides,
    checked_overrides,
)
from tyro_cli.cli.run_folders import folder_bytes, subfolders
from tyro_cli.cli.streams import print_json, print_line, warn
from tyro_cli.cli.tables import draw_table

if TYPE_CHECKING:
    from tyro_cli.config.schema import DataConfig

BUILT_IN = {
    "kjv": "the King James text, about 4.1 MB; a document is a chapter (extra: corpora)",
    "synthetic": "a bigram chain with a known entropy rate, which data.synthetic describes",
    "kjv-web": "translation: King James to World English Bible, 31,099 verses (extra: corpora)",
}
ELSEWHERE = {
    "FOLDER": "train.txt, valid.txt, test.txt; wiki.train.tokens or .raw; or the hub's parquet; "
    "translation: train.en, train.de and so on, plain or .gz",
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
        for folder in subfolders(cache)
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

    experiment = load_experiment(config, checked_overrides(overrides)).experiment
    describe = _describe_pairs if experiment.task == "translation" else _describe_text
    record, title = describe(experiment.data)
    if as_json:
        print_json(record)
        return
    _draw_splits(title, record["splits"])


def _describe_text(data: "DataConfig") -> tuple[dict[str, Any], str]:
    from tyro_cli.data.corpora import load_corpus
    from tyro_cli.data.documents import count_words, split_documents

    corpus = load_corpus(data, on_progress=warn)
    splits = {}
    for split, text in corpus.texts.items():
        documents = split_documents(text, data.format)
        splits[split] = {
            "documents": len(documents),
            "words": sum(count_words(document, data.format) for document in documents),
            "bytes": len(text.encode("utf-8")),
            "sha256": corpus.text_sha256[split],
        }
    record = {"corpus": corpus.name, "format": data.format, "splits": splits}
    return record, f"{corpus.name}, format {data.format}"


def _describe_pairs(data: "DataConfig") -> tuple[dict[str, Any], str]:
    from tyro_cli.data.parallel import load_parallel_corpus

    corpus = load_parallel_corpus(data, on_progress=warn)
    splits = {
        name: {
            "pairs": len(texts.source),
            "empty_pairs": sum(
                not all(pair) for pair in zip(texts.source, texts.target, strict=True)
            ),
            "source_words": sum(len(sentence.split()) for sentence in texts.source),
            "target_words": sum(len(sentence.split()) for sentence in texts.target),
            "target_bytes": sum(len(sentence.encode("utf-8")) for sentence in texts.target),
            "sha256": texts.text_sha256,
        }
        for name, texts in corpus.splits.items()
    }
    languages = corpus.languages.model_dump(mode="json")
    record = {"corpus": corpus.name, "languages": languages, "splits": splits}
    return record, f"{corpus.name}, {languages['source']} to {languages['target']}"


@app.command("prepare")
def prepare(config: ConfigOption, overrides: Overrides = None, as_json: JsonOption = False) -> None:
    """Train the tokenizer and write the token arrays.

    `wtie train` does it where it was not done; a second time it does nothing.
    """
    from tyro_cli.config.loading import load_experiment
    from tyro_cli.data import preparing
    from tyro_cli.data.prepared import default_cache_folder

    experiment = load_experiment(config, checked_overrides(overrides)).experiment
    prepared = preparing.prepare(
        experiment.task,
        experiment.data,
        cache_folder=default_cache_folder(),
        on_progress=warn,
    )
    facts = prepared.facts()
    if as_json:
        print_json({"folder": str(prepared.folder), **facts})
        return
    tokenizer = f"{prepared.tokenizer_kind} vocabulary of {prepared.vocab_size:,}"
    if facts.get("sharing") == "separate":
        tokenizer += f", source {facts['source_vocab_size']:,}"
    _draw_splits(f"{experiment.data.corpus}, {tokenizer}", facts["splits"])
    if known := facts.get("known_entropy"):
        print_line(
            f"entropy rate: {known['entropy_rate_nats']:.4f} nats a token, unigram entropy "
            f"{known['unigram_entropy_nats']:.4f}, probability current "
            f"{known['probability_current']:.3f}"
        )
    if "overlap" in facts:
        _print_overlap(facts["overlap"])
    print_line(f"folder: {prepared.folder}")


def _print_overlap(overlap: Mapping[str, Any]) -> None:
    print_line(
        f"train: {overlap['shared_target_tokens']:.1%} of the target's tokens occur in the source "
        f"too; tokens a word: {overlap['source_tokens_per_word']:.2f} source, "
        f"{overlap['target_tokens_per_word']:.2f} target"
    )
    if overlap["shared_rows"] is not None:
        print_line(
            f"train: rows of the vocabulary that both sides use: {overlap['shared_rows']:,} "
            f"(source {overlap['source_rows']:,}, target {overlap['target_rows']:,})"
        )


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
