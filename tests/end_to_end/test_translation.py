"""The second task from its file to its translations: trained, killed, looked at, used, refused."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.data.texts import write_pairs
from tests.end_to_end.workplace import (
    COMMAND_SECONDS,
    Finished,
    Workplace,
    assert_same_run,
    assert_told,
)
from tests.experiments.test_translation_cell import pairs
from tests.folders import snapshot
from tyro_cli.data.scripts import OFFSET

pytest.importorskip("sacrebleu")

ARMS = {
    "none": {},
    "in-out": {"model": {"tying": "in-out"}},
    "three-way": {"model": {"tying": "three-way"}},
}
V, D = 257, 16


def translation(place: Workplace, **changes: Any) -> str:
    """Write a tiny experiment that translates, and its corpus; return the file's name."""
    splits = {"train": pairs(0, 80), "valid": pairs(100, 8), "test": pairs(200, 9)}
    write_pairs(place.folder / "pairs", splits)
    settings: dict[str, Any] = {
        "name": "tiny-translation",
        "task": "translation",
        "data.corpus": "pairs",
        "data.languages": {"source": "en", "target": "de"},
        "data.context_length": 64,
        "training.batch_tokens": 512,
        "training.budget": {"steps": 6},
        "training.label_smoothing": 0.1,
        "evaluation": {"every_steps": 3, "beam_size": 2},
        "arms": ARMS,
        "baseline": "none",
    }
    return place.experiment(settings | changes, file="mt.yaml")


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, shared_cache: Path
) -> Iterator[tuple[Workplace, Finished]]:
    """Train all three arms at seed 0; tests must leave the run as it is."""
    place = Workplace(tmp_path_factory.mktemp("translation"), shared_cache)
    translation(place)
    first = place.train(config="mt.yaml")
    assert first.exit_code == 0, first.stderr
    before = snapshot(place.runs)
    yield place, first
    assert {path: sha for path, (sha, _) in snapshot(place.runs).items()} == {
        path: sha for path, (sha, _) in before.items()
    }


