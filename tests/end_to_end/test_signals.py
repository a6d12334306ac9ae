"""SIGINT and SIGTERM at every stage: 130 or 143 within seconds, and the same bytes afterwards.

Each stage is made to last by the experiment (a large corpus, much to evaluate), so that the signal
finds it at work; where it finds it is read from what the command says.
"""

import os
import random
import signal
import time

import pytest

from tests.end_to_end.workplace import (
    PROMPT_SECONDS,
    Workplace,
    assert_same_run,
    children_of,
    is_running,
    kill,
    wait_until,
    write_corpus,
)

pytestmark = pytest.mark.slow

WORDS = ("train", "--config", "a.yaml", "--threads", "1", "--workers", "2")
SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)

STAGES = {
    "training": {"training.budget": {"steps": 150}, "evaluation.every_steps": 50},
    # One step, and an evaluation that takes a hundred times as long.
    "evaluation": {"training.budget": {"steps": 6}, "evaluation.every_steps": 1},
    # A window for every token, at the end alone.
    "final evaluation": {"training.budget": {"steps": 3}, "evaluation.stride": 1},
}
MARKS = {"training": ": step 50/150", "evaluation": ": step 2/6", "final evaluation": ": final ev"}
NUM_DOCUMENTS = {"training": 10, "evaluation": 200, "final evaluation": 200}


def prepare(place, stage):
    """Write the experiment of a stage and a corpus that makes it last."""
    write_corpus(place.folder / "corpus", num_other_documents=NUM_DOCUMENTS[stage])
    place.experiment(STAGES[stage])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, shared_cache):
    """Return the run of a stage's experiment, trained in one go, once."""
    runs = {}

    def run_folder(stage):
        if stage not in runs:
            place = Workplace(tmp_path_factory.mktemp("uninterrupted"), shared_cache)
            prepare(place, stage)
            finished = place.wtie(*WORDS)
            assert finished.exit_code == 0, finished.stderr
            runs[stage] = place.run_folder()
        return runs[stage]

    return run_folder


def assert_stopped(run, number, since):
    """Check that a run ended as the signal asks, in time, and told how to go on."""
    finished = run.finish(PROMPT_SECONDS)
    assert time.monotonic() - since < PROMPT_SECONDS
    assert finished.exit_code == 128 + number, finished.stderr
    assert finished.stdout == ""
    assert f"stopped by {number.name}" in finished.stderr
    assert "go on with: wtie train --config a.yaml --threads 1 --workers 2" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert "failed" not in finished.stderr


@SIGNALS
@pytest.mark.parametrize("stage", STAGES)
def test_stopped_at_a_stage_and_resumed_gives_the_same_bytes(place, uninterrupted, stage, number):
    prepare(place, stage)
    run = place.start(*WORDS)
    run.wait_for(MARKS[stage])
    workers = children_of(run.process.pid)
    assert workers, run.stderr
    since = time.monotonic()
    run.send(number)
    assert_stopped(run, number, since)
    assert not any(map(is_running, workers))
    assert len(list(place.run_folder().glob("*/seed-0/result.json"))) < 2
    resumed = place.wtie(*WORDS)
    assert resumed.exit_code == 0, resumed.stderr
    assert_same_run(place.run_folder(), uninterrupted(stage))


@pytest.mark.parametrize(
    ("kind", "stage", "number"),
    [
        ("bpe", "training the bpe", signal.SIGINT),
        ("unigram", "training the unigram", signal.SIGTERM),
        ("word", "training the word", signal.SIGINT),
        ("bpe", "tokenizing the train", signal.SIGTERM),
        ("word", "tokenizing the train", signal.SIGTERM),
    ],
)
def test_stopped_while_tokenizing(place, stage, kind, number):
    """Nothing is left of it, and the cache is not in the way of the next start."""
    write_long_text(place.folder / "corpus" / "train.txt")
    cache = place.folder / "cache"
    place.environment["WTIE_CACHE"] = str(cache)
    size = {} if kind == "word" else {"vocab_size": 2000}
    place.experiment({"data.tokenizer": {"kind": kind} | size})
    run = place.start(*WORDS)
    run.wait_for(stage)
    assert run.process.poll() is None
    since = time.monotonic()
    run.send(number)
    assert_stopped(run, number, since)
    assert "training 2 of 2 cells" not in run.stderr
    assert not place.runs.exists()
    assert [path.name for path in cache.rglob("*") if path.is_dir()] == ["data"]


def write_long_text(path):
    """Write 16 MB of 40,000 made-up words, which take seconds to tokenize."""
    generator = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(generator.choices(letters, k=2 + i % 9)) for i in range(40_000)]
    documents = [" ".join(generator.choices(words, k=60)) + "\n\n" for _ in range(4000)]
    path.write_text("".join(documents) * 10, encoding="utf-8")


@SIGNALS
def test_a_second_signal_ends_at_once(place, number):
    """Workers that are held cannot write a checkpoint; the second signal does not wait for them."""
    place.experiment({"training.budget": {"steps": 100_000}, "evaluation.every_steps": 20})
    run = place.start(*WORDS)
    run.wait_for(": step ", times=2)
    workers = children_of(run.process.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    try:
        run.send(number)
        time.sleep(1.0)
        assert run.process.poll() is None
        since = time.monotonic()
        run.send(number)
        finished = run.finish(PROMPT_SECONDS)
        assert time.monotonic() - since < PROMPT_SECONDS / 3
        assert finished.exit_code == 128 + number
        assert "Traceback" not in finished.stderr
        wait_until(lambda: not any(map(is_running, workers)), "the workers are gone")
    finally:
        kill(workers)


def test_a_stop_without_any_checkpoint_resumes_from_the_start(place):
    """The signal comes while workers load their libraries."""
    place.experiment(STAGES["training"])
    run = place.start(*WORDS)
    run.wait_for(": started", times=2)
    since = time.monotonic()
    run.send(signal.SIGINT)
    assert_stopped(run, signal.SIGINT, since)
    assert list(place.run_folder().glob("*/seed-0/result.json")) == []
    assert place.wtie(*WORDS).exit_code == 0


def test_scoring_a_text_can_be_stopped(place, trained):
    long_text = place.folder / "long.txt"
    long_text.write_text("ba ko ri tu " * 400_000, encoding="utf-8")
    run = trained.start("eval", trained.run_folder(), "--text", long_text)
    time.sleep(4.0)
    assert run.process.poll() is None
    run.send(signal.SIGINT)
    finished = run.finish(PROMPT_SECONDS)
    assert finished.exit_code == 130
    assert finished.stdout == ""
    assert "Traceback" not in finished.stderr
