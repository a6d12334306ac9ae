"""`wtie runs`: filters, tags, and removing with a question; records are written by hand."""

import json
import os
import re
import shutil
import time

import pytest

from tests.analysis.fake_runs import NATS_PER_WORD, diverge, edit_json, make_run
from tests.analysis.fake_studies import make_study
from tests.folders import snapshot
from tyro_cli.cli.run_folders import age_in_words, folder_bytes
from tyro_cli.storage.locks import owned


@pytest.fixture
def root(in_empty_folder):
    """Three runs: done, unfinished, diverged."""
    runs = in_empty_folder / "runs"
    runs.mkdir()
    make_run(runs).rename(runs / "good-1")
    some = {cell: value for cell, value in NATS_PER_WORD.items() if cell != ("tied", 2)}
    make_run(runs, nats_per_word=some).rename(runs / "half-2")
    make_run(runs, edit=lambda r: diverge(r) if r["seed"] == 1 else None).rename(runs / "bad-3")
    return runs


def names(wtie, *words):
    return {record["name"] for record in json.loads(wtie("runs", "ls", *words, "--json").stdout)}


def test_ls_filters_by_name_state_and_tag(wtie, root):
    assert names(wtie) == {"good-1", "half-2", "bad-3"}
    assert names(wtie, "--name", "*-[12]") == {"good-1", "half-2"}
    assert names(wtie, "--state", "unfinished") == {"half-2"}
    assert names(wtie, "--state", "diverged") == {"bad-3"}
    assert names(wtie, "--state", "done") == {"good-1"}
    assert wtie("runs", "tag", root / "half-2", "paper", "old").stdout.endswith(": old, paper\n")
    assert names(wtie, "--tag", "paper") == {"half-2"}
    assert "old, paper" in wtie("runs", "ls").stdout
    wtie("runs", "tag", root / "half-2", "paper", "--remove")
    assert names(wtie, "--tag", "paper") == set()
    assert wtie("runs", "ls", "--tag", "paper").stdout == "runs holds no run that fits\n"
    assert wtie("runs", "ls", "--state", "odd").exit_code == 2


def test_what_is_still_being_written_or_removed_is_no_run(wtie, root):
    shutil.copytree(root / "good-1", root / ".good-1.tmp-0123abcd")
    assert names(wtie) == {"good-1", "half-2", "bad-3"}


def test_what_vanishes_while_it_is_listed_is_not_there(wtie, root, monkeypatch):
    """Checkpoints of a training beside us come and go."""

    def gone(path, **options):
        if str(path).endswith("result.json"):
            raise FileNotFoundError(path)
        return os_stat(path, **options)

    os_stat = os.stat
    monkeypatch.setattr(os, "stat", gone)
    assert folder_bytes(root / "good-1") > 0


def test_a_folder_that_may_not_be_looked_into_leaves_the_others_listed(wtie, root, monkeypatch):
    def refused(path, **options):
        if "bad-3/" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return os_stat(path, **options)

    os_stat = os.stat
    monkeypatch.setattr(os, "stat", refused)
    assert names(wtie) == {"good-1", "half-2"}


def test_a_run_may_be_named_by_a_dot(wtie, root, monkeypatch):
    monkeypatch.chdir(root / "good-1")
    assert wtie("runs", "show", ".").stdout.startswith(f"run: {root.resolve() / 'good-1'}\n")
    assert "good-1" in wtie("compare", ".", "--json").stdout
    monkeypatch.chdir(root / "half-2" / "tied")
    assert wtie("runs", "rm", "..", "--dry-run").exit_code == 0


def test_a_damaged_run_has_its_state(wtie, root):
    (root / "good-1" / "manifest.json").write_text("{")
    assert names(wtie, "--state", "damaged") == {"good-1"}


@pytest.mark.parametrize("tag", ["../x", "a b", "", "<b>"])
def test_a_tag_is_a_plain_word(wtie, root, tag):
    before = snapshot(root)
    assert wtie("runs", "tag", root / "good-1", tag).exit_code == 2
    assert snapshot(root) == before


def test_damaged_tags_are_named(wtie, root):
    (root / "good-1" / "tags.json").write_text("{}")
    assert "tags.json" in wtie("runs", "ls").stdout
    assert wtie("runs", "tag", root / "good-1", "x").exit_code == 1


def test_a_tag_changes_no_table_and_no_proof(wtie, root):
    before = wtie("compare", root / "good-1").stdout
    wtie("runs", "tag", root / "good-1", "paper")
    assert wtie("compare", root / "good-1").stdout == before


def test_rm_removes_what_is_named_and_nothing_else(wtie, root):
    kept = snapshot(root / "half-2")
    result = wtie("runs", "rm", root / "good-1", root / "bad-3", "--yes")
    assert result.exit_code == 0
    assert f"removed {root / 'good-1'}" in result.stdout
    assert sorted(p.name for p in root.iterdir() if not p.name.startswith(".")) == ["half-2"]
    assert snapshot(root / "half-2") == kept


