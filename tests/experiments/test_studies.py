"""A study's plan: its identity, its shards, and its folder, which is never overwritten."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.experiments.small_experiments import ARMS, BASE, prepared_data
from tests.folders import snapshot
from tyro_cli.analysis.records import parse_record
from tyro_cli.analysis.study_formats import StudyManifest
from tyro_cli.config.studies import load_study
from tyro_cli.errors import ConfigurationError, DamagedRecord, RunFolderError, UsageError
from tyro_cli.experiments import run
from tyro_cli.experiments.claims import claim_record
from tyro_cli.experiments.plan import base_settings
from tyro_cli.experiments.studies import (
    StudyPlan,
    cells_of_shard,
    check_study_folder,
    open_study_folder,
    pair_of,
    parse_shard,
    plan_study,
    train_command,
)
from tyro_cli.ledger.huggingface import hf_ledger
from tyro_cli.ledger.ledger import ledger_of
from tyro_cli.storage import files
from tyro_cli.training.signals import StopRequest

WIDTH = "  width: {model.d_model: [8, 16]}\n"
SEEDS = "seeds: 0-2\n"


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Plan a study; the text that stands for a corpus is the last letter of its name."""
    monkeypatch.setattr(
        run, "prepare", lambda task, data, **_: prepared_data(tmp_path, text=data.corpus[-1])
    )

    def plan(
        factors: str = WIDTH, more: str = SEEDS, *overrides: str, experiment: str = BASE + ARMS
    ) -> StudyPlan:
        (tmp_path / "experiment.yaml").write_text(experiment)
        path = tmp_path / "study.yaml"
        path.write_text("name: sizes\nexperiment: experiment.yaml\nfactors:\n" + factors + more)
        return plan_study(
            load_study(path, overrides),
            device="cpu",
            out=tmp_path / "runs",
            say=lambda text: None,
            stop=StopRequest(),
        )

    return plan


def opened(plan: StudyPlan, shard: int = 1, shards: int = 1) -> Path:
    """Check and open a study's folder as a sweep does."""
    check_study_folder(plan, shard, shards)
    open_study_folder(plan, shard, shards, ["wtie", "sweep"])
    return plan.folder


# identity


def test_the_cells_are_those_of_ordinary_runs_pair_by_pair(planned):
    plan = planned()
    assert len(plan.cells) == 2 * 2 * 3
    assert [(one.point.levels["width"], one.cell.seed, one.cell.arm) for one in plan.cells[:3]] == [
        (8, 0, "untied"),
        (8, 0, "tied"),
        (8, 1, "untied"),
    ]
    folders = [start.plan.run_folder.name for start in plan.starts]
    assert len(set(folders)) == 2 and all(name.startswith("small-") for name in folders)
    assert plan.folder.name == f"sizes-{plan.study_id[:8]}"


@pytest.mark.parametrize(
    "same",
    [
        lambda planned: planned(WIDTH.replace("8, 16", "8, 16, 32")),
        lambda planned: planned(WIDTH.replace("8, 16", "16")),
        lambda planned: planned(WIDTH.replace("width", "size")),
        lambda planned: planned(WIDTH, "seeds: 0-9\n"),
        lambda planned: planned(WIDTH, SEEDS + "family: width\n"),
        lambda planned: planned(WIDTH, SEEDS + "exclude: [{width: 8}]\n"),
        lambda planned: planned(experiment=BASE.replace("d_model: 16", "d_model: 32") + ARMS),
        lambda planned: planned(
            experiment=BASE + ARMS.replace("tied: {m", "new: {model: {tying: in-out}}\n  tied: {m")
        ),
        lambda planned: planned(
            experiment=BASE.replace("corpus: kjv", "corpus: elsewhere-v") + ARMS
        ),
    ],
    ids=["level", "fewer", "name", "seeds", "family", "exclude", "base", "arm", "path"],
)
def test_levels_arms_and_seeds_extend_a_study(planned, same):
    assert same(planned).study_id == planned().study_id


