"""The corpus `synthetic`: a path of its chain, read by the rooms of every corpus."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.texts import data_config
from tyro_cli.config.schema import DataConfig
from tyro_cli.data.chains import make_chain, true_nats
from tyro_cli.data.corpora import load_corpus
from tyro_cli.data.prepared import PreparedData, open_prepared, prepare_data
from tyro_cli.data.synthetic import draw_states, draw_texts, state_words
from tyro_cli.data.tokenizers import load_tokenizer
from tyro_cli.errors import DataError

STATES = 12


def synthetic(**changes: Any) -> DataConfig:
    chain = {
        "states": STATES,
        "rank": 4,
        "irreversibility": 0.5,
        "train_tokens": 3000,
        "heldout_tokens": 400,
    }
    return data_config("synthetic", synthetic=chain | changes)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    cache = tmp_path_factory.mktemp("cache")
    return prepare_data(synthetic(), cache_folder=cache)


def test_the_stream_of_a_split_is_the_path_of_the_chain(prepared: PreparedData) -> None:
    config = synthetic().synthetic
    assert config is not None and prepared.known_entropy is not None
    chain = make_chain(config)
    tokenizer = load_tokenizer(prepared.tokenizer_path)
    ids = [tokenizer.token_to_id(word.strip() or "<eos>") for word in state_words(STATES)]
    assert prepared.vocab_size == STATES + 1 and tokenizer.token_to_id("<unk>") not in ids
    for draw, (name, split) in enumerate(prepared.splits.items(), start=1):
        wanted = config.train_tokens if name == "train" else config.heldout_tokens
        states = draw_states(chain, wanted, (config.seed, draw))
        np.testing.assert_array_equal(split.tokens, np.array(ids)[np.concatenate(([0], states))])
        assert states[-1] == 0 and not (states[wanted - 1 : -1] == 0).any()
        assert split.num_unknown == 0
        if name != "train":
            mean = true_nats(chain, states).mean()
            assert prepared.known_entropy.true_nats_per_token[name] == pytest.approx(mean)


def test_what_is_known_is_kept_with_the_data(prepared: PreparedData) -> None:
    opened = open_prepared(prepared.folder)
    assert opened.known_entropy == prepared.known_entropy
    assert opened.facts()["known_entropy"]["entropy_rate_nats"] == pytest.approx(
        0.5 * np.log(STATES)
    )


def test_with_one_eos_a_line_words_are_tokens(tmp_path: Path) -> None:
    data = synthetic().model_copy(update={"format": "wikitext"})
    split = prepare_data(data, cache_folder=tmp_path).splits["test"]
    assert split.num_words == split.num_tokens and split.num_documents == 1


def test_the_same_settings_give_the_same_bytes_and_others_another_corpus() -> None:
    first, again = (load_corpus(synthetic()) for _ in range(2))
    assert first == again
    others = [
        {"states": STATES + 1},
        {"rank": 2},
        {"irreversibility": 0.5 + 1e-12},
        {"entropy_fraction": 0.4},
        {"train_tokens": 3001},
        {"heldout_tokens": 401},
        {"seed": 1},
    ]
    hashes = {load_corpus(synthetic(**one)).content_sha256 for one in others}
    assert len(hashes - {first.content_sha256}) == len(others)


def test_fewer_tokens_are_the_beginning_of_more_and_splits_are_their_own() -> None:
    few, many = (synthetic(train_tokens=tokens).synthetic for tokens in (2000, 3000))
    assert few is not None and many is not None
    first, second = draw_texts(few).texts, draw_texts(many).texts
    assert second["train"].startswith(first["train"]) and second["test"] == first["test"]
    assert len({first[split][:200] for split in ("train", "valid", "test")}) == 3


def test_a_vocabulary_that_the_text_does_not_hold_is_refused() -> None:
    config = synthetic(states=60, train_tokens=100).synthetic
    assert config is not None
    with pytest.raises(DataError, match="of the 60 states do not occur") as caught:
        draw_texts(config)
    assert "train_tokens larger" in caught.value.remedy


def test_a_stop_is_heard_while_a_text_is_drawn() -> None:
    config = synthetic().synthetic
    assert config is not None

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_texts(config, should_stop=stop)
