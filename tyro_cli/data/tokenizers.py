"""Tokenizers: trained on the training split alone, saved as `tokenizer.json`, and applied.

Invariant: `<eos>` has id 0 in every vocabulary. `bpe`, `unigram` and `byte` work on the bytes of
the text and lose nothing: decoding gives the text back. `word` is the vocabulary of the training
split, with one `<eos>` a line. Training is deterministic: the same text gives the same file, byte
for byte. A file from anyone is held against what we write before the library sees it: some parts
that the library knows make it abort, or never end. Heavy libraries are imported inside the
functions. Splits and files are left to `prepared`.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tyro_cli.config.schema import BYTE_VOCAB_SIZE, TokenizerConfig
from tyro_cli.data.unigram import train_unigram
from tyro_cli.errors import DamagedRecord, DataError, StorageError
from tyro_cli.storage.files import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.models import Model

EOS = "<eos>"
EOS_ID = 0
UNKNOWN = "<unk>"
MAX_TOKENIZER_BYTES = 64 * 2**20  # a word vocabulary of a million takes about 30 MB
MAX_TOKENIZER_VALUES = 2 * 10**6  # a bpe vocabulary of half a million, with its merges

# Texts are handed to the library in pieces, and pieces in slices: pieces so that one endless
# document needs no endless memory, slices so that a signal is heard between two of them.
PIECE_CHARACTERS = 2**15
SLICE_CHARACTERS = 2**20

# What separates words: exactly what `str.split` separates at (the four control characters are
# whitespace to Python, not to Unicode). A test compares the two for every character.
_WHITESPACE = r"[\s\x1c-\x1f]+"


def train_tokenizer(
    config: TokenizerConfig,
    train_documents: Sequence[str],
    *,
    should_stop: Callable[[], None] = lambda: None,
) -> "Tokenizer":
    """Train the tokenizer of a configuration on the training split.

    Args:
        config: Kind and size.
        train_documents: The whole training split.
        should_stop: Called between slices of work; raises to stop.

    Raises:
        DataError: The corpus does not support the vocabulary that was asked for.
    """
    _use_all_cores()
    if config.kind == "byte":
        return _byte_tokenizer()
    if config.kind == "word":
        tokenizer = _word_tokenizer(train_documents, should_stop)
        size = tokenizer.get_vocab_size()
        if config.vocab_size is not None and config.vocab_size != size:
            raise DataError(
                f"the training split has a word vocabulary of {size:,} "
                f"({EOS} and {UNKNOWN} included), the configuration says {config.vocab_size:,}",
                f"set data.tokenizer.vocab_size to {size}, or leave it out",
            )
        return tokenizer
    assert config.vocab_size is not None and config.vocab_size > BYTE_VOCAB_SIZE
    train = _bpe_tokenizer if config.kind == "bpe" else _unigram_tokenizer
    tokenizer = train(config.vocab_size, train_documents, should_stop)
    size = tokenizer.get_vocab_size()
    if size != config.vocab_size:
        raise DataError(
            f"the corpus supports a {config.kind} vocabulary of at most {size:,}, the "
            f"configuration asks for {config.vocab_size:,}",
            "make data.tokenizer.vocab_size smaller, or give more text",
        )
    return tokenizer


def load_tokenizer(path: Path, *, vocab_size: int | None = None) -> "Tokenizer":
    """Load a `tokenizer.json` that anyone may have written.

    Args:
        path: The file.
        vocab_size: What the models that it is for were trained with, where that is known.

    Raises:
        DamagedRecord: The file is not a tokenizer as `train_tokenizer` makes them, or its
            vocabulary is not of that size.
        StorageError: The file cannot be read.
    """
    from tokenizers import Tokenizer

    if not path.is_file():
        raise StorageError(f"{path}: no such file", "the run or cache entry is not complete")
    content = read_json(path, max_bytes=MAX_TOKENIZER_BYTES, max_values=MAX_TOKENIZER_VALUES)
    problem = _foreign_part(content)
    if problem is None:
        try:
            tokenizer = Tokenizer.from_str(json.dumps(content))  # and not the file: what was seen
        except Exception as error:  # the library raises nothing narrower
            problem = str(error)
        else:
            size = tokenizer.get_vocab_size()
            if vocab_size not in (None, size):
                problem = f"it has {size:,} tokens, the models have {vocab_size:,}"
    if problem is not None:
        raise DamagedRecord(
            f"{path}: not a tokenizer of ours: {problem}", "restore the file from a copy"
        )
    tokenizer.encode_special_tokens = True  # "<eos>" in a text is text
    return tokenizer


def _foreign_part(content: Any) -> str | None:
    """Return what a tokenizer of ours would not have; None for one of ours."""
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        return "it has no model"
    kind = model.get("type")
    if kind == "WordLevel":
        ours, needed = _word_tokenizer([], lambda: None), {EOS, UNKNOWN}
    elif kind == "BPE":
        ours, needed = _byte_tokenizer(), {EOS, *_byte_alphabet()}
    elif kind == "Unigram":
        ours, needed = _unigram_of([(EOS, 0.0)]), {EOS, *_byte_alphabet()}
    else:
        return "model.type is none of WordLevel, BPE and Unigram"
    expected = json.loads(ours.to_str())
    own = ("vocab", "merges") if kind == "BPE" else ("vocab",)
    expected["model"] |= {key: model[key] for key in own if key in model}
    for part, value in content.items():
        if part not in expected or not _agrees(value, expected[part]):
            return f"{part[:100]!r} is not what a {kind} tokenizer has"
    vocabulary = model.get("vocab")
    if kind == "Unigram":  # the id of a token is its place
        rows = vocabulary if isinstance(vocabulary, list) else []
        tokens = [row[0] for row in rows if isinstance(row, list) and len(row) == 2]
        ids: list[Any] = list(range(len(rows)))
    else:
        numbers = vocabulary if isinstance(vocabulary, dict) else {}
        tokens, ids = list(numbers), list(numbers.values())
    if not all(isinstance(token, str) for token in tokens) or not needed <= set(tokens):
        return "model.vocab lacks a token that every text needs"
    if not all(type(number) is int for number in ids) or sorted(ids) != list(range(len(ids))):
        return "model.vocab does not number its tokens from 0"
    if len(set(tokens)) != len(ids) or ids[tokens.index(EOS)] != EOS_ID:
        return f"model.vocab names a token twice, or does not begin with {EOS}"
    return None


def _agrees(value: Any, ours: Any) -> bool:
    """Say whether all of a value is in ours too; another version of the library may leave out more.

    What is left out becomes the library's default, so nothing of a stranger's comes in that way.
    """
    if isinstance(value, dict) and isinstance(ours, dict):
        return all(key in ours and _agrees(child, ours[key]) for key, child in value.items())
    return bool(value == ours)


def encode_documents(
    tokenizer: "Tokenizer",
    documents: Iterable[str],
    *,
    should_stop: Callable[[], None] = lambda: None,
) -> Iterator[np.ndarray]:
    """Yield the token ids of each document, in order, as int64 arrays.

    With a `word` vocabulary an unfinished last line ends in `<eos>` too, so that tokens and words
    agree.
    """
    _use_all_cores()
    if is_byte_tokenizer(tokenizer):
        for document in documents:
            should_stop()
            # Id of a byte is the byte plus one: see _byte_tokenizer.
            yield np.frombuffer(document.encode("utf-8"), dtype=np.uint8).astype(np.int64) + 1
        return
    is_word = is_word_tokenizer(tokenizer)
    pieces: list[str] = []
    pieces_of_document: list[int] = []
    num_characters = 0

    def encoded() -> Iterator[np.ndarray]:
        should_stop()
        encodings = iter(tokenizer.encode_batch_fast(pieces, add_special_tokens=False))
        for num_pieces in pieces_of_document:
            ids = [token_id for _ in range(num_pieces) for token_id in next(encodings).ids]
            yield np.array(ids, dtype=np.int64)

    for document in documents:
        if is_word and document and not document.endswith("\n"):
            document += "\n"
        new = list(cut_into_pieces(document))
        pieces += new
        pieces_of_document.append(len(new))
        num_characters += len(document)
        if num_characters >= SLICE_CHARACTERS:
            yield from encoded()
            pieces, pieces_of_document, num_characters = [], [], 0
    if pieces_of_document:
        yield from encoded()


def encode_prompt(tokenizer: "Tokenizer", text: str) -> list[int]:
    """Return the token ids of a prompt; one without a token is the `<eos>` of a new text.

    Raises:
        DataError: The tokenizer cannot encode the text; the message says what in it.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"the prompt is not valid text at character {error.start + 1}",
            "give the prompt in UTF-8",
        ) from error
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    if is_word_tokenizer(tokenizer):
        known = tokenizer.get_vocab()
        unknown = list(dict.fromkeys(word for word in text.split() if word not in known))
        if unknown:
            shown = ", ".join(repr(word) for word in unknown[:5])
            raise DataError(
                f"the prompt has words outside the word vocabulary: {shown}"
                + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""),
                f"use words of the training text, or write {UNKNOWN} in their place",
            )
    return ids or [EOS_ID]


