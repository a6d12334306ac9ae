"""`wtie probe` on runs that the command trained, and what it says to what cannot be probed."""

import json
import shutil
from pathlib import Path

import pytest

from tests.end_to_end.workplace import assert_told
from tests.folders import digests
from tyro_cli.cli.app import main
from tyro_cli.experiments import probing, word_probes


@pytest.fixture
def run_copy(trained, tmp_path) -> Path:
    """A copy of the trained run, for a command that writes."""
    return Path(shutil.copytree(trained.run_folder(), tmp_path / trained.run_folder().name))


@pytest.fixture
def probe(trained, monkeypatch, capsys):
    """Run `wtie probe` in this process, where torch is loaded once."""
    monkeypatch.chdir(trained.folder)
    monkeypatch.setenv("WTIE_CACHE", trained.environment["WTIE_CACHE"])

    def run(*words):
        code = main(["probe", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def pairs(tmp_path) -> Path:
    path = tmp_path / "pairs.tsv"
    path.write_text("word1\tword2\tscore\na\te\t9\nb\tk\t7\na\tk\t1\nqueen\tking\t8\n")
    return path


def test_a_run_is_probed_and_its_record_kept(probe, run_copy, pairs) -> None:
    before = digests(run_copy)
    code, out, err = probe(run_copy, "--neighbours", "a", "--pairs", pairs)
    assert code == 0, err
    for text in (
        "Shape of the embeddings of tiny",
        "the 18 of 257 tokens",
        "there is nothing to agree with",
        "Which untied matrix",
        "Nearest neighbours by cosine",
        "Covered: 3 of 4 pairs (75%)",
    ):
        assert text in " ".join(out.split()), text
    now = digests(run_copy)
    new = {name for name in now if name not in before}
    assert "probes.json" in new
    assert {name for name in new if name.startswith("tables/")} >= {
        "tables/probes.shape.md",
        "tables/probes.contrasts.csv",
        "tables/probes.resemblance.tex",
        "tables/probes.agreement.json",
    }
    assert {name: now[name] for name in before} == before
    code, out, _ = probe(run_copy, "--json", "--neighbours", "a", "--pairs", pairs)
    document = json.loads(out)
    assert document["probes"] == json.loads((run_copy / "probes.json").read_text())
    assert {shape["matrix"] for shape in document["probes"]["shapes"]} == {
        "tied",
        "input",
        "output",
    }
    assert len(document["neighbours"]) == 3
    assert len(document["neighbours"][0]["neighbours"]) == 10
    assert (document["pairs"]["pairs"], document["pairs"]["covered"]) == (4, 3)
    assert digests(run_copy) == now
    assert main(["runs", "verify", str(run_copy)]) == 0


def test_words_are_looked_up_once(probe, run_copy, pairs, monkeypatch) -> None:
    asked = []

    def counted(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *given, **named: asked.append(name) or function(*given, **named)
        )

    counted(probing, "load_tokenizer")
    counted(word_probes, "row_that_counts")
    counted(word_probes, "covered_pairs")
    code, out, err = probe(
        run_copy, "--json", "--neighbours", "a", "--neighbours", "a", "--pairs", pairs
    )
    assert code == 0, err
    assert asked.count("load_tokenizer") == asked.count("covered_pairs") == 1
    assert asked.count("row_that_counts") == 2  # a word given twice is looked up twice, shown once
    assert len(json.loads(out)["neighbours"]) == 3


def test_a_part_of_a_run_is_printed_and_not_kept(probe, run_copy) -> None:
    before = digests(run_copy)
    for words in (("--arm", "tied"), ("--seed", "0"), ("--checkpoint", "last")):
        code, out, err = probe(run_copy, *words)
        assert code == 0, err
        assert "Shape of the embeddings" in out
        assert "probes.json is left as it is" in err
    assert digests(run_copy) == before


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--arm", "three"), 5, "there is no arm 'three'"),
        (("--seed", "9"), 5, "no finished cell"),
        (("--checkpoint", "newest"), 2, "--checkpoint 'newest' is unknown"),
        (("--neighbours", "king"), 2, "'king' is no token of the vocabulary: it is split into ␣ k"),
        (("--neighbours", ""), 2, "the word '' is empty"),
        (("--neighbours", "a", "--neighbours", ""), 2, "the word '' is empty"),
        (("--neighbours", "z"), 2, "'z' occurs 0 times in train"),
        (("--pairs", "nowhere.tsv"), 2, "nowhere.tsv: cannot be read"),
    ],
)
def test_what_cannot_be_answered_is_told_before_anything_is_measured(
    probe, run_copy, words, code: int, told: str
) -> None:
    before = digests(run_copy)
    found, out, err = probe(run_copy, *words)
    assert (found, out) == (code, "")
    assert told in err
    assert "  fix: " in err
    assert "probing" not in err
    assert digests(run_copy) == before


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a,b\n", "line 1: 2 columns, not 3"),
        ("king,queen,high\na,e,9\nb,k,7\na,k,1\n", "line 1: the score 'high' is no number"),
        ("king,queen,8\nman,woman,7\na,e,1\n", "1 of its 3 pairs have both words"),
    ],
)
def test_a_file_of_pairs_that_gives_nothing(probe, run_copy, tmp_path, content, told) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(content)
    code, out, err = probe(run_copy, "--pairs", path)
    assert (code, out) == (2, "")
    assert told in err
    assert "  fix: " in err


@pytest.mark.parametrize(("kept", "missing"), [("tied", "an untied"), ("untied", "a tied")])
def test_a_run_without_the_needed_arms(probe, run_copy, kept: str, missing: str) -> None:
    other = {"tied": "untied", "untied": "tied"}[kept]
    shutil.rmtree(run_copy / other)
    code, out, err = probe(run_copy)
    assert (code, out) == (5, "")
    assert f"no cell of {missing} arm is finished" in err
    assert f"--arm {kept}" in err
    assert probe(run_copy, "--arm", kept)[0] == 0


@pytest.mark.slow
def test_three_seeds_with_measured_gradients(place) -> None:
    every = "evaluation.role_gradients_every_steps=4"
    assert place.train("--seeds", "0-2", every).exit_code == 0
    run = place.run_folder()
    probed = place.wtie("probe", run)
    assert probed.exit_code == 0, probed.stderr
    assert "Gradients of the roles of tiny" in probed.stdout
    record = json.loads((run / "probes.json").read_text())
    assert len(record["role_gradients"]) == 6
    assert [one["step"] for one in record["role_gradients"][0]["records"]] == [1, 5, 9]
    # Three matrices over three pairs of seeds, and a tied against two untied ones, 3 x 3 each.
    assert len(record["agreements"]) == 3 * 3 + 2 * 9
    assert "interval_95" in (run / "tables" / "probes.agreement.json").read_text()
    assert place.wtie("runs", "verify", run).exit_code == 0
    again = place.train("--seeds", "0-2")
    assert again.exit_code == 0
    (run / "tied" / "seed-0" / "metrics.jsonl").write_text('{"kind":"role_gradients","step":1}\n')
    assert_told(place.wtie("probe", run), 1, "a record of the kind role_gradients", "fix")