@pytest.mark.parametrize(
    "other",
    [
        lambda planned: planned(WIDTH + "  depth: {model.num_layers: [1]}\n"),
        lambda planned: planned("  depth: {model.num_layers: [1, 2]}\n"),
        lambda planned: planned(WIDTH, SEEDS, "training.batch_tokens=64"),
        lambda planned: planned(experiment=BASE.replace("2e-3", "1e-3") + ARMS),
        lambda planned: planned(experiment=BASE.replace("corpus: kjv", "corpus: kjx") + ARMS),
    ],
    ids=["factor", "key", "override", "base", "text"],
)
def test_other_settings_or_texts_are_another_study(planned, other):
    assert other(planned).study_id != planned().study_id


def test_a_study_over_texts_is_extended_by_another_text(planned):
    one = planned("  text: {data.corpus: [m, z]}\n")
    more = planned("  text: {data.corpus: [m, z, a]}\n")
    assert one.study_id == more.study_id
    assert len({start.plan.run_id for start in more.starts}) == 3


def test_a_study_over_chains_is_extended_by_one_before_its_first(planned, tmp_path, monkeypatch):
    """A chain is told by its settings, so the content of the first point is a level, too."""

    def prepare(task, data, **_):
        return prepared_data(tmp_path, text="abc"[int(4 * data.synthetic.irreversibility)])

    monkeypatch.setattr(run, "prepare", prepare)
    chain = "{states: 8, irreversibility: 0.5, train_tokens: 100, heldout_tokens: 100}"
    base = BASE.replace("corpus: kjv", f"corpus: synthetic\n  synthetic: {chain}")
    factors = "  turn: {data.synthetic.irreversibility: [%s]}\n"
    first = planned(factors % "0.25, 0.5", experiment=base + ARMS)
    more = planned(factors % "0, 0.25, 0.5", experiment=base + ARMS)
    assert more.study_id == first.study_id


def test_points_of_one_content_are_refused(planned):
    with pytest.raises(ConfigurationError) as caught:
        planned("  text: {data.corpus: [old-a, new-a]}\n")
    assert "the points text old-a and text new-a are one and the same" in caught.value.message


def test_what_an_experiment_cannot_take_names_its_point(planned):
    with pytest.raises(UsageError, match=r"\(the point context 512\)"):
        planned("  context: {data.context_length: [8, 512], training.batch_tokens: [32, 512]}\n")


def test_the_command_of_a_point_sets_its_levels(planned, tmp_path):
    plan = planned(
        "  mixed: {model.d_model: [8], model.dropout: [0.5], data.corpus: ['a b']}\n",
        SEEDS,
        "evaluation.stride=4",
    )
    assert train_command(plan.loaded, plan.loaded.points[0]) == [
        *("wtie", "train", "--config", str(tmp_path / "experiment.yaml"), "evaluation.stride=4"),
        *("model.d_model=8", "model.dropout=0.5", 'data.corpus="a b"', "--seeds", "0,1,2"),
    ]


# shards


def test_a_shard_is_written_i_of_n():
    assert parse_shard(None) == (1, 1)
    assert parse_shard("2/3") == (2, 3)
    for text in ("", "0/2", "3/2", "1/0", "1", "1/2/3", " 1/2", "1/99999", "\u0661/2"):
        with pytest.raises(UsageError, match="cannot be read"):
            parse_shard(text)


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 6, 9])
def test_shards_are_whole_pairs_and_together_the_study(planned, shards):
    plan = planned()
    dealt = [cells_of_shard(plan, number, shards) for number in range(1, shards + 1)]
    names = [(pair_of(one), one.cell.arm) for cells in dealt for one in cells]
    assert len(names) == len(set(names)) == len(plan.cells)
    for cells in dealt:
        pairs = {pair_of(one) for one in cells}
        assert len(cells) == 2 * len(pairs), "both arms of every pair"
    sizes = [len(cells) for cells in dealt]
    assert max(sizes) - min(sizes) <= 2


