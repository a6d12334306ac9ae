"""One cell on a synthetic corpus: trained, and recorded with what is known of its text."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.workplace import REPOSITORY
from tyro_cli.analysis.excess import excess_values
from tyro_cli.analysis.formats import CellResult
from tyro_cli.config.schema import Settings
from tyro_cli.config.studies import load_study
from tyro_cli.data.prepared import PreparedData, prepare_data
from tyro_cli.experiments.confounds import check_confounds
from tyro_cli.experiments.specs import CellSpec
from tyro_cli.experiments.worker import run_cell

STEPS = 60


def settings(**model: Any) -> Settings:
    return Settings.model_validate(
        {
            "task": "language-modeling",
            "data": {
                "corpus": "synthetic",
                "synthetic": {
                    "states": 12,
                    "rank": 4,
                    "irreversibility": 1.0,
                    "train_tokens": 4000,
                    "heldout_tokens": 1000,
                },
                "format": "wikitext",
                "tokenizer": {"kind": "word"},
                "context_length": 8,
            },
            "model": {"d_model": 16, "num_layers": 0, "num_heads": 2, "final_norm": False} | model,
            "training": {
                "budget": {"steps": STEPS},
                "batch_tokens": 256,
                "optimizer": {"learning_rate": 5e-2, "weight_decay": 0.0},
                "precision": "fp32",
            },
            "evaluation": {"every_steps": 30},
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    cache = tmp_path_factory.mktemp("cache")
    return prepare_data(settings().data, cache_folder=cache)


def train(folder: Path, data: PreparedData, chosen: Settings) -> CellResult:
    spec = CellSpec(
        cell_id="c" * 64,
        arm="untied",
        seed=0,
        settings=chosen.as_record(),
        folder=str(folder),
        prepared_folder=str(data.folder),
        total_steps=STEPS,
        device="cpu",
        precision="fp32",
        threads=1,
        allow_numeric_drift=False,
        point="",
    )
    run_cell(spec, lambda event: None, lambda: None)
    return CellResult.model_validate(json.loads((folder / "result.json").read_text()))


def test_a_cell_records_its_excess_and_the_tie_shows_in_it(
    tmp_path: Path, data: PreparedData
) -> None:
    untied = train(tmp_path / "untied", data, settings())
    tied = train(tmp_path / "tied", data, settings(tying="in-out"))
    assert data.known_entropy is not None and untied.known_entropy is not None
    assert untied.known_entropy.model_dump() == data.known_entropy.as_record()
    values = [excess_values(result, "test") for result in (untied, tied)]
    (loose, bound), least = values, data.known_entropy.reversible_excess_nats
    assert loose["excess_nats"] is not None and bound["excess_nats"] is not None
    assert 0 < loose["excess_nats"] < least / 2  # more than a reversible chain can say
    assert bound["excess_nats"] > 0.9 * least  # the text is short, and least is an expectation


def test_every_point_of_the_study_is_an_experiment() -> None:
    study = load_study(REPOSITORY / "configs" / "claims" / "5-flexibility.yaml")
    assert len(study.points) == 12 and len(study.seeds) >= 3
    for point in study.points:
        check_confounds(point.loaded)
        for arm in point.loaded.arms.values():
            chain, model = arm.settings.data.synthetic, arm.settings.model
            assert chain is not None and not model.final_norm
            assert chain.states + 1 <= model.d_model <= 128 and chain.entropy_fraction <= 0.6
            assert model.dropouts.residual == 0
