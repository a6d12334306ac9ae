"""One cell that translates: trained, evaluated, recorded, interrupted and gone on with."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.texts import write_pairs
from tests.folders import digests
from tyro_cli.analysis.formats import CellResult
from tyro_cli.analysis.probes import RoleGradientRecord
from tyro_cli.config.schema import Settings
from tyro_cli.data.prepared_pairs import PreparedPairs, prepare_pairs
from tyro_cli.errors import Interrupted
from tyro_cli.evaluation.translation import pair_nats
from tyro_cli.experiments.launchers.ray_node import RECORDS
from tyro_cli.experiments.specs import CellSpec
from tyro_cli.experiments.worker import run_cell
from tyro_cli.ledger.ledger import ledger_of
from tyro_cli.storage.records import read_records
from tyro_cli.training.processes import ALONE
from tyro_cli.training.role_gradients import KIND, RoleGradients
from tyro_cli.training.tasks import Translation, task_of

pytest.importorskip("sacrebleu")

NUMBERS = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
STEPS = 8


def pairs(first: int, count: int) -> list[tuple[str, str]]:
    """Digits and their names: a language that a small model can learn."""
    digits = [str(7919 * number)[-(2 + number % 4) :] for number in range(first, first + count)]
    return [(" ".join(text), " ".join(NUMBERS[int(digit)] for digit in text)) for text in digits]


def settings(corpus: Path, **changes: Any) -> Settings:
    record: dict[str, Any] = {
        "task": "translation",
        "data": {
            "corpus": str(corpus),
            "languages": {"source": "en", "target": "de"},
            "tokenizer": {"kind": "byte"},
            "context_length": 64,
        },
        "model": {"d_model": 16, "num_layers": 1, "num_heads": 2, "dropout": 0.1},
        "training": {
            "budget": {"steps": STEPS},
            "batch_tokens": 512,
            "optimizer": {"learning_rate": 1e-2},
            "precision": "fp32",
            "label_smoothing": 0.1,
        },
        "evaluation": {"every_steps": 4, "beam_size": 2},
    }
    for path, value in changes.items():
        section, key = path.split("__")
        record[section][key] = value
    return Settings.model_validate(record)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": pairs(0, 120), "valid": pairs(200, 12), "test": pairs(300, 14)}
    return write_pairs(tmp_path_factory.mktemp("pairs"), splits)


@pytest.fixture(scope="module")
def data(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedPairs:
    cache = tmp_path_factory.mktemp("cache")
    return prepare_pairs(settings(corpus).data, cache_folder=cache)


def train(
    folder: Path,
    data: PreparedPairs,
    chosen: Settings,
    poll: Callable[[], None] = lambda: None,
    report: Callable[[dict[str, Any]], None] = lambda event: None,
    **keys: Any,
) -> dict[str, Any]:
    """Train one cell in this process and return its result."""
    spec = CellSpec(
        cell_id="c" * 64,
        arm="arm",
        seed=0,
        settings=chosen.as_record(),
        folder=str(folder / "arm" / "seed-0"),
        prepared_folder=str(data.folder),
        total_steps=STEPS,
        device="cpu",
        precision="fp32",
        threads=1,
        **keys,
    )
    run_cell(spec, report, poll)
    result: dict[str, Any] = json.loads((Path(spec.folder) / "result.json").read_text())
    return result


@pytest.mark.parametrize("tying", ["none", "in-out", "three-way"])
def test_a_cell_leaves_scores_translations_and_counts(
    tmp_path: Path, corpus: Path, data: PreparedPairs, tying: str
) -> None:
    chosen = settings(corpus, model__tying=tying)
    result = train(tmp_path, data, chosen)
    cell = tmp_path / "arm" / "seed-0"
    CellResult.model_validate(result)
    kept = {str(path.relative_to(cell)) for path in cell.rglob("*") if path.is_file()}
    kept = {name for name in kept if not name.startswith((".", "checkpoints/"))}
    assert kept <= {*RECORDS}, "what Ray brings back from another machine"
    total = ledger_of(chosen, data.vocab_size, source_vocab_size=data.source_vocab_size).total
    assert result["parameters"]["unique_storage"] == total
    assert result["parameters"]["tied"] == (tying != "none")
    best = result["evaluations"]["best"]
    for name in ("valid", "test"):
        split = data.splits[name]
        assert best[name]["tokens"] == split.num_tokens
        assert best[name]["words"] == sum(len(text.split()) for text in split.target_sentences)
        lines = (cell / "translations" / f"{name}.txt").read_text().splitlines()
        assert len(lines) == split.num_pairs == result["quality"][name]["sentences"]
        for line in result["quality"][name]["signatures"].values():
            assert line.endswith("|beam:2|lenpen:1")
    with np.load(cell / "documents.npz") as documents:
        assert documents["test_nats"].sum() == pytest.approx(best["test"]["nats"])
        assert documents["test_bleu"].shape == (data.splits["test"].num_pairs, 10)
    tokens = result["training"]["tokens"]
    batches = task_of(chosen, data, 0)
    assert tokens == sum(
        int(batch.source_lengths.sum()) + batch.num_targets
        for batch in map(batches.batch, range(STEPS))
    )
    assert result["signatures"]["test"]["token_perplexity"].count("ctx:sentence") == 1


def test_a_trial_of_a_search_is_not_shown_test_and_translates_nothing(
    tmp_path: Path, corpus: Path, data: PreparedPairs
) -> None:
    whole = train(tmp_path / "whole", data, settings(corpus))
    phases: list[str] = []
    trial = train(
        tmp_path / "trial",
        data,
        settings(corpus),
        report=lambda event: phases.append(event.get("text", "")),
        is_trial=True,
    )
    assert CellResult.model_validate(trial).splits == ("valid",)
    for at in ("best", "last"):
        del whole["evaluations"][at]["test"]
    del whole["quality"], whole["signatures"]["test"]
    assert trial == whole
    cell = tmp_path / "trial" / "arm" / "seed-0"
    assert not (cell / "translations").exists() and "translation" not in phases
    with np.load(cell / "documents.npz") as documents:
        assert {name.partition("_")[0] for name in documents.files} == {"valid"}


def test_a_cell_gone_on_with_is_the_one_that_was_never_stopped(
    tmp_path: Path, corpus: Path, data: PreparedPairs
) -> None:
    chosen = settings(
        corpus,
        training__micro_batch_tokens=128,
        model__tying="three-way",
        evaluation__role_gradients_every_steps=1,
    )
    train(tmp_path / "whole", data, chosen)
    for stop_at in (1, 3, 4, 6):
        steps = [0]

        def report(event: dict[str, Any], steps: list[int] = steps) -> None:
            steps += [event["step"]] if event["kind"] == "step" else []

        def poll(stop_at: int = stop_at, steps: list[int] = steps) -> None:
            if steps[-1] == stop_at:
                raise Interrupted(15)

        with pytest.raises(Interrupted):
            train(tmp_path / "parts", data, chosen, poll, report)
    torn = tmp_path / "parts" / "arm" / "seed-0" / "translations" / ".valid.txt.tmp-0123abcd"
    torn.parent.mkdir()
    torn.write_text("half")  # as a kill within its writing leaves it
    train(tmp_path / "parts", data, chosen)
    assert not torn.exists()
    whole, parts = (
        {
            name: digest
            for name, digest in digests(tmp_path / name_of_run).items()
            if not name.endswith("performance.json")
        }
        for name_of_run in ("whole", "parts")
    )
    assert whole == parts


@pytest.mark.parametrize("tying", ["none", "in-out", "three-way"])
def test_measuring_the_gradients_of_the_roles_adds_records_alone(
    tmp_path: Path, corpus: Path, data: PreparedPairs, tying: str
) -> None:
    left = []
    for name, every in (("without", None), ("with", 3)):
        key = {"evaluation__role_gradients_every_steps": every}
        result = train(tmp_path / name, data, settings(corpus, model__tying=tying, **key))
        assert result["settings"]["evaluation"].pop("role_gradients_every_steps", None) == every
        cell = tmp_path / name / "arm" / "seed-0"
        records = list(read_records(cell / "metrics.jsonl"))
        roles = [record for record in records if record["kind"] == KIND]
        files = digests(cell)
        for of_times_or_settings in ("metrics.jsonl", "performance.json", "result.json"):
            del files[of_times_or_settings]
        left.append((files, result, [record for record in records if record not in roles]))
    assert left[0] == left[1]
    assert [record["step"] for record in roles] == [1, 4, 7]
    for record in roles:
        bands = RoleGradientRecord.model_validate(record).bands
        assert bands.source_norm is not None
        assert len(bands.source_norm) == 6


def test_a_cell_stopped_while_it_translates_is_gone_on_with(
    tmp_path: Path, corpus: Path, data: PreparedPairs
) -> None:
    phases: list[str] = []

    def report(event: dict[str, Any]) -> None:
        if event["kind"] == "phase":
            phases.append(event["text"])

    def poll() -> None:
        if phases[-1:] == ["translation"]:
            raise Interrupted(2)

    with pytest.raises(Interrupted):
        train(tmp_path, data, settings(corpus), poll, report)
    assert not (tmp_path / "arm" / "seed-0" / "result.json").exists()
    assert train(tmp_path, data, settings(corpus))["status"] == "done"


@pytest.mark.parametrize("sharing", ["joint", "separate"])
def test_the_encoder_has_a_role_where_the_vocabulary_is_one(
    data: PreparedPairs, corpus: Path, sharing: str
) -> None:
    chosen = settings(
        corpus, evaluation__role_gradients_every_steps=2, training__micro_batch_tokens=128
    )
    measured = RoleGradients(chosen, replace(data, sharing=sharing))
    source, _, target_in, _ = measured.batch
    assert 0 < source.size + target_in.size <= 128
    model = Translation(chosen, data, seed=0).build_model()
    record = measured.record(model, 4)
    assert record is not None
    assert ("source_norm" in record) == (sharing == "joint")
    assert measured.record(model, 5) is None
    # Bands are of targets: digits are read by the encoder alone.
    assert record["bands"]["tokens"][-1] > 200


def test_micro_batches_are_the_batch(corpus: Path, data: PreparedPairs) -> None:
    """Shares sum to 1, and gradients to that of the whole batch (without dropout)."""
    gradients = []
    for micro in (None, 128):
        chosen = settings(corpus, training__micro_batch_tokens=micro, model__dropout=0.0)
        task = Translation(chosen, data, seed=0)
        model = task.build_model()
        batch = task.batch(1)
        parts = list(task.micro_batches(model, batch, ALONE))
        assert sum(part.share for part in parts) == pytest.approx(1)
        assert (len(parts) > 1) == (micro is not None)
        for part in parts:
            objective, _ = part.loss(torch.float32, None)
            (objective * part.share).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_smoothing_is_in_the_objective_and_in_no_record(corpus: Path, data: PreparedPairs) -> None:
    task = Translation(settings(corpus, model__dropout=0.0), data, seed=0)
    model = task.build_model()
    batch = task.batch(0)
    [part] = task.micro_batches(model, batch, ALONE)
    objective, nats = part.loss(torch.float32, None)
    expected = pair_nats(model, data.splits["train"])
    starts = data.splits["train"].target_starts
    chosen = np.concatenate([expected[starts[pair] : starts[pair + 1]] for pair in batch.pairs])
    assert nats.item() == pytest.approx(float(chosen.mean()), rel=1e-5)
    assert not nats.requires_grad and objective.requires_grad
    assert objective.item() != pytest.approx(nats.item(), rel=1e-6)


def test_pairs_are_scored_the_same_however_they_are_batched(
    corpus: Path, data: PreparedPairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Translation(settings(corpus), data, seed=0).build_model().double()
    whole = pair_nats(model, data.splits["valid"], dtype=torch.float64)
    monkeypatch.setattr("tyro_cli.evaluation.translation.BATCH_TOKENS", 1)
    single = pair_nats(model, data.splits["valid"], dtype=torch.float64)
    np.testing.assert_allclose(whole, single, rtol=2e-7)  # they are kept in float32
