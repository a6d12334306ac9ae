"""What an experiment says of a synthetic corpus and of the last norm, and what is refused."""

import pytest

from tests.config.conftest import VALID, Load, Problems
from tyro_cli.config.schema import Settings
from tyro_cli.experiments.identity import cell_id

CHAIN = "{states: 12, irreversibility: 0, train_tokens: 500, heldout_tokens: 100}"
SYNTHETIC = VALID.replace(
    "  corpus: kjv\n  tokenizer: {kind: bpe, vocab_size: 512}\n",
    f"  corpus: synthetic\n  synthetic: {CHAIN}\n  tokenizer: {{kind: word}}\n",
)


def test_left_out_keys_of_a_chain_and_what_they_mean(load: Load) -> None:
    chain = load(SYNTHETIC).experiment.data.synthetic
    assert (chain.rank, chain.entropy_fraction, chain.seed) == (8, 0.5, 0)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.corpus=kjv"], "data.synthetic: is for the corpus synthetic; take it out"),
        (["data.synthetic=null"], "data.synthetic: is missing; the corpus synthetic needs"),
        (["data.tokenizer.kind=byte"], "data.tokenizer.kind: must be word for the corpus"),
        (["data.train_fraction=0.5"], "set data.synthetic.train_tokens instead"),
        (["task=translation"], "synthetic is one text: the task must be language-modeling"),
        (["data.synthetic.rank=7"], "data.synthetic.rank: must be even, not 7"),
        (["data.synthetic.rank=14"], "data.synthetic.rank: 14 is more than states (12)"),
        (["data.synthetic.states=3"], "data.synthetic.states: must be at least 4, not 3"),
        (["data.synthetic.irreversibility=1.5"], "must be at most 1, not 1.5"),
        (["data.synthetic.entropy_fraction=0"], "must be at least 0.1, not 0"),
        (["data.synthetic.train_tokens=9"], "must be at least 100, not 9"),
        (["data.synthetic.sates=9"], "did you mean 'states'?"),
        (
            ["model.norm_place=post", "model.final_norm=false"],
            "model.final_norm: takes out the norm behind the last block; post has none there",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_problem_is_named_with_its_remedy(
    problems: Problems, overrides: list[str], expected: str
) -> None:
    assert expected in problems(SYNTHETIC, overrides)


def test_a_corpus_that_is_not_synthetic_and_the_usual_norm_leave_records_as_they_were(
    load: Load,
) -> None:
    settings = load(VALID).arms["untied"].settings
    record = settings.as_record()
    assert "synthetic" not in record["data"] and "final_norm" not in record["model"]
    assert Settings.model_validate(record) == settings
    synthetic = load(SYNTHETIC, ["model.final_norm=false"]).arms["untied"].settings
    record = synthetic.as_record()
    assert record["data"]["synthetic"]["states"] == 12 and record["model"]["final_norm"] is False
    assert Settings.model_validate(record) == synthetic


def test_the_content_says_which_chain_it_is(load: Load) -> None:
    one = load(SYNTHETIC).arms["untied"].settings
    other = load(SYNTHETIC, ["data.synthetic.seed=1"]).arms["untied"].settings
    assert cell_id(one, 0, "c" * 64, "fp32") == cell_id(other, 0, "c" * 64, "fp32")
