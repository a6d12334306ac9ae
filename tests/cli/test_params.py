"""`wtie params`: the ledger before any training, for experiments and published models."""

import json

import pytest


@pytest.fixture
def config(wtie, in_empty_folder):
    wtie("init")
    return in_empty_folder / "wtie.yaml"


def test_the_ledger_of_the_first_configuration(wtie, config, golden):
    result = wtie("params", "--config", config.name)
    assert result.exit_code == 0
    assert result.stderr == ""
    golden("params.txt", result.stdout)


@pytest.mark.parametrize("columns", [80, 120])
def test_it_fits_the_terminal(wtie, config, columns):
    text = config.read_text().replace("# tied-wide:", "tied-wide:")
    config.write_text(text)
    result = wtie("params", "--config", config.name, columns=columns)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= columns
    assert "tied-wide - untied" in result.stdout


def test_json_is_one_document_and_the_difference_is_v_times_d(wtie, config):
    result = wtie("params", "--config", config.name, "--json", "model.d_model=64")
    record = json.loads(result.stdout)
    totals = {name: arm["ledger"]["total"] for name, arm in record["arms"].items()}
    assert record["vocab_size"] == 2048
    assert totals["untied"] - totals["tied"] == 2048 * 64


def test_a_byte_vocabulary_needs_no_data(wtie, config):
    words = ("data.tokenizer={kind: byte}", "data.corpus=nowhere")
    record = json.loads(wtie("params", "--config", config.name, "--json", *words).stdout)
    assert record["vocab_size"] == 257


def test_a_word_vocabulary_is_counted_from_the_corpus(wtie, config, tmp_path):
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("one two three two\n" * 300)
    words = ("data.tokenizer={kind: word}", "data.corpus=.")
    result = wtie("params", "--config", config.name, "--json", *words)
    assert json.loads(result.stdout)["vocab_size"] == 5  # three words, <eos> and <unk>
    assert "counted from the corpus" in result.stderr


def test_a_match_without_solution_points_at_the_arm(wtie, config):
    wide = "match: {parameters_of: tied, by: d_ff}"
    arms = f"arms={{untied: {{{wide}}}, tied: {{model: {{tying: in-out, d_ff: 1}}}}}}"
    words = (arms, "allow_differences=[model.d_ff]", "model.num_layers=1")
    result = wtie("params", "--config", config.name, *words)
    assert result.exit_code == 2
    assert "arms.untied.match" in result.stderr


def test_arms_that_differ_in_an_undeclared_key(wtie, config):
    arms = "arms={untied: {}, tied: {model: {tying: in-out, dropout: 0.3}}}"
    result = wtie("params", "--config", config.name, arms)
    assert result.exit_code == 2
    assert "dropout" in result.stderr
    assert result.stdout == ""


def test_a_published_model(wtie, tmp_path):
    shape = {"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_layer": 12}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**shape, "n_head": 12, "n_positions": 1024}))
    result = wtie("params", "--hf", path)
    assert "124,439,808" in result.stdout  # the known size of GPT-2
    assert "V x d = 50,257 x 768 = 38,597,376" in result.stdout
    record = json.loads(wtie("params", "--hf", path, "--json").stdout)
    assert record["saving"] == 50257 * 768


def test_a_published_model_of_one_matrix_in_three_roles(wtie, tmp_path):
    shape = {"model_type": "marian", "vocab_size": 100, "d_model": 8, "max_position_embeddings": 4}
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(shape | sides))
    result = wtie("params", "--hf", path)
    assert "tied in all three roles, which saves 2 x V x d" in result.stdout
    assert json.loads(wtie("params", "--hf", path, "--json").stdout)["saving"] == 1600


def test_a_published_model_takes_no_overrides(wtie, tmp_path):
    assert wtie("params", "--hf", tmp_path / "config.json", "model.d_model=3").exit_code == 2


def test_a_published_model_that_predicts_no_tokens_is_told_of(wtie, tmp_path):
    shape = {"model_type": "gpt2", "vocab_size": 100, "n_embd": 8, "n_layer": 1}
    shape |= {"n_head": 2, "n_positions": 4}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(shape | {"architectures": ["GPT2ForSequenceClassification"]}))
    told = wtie("params", "--hf", path).stdout
    assert "GPT2ForSequenceClassification predicts no tokens" in " ".join(told.split())
    path.write_text(json.dumps(shape | {"architectures": ["GPT2LMHeadModel"]}))
    assert "predicts no tokens" not in wtie("params", "--hf", path).stdout


def test_a_published_model_that_contradicts_itself(wtie, tmp_path):
    shape = {"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "hidden_size": 1024}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(shape))
    result = wtie("params", "--hf", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "hidden_size: 1024 contradicts n_embd 768" in result.stderr
    assert "leave hidden_size out" in result.stderr