def test_shards_in_one_folder_must_fit_together(planned):
    plan = planned()
    opened(plan, 1, 2)
    opened(plan, 2, 2)
    opened(plan, 1, 2)
    check_study_folder(plan, 1, 1)
    with pytest.raises(RunFolderError, match="--shard 1/3 overlaps shard") as caught:
        check_study_folder(plan, 1, 3)
    assert caught.value.remedy == "use the same n: --shard i/2"
    more = planned(WIDTH, "seeds: 0-3\n")
    with pytest.raises(RunFolderError, match="--shard 1/2 overlaps shard 2/2") as caught:
        check_study_folder(more, 1, 2)
    assert "leave --shard out" in caught.value.remedy
    check_study_folder(more, 1, 1)


# the folder


def test_the_folder_holds_the_text_and_the_plan(planned):
    plan = planned()
    folder = opened(plan)
    assert (folder / "study.yaml").read_text() == plan.loaded.text
    manifest = StudyManifest.model_validate(json.loads((folder / "manifest.json").read_text()))
    assert (manifest.study_id, manifest.name, manifest.family) == (plan.study_id, "sizes", "all")
    assert manifest.factors["width"].levels == [8, 16]
    assert (manifest.arms, manifest.baseline) == (["untied", "tied"], "untied")
    assert manifest.seeds == [0, 1, 2]
    assert [point.levels for point in manifest.points] == [{"width": 8}, {"width": 16}]
    assert [point.run_id for point in manifest.points] == [s.plan.run_id for s in plan.starts]
    assert manifest.margin == plan.loaded.points[0].loaded.experiment.analysis.margin
    before = snapshot(folder)
    opened(plan)
    after = snapshot(folder)
    assert {n: sha for n, (sha, _) in after.items()} == {n: sha for n, (sha, _) in before.items()}


CLAIM = """\
claim:
  number: 1
  sentence: Tying saves parameters.
  depends_on: the vocabulary
  findings:
    - {name: fewer, measure: parameters, arm: tied, baseline: untied, expected: lower}
  ledger:
    vocab_size: [100]
    d_model: [8]
    shapes: [shapes/small.json]
"""
SMALL = {
    "model_type": "gpt2",
    "vocab_size": 61,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 32,
}


def write_shape(folder, content):
    (folder / "shapes").mkdir(exist_ok=True)
    (folder / "shapes" / "small.json").write_text(json.dumps(content))


@pytest.mark.parametrize("is_tied", [True, False])
def test_published_models_are_kept_with_the_claim(planned, tmp_path, is_tied):
    write_shape(tmp_path, SMALL | {"tie_word_embeddings": is_tied})
    folder = opened(planned(more=SEEDS + CLAIM))
    claim = parse_record(StudyManifest, folder / "manifest.json", "").claim
    assert [model.vocab_size for model in claim.counted] == [100]
    (model,) = claim.published
    assert (model.name, model.tied, model.saving) == ("small", is_tied, 61 * 24)
    assert model.total == hf_ledger(tmp_path / "shapes" / "small.json").total
    assert model.untied_total == model.tied_total + 61 * 24
    assert model.embedding_and_head == 61 * 24 * (1 if is_tied else 2)