def pipe(place: Workplace, words: list[object], lines: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run `wtie` with these words and this standard input."""
    return subprocess.run(
        [sys.executable, "-m", "tyro_cli", *map(str, words)],
        cwd=place.folder,
        env=place.environment,
        input=lines,
        capture_output=True,
        timeout=180,
        check=False,
    )


def test_tables_say_what_each_tie_saves_and_how_good_translations_are(
    run: tuple[Workplace, Finished],
) -> None:
    place, first = run
    said = " ".join(first.stdout.split())
    assert f"none - in-out = {V * D:,} parameters, exactly V x d = {V} x {D}" in said
    assert f"none - three-way = {2 * V * D:,} parameters, exactly 2 x V x d = 2 x {V}" in said
    assert said.count("1/1 identical start") == 2
    assert "Test BLEU, three-way - none:" in said
    tables = place.run_folder() / "tables"
    record = json.loads((tables / "translation.json").read_text())
    assert {row["arm"] for row in record["rows"]} == set(ARMS)
    manifest = json.loads((place.run_folder() / "manifest.json").read_text())
    [overlap] = json.loads((tables / "overlap.json").read_text())["rows"]
    measured = manifest["data"]["overlap"]
    assert {key: overlap[key] for key in measured} == measured
    assert (overlap["pairs"], overlap["empty_pairs"], overlap["long_pairs"]) == (80, 0, 0)
    for name in ("translation", "translation-contrasts", "overlap"):
        for kind in ("md", "csv", "json", "tex"):
            assert (tables / f"{name}.{kind}").is_file()


def test_verify_finds_nothing_wrong(run: tuple[Workplace, Finished]) -> None:
    place, _ = run
    verified = place.wtie("runs", "verify", place.run_folder())
    assert verified.exit_code == 0, verified.stdout


def test_eval_gives_the_scores_of_the_records(run: tuple[Workplace, Finished]) -> None:
    place, _ = run
    scores = json.loads(place.wtie("eval", place.run_folder(), "--json").stdout)
    assert [(s["arm"], s["split"]) for s in scores] == [
        (arm, split) for arm in ARMS for split in ("valid", "test")
    ]
    for score in scores:
        path = place.run_folder() / score["arm"] / "seed-0" / "result.json"
        recorded = json.loads(path.read_text())
        expected = recorded["evaluations"]["best"][score["split"]]
        assert score["nats"] == pytest.approx(expected["nats"], rel=1e-6)
        assert score["signature"] == recorded["signatures"][score["split"]]["word_perplexity"]


def test_translate_gives_the_translations_of_the_records(run: tuple[Workplace, Finished]) -> None:
    place, _ = run
    folder = place.run_folder()
    for arm in ARMS:
        lines = (place.folder / "pairs" / "test.en").read_bytes()
        done = pipe(place, ["translate", folder, "--arm", arm], lines)
        assert done.returncode == 0, done.stderr
        kept = folder / arm / "seed-0" / "translations" / "test.txt"
        assert done.stdout == kept.read_bytes()


def test_translate_keeps_lines_in_place(run: tuple[Workplace, Finished]) -> None:
    """An empty line stays empty, a long one is cut and said; the others go on."""
    place, _ = run
    long = b"1 2 3 4 " * 30
    words: list[object] = ["translate", place.run_folder(), "--beam", "1"]
    done = pipe(place, words, b"1 2\n\n" + long + b"\n3 4")
    alone = pipe(place, words, b"1 2\n3 4\n")
    assert done.returncode == alone.returncode == 0
    lines, expected = done.stdout.split(b"\n"), alone.stdout.split(b"\n")
    assert len(lines) == 5 and lines[1] == b"" and lines[4] == b""
    assert [lines[0], lines[3]] == expected[:2]
    assert b"line 3: 240 tokens, the model reads 64; the rest is left out" in done.stderr
    assert pipe(place, words, b"").stdout == b""


def test_translate_answers_what_is_typed_line_by_line(run: tuple[Workplace, Finished]) -> None:
    place, _ = run
    words = ["translate", str(place.run_folder()), "--arm", "none", "--seed", "0", "--beam", "1"]
    expected = pipe(place, [*words], b"1 2\n3 4\n").stdout.splitlines(keepends=True)
    keyboard, terminal = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "tyro_cli", *words],
        cwd=place.folder,
        env=place.environment,
        stdin=terminal,
        stdout=subprocess.PIPE,
    ) as process:
        os.close(terminal)
        assert process.stdout is not None
        try:
            for line, answer in zip((b"1 2\n", b"3 4\n"), expected, strict=True):
                os.write(keyboard, line)
                assert select.select([process.stdout], [], [], COMMAND_SECONDS)[0]
                assert process.stdout.readline() == answer
            os.write(keyboard, b"\x04")  # Ctrl-D
            assert process.wait(timeout=COMMAND_SECONDS) == 0
        finally:
            os.close(keyboard)


def test_what_cannot_be_used_is_said(run: tuple[Workplace, Finished], trained: Workplace) -> None:
    place, _ = run
    folder = place.run_folder()
    before = pipe(place, ["translate", folder], b"1 2\n\n")
    refused = pipe(place, ["translate", folder], b"1 2\n\n\xff\xfe\n3\n")
    assert refused.stdout == before.stdout != b""
    assert refused.returncode == 2 and b"standard input, line 3: not valid UTF-8" in refused.stderr
    assert_told(place.wtie("generate", folder, "--prompt", "a"), 2, "they do not continue a prompt")
    text = place.folder / "pairs" / "test.de"
    assert_told(place.wtie("eval", folder, "--text", text), 2, "a translation model scores pairs")
    other = place.wtie("translate", trained.run_folder())
    assert_told(other, 2, "they do not translate")
    assert_told(place.wtie("translate", folder, "--arm", "tied"), 5, "there is no arm 'tied'")


def test_a_report_has_the_translations_in_it(run: tuple[Workplace, Finished]) -> None:
    place, _ = run
    made = place.wtie("report", place.run_folder(), "-o", place.folder / "report.html")
    assert made.exit_code == 0, made.stderr
    page = (place.folder / "report.html").read_text()
    assert "BLEU" in page and "three-way" in page


def test_params_and_dry_run_count_the_encoder(place: Workplace) -> None:
    config = translation(place)
    shown = place.wtie("params", "--config", config).stdout
    assert "source embedding" in shown and "2 x V x d" in shown
    planned = place.train("--dry-run", config=config)
    assert planned.exit_code == 0 and "source embedding" in planned.stdout


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bytes(place: Workplace) -> None:
    config = translation(place, **{"training.budget": {"steps": 60}})
    whole = place.train("--out", "whole", config=config)
    assert whole.exit_code == 0, whole.stderr
    for _ in range(3):
        started = place.start("train", "--config", config, "--threads", "1", "--out", "parts")
        started.wait_for("step ", times=2)
        started.end()
    last = place.train("--out", "parts", config=config)
    assert last.exit_code == 0, last.stderr
    assert_same_run(place.run_folder("whole"), place.run_folder("parts"), but=("command",))


@pytest.mark.slow
def test_the_gradients_of_the_roles_are_probed(place: Workplace) -> None:
    config = translation(place)
    done = place.train("evaluation.role_gradients_every_steps=2", config=config)
    assert done.exit_code == 0, done.stderr
    probed = place.wtie("probe", place.run_folder())
    assert probed.exit_code == 0, probed.stderr
    assert "Gradients of the roles of tiny-translation" in probed.stdout
    table = json.loads((place.run_folder() / "tables" / "probes.roles.json").read_text())
    # Three pairs of roles in three records of each arm.
    assert len(table["rows"]) == len(ARMS) * 3 * 3
    assert {row["roles"] for row in table["rows"]} == {
        "input / output", "source / output", "source / input",
    }  # fmt: skip
    assert place.wtie("runs", "verify", place.run_folder()).exit_code == 0


@pytest.mark.slow
def test_separate_vocabularies_and_a_script_of_their_own(place: Workplace) -> None:
    arms = {name: ARMS[name] for name in ("none", "in-out")}
    config = translation(
        place,
        arms=arms,
        **{
            "data.tokenizer": {"kind": "word", "sharing": "separate"},
            "data.target_script": {"disjoint_fraction": 0.5},
        },
    )
    done = place.train(config=config)
    assert done.exit_code == 0, done.stderr
    folder = place.run_folder()
    assert (folder / "source-tokenizer.json").is_file()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (
        manifest["source_vocab_size"] == 12 and manifest["data"]["overlap"]["shared_rows"] is None
    )
    assert "|disjoint:0.5" in done.stdout
    lines = (folder / "none" / "seed-0" / "translations" / "test.txt").read_text()
    assert max(map(ord, lines)) < OFFSET  # mapped back
    assert place.wtie("runs", "verify", folder).exit_code == 0


def test_three_way_with_separate_vocabularies_is_explained(place: Workplace) -> None:
    config = translation(place, **{"data.tokenizer": {"kind": "byte", "sharing": "separate"}})
    assert_told(place.train(config=config), 2, "set data.tokenizer.sharing: joint")
    assert not place.runs.exists()


def test_unequal_sides_name_both_numbers(place: Workplace) -> None:
    config = translation(place)
    path = place.folder / "pairs" / "train.de"
    path.write_bytes(path.read_bytes() + b"eins\n")
    told = place.train(config=config)
    assert told.exit_code == 2 and "80" in told.stderr and "81" in told.stderr
    assert not place.runs.exists()