def decode_tokens(tokenizer: "Tokenizer", token_ids: Sequence[int]) -> str:
    """Return the text of token ids; lossless for `bpe`, `unigram` and `byte`.

    With a `word` vocabulary, words are joined by spaces and `<eos>` ends a line.
    """
    if not is_word_tokenizer(tokenizer):
        text: str = tokenizer.decode(list(token_ids), skip_special_tokens=False)
        return text
    words = (str(tokenizer.id_to_token(token_id)) for token_id in token_ids)
    return " ".join("\n" if word == EOS else word for word in words)


def is_word_tokenizer(tokenizer: "Tokenizer") -> bool:
    """Say whether a tokenizer is of kind `word`."""
    from tokenizers.models import WordLevel

    return isinstance(tokenizer.model, WordLevel)


def is_byte_tokenizer(tokenizer: "Tokenizer") -> bool:
    """Say whether a tokenizer is of kind `byte`."""
    from tokenizers.models import BPE

    return isinstance(tokenizer.model, BPE) and tokenizer.get_vocab_size() == BYTE_VOCAB_SIZE


def cut_into_pieces(document: str) -> Iterator[str]:
    """Cut a long document at line ends, into pieces of about `PIECE_CHARACTERS`.

    A piece ends before a line that does not begin with whitespace, so no run of whitespace is cut.
    A longer stretch without such a place stays whole.
    """
    start = 0
    while len(document) - start > PIECE_CHARACTERS:
        end = document.find("\n", start + PIECE_CHARACTERS) + 1
        while 0 < end < len(document) and document[end].isspace():
            end = document.find("\n", end) + 1
        if end == 0:
            break
        yield document[start:end]
        start = end
    if start < len(document):
        yield document[start:]