def test_a_model_that_translates_is_counted_with_its_sources_matrix(tmp_path):
    write_shape(tmp_path, SMALL)
    translating = (BASE + ARMS).replace("language-modeling", "translation")
    (tmp_path / "experiment.yaml").write_text(translating.replace("corpus: kjv", "corpus: kjv-web"))
    path = tmp_path / "study.yaml"
    path.write_text("name: sizes\nexperiment: experiment.yaml\nfactors:\n" + WIDTH + SEEDS + CLAIM)
    study = load_study(path, ())
    (model,) = claim_record(study)["counted"]
    assert model["untied_total"] == ledger_of(base_settings(study.points[0].loaded), 100).total
    assert model["saving"] == 100 * 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        ([], "holds no configuration"),
        (SMALL | {"model_type": "t5"}, "model_type: 't5' is not known"),
        (SMALL | {"n_head": 5}, "n_head: 5 heads do not divide n_embd 24"),
    ],
)
def test_a_published_model_that_cannot_be_counted_is_pointed_at(
    planned, tmp_path, content, message
):
    if content is not None:
        write_shape(tmp_path, content)
    with pytest.raises(ConfigurationError) as caught:
        planned(more=SEEDS + CLAIM)
    said = caught.value.message
    assert said.startswith(f"{tmp_path / 'study.yaml'}:15:14: claim.ledger.shapes[0]: ")
    assert message in said and "small.json" in said
    assert caught.value.remedy


def test_a_claim_that_is_changed_after_cells_were_trained_is_told_on(planned, tmp_path):
    write_shape(tmp_path, SMALL)
    plan = planned(more=SEEDS + CLAIM)
    changed = replace(plan, claim=plan.claim | {"depends_on": "what was seen"})

    def after_cells(plan, trained):
        for one in plan.cells[:trained]:
            one.cell.folder.mkdir(parents=True, exist_ok=True)
            (one.cell.folder / "result.json").write_text("{}")
        manifest = parse_record(StudyManifest, opened(plan) / "manifest.json", "")
        return manifest.claim_after_cells

    assert after_cells(plan, trained=0) == 0
    assert after_cells(plan, trained=3) == 0
    manifest = plan.folder / "manifest.json"
    older = json.loads(manifest.read_text())
    del older["claim"]["findings"][0]["margin"]  # what a version without this key had written
    manifest.write_text(json.dumps(older))
    assert after_cells(plan, trained=3) == 0
    in_parts = replace(plan, claim=plan.claim | {"parts": 2})
    assert after_cells(in_parts, trained=3) == 0  # which is not what this study is to decide
    assert after_cells(changed, trained=3) == 3
    assert after_cells(changed, trained=4) == 3
    assert after_cells(plan, trained=4) == 4


@pytest.mark.parametrize(("measure", "cells"), [("nats_per_word", 3), ("parameters", 0)])
def test_a_margin_of_findings_that_is_changed_after_cells_were_trained_is_told_on(
    planned, tmp_path, measure, cells
):
    write_shape(tmp_path, SMALL)
    written = SEEDS + CLAIM.replace("parameters,", f"{measure},")
    plan = planned(WIDTH, written)
    changed = planned(WIDTH, written, "analysis.margin=0.1")
    opened(plan)
    for one in plan.cells[:3]:
        one.cell.folder.mkdir(parents=True)
        (one.cell.folder / "result.json").write_text("{}")
    folder = opened(changed)
    assert parse_record(StudyManifest, folder / "manifest.json", "").claim_after_cells == cells


@pytest.mark.parametrize(
    ("fewer", "says"),
    [
        (lambda planned: planned(WIDTH, "seeds: 0-1\n"), "seed 2"),
        (lambda planned: planned(WIDTH, SEEDS + "exclude: [{width: 8}]\n"), "width 8"),
        (lambda planned: planned(WIDTH.replace("8, 16", "16")), "width 8"),
        (
            lambda planned: planned(
                experiment=BASE
                + ARMS.replace("untied: {}", "untied: {}\n  new: {}").replace(
                    "tied: {m", "other: {m", 1
                )
            ),
            "arm tied",
        ),
    ],
    ids=["seed", "exclude", "level", "arm"],
)
def test_what_was_planned_is_not_left_out_after_results_were_seen(planned, fewer, says):
    plan, without = planned(), fewer(planned)
    opened(plan)
    opened(without)  # nothing is trained yet
    folder = opened(plan)
    cell = plan.cells[0].cell.folder
    cell.mkdir(parents=True)
    (cell / "result.json").write_text("{}")
    before = snapshot(folder)
    with pytest.raises(RunFolderError, match=f"was planned with {says}, and has") as caught:
        opened(without)
    assert "change name: in the study" in caught.value.remedy
    assert snapshot(folder) == before
    opened(plan)


