"""Published models: their own counts, and files that say too little or too much."""

import json
from pathlib import Path
from typing import Any

import pytest

from tyro_cli.errors import UsageError
from tyro_cli.ledger.huggingface import MODEL_TYPES, hf_ledger

GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 50257,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_positions": 1024,
}
LLAMA_2_7B = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "tie_word_embeddings": False,
}
LLAMA_32_1B = LLAMA_2_7B | {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
MISTRAL_7B = LLAMA_2_7B | {
    "model_type": "mistral",
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
}
QWEN25_05B = {
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
QWEN3_06B = QWEN25_05B | {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
GEMMA_2B = {
    "model_type": "gemma",
    "vocab_size": 256000,
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
}
GEMMA2_2B = GEMMA_2B | {
    "model_type": "gemma2",
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_key_value_heads": 4,
}

PYTHIA_160M = {
    "model_type": "gpt_neox",
    "vocab_size": 50304,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "tie_word_embeddings": False,
}
OPT_125M = {
    "model_type": "opt",
    "vocab_size": 50272,
    "hidden_size": 768,
    "ffn_dim": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 2048,
    "word_embed_proj_dim": 768,
}
OPT_350M = OPT_125M | {
    "hidden_size": 1024,
    "ffn_dim": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "word_embed_proj_dim": 512,
    "do_layer_norm_before": False,
}
PHI_2 = {
    "model_type": "phi",
    "vocab_size": 51200,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "tie_word_embeddings": False,
}
PHI_3_MINI = PHI_2 | {
    "model_type": "phi3",
    "vocab_size": 32064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
}
BLOOM_560M = {
    "model_type": "bloom",
    "vocab_size": 250880,
    "n_embed": 1024,
    "n_layer": 24,
    "num_attention_heads": 16,
}
BERT_BASE = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
MARIAN = {
    "model_type": "marian",
    "vocab_size": 58101,
    "d_model": 512,
    "encoder_layers": 6,
    "encoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "decoder_layers": 6,
    "decoder_attention_heads": 8,
    "decoder_ffn_dim": 2048,
    "max_position_embeddings": 512,
}


def written(folder: Path, content: object) -> Path:
    path = folder / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "total", "tied"),
    [
        (GPT2, 124_439_808, True),
        (LLAMA_2_7B, 6_738_415_616, False),
        (LLAMA_32_1B, 1_235_814_400, True),
        (MISTRAL_7B, 7_241_732_096, False),
        (QWEN25_05B, 494_032_768, True),
        (QWEN3_06B, 596_049_920, True),
        (GEMMA_2B, 2_506_172_416, True),
        (GEMMA2_2B, 2_614_341_888, True),
        (PYTHIA_160M, 162_322_944, False),
        (OPT_125M, 125_239_296, True),
        (OPT_350M, 331_196_416, True),
        (PHI_2, 2_779_683_840, False),
        (PHI_3_MINI, 3_821_079_552, False),
        (BLOOM_560M, 559_214_592, True),
        (BERT_BASE, 109_514_298, True),
        (MARIAN, 74_410_496, True),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else None,
)
def test_published_counts(tmp_path: Path, content: dict[str, Any], total: int, tied: bool) -> None:
    model = hf_ledger(written(tmp_path, content))
    assert (model.total, model.tied) == (total, tied)
    assert model.saving == model.vocab_size * model.d_model


def test_the_share_and_what_the_tie_would_save(tmp_path: Path) -> None:
    model = hf_ledger(written(tmp_path, LLAMA_2_7B))
    matrix = 32000 * 4096
    assert model.embedding_share == 2 * matrix / 6_738_415_616
    assert model.saving_share == matrix / 6_738_415_616
    tied = hf_ledger(written(tmp_path, LLAMA_2_7B | {"tie_word_embeddings": True}))
    assert tied.total == model.total - matrix
    assert tied.head == 0
    assert tied.saving_share == model.saving_share
    assert tied.untied_total == model.untied_total == model.total


def test_the_record_is_plain(tmp_path: Path) -> None:
    record = hf_ledger(written(tmp_path, GPT2)).as_record()
    assert json.loads(json.dumps(record)) == record
    assert record["positions"] == 1024 * 768


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": None}, "hidden_size: is missing"),
        ({"vocab_size": "32000"}, "vocab_size: must be a whole number, not '32000'"),
        ({"vocab_size": True}, "vocab_size: must be a whole number, not True"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: must be between 1 and"),
        ({"hidden_size": 4097}, "num_attention_heads: 32 heads do not divide hidden_size 4097"),
        ({"num_key_value_heads": 5}, "num_key_value_heads: 5 do not divide"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: must be true or false"),
        ({"model_type": "t5"}, "model_type: 't5' is not known"),
        ({"model_type": ["llama"]}, "model_type: ['llama'] is not known"),
    ],
)
def test_a_bad_field_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = written(tmp_path, LLAMA_2_7B | change)
    with pytest.raises(UsageError) as caught:
        hf_ledger(path)
    assert caught.value.message.startswith(f"{path}: {said}")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (GPT2 | {"add_cross_attention": True}, "add_cross_attention: a decoder beside an encoder"),
        (BERT_BASE | {"num_attention_heads": 7}, "num_attention_heads: 7 heads do not divide"),
        (BLOOM_560M | {"hidden_size": 512}, "n_embed: 1024 contradicts hidden_size 512"),
        (BLOOM_560M | {"n_embed": None}, "hidden_size: is missing"),
        (BLOOM_560M | {"n_head": 3}, "num_attention_heads: 16 contradicts n_head 3"),
        (MARIAN | {"decoder_vocab_size": 9}, "decoder_vocab_size: 9 contradicts vocab_size 58101"),
        (
            MARIAN | {"tie_word_embeddings": False},
            "tie_word_embeddings: false contradicts share_encoder_decoder_embeddings",
        ),
        (MARIAN | {"decoder_attention_heads": 5}, "decoder_attention_heads: 5 heads do not divide"),
        (
            {key: MISTRAL_7B[key] for key in MISTRAL_7B if key != "num_key_value_heads"}
            | {"num_attention_heads": 4},
            "num_key_value_heads: 8 do not divide num_attention_heads 4",
        ),
    ],
)
def test_what_contradicts_itself_is_named(
    tmp_path: Path, content: dict[str, Any], said: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        hf_ledger(path)
    assert caught.value.message.startswith(f"{path}: {said}")


def test_a_projected_embedding_saves_its_own_width(tmp_path: Path) -> None:
    model = hf_ledger(written(tmp_path, OPT_350M))
    assert (model.d_model, model.embedding) == (512, 50272 * 512)


def test_a_tie_in_a_translation_model_saves_the_targets_matrix(tmp_path: Path) -> None:
    own = MARIAN | {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 1000}
    tied = hf_ledger(written(tmp_path, own))
    untied = hf_ledger(written(tmp_path, own | {"tie_word_embeddings": False}))
    assert untied.total - tied.total == untied.head == tied.saving == 1000 * 512
    assert tied.embedding == untied.embedding == (58101 + 1000) * 512
    assert hf_ledger(written(tmp_path, MARIAN)).embedding == 58101 * 512


def test_a_missing_model_type_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        hf_ledger(written(tmp_path, {}))
    assert "model_type: is missing" in caught.value.message
    assert all(name in caught.value.remedy for name in MODEL_TYPES)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"vocab_size": NaN}', "[" * 10_000])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError):
        hf_ledger(written(tmp_path, content))


@pytest.mark.parametrize("name", ["config.json", "x" * 5000])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        hf_ledger(tmp_path / name)
