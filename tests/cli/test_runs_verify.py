"""`wtie runs verify`: a sound run passes, and every kind of damage is named with its place."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.fake_runs import edit_json
from tests.faults.cells import SmallRun
from tyro_cli.storage.checkpoints import list_checkpoints
from tyro_cli.storage.manifests import write_manifest

TIED, UNTIED = "tied/seed-0", "untied/seed-0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return SmallRun(tmp_path_factory.mktemp("verify"), steps=12, every=4, seeds=(0,)).train_all()


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs" / trained.name))


def last(run: Path, cell: str) -> Path:
    return list_checkpoints(run / cell / "checkpoints", "last")[0][1]


def best(run: Path, cell: str) -> Path:
    return list_checkpoints(run / cell / "checkpoints", "best")[0][1]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def set_value(*keys, value):
    def change(record) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value

    return change


def with_manifest(folder: Path, change) -> None:
    """Change a checkpoint so that its hashes still match."""
    change(folder)
    write_manifest(folder)


def swap_whole(run: Path) -> None:
    shutil.rmtree(last(run, TIED))
    shutil.copytree(last(run, UNTIED), run / TIED / "checkpoints" / last(run, UNTIED).name)


def drop_a_line(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    del lines[5]
    path.write_text("".join(lines))


def change_documents(path: Path) -> None:
    with np.load(path) as content:
        arrays = dict(content)
    arrays["test_nats"][0] += 1.0
    np.savez(path, **arrays)


DAMAGE = {
    "manifest cut": (lambda r: cut(r / "manifest.json"), "manifest.json", "has changed"),
    "manifest: half": (
        lambda r: (r / "manifest.json").write_text('{"format": 1'),
        "manifest.json",
        "damaged",
    ),
    "manifest: settings": (
        lambda r: edit_json(
            r / "manifest.json", set_value("arms", "tied", "settings", "model", "d_ff", value=8)
        ),
        "manifest.json arms.tied",
        "settings_sha256",
    ),
    "manifest: run_id": (
        lambda r: edit_json(r / "manifest.json", set_value("run_id", value="0" * 64)),
        "resolved.yaml",
        "run_id is not that of manifest.json",
    ),
    "manifest: data": (
        lambda r: edit_json(
            r / "manifest.json", set_value("data", "content_sha256", value="0" * 64)
        ),
        f"{UNTIED}/result.json",
        "cell_id is not that of its settings",
    ),
    "resolved: gone": (lambda r: (r / "resolved.yaml").unlink(), "resolved.yaml", "no such file"),
    "resolved: a tag": (
        lambda r: (r / "resolved.yaml").write_text("!!python/object/apply:os.getcwd []"),
        "resolved.yaml",
        "cannot be read",
    ),
    "resolved: an arm": (
        lambda r: replace(r / "resolved.yaml", "tying: in-out", "tying: none"),
        "resolved.yaml",
        "arms.tied: its settings are not those of manifest.json",
    ),
    "tokenizer": (lambda r: flip(r / "tokenizer.json"), "tokenizer.json", "has changed"),
    "result cut": (lambda r: cut(r / TIED / "result.json"), f"{TIED}/result.json", ""),
    "result: id": (
        lambda r: edit_json(r / TIED / "result.json", set_value("cell_id", value="0" * 64)),
        f"{TIED}/result.json",
        "cell_id",
    ),
    "result: seed of another": (
        lambda r: edit_json(r / TIED / "result.json", set_value("seed", value=1)),
        f"{TIED}/result.json",
        "seed 1",
    ),
    "result: learning rate": (
        lambda r: edit_json(
            r / TIED / "result.json",
            set_value("settings", "training", "optimizer", "learning_rate", value=0.5),
        ),
        f"{TIED}/result.json",
        "its settings are not those of the arm tied",
    ),
    "result: batches": (
        lambda r: edit_json(
            r / TIED / "result.json", set_value("pairing", "batches", 0, 1, value="0" * 64)
        ),
        f"{TIED}/metrics.jsonl",
        "batch hashes",
    ),
    "result: initial values": (
        lambda r: edit_json(
            r / TIED / "result.json",
            set_value(
                "pairing", "initial_parameters", "embedding.weight", "sha256", value="0" * 64
            ),
        ),
        TIED,
        "is no pair with the baseline: initial values of embedding.weight differ",
    ),
    "result: initial shapes": (
        lambda r: edit_json(
            r / TIED / "result.json",
            set_value("pairing", "initial_parameters", "final_norm.weight", "shape", value=[9]),
        ),
        f"{TIED}/result.json",
        "final_norm.weight is [9], not [16]",
    ),
    "result: tied": (
        lambda r: edit_json(
            r / TIED / "result.json", set_value("parameters", "tied", value=False)
        ),
        f"{TIED}/result.json",
        "parameters.tied",
    ),
    "result: best step": (
        lambda r: edit_json(
            r / TIED / "result.json", set_value("training", "best_step", value=4)
        ),
        f"{TIED}/result.json",
        "evaluations.best is not of step 4",
    ),
    "documents": (
        lambda r: change_documents(r / TIED / "documents.npz"),
        f"{TIED}/documents.npz",
        "test_nats sums to",
    ),
    "documents gone": (
        lambda r: (r / TIED / "documents.npz").unlink(),
        f"{TIED}/documents.npz",
        "missing",
    ),
    "metrics: a line gone": (
        lambda r: drop_a_line(r / TIED / "metrics.jsonl"),
        f"{TIED}/metrics.jsonl",
        "do not follow each other",
    ),
    "metrics: the end gone": (
        lambda r: cut(r / TIED / "metrics.jsonl"),
        f"{TIED}/metrics.jsonl",
        "batch hashes",
    ),
    "metrics gone": (
        lambda r: (r / TIED / "metrics.jsonl").unlink(),
        f"{TIED}/metrics.jsonl",
        "missing",
    ),
    "weights flipped": (
        lambda r: flip(last(r, TIED) / "model.safetensors"),
        f"{TIED}/checkpoints/last-00000012",
        "has changed",
    ),
    "checkpoint gone": (
        lambda r: shutil.rmtree(last(r, TIED)),
        f"{TIED}/checkpoints/last-00000012",
        "is missing",
    ),
    "whole checkpoint of the other arm": (
        swap_whole,
        f"{TIED}/checkpoints/last-00000012",
        "belongs to another cell",
    ),
    "weights of the other arm": (
        lambda r: with_manifest(
            last(r, TIED),
            lambda f: shutil.copy(last(r, UNTIED) / "model.safetensors", f / "model.safetensors"),
        ),
        f"{TIED}/checkpoints/last-00000012/model.safetensors",
        "tying is in-out, but there is head.weight",
    ),
    "a tie that only its flag says": (
        lambda r: with_manifest(
            last(r, UNTIED),
            lambda f: shutil.copy(last(r, TIED) / "model.safetensors", f / "model.safetensors"),
        ),
        f"{UNTIED}/checkpoints/last-00000012/model.safetensors",
        "tying is none, but there is no head.weight",
    ),
    "flag of the tie": (
        lambda r: with_manifest(
            last(r, TIED),
            lambda f: edit_json(f / "state.json", set_value("tie", "tying", value="none")),
        ),
        f"{TIED}/checkpoints/last-00000012",
        "the tie in state.json",
    ),
    "step": (
        lambda r: with_manifest(
            last(r, TIED), lambda f: edit_json(f / "state.json", set_value("step", value=8))
        ),
        f"{TIED}/checkpoints/last-00000012",
        "belongs to another step",
    ),
    "state that is none": (
        lambda r: with_manifest(last(r, TIED), lambda f: (f / "state.json").write_text("[]")),
        f"{TIED}/checkpoints/last-00000012",
        "format 1",
    ),
    "a header of nonsense": (
        lambda r: with_manifest(
            last(r, TIED), lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 64)
        ),
        f"{TIED}/checkpoints/last-00000012",
        "length of its header",
    ),
}  # fmt: skip


def test_a_sound_run_passes(wtie, run):
    result = wtie("runs", "verify", run)
    assert result.exit_code == 0
    assert result.stdout == f"{run}: 2 cells (2 done), 4 checkpoints, 1 pairs: all is well\n"


def test_the_newest_run_is_taken(wtie, run):
    assert str(run) in wtie("runs", "verify", "--out", run.parent).stdout


def test_json_is_one_document(wtie, run):
    assert json.loads(wtie("runs", "verify", run, "--json").stdout) == {
        "run": str(run),
        "cells": {"done": 2},
        "checkpoints": 4,
        "pairs": 1,
        "problems": [],
    }
    flip(run / "tokenizer.json")
    result = wtie("runs", "verify", run, "--json")
    assert result.exit_code == 1
    [problem] = json.loads(result.stdout)["problems"]
    assert problem["place"] == "tokenizer.json"


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_with_its_place(wtie, run, name):
    damage, place, text = DAMAGE[name]
    damage(run)
    before = sorted(run.rglob("*"))
    result = wtie("runs", "verify", run)
    assert result.exit_code == 1, result.stdout
    lines = result.stdout.splitlines()
    assert any(line.startswith(f"{place}: ") and text in line for line in lines), result.stdout
    assert result.stderr == ""
    assert sorted(run.rglob("*")) == before, "verifying changed the run"


def test_every_problem_is_told_not_only_the_first(wtie, run):
    for path in (last(run, TIED), best(run, UNTIED)):
        flip(path / "model.safetensors")
    flip(run / "tokenizer.json")
    result = wtie("runs", "verify", run)
    assert len(result.stdout.splitlines()) == 4
    assert result.stdout.endswith("3 problems\n")


def test_a_run_that_is_not_finished_is_sound(wtie, run):
    (run / TIED / "result.json").unlink()
    shutil.rmtree(run / UNTIED)
    result = wtie("runs", "verify", run)
    assert result.exit_code == 0, result.stdout
    assert "2 cells (2 unfinished), 2 checkpoints, 0 pairs" in result.stdout


def test_a_link_out_of_the_run_is_refused(wtie, run, tmp_path):
    os.rename(run / TIED, tmp_path / "elsewhere")
    (run / "tied").joinpath("seed-0").symlink_to(tmp_path / "elsewhere")
    result = wtie("runs", "verify", run)
    assert result.exit_code == 1
    assert f"{TIED} is a symbolic link" in result.stdout
    assert f"{TIED}/checkpoints: leads out of the run" in result.stdout


def test_nothing_there(wtie, tmp_path):
    assert wtie("runs", "verify", tmp_path / "none").exit_code == 5
    assert wtie("runs", "verify", "--out", tmp_path).exit_code == 5
    assert wtie("runs", "verify", tmp_path).exit_code == 2


def test_no_torch_is_needed(repository):
    import subprocess
    import sys

    code = "import sys, tyro_cli.experiments.verify; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, check=False).returncode == 0
