"""Every file under configs/ loads, counts and builds; what it says at its head is there."""

import itertools
import json
import re
from decimal import Decimal

import pytest

from tests.data.texts import write_pairs
from tests.end_to_end.workplace import REPOSITORY
from tyro_cli.cli.app import main
from tyro_cli.config.loading import load_experiment
from tyro_cli.config.studies import load_study
from tyro_cli.experiments.confounds import check_confounds
from tyro_cli.ledger.huggingface import hf_ledger
from tyro_cli.ledger.ledger import ledger_of
from tyro_cli.ledger.matching import solve_matches
from tyro_cli.models.language_model import build_model
from tyro_cli.models.translation_model import build_translation_model
from tyro_cli.models.tying import unique_parameters

CONFIGURATIONS = sorted((REPOSITORY / "configs").glob("*.yaml"))
STUDIES = sorted((REPOSITORY / "configs" / "studies").glob("*.yaml"))
CLAIMS = sorted((REPOSITORY / "configs" / "claims").glob("*.yaml"))
PILOTS = sorted((REPOSITORY / "configs" / "claims" / "pilots").glob("*.yaml"))
SMALL_V = 300


@pytest.fixture(params=CONFIGURATIONS, ids=lambda path: path.name)
def path(request):
    return request.param


def test_there_are_configurations():
    names = {path.name for path in CONFIGURATIONS}
    assert {"quickstart.yaml", "wikitext2.yaml", "wikitext2-bpe.yaml"} <= names


def built(settings):
    """Return the untrained model of an arm, with a small vocabulary."""
    length = settings.data.context_length
    if settings.task == "translation":
        return build_translation_model(settings.model, SMALL_V, SMALL_V, length, seed=0)
    return build_model(settings.model, SMALL_V, length, seed=0)


def head_of(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(itertools.takewhile(lambda line: line.startswith("#"), lines))


def test_it_opens_with_question_cost_and_expected_result(path):
    for word in ("$schema=../docs/wtie.schema.json", "Question: ", "Cost: ", "Expected: "):
        assert word in head_of(path)


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_every_point_of_a_study_loads_counts_and_builds(study):
    for word in ("$schema=../../docs/study.schema.json", "Question: ", "Cost: ", "Expected: "):
        assert word in head_of(study)
    loaded = load_study(study)
    assert len(loaded.points) > 1 and len(loaded.seeds) > 2
    check_points(loaded)


def check_points(loaded):
    for point in loaded.points:
        check_confounds(point.loaded)
        for arm in solve_matches(point.loaded.arms, SMALL_V).values():
            settings = arm.arm.settings
            model = built(settings)
            assert unique_parameters(model) == ledger_of(settings, SMALL_V).total


@pytest.mark.parametrize("pilot", PILOTS, ids=lambda path: path.name)
def test_every_pilot_of_a_claim_can_be_run(pilot):
    for word in ("$schema=../../../docs/study.schema.json", "Question: ", "Cost: ", "Expected: "):
        assert word in head_of(pilot)
    check_points(load_study(pilot))


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda path: path.name)
def test_every_claim_says_what_decides_it_and_can_be_tried(claim):
    for word in ("Claim ", "Design: ", "Supports: ", "Refutes: ", "Cost: "):
        assert word in head_of(claim)
    loaded = load_study(claim)
    number = int(claim.name.partition("-")[0])
    assert loaded.study.claim.number == number and loaded.study.name.startswith(f"claim-{number}-")
    check_points(loaded)
    check_points(load_study(claim, smoke=True))


SHAPES = REPOSITORY / "configs" / "claims" / "shapes"
SHAPE_ROW = re.compile(
    r"^\| \S+/(?P<name>\S+) \| (?P<tie>tied|untied) "
    r"\| (?P<size>[\d.]+)(?P<unit>[MB]) \| (?P<total>[\d,]+) \|$",
    re.MULTILINE,
)


def known_shapes():
    """Return what the README of the shapes says of each model, by name."""
    rows = SHAPE_ROW.finditer((SHAPES / "README.md").read_text(encoding="utf-8"))
    return {row["name"]: row for row in rows}


def test_every_shape_is_counted_by_the_first_claim_and_stands_in_their_readme():
    claim = load_study(SHAPES.parent / "1-parameters.yaml").study.claim
    names = [path.stem for path in SHAPES.glob("*.json")]
    assert sorted(claim.ledger.shapes) == sorted(f"shapes/{name}.json" for name in names)
    assert sorted(known_shapes()) == sorted(names)


