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
    assert model.saving == (model.roles - 1) * model.vocab_size * model.d_model
    assert model.roles == (3 if content is MARIAN else 2)


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
        (BERT_BASE | {"num_attention_heads": 7}, "num_attention_heads: 7 heads do not divide"),
        (BLOOM_560M | {"n_embed": None}, "hidden_size: is missing"),
        (MARIAN | {"decoder_attention_heads": 5}, "decoder_attention_heads: 5 heads do not divide"),
        (
            {key: MISTRAL_7B[key] for key in MISTRAL_7B if key != "num_key_value_heads"}
            | {"num_attention_heads": 4},
            "num_key_value_heads: is missing, and 8, the default of mistral, does not divide "
            "num_attention_heads 4",
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


SECOND_NAMES = [
    (GPT2, "hidden_size", "n_embd"),
    (GPT2, "num_hidden_layers", "n_layer"),
    (GPT2, "num_attention_heads", "n_head"),
    (GPT2, "max_position_embeddings", "n_positions"),
    (BLOOM_560M, "hidden_size", "n_embed"),
    (BLOOM_560M, "num_hidden_layers", "n_layer"),
    (BLOOM_560M, "n_head", "num_attention_heads"),
    (MARIAN, "hidden_size", "d_model"),
    (MARIAN, "num_hidden_layers", "encoder_layers"),
    (MARIAN, "num_attention_heads", "encoder_attention_heads"),
]


@pytest.mark.parametrize(("content", "other", "name"), SECOND_NAMES)
def test_a_field_may_stand_under_its_other_name(
    tmp_path: Path, content: dict[str, Any], other: str, name: str
) -> None:
    model = hf_ledger(written(tmp_path, content))
    assert hf_ledger(written(tmp_path, content | {other: content[name]})) == model
    renamed = content | {other: content[name], name: None}
    assert hf_ledger(written(tmp_path, renamed)) == model
    with pytest.raises(UsageError) as caught:
        hf_ledger(written(tmp_path, renamed | {other: "x"}))
    assert f"{other}: must be a whole number" in caught.value.message


@pytest.mark.parametrize(("content", "other", "name"), SECOND_NAMES)
def test_two_names_that_disagree_are_refused(
    tmp_path: Path, content: dict[str, Any], other: str, name: str
) -> None:
    value = content[name]
    with pytest.raises(UsageError) as caught:
        hf_ledger(written(tmp_path, content | {other: 2 * value}))
    said = caught.value.message
    assert f"{other} {2 * value}" in said.replace(":", "")
    assert f"{name} {value}" in said.replace(":", "")
    assert said.endswith("which is the same field")
    assert caught.value.remedy.startswith("correct one of them, or leave ")


def without(content: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: content[key] for key in content if key not in names}


THREE_LAYERS = {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}


@pytest.mark.parametrize(
    ("content", "said", "remedy"),
    [
        (
            without(LLAMA_2_7B, "vocab_size", "num_hidden_layers"),
            "vocab_size, num_hidden_layers: are missing",
            "add vocab_size, num_hidden_layers",
        ),
        (
            without(QWEN25_05B, "num_key_value_heads"),
            "num_key_value_heads: is missing, and 32, the default of qwen2, does not divide "
            "num_attention_heads 14",
            "add num_key_value_heads",
        ),
        (
            LLAMA_2_7B | {"num_attention_heads": 30},
            "num_attention_heads: 30 heads do not divide hidden_size 4096",
            "correct num_attention_heads or hidden_size",
        ),
        (
            without(GPT2, "n_embd") | {"hidden_size": 770},
            "n_head: 12 heads do not divide hidden_size 770",
            "correct n_head or hidden_size",
        ),
        (
            LLAMA_2_7B | {"num_key_value_heads": 5},
            "num_key_value_heads: 5 heads do not divide num_attention_heads 32",
            "correct num_key_value_heads or num_attention_heads",
        ),
        (
            LLAMA_2_7B | {"mlp_bias": 1},
            "mlp_bias: must be true or false, not 1",
            "correct mlp_bias",
        ),
        (
            LLAMA_2_7B | {"pad_token_id": 32000},
            "pad_token_id: must be a whole number below vocab_size 32000, not 32000",
            "correct pad_token_id or vocab_size",
        ),
        (
            LLAMA_2_7B | {"pad_token_id": "0"},
            "pad_token_id: must be a whole number below vocab_size 32000, not '0'",
            "correct pad_token_id or vocab_size",
        ),
        (
            QWEN25_05B | THREE_LAYERS | {"num_hidden_layers": 4},
            "layer_types: 3 entries contradict num_hidden_layers 4",
            "correct num_hidden_layers or layer_types",
        ),
        (
            without(GPT2, "n_layer") | THREE_LAYERS | {"num_hidden_layers": 4},
            "layer_types: 3 entries contradict num_hidden_layers 4",
            "correct num_hidden_layers or layer_types",
        ),
        (
            QWEN25_05B | {"layer_types": "full_attention"},
            "layer_types: must be a list, not 'full_attention'",
            "correct layer_types",
        ),
        (
            {"model_type": "gpt2", "architectures": ["LlamaForCausalLM", "LlamaModel"]},
            "architectures: LlamaForCausalLM, LlamaModel contradicts model_type gpt2",
            "correct model_type or architectures",
        ),
        (
            GEMMA_2B | {"architectures": ["Gemma2ForCausalLM"]},
            "architectures: Gemma2ForCausalLM contradicts model_type gemma",
            "correct model_type or architectures",
        ),
        (
            GPT2 | {"architectures": "GPT2LMHeadModel"},
            "architectures: must be a list, not 'GPT2LMHeadModel'",
            "correct architectures",
        ),
        (
            MARIAN | {"tie_word_embeddings": False},
            "tie_word_embeddings: false contradicts share_encoder_decoder_embeddings, which makes "
            "the head the same matrix too",
            "set both to true, or both to false",
        ),
        (
            MARIAN | {"decoder_vocab_size": 9},
            "decoder_vocab_size: 9 contradicts vocab_size 58101, as both are of one matrix",
            "correct one of them, or set share_encoder_decoder_embeddings to false",
        ),
        (
            MARIAN | {"architectures": ["MarianForCausalLM"]},
            "architectures: MarianForCausalLM is a decoder alone, which is not counted here",
            "give the config.json of the whole translation model (MarianMTModel)",
        ),
        (
            GPT2 | {"add_cross_attention": True},
            "add_cross_attention: a decoder beside an encoder is not counted",
            "set add_cross_attention to false to count the model alone",
        ),
    ],
)
def test_an_error_says_what_to_change(
    tmp_path: Path, content: dict[str, Any], said: str, remedy: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        hf_ledger(path)
    assert caught.value.message == f"{path}: {said}"
    assert caught.value.remedy == remedy


@pytest.mark.parametrize(
    ("content", "more"),
    [
        (GPT2, {"architectures": ["GPT2LMHeadModel"], "pad_token_id": 50256}),
        (PYTHIA_160M, {"architectures": ["GPTNeoXForCausalLM"], "pad_token_id": None}),
        (MARIAN, {"architectures": ["MarianMTModel"], "layer_types": None}),
        (GEMMA2_2B, {"architectures": ["Other", "Gemma2ForCausalLM"]}),
        (LLAMA_2_7B, {"architectures": [], "pad_token_id": -1}),  # as the first conversions had it
        (QWEN25_05B, {"layer_types": ["full_attention"] * 24}),
    ],
)
def test_what_does_not_contradict_changes_no_count(
    tmp_path: Path, content: dict[str, Any], more: dict[str, Any]
) -> None:
    model = hf_ledger(written(tmp_path, content))
    assert hf_ledger(written(tmp_path, content | more)) == model


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ('{"model_type": "gpt2", "vocab_size": 61, "vocab_size": 61}', "vocab_size"),
        ('{"model_type": "gpt2", "model_type": "llama"}', "model_type"),
        ('{"model_type": "llama", "rope_scaling": {"factor": 1, "factor": 2}}', "factor"),
    ],
)
def test_a_name_that_stands_twice_is_refused(tmp_path: Path, content: str, name: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        hf_ledger(path)
    assert caught.value.message == f"{path}: '{name}' stands twice in one object"
    assert caught.value.remedy == "leave one of the two out"


def test_a_projected_embedding_saves_its_own_width(tmp_path: Path) -> None:
    model = hf_ledger(written(tmp_path, OPT_350M))
    assert (model.d_model, model.embedding) == (512, 50272 * 512)


def test_a_tie_in_a_translation_model_saves_the_targets_matrix(tmp_path: Path) -> None:
    own = MARIAN | {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 1000}
    tied = hf_ledger(written(tmp_path, own))
    untied = hf_ledger(written(tmp_path, own | {"tie_word_embeddings": False}))
    assert untied.total - tied.total == untied.head == tied.saving == 1000 * 512
    assert tied.embedding == untied.embedding == (58101 + 1000) * 512
    assert tied.roles == untied.roles == 2
    assert hf_ledger(written(tmp_path, MARIAN)).embedding == 58101 * 512


def test_a_translation_model_of_one_matrix_saves_two(tmp_path: Path) -> None:
    one = hf_ledger(written(tmp_path, MARIAN))
    own = {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False}
    three = hf_ledger(written(tmp_path, MARIAN | own))
    assert one.saving == three.total - one.total == 2 * 58101 * 512
    assert one.untied_total == three.total


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
