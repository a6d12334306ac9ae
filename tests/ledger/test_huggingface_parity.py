"""Every published architecture that is counted in closed form, against transformers' own count.

The models are tiny, randomly initialised on the CPU and never run; their sizes differ from each
other wherever they can, so that no two terms of a formula can be swapped unseen. The shipped shapes
are too large for that: they are built on torch's `meta` device, where a tensor has a shape and no
values. Counting needs no values, and the shapes are those of a randomly initialised model.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tyro_cli.errors import UsageError
from tyro_cli.ledger.huggingface import MODEL_TYPES, hf_ledger

pytest.importorskip("transformers", reason="needs the extra `hf`")

pytestmark = pytest.mark.slow  # to import transformers takes longer than to build the models

GATED = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PLAIN = {key: value for key, value in GATED.items() if key != "num_key_value_heads"}
GPT2 = {
    "vocab_size": 61,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 32,
}
BLOOM = {"vocab_size": 61, "hidden_size": 24, "n_layer": 3, "n_head": 4}
OPT = {key: PLAIN[key] for key in PLAIN if key != "intermediate_size"} | {"ffn_dim": 40}
MARIAN = {
    "vocab_size": 61,
    "d_model": 24,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_layers": 2,
    "decoder_attention_heads": 6,
    "decoder_ffn_dim": 56,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
OWN_VOCABULARIES = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 47}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", GPT2),
    ("gpt2", GPT2 | {"n_inner": 40}),
    ("llama", GATED),
    ("llama", GATED | {"num_key_value_heads": None}),
    ("llama", GATED | {"head_dim": 10}),
    ("llama", GATED | {"attention_bias": True, "head_dim": 10}),
    ("llama", GATED | {"mlp_bias": True}),
    ("mistral", GATED),
    ("mistral", GATED | {"head_dim": 10, "attention_bias": True}),
    ("mistral", {key: GATED[key] for key in PLAIN} | {"num_attention_heads": 8}),
    ("qwen2", GATED),
    ("qwen2", GATED | {"head_dim": 10}),
    ("qwen3", GATED),
    ("qwen3", GATED | {"head_dim": 10, "attention_bias": True}),
    ("gemma", GATED),
    ("gemma", GATED | {"head_dim": 10, "attention_bias": True}),
    ("gemma2", GATED),
    ("gemma2", GATED | {"head_dim": 10, "attention_bias": True}),
    ("phi", GATED),
    ("phi", PLAIN | {"qk_layernorm": True}),
    ("phi3", GATED),
    ("phi3", GATED | {"attention_bias": True}),
    ("gpt_neox", PLAIN),
    ("gpt_neox", PLAIN | {"attention_bias": False}),
    ("opt", OPT),
    ("opt", OPT | {"word_embed_proj_dim": 16}),
    ("opt", OPT | {"enable_bias": False, "do_layer_norm_before": False}),
    ("opt", OPT | {"layer_norm_elementwise_affine": False}),
    ("opt", OPT | {"_remove_final_layer_norm": True}),
    ("bloom", BLOOM),
    ("bert", PLAIN),
    ("bert", PLAIN | {"type_vocab_size": 3}),
    ("marian", MARIAN),
    ("marian", MARIAN | OWN_VOCABULARIES),
]


def test_every_known_type_is_compared() -> None:
    assert {model_type for model_type, _ in CASES} == set(MODEL_TYPES)


def counted(model_type: str, content: dict[str, Any], *, device: str = "cpu") -> int:
    """Return how many parameters the model of transformers has, each shared one once.

    It is initialised as before a training; on the device `meta` it has the same shapes, no values.
    """
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSeq2SeqLM,
    )

    factories = {"bert": AutoModelForMaskedLM, "marian": AutoModelForSeq2SeqLM}
    factory = factories.get(model_type, AutoModelForCausalLM)
    config = AutoConfig.for_model(model_type, **content)
    with torch.device(device):
        model = factory.from_config(config)
    model.tie_weights()
    assert {one.device.type for one in model.parameters()} == {device}
    unread = 0
    if model_type == "bert" and not config.tie_word_embeddings:
        # An untied decoder reads a bias of its own, and nothing reads this one.
        unread = model.cls.predictions.bias.numel()
    return sum(one.numel() for one in model.parameters()) - unread


SHAPES = sorted((Path(__file__).parents[2] / "configs" / "claims" / "shapes").glob("*.json"))


@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)
def test_the_shipped_shapes_are_counted_as_transformers_counts_them(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert hf_ledger(path).total == counted(content.pop("model_type"), content, device="meta")


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_second_name_of_a_field_is_read(tmp_path: Path, model_type: str) -> None:
    """The names are those of transformers' `attribute_map`, so that a new one fails here."""
    from transformers import CONFIG_MAPPING

    path = tmp_path / "config.json"
    content = next(content for known, content in CASES if known == model_type)
    for second, first in CONFIG_MAPPING[model_type].attribute_map.items():
        renamed = {second if key == first else key: value for key, value in content.items()}
        path.write_text(json.dumps(renamed | {"model_type": model_type}))
        assert hf_ledger(path).total == counted(model_type, renamed)
        path.write_text(json.dumps(content | {"model_type": model_type, second: 1}))
        with pytest.raises(UsageError, match=f"{second}: 1 contradicts {first}"):
            hf_ledger(path)


# `False` is refused for a Marian model that shares all its matrices, as a contradiction.
COMPARED = [
    pytest.param(model_type, content, tied, id=f"{model_type}-{number}-{tied}")
    for number, (model_type, content) in enumerate(CASES)
    for tied in (True, False, None)
    if tied is not False or model_type != "marian" or "decoder_vocab_size" in content
]


@pytest.mark.parametrize(("model_type", "content", "tied"), COMPARED)
def test_the_closed_form_is_transformers_own_count(
    tmp_path: Path, model_type: str, content: dict[str, Any], tied: bool | None
) -> None:
    """The tie is given, or left to the architecture's default (None)."""
    if tied is not None:
        content = content | {"tie_word_embeddings": tied}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content | {"model_type": model_type}))
    model = hf_ledger(path)
    assert model.total == counted(model_type, content)
    assert tied is None or model.tied is tied