@pytest.mark.parametrize("words", [("--dry-run",), ()], ids=["dry run", "no terminal to ask"])
def test_rm_without_a_yes_removes_nothing(wtie, root, words):
    before = snapshot(root)
    result = wtie("runs", "rm", root / "good-1", *words)
    assert result.exit_code == (0 if words else 2)
    assert "good-1: run, " in result.stdout
    assert snapshot(root) == before


def test_rm_checks_every_folder_before_it_removes_one(wtie, root):
    before = snapshot(root)
    (root / "link").symlink_to(root / "good-1")
    for other in (root, root / "link", root / "nowhere", root / "good-1" / "untied"):
        assert wtie("runs", "rm", root / "good-1", other, "--yes").exit_code == 2
    (root / "link").unlink()
    assert snapshot(root) == before


def test_rm_keeps_a_folder_whose_manifest_is_not_ours(wtie, root, tmp_path):
    extension = tmp_path / "extension"
    extension.mkdir()
    (extension / "manifest.json").write_text('{"name": "an extension of a browser"}')
    before = snapshot(tmp_path)
    result = wtie("runs", "rm", extension, "--yes")
    assert result.exit_code == 2 and "neither a run's folder nor a study's" in result.stderr
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "damage",
    [
        {"command": 5, "data": [1]},
        {"data": {"splits": [1]}, "created": {}},
        {"data": 5, "git": [1], "versions": 3},
    ],
)
def test_show_reads_past_what_no_record_class_reads(wtie, root, damage):
    edit_json(root / "good-1" / "manifest.json", lambda manifest: manifest.update(damage))
    edit_json(
        root / "good-1" / "manifest.json",
        lambda manifest: manifest["arms"]["tied"].update(differences={"model.tying": 5}),
    )
    result = wtie("runs", "show", root / "good-1")
    assert result.exit_code == 0, result.stderr
    assert "model.tying: 5" in result.stdout


def test_rm_refuses_a_run_or_a_cell_in_use(wtie, root):
    for used in (root / "good-1", root / "good-1" / "tied" / "seed-0"):
        with owned(used, "it"):
            result = wtie("runs", "rm", root / "good-1", "--yes")
        assert result.exit_code == 1
        assert "in use" in result.stderr
        assert (root / "good-1" / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "now"), (90, "1 min"), (7300, "2 h"), (200_000, "2 d")]
)
def test_ages_are_readable(seconds, words):
    assert age_in_words(seconds) == words


def test_the_newest_come_first(wtie, root):
    later = time.time() + 5
    os.utime(root / "half-2" / "manifest.json", (later, later))
    listed = json.loads(wtie("runs", "ls", "--json").stdout)
    assert listed[0]["name"] == "half-2"


@pytest.fixture
def study(root):
    """A study of two points, of which one run is there."""
    folder = make_study(root, {(512,): NATS_PER_WORD, (1024,): NATS_PER_WORD})
    shutil.rmtree(root / "tiny-00000001")
    return folder


def test_show_of_a_study_says_where_its_cells_lie(wtie, root, study):
    wtie("runs", "tag", study, "paper")
    result = wtie("runs", "show", study)
    assert (result.exit_code, result.stderr) == (0, "")
    for line in (
        f"study: {study}",
        "tags: paper",
        "command: wtie sweep",
        "factor vocabulary: data.vocabulary at 512, 1024",
        "seeds: 0, 1, 2",
        f"point vocabulary 512: {root / 'tiny-00000000'}, 6 done",
        f"point vocabulary 1024: {root / 'tiny-00000001'}, not there yet",
        "verdict at vocabulary 512, tied: tied better",
    ):
        assert f"{line}\n" in result.stdout
    assert " B, written just now\n" in result.stdout
    record = json.loads(wtie("runs", "show", study, "--json").stdout)
    assert (record["kind"], record["tags"]) == ("study", ["paper"])
    assert [point["cells"] for point in record["points"]] == [{"done": 6}, {}]


def test_what_asks_for_a_run_does_not_call_a_study_damaged(wtie, study):
    result = wtie("runs", "verify", study)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is the folder of a study, not of a run" in result.stderr
    assert f"wtie runs show {study}" in result.stderr


def test_sizes_and_ages_are_readable_wherever_they_stand(wtie, root):
    hours_ago = time.time() - 7300
    os.utime(root / "good-1" / "manifest.json", (hours_ago, hours_ago))
    size = r"\d+\.\d KiB, 2 h old\n"
    assert re.search(
        f"good-1: run, {size}", wtie("runs", "rm", root / "good-1", "--dry-run").stdout
    )
    assert re.search(f"good-1\n{size}", wtie("runs", "show", root / "good-1").stdout)
