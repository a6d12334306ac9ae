"""Tokenizing a corpus, against the tokenizers library alone, with one tokenizer on all cores."""

import time
from collections.abc import Callable

import numpy as np

from benchmarks.measuring import ALL_THREADS, Call, Case, Comparison, Side, Start
from tyro_cli.config.schema import DataConfig, TokenizerConfig
from tyro_cli.data.corpora import load_corpus
from tyro_cli.data.documents import split_documents
from tyro_cli.data.prepared import default_cache_folder, prepare_data
from tyro_cli.data.tokenizers import encode_documents, load_tokenizer


def tokenize(start: Start, seconds: float, *, corpus: str, vocab_size: int, program: str) -> float:
    """Return seconds for a hundred million characters, to arrays of ids."""
    data = DataConfig(
        corpus=corpus,
        tokenizer=TokenizerConfig(kind="bpe", vocab_size=vocab_size),
        context_length=8,
    )
    prepared = prepare_data(data, cache_folder=default_cache_folder())
    tokenizer = load_tokenizer(prepared.tokenizer_path)
    text = load_corpus(data).texts["train"]
    documents = split_documents(text, "plain")

    def ours() -> int:
        return sum(len(ids) for ids in encode_documents(tokenizer, documents))

    def library() -> int:
        encodings = tokenizer.encode_batch_fast(documents, add_special_tokens=False)
        return sum(len(np.array(encoding.ids)) for encoding in encodings)

    work: Callable[[], int] = ours if program == "ours" else library
    work()
    start()
    started, passes = time.perf_counter(), 0
    while passes == 0 or time.perf_counter() - started < seconds:
        work()
        passes += 1
    return (time.perf_counter() - started) / (passes * len(text)) * 1e8


def cases(corpus: str = "kjv", vocab_size: int = 8192) -> tuple[Case, ...]:
    """Return the case, for a built-in corpus or a folder."""

    def side(name: str, program: str) -> Side:
        arguments = {"corpus": corpus, "vocab_size": vocab_size, "program": program}
        return Side(name, ((Call("tokenizing:tokenize", arguments, ALL_THREADS),),))

    return (
        Case(
            "tokenizing",
            "Tokenizing to arrays of ids, against the tokenizers library alone",
            "s for 100 million characters",
            (
                Comparison(
                    f"{corpus}, bpe, V {vocab_size:,}",
                    side("wtie", "ours"),
                    side("tokenizers", "library"),
                ),
            ),
            goal=1.0,
            work=(1e8, "characters/s"),
        ),
    )
