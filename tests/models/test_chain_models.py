"""What a 0-layer model without a norm can say: a reversible chain when tied, any when not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.texts import data_config
from tyro_cli.config.schema import ModelConfig
from tyro_cli.data.chains import make_chain
from tyro_cli.data.prepared import prepare_data
from tyro_cli.data.synthetic import state_words
from tyro_cli.data.tokenizers import load_tokenizer
from tyro_cli.evaluation.perplexity import sweep_nats
from tyro_cli.models.language_model import LanguageModel

STATES, T = 24, 8
NEVER = -60.0  # a logit that softmax in float32 makes nothing of


def excess(folder: Path, tying: str, irreversibility: float) -> float:
    """Return the excess on test of a model whose weights are those of the chain."""
    chain_config: dict[str, Any] = {
        "states": STATES,
        "rank": 6,
        "irreversibility": irreversibility,
        "train_tokens": 4000,
        "heldout_tokens": 2000,
    }
    data = data_config("synthetic", synthetic=chain_config)
    prepared = prepare_data(data, cache_folder=folder)
    assert data.synthetic is not None and prepared.known_entropy is not None
    chain = make_chain(data.synthetic)
    config = ModelConfig(d_model=32, num_layers=0, num_heads=1, final_norm=False, tying=tying)
    model = LanguageModel(config, prepared.vocab_size, T)
    tokenizer = load_tokenizer(prepared.tokenizer_path)
    ids = [tokenizer.token_to_id(word.strip() or "<eos>") for word in state_words(STATES)]
    unknown = tokenizer.token_to_id("<unk>")
    # A last column of ones, which adds the same to every logit, is where <unk> is ruled out.
    rows = np.concatenate([chain.rows_VR, np.ones((STATES, 1))], axis=1)
    if tying == "in-out":
        rows[:, :-1] *= chain.sharpness**0.5
        columns = rows
    else:
        solved = np.linalg.lstsq(chain.rows_VR, chain.sharpness * chain.logits_VV, rcond=None)[0]
        columns = np.concatenate([solved.T, np.ones((STATES, 1))], axis=1)
    with torch.no_grad():
        for matrix, values in ((model.embedding, rows), (model.head, columns)):
            if matrix is not None:
                matrix.weight.zero_()
                matrix.weight[ids, : values.shape[1]] = torch.from_numpy(values).float()
                matrix.weight[unknown, values.shape[1] - 1] = NEVER
    nats = sweep_nats(model, prepared.splits["test"].tokens, stride=T // 2)
    return float(nats.mean(dtype=np.float64)) - prepared.known_entropy.true_nats_per_token["test"]


def test_a_tied_model_is_the_reversible_chain(tmp_path: Path) -> None:
    assert abs(excess(tmp_path, "in-out", 0.0)) < 1e-5


@pytest.mark.parametrize("irreversibility", [0.0, 0.5, 1.0])
def test_an_untied_model_is_every_chain(tmp_path: Path, irreversibility: float) -> None:
    assert abs(excess(tmp_path, "none", irreversibility)) < 1e-5


def test_a_norm_in_between_would_make_it_another_model() -> None:
    tokens = torch.arange(5).unsqueeze(0)
    for final_norm in (True, False):
        config = ModelConfig(d_model=8, num_layers=0, num_heads=1, final_norm=final_norm)
        model = LanguageModel(config, 5, T)
        torch.nn.init.normal_(model.embedding.weight)
        if final_norm:
            torch.nn.init.ones_(model.final_norm.weight)
        same = torch.equal(model.hidden(tokens, torch.float32, None)[0], model.embedding.weight)
        assert same is not final_norm