def _use_all_cores() -> None:
    """Let the library use its threads, and keep it from warning when a process forks later."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def _training_slices(
    documents: Sequence[str], should_stop: Callable[[], None]
) -> Iterator[list[str]]:
    """Yield the pieces of the documents in slices, asking whether to stop before each."""
    pieces: list[str] = []
    num_characters = 0
    for document in documents:
        for piece in cut_into_pieces(document):
            pieces.append(piece)
            num_characters += len(piece)
            if num_characters >= SLICE_CHARACTERS:
                should_stop()
                yield pieces
                pieces, num_characters = [], 0
    should_stop()
    yield pieces


def _word_tokenizer(documents: Sequence[str], should_stop: Callable[[], None]) -> "Tokenizer":
    """Build the vocabulary: `<eos>`, then the words by falling count, equal counts by spelling."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    counts: Counter[str] = Counter()
    for pieces in _training_slices(documents, should_stop):
        for piece in pieces:
            counts.update(piece.split())
    counts.setdefault(UNKNOWN, 0)
    counts.pop(EOS, None)
    words = sorted(counts, key=lambda word: (-counts[word], word))
    vocabulary = {EOS: EOS_ID} | {word: number for number, word in enumerate(words, start=1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Replace("\n", f" {EOS} ")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WHITESPACE), "removed")
    return tokenizer


def _byte_level(model: "Model") -> "Tokenizer":
    """Return a tokenizer over bytes that cuts words as GPT-2 does, without a space in front."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _byte_alphabet() -> list[str]:
    """Return the character that stands for each of the 256 bytes, in the order of the bytes.

    GPT-2's table: a printable Latin-1 character stands for itself, the others follow from U+0100.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _byte_tokenizer() -> "Tokenizer":
    """Build the byte vocabulary: `<eos>`, then byte b with id b + 1."""
    from tokenizers import AddedToken, models

    vocabulary = {EOS: EOS_ID} | {
        character: byte + 1 for byte, character in enumerate(_byte_alphabet())
    }
    tokenizer = _byte_level(models.BPE(vocabulary, []))
    tokenizer.add_special_tokens([AddedToken(EOS, special=True, normalized=False)])
    return tokenizer


def _bpe_tokenizer(
    vocab_size: int, documents: Sequence[str], should_stop: Callable[[], None]
) -> "Tokenizer":
    from tokenizers import models, trainers

    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS],
        initial_alphabet=_byte_alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_slices(documents, should_stop), trainer)
    return tokenizer


def _unigram_tokenizer(
    vocab_size: int, documents: Sequence[str], should_stop: Callable[[], None]
) -> "Tokenizer":
    from tokenizers import models

    vocabulary = train_unigram(
        vocab_size,
        lambda: _training_slices(documents, should_stop),
        pre_tokenizer=_byte_level(models.Unigram()).pre_tokenizer,
        alphabet=_byte_alphabet(),
        eos=EOS,
        should_stop=should_stop,
    )
    return _unigram_of(vocabulary)


def _unigram_of(vocabulary: list[tuple[str, float]]) -> "Tokenizer":
    from tokenizers import AddedToken, models

    tokenizer = _byte_level(models.Unigram(vocabulary))
    tokenizer.add_special_tokens([AddedToken(EOS, special=True, normalized=False)])
    return tokenizer
