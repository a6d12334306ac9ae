"""Does a tokenizer trained twice on one text give one file?

    python -m benchmarks.determinism

Trains the library's BPE and unigram models, and our unigram trainer, several times on the built-in
King James text and counts the different files.
"""

import hashlib
import time

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tyro_cli.config.schema import DataConfig, TokenizerConfig
from tyro_cli.data.corpora import load_corpus
from tyro_cli.data.documents import split_documents
from tyro_cli.data.tokenizers import train_tokenizer

TIMES = 4
VOCAB_SIZE = 2048


def library(kind: str, documents: tuple[str, ...]) -> str:
    """Train the library's own model of a kind and return its file."""
    model = models.BPE() if kind == "bpe" else models.Unigram()
    trainer = trainers.BpeTrainer if kind == "bpe" else trainers.UnigramTrainer
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    chosen = trainer(vocab_size=VOCAB_SIZE, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(documents, chosen)
    return tokenizer.to_str()


def main() -> None:
    """Print for each trainer how many different files it gave."""
    tokenizer = TokenizerConfig(kind="unigram", vocab_size=VOCAB_SIZE)
    data = DataConfig(corpus="kjv", tokenizer=tokenizer, context_length=128)
    documents = split_documents(load_corpus(data).texts["train"], "plain")
    cases = {
        "library bpe": lambda: library("bpe", documents),
        "library unigram": lambda: library("unigram", documents),
        "our unigram": lambda: train_tokenizer(tokenizer, documents).to_str(),
    }
    for name, train in cases.items():
        started = time.perf_counter()
        files = {hashlib.sha256(train().encode()).hexdigest() for _ in range(TIMES)}
        each = (time.perf_counter() - started) / TIMES
        print(f"  {name:<16}: {len(files)} different file(s) in {TIMES}, {each:.1f} s each")


if __name__ == "__main__":
    main()