@pytest.mark.parametrize("name", known_shapes())
def test_a_published_shape_has_the_parameters_it_is_known_for(name):
    known, model = known_shapes()[name], hf_ledger(SHAPES / f"{name}.json")
    assert model.tied == (known["tie"] == "tied")
    assert f"{model.total:,}" == known["total"]
    size = Decimal(known["size"]).normalize()
    last_digit = Decimal(1).scaleb(int(size.as_tuple().exponent))
    counted = Decimal(model.total) / {"M": 10**6, "B": 10**9}[known["unit"]]
    assert abs(counted - size) <= last_digit / 2


def test_it_counts(path, capsys):
    assert main(["params", "--config", str(path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    loaded = load_experiment(path)
    check_confounds(loaded)
    arms = {name: arm.arm for name, arm in solve_matches(loaded.arms, record["vocab_size"]).items()}
    ledgers = {name: ledger_of(arm.settings, record["vocab_size"]) for name, arm in arms.items()}
    assert {name: arm["ledger"]["total"] for name, arm in record["arms"].items()} == {
        name: ledger.total for name, ledger in ledgers.items()
    }
    matrix = record["vocab_size"] * loaded.experiment.model.d_model
    expected = {"tied": matrix, "in-out": matrix, "three-way": 2 * matrix}
    baseline = loaded.experiment.baseline
    assert expected.keys() & arms.keys()
    for name in expected.keys() & arms.keys():
        assert ledgers[baseline].total - ledgers[name].total == expected[name]


def test_it_builds(path):
    loaded = load_experiment(path)
    for arm in solve_matches(loaded.arms, SMALL_V).values():
        settings = arm.arm.settings
        model = built(settings)
        assert unique_parameters(model) == ledger_of(settings, SMALL_V).total
        assert (model.head is None) == (settings.model.tying != "none")


def test_the_untied_model_of_multi30k_has_at_most_ten_million_parameters():
    settings = load_experiment(REPOSITORY / "configs" / "multi30k.yaml").arms["none"].settings
    assert settings.model.tying == "none" and settings.data.tokenizer.vocab_size == 5000
    assert settings.model.num_layers == settings.model.resolved_encoder_layers == 3
    assert 8_000_000 < ledger_of(settings, 5000).total <= 10_000_000


@pytest.mark.slow
def test_it_trains_on_a_corpus_of_its_kind(path, place):
    loaded = load_experiment(path)
    corpus, kind = loaded.experiment.data.corpus, loaded.experiment.data.tokenizer.kind
    small = [
        "data.context_length=8",
        "model.d_model=16",
        "model.num_layers=1",
        "training.budget={steps: 2}",
        "training.batch_tokens=16",
        "evaluation={every_steps: 1}",
        "data.corpus=" + (_as_hub_dataset(place) if corpus.startswith("hf:") else "corpus"),
        "data.tokenizer={kind: word}" if kind == "word" else "data.tokenizer.vocab_size=260",
    ]
    if loaded.experiment.tune is not None:  # two trials an arm are a search
        small += ["tune.grid={training.optimizer.learning_rate: [1e-3, 2e-3]}"]
        small += ["tune.budget={steps: 2}"]
    if loaded.experiment.task == "translation":
        write_pairs(place.folder / "pairs")
        small[5:] = ["evaluation={every_steps: 1, beam_size: 2}", "data.corpus=pairs"]
        small += ["data.tokenizer={kind: byte}", "data.languages={source: en, target: de}"]
        small += ["data.splits={train: train, valid: valid, test: test}"]
        small += ["data.context_length=64", "training.batch_tokens=128"]
    done = place.wtie("train", "--config", path, "--seeds", "0", *small)
    assert done.exit_code == 0, done.stderr
    arm = next(name for name in loaded.arms if name != loaded.experiment.baseline)
    assert f"Verdict on {arm} against {loaded.experiment.baseline}: one pair" in done.stdout


def _as_hub_dataset(place) -> str:
    """Lay the corpus out as the hub does: parquet files of one column, a row a line."""
    import pyarrow
    from pyarrow import parquet

    folder = place.folder / "dataset"
    folder.mkdir()
    for split, name in {"train": "train", "valid": "validation", "test": "test"}.items():
        rows = (place.folder / "corpus" / f"{split}.txt").read_text().splitlines(keepends=True)
        table = pyarrow.table({"text": rows})
        parquet.write_table(table, folder / f"{name}-00000-of-00001.parquet")
    return f"hf:{folder}"