def test_a_width_of_the_ledger_that_cannot_be_split_is_pointed_at(planned, tmp_path):
    write_shape(tmp_path, SMALL)
    with pytest.raises(ConfigurationError) as caught:
        planned(more=SEEDS + CLAIM.replace("d_model: [8]", "d_model: [8, 9]"))
    assert "study.yaml:14:18: claim.ledger.d_model[1]: 9 cannot be split" in caught.value.message


def test_factors_keep_the_order_of_the_study_file(planned):
    folder = opened(planned(WIDTH + "  depth: {model.num_layers: [1, 2]}\n"))
    manifest = json.loads((folder / "manifest.json").read_text())
    orders = {name: factor["order"] for name, factor in manifest["factors"].items()}
    assert orders == {"width": 0, "depth": 1}


def test_an_older_text_is_kept_and_the_folder_is_a_study_at_every_moment(planned, monkeypatch):
    first = planned()
    folder = opened(first)
    changed = planned(WIDTH, SEEDS + "# more\n")
    real = files.os.replace

    def crash(source, target):
        if Path(target).name == "study.yaml":
            raise KeyboardInterrupt
        real(source, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(files.os, "replace", crash)
        opened(changed)
    assert (folder / "study.yaml").read_text() == first.loaded.text
    opened(changed)
    assert (folder / "study.yaml").read_text() == changed.loaded.text
    assert (folder / "study.yaml.old-1").read_text() == first.loaded.text


def test_a_key_that_only_measures_makes_no_other_study(planned):
    measured = planned(WIDTH, SEEDS, "evaluation.role_gradients_every_steps=7")
    assert measured.folder == planned().folder


def test_what_a_crash_left_unfinished_is_cleared(planned):
    folder = opened(planned(), 1, 2)
    (folder / "tables").mkdir()
    left = [folder / ".manifest.json.tmp-0123abcd", folder / "tables" / ".a.md.tmp-0123abcd"]
    left.append(folder / "shards" / ".1-of-2.json.tmp-0123abcd")
    for path in left:
        path.write_text("half")
    opened(planned(), 1, 2)
    assert [path for path in left if path.exists()] == []


def test_a_file_or_a_foreign_folder_in_the_way_is_left_alone(planned):
    plan = planned()
    plan.folder.parent.mkdir()
    plan.folder.write_text("mine")
    with pytest.raises(RunFolderError, match="is in the way: it is not a folder"):
        opened(plan)
    assert plan.folder.read_text() == "mine"
    plan.folder.unlink()
    plan.folder.mkdir()
    (plan.folder / "thesis.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="it is not the folder of a study"):
        opened(plan)
    assert [path.name for path in plan.folder.iterdir()] == ["thesis.txt"]
    (plan.folder / "thesis.txt").unlink()
    assert (opened(plan) / "study.yaml").is_file(), "an empty folder is taken"


def test_another_study_in_the_folder_is_refused(planned):
    plan = planned()
    path = opened(plan) / "manifest.json"
    path.write_text(path.read_text().replace(plan.study_id, "0" * 64))
    before = snapshot(plan.folder)
    with pytest.raises(RunFolderError, match="holds another study: 0000000000000000"):
        opened(plan)
    assert snapshot(plan.folder) == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}'])
def test_a_damaged_manifest_is_refused(planned, text):
    plan = planned()
    path = opened(plan) / "manifest.json"
    path.write_text(text)
    with pytest.raises(DamagedRecord, match=r"manifest\.json"):
        opened(plan)
    assert path.read_text() == text
