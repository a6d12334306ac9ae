"""Bad input: what is wrong and where, what to do, the documented exit code, nothing written.

Every row of the project's list of bad input is here as a user would meet it. A word that must be in
the message stands beside the place that it must name.
"""

import errno
import os
import resource
import shutil
import subprocess
import sys
import time

import pytest

from tests.end_to_end.workplace import (
    PROMPT_SECONDS,
    assert_same_run,
    assert_told,
    wait_until,
    write_corpus,
)
from tests.folders import snapshot

slow = pytest.mark.slow


def refused(place, exit_code, *parts, words=(), config="a.yaml"):
    """Check that `wtie train` refuses, and that the folder is as it was."""
    before = snapshot(place.folder)
    assert_told(place.train(*words, config=config), exit_code, *parts)
    after = snapshot(place.folder)
    # The library of the hub keeps lock files in its own cache.
    assert {k: v for k, v in after.items() if not k.startswith("hub-cache")} == before


FILES = {
    "unknown-key": ({"model.d_modle": 16}, "a.yaml:", "model.d_modle", "did you mean 'd_model'?"),
    "wrong-type": ({"model.num_layers": "two"}, "model.num_layers", "whole number", "a.yaml:"),
    "out-of-range": ({"model.dropout": 1.5}, "model.dropout", "less than 1", "a.yaml:"),
    "unknown-baseline": ({"baseline": "tide"}, "a.yaml:", "baseline", "did you mean 'tied'?"),
    "heads": ({"model.num_heads": 3}, "a.yaml:", "model.num_heads", "16"),
    "name-with-dots": ({"name": ".."}, "a.yaml:1:", "name"),
    "name-with-separator": ({"name": "a/b"}, "a.yaml:1:", "name", "not allowed"),
    "name-that-leaves": ({"name": "../out"}, "a.yaml:1:", "name", "not allowed"),
    "arm-name-with-separator": ({"arms.a/b": {}}, "a.yaml:", "a/b", "not allowed"),
    "undeclared-difference": (
        {"arms.tied": {"model": {"tying": "in-out", "d_ff": 64}}},
        "a.yaml:",
        "model.d_ff",
        "allow_differences: [model.d_ff]",
    ),
}
QUICK = ("unknown-key", "name-that-leaves", "undeclared-difference")


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=() if name in QUICK else slow) for name in FILES]
)
def test_a_file_that_says_something_wrong(place, case):
    changes, *parts = FILES[case]
    place.experiment(changes)
    refused(place, 2, *parts)


TEXTS = {
    "duplicate-key": ("name: a\nname: b\n", "bad.yaml:2:1: name: the key stands twice"),
    "tabs": ("name: a\nmodel:\n\td_model: 16\n", "bad.yaml:3:", "tab"),
    "empty-file": ("", "bad.yaml", "empty"),
    "only-comments": ("# nothing\n", "bad.yaml", "empty"),
    "extends-cycle": ("extends: other.yaml\n", "bad.yaml", "other.yaml", "extends"),
    "code": ("name: !!python/object/apply:os.system ['touch hacked']\n", "bad.yaml:1:"),
}


@slow
@pytest.mark.parametrize("case", TEXTS)
def test_a_file_that_is_no_experiment(place, case):
    text, *parts = TEXTS[case]
    (place.folder / "bad.yaml").write_text(text, encoding="utf-8")
    (place.folder / "other.yaml").write_text("extends: bad.yaml\n", encoding="utf-8")
    refused(place, 2, *parts, config="bad.yaml")


@slow
def test_a_file_that_is_not_there(place):
    refused(place, 2, "nowhere.yaml", config="nowhere.yaml")


@slow
@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--seeds", "4-2"), ("4-2",)),
        (("--seeds", "1,1"), ("1",)),
        (("--arms", "tide"), ("--arms", "did you mean 'tied'?")),
        (("--workers", "none"), ("--workers",)),
        (("--device", "tpu"), ("--device",)),
        (("model.d_modle=4",), ("command line: model.d_modle=4", "did you mean 'd_model'?")),
        (("other.yaml",), ("is not key=value", "--config other.yaml")),
        (("name=../x",), ("command line: name=../x", "not allowed")),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_word_that_cannot_be_meant(place, words, parts):
    refused(place, 2, *parts, words=words)


@slow
def test_an_unknown_option_is_usage(place):
    finished = place.train("--fersh")
    assert finished.exit_code == 2
    assert "--fersh" in finished.stderr
    assert finished.stdout == ""
    assert not place.runs.exists()


@slow
def test_a_match_without_solution(place):
    # One layer more or less is the smallest step, and the target is below zero layers.
    place.experiment(
        {
            "data.tokenizer": {"kind": "byte"},
            "arms.narrow": {
                "model": {"d_model": 64},
                "match": {"parameters_of": "tied", "by": "num_layers"},
            },
            "allow_differences": ["model.d_model"],
        }
    )
    refused(place, 2, "a.yaml:", "arms.narrow.match", "num_layers")


CORPORA = {
    "folder-missing": (lambda folder: shutil.rmtree(folder), ("corpus", "no such folder")),
    "file-missing": (lambda folder: (folder / "valid.txt").unlink(), ("valid", "valid.txt")),
    "file-empty": (lambda folder: (folder / "test.txt").write_text(""), ("test", "empty")),
    "file-blank": (lambda folder: (folder / "test.txt").write_text("\n \n"), ("test", "empty")),
    "not-utf8": (
        lambda folder: (folder / "train.txt").write_bytes(b"good text\n\xff\xfe bad"),
        ("train.txt", "not valid UTF-8 at byte 10", "iconv"),
    ),
    "less-than-a-window": (
        lambda folder: (folder / "train.txt").write_text("ab\n"),
        ("the training split has 3 tokens", "context_length 8"),
    ),
    "less-than-a-batch": (
        lambda folder: (folder / "train.txt").write_text("ab cd ef gh ij kl\n"),
        ("batch",),
    ),
}


@slow
@pytest.mark.parametrize("case", CORPORA)
def test_a_corpus_that_cannot_be_used(place, case):
    spoil, parts = CORPORA[case]
    spoil(place.folder / "corpus")
    refused(place, 2, *parts)


@slow
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_vocabulary_that_the_corpus_does_not_support(place, kind):
    place.experiment({"data.tokenizer": {"kind": kind, "vocab_size": 60_000}})
    refused(place, 2, "60,000", "vocab_size smaller")


@slow
def test_a_word_vocabulary_of_another_size(place):
    place.experiment({"data.tokenizer": {"kind": "word", "vocab_size": 5000}})
    refused(place, 2, "5,000", "data.tokenizer.vocab_size")


@slow
@pytest.mark.parametrize("asked_to_be_offline", [True, False])
def test_a_hub_that_cannot_be_reached_is_told_within_seconds(place, asked_to_be_offline):
    place.experiment({"data.corpus": "hf:nobody/nothing"})
    # A port on which no one listens: it refuses at once, as a broken network does or worse.
    place.environment |= {
        "HF_HUB_OFFLINE": "1" if asked_to_be_offline else "0",
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    started = time.monotonic()
    refused(place, 2, "hf:nobody/nothing", "cannot be reached", "data.corpus=FOLDER")
    assert time.monotonic() - started < 2 * PROMPT_SECONDS


@slow
def test_a_prompt_that_the_tokenizer_cannot_encode(place):
    place.experiment({"data.tokenizer": {"kind": "word"}, "seeds": [0]})
    assert place.train("--arms", "untied").exit_code == 0
    before = snapshot(place.runs)
    for prompt in ("zebra", "ba zebra"):
        asked = place.wtie("generate", place.run_folder(), "--prompt", prompt)
        assert_told(asked, 2, "zebra")
    assert snapshot(place.runs) == before


@slow
def test_a_text_that_cannot_be_scored(trained, tmp_path):
    before = snapshot(trained.runs)
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "blank.txt").write_text(" \n")
    for name, part in {
        "bad.txt": "not valid UTF-8",
        "blank.txt": "no words",
        "gone.txt": "",
    }.items():
        scored = trained.wtie("eval", trained.run_folder(), "--text", tmp_path / name)
        assert_told(scored, 2, part)
    assert snapshot(trained.runs) == before


@slow
def test_a_gpu_that_is_not_there(place):
    place.environment["CUDA_VISIBLE_DEVICES"] = ""
    refused(place, 2, "--device cuda", "GPU", "--device cpu", words=("--device", "cuda"))


@slow
def test_more_workers_than_memory(place):
    words = ("--seeds", "0-2999", "--workers", "6000")
    refused(place, 2, "6000 worker(s)", "GiB", "use --workers ", words=words)


@slow
def test_an_arm_redefined_under_a_name_that_has_cells(place):
    assert place.train("--arms", "tied").exit_code == 0
    place.experiment({"arms.tied": {"model": {"tying": "in-out", "tied_role": "embedding"}}})
    parts = ("the arm 'tied' has cells", "model.tied_role", "head then, embedding now", "--fresh")
    words = ("allow_differences=[model.tied_role]",)
    refused(place, 2, *parts, "new name", words=words)


@slow
@pytest.mark.parametrize("what", ["folder", "file", "link", "other-run", "damaged"])
def test_something_else_where_the_run_belongs(place, trained, what):
    folder = place.runs / trained.run_folder().name
    place.runs.mkdir()
    if what == "folder":
        folder.mkdir()
        (folder / "thesis.txt").write_text("mine")
        code, parts = 2, ("not a run folder of ours", "--fresh")
    elif what == "file":
        folder.write_text("mine")
        code, parts = 2, ("in the way",)
    elif what == "link":
        (place.folder / "elsewhere").mkdir()
        folder.symlink_to(place.folder / "elsewhere")
        code, parts = 2, ("symbolic link",)
    else:
        shutil.copytree(trained.run_folder(), folder)
        manifest = folder / "manifest.json"
        text = manifest.read_text(encoding="utf-8")
        if what == "other-run":
            start = text.index('"run_id": "') + len('"run_id": "')
            manifest.write_text(text[:start] + "0" * 64 + text[start + 64 :])
            code, parts = 2, ("holds another run", "--fresh")
        else:
            manifest.write_text(text[: len(text) // 2])
            code, parts = 1, ("manifest.json",)
    refused(place, code, str(folder.name), *parts)


@slow
def test_a_runs_root_that_is_a_file(place):
    (place.folder / "runs").write_text("mine")
    refused(place, 1, "runs")
    refused(place, 1, "runs/below", words=("--out", "runs/below"))


@slow
def test_compare_refuses_runs_of_different_signature(place, trained):
    place.experiment({"evaluation.stride": 4})
    assert place.train().exit_code == 0
    before = snapshot(place.runs)
    both = ("compare", place.run_folder(), trained.run_folder())
    assert_told(place.wtie(*both), 2, "stride:4", "stride:8", "--force")
    forced = place.wtie(*both, "--force")
    assert forced.exit_code == 0
    assert "warning" in forced.stderr
    assert forced.stdout.count("tied: one pair: no interval over seeds") == 2
    assert snapshot(place.runs) == before


@slow
@pytest.mark.parametrize(
    ("words", "exit_code", "part"),
    [
        (("compare", "nowhere"), 2, "nowhere"),
        (("compare", "corpus"), 2, "corpus"),
        (("compare", "a.yaml"), 2, "a.yaml"),
        (("eval", "corpus"), 2, "corpus"),
        (("generate", "nowhere", "--prompt", "a"), 2, "nowhere"),
        (("runs", "show", "nowhere"), 2, "nowhere"),
        (("compare", "--format", "xml"), 2, "--format"),
        (("compare", "--fail-if", "maybe"), 2, "--fail-if"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_run_that_is_none(place, words, exit_code, part):
    before = snapshot(place.folder)
    assert_told(place.wtie(*words), exit_code, part)
    assert snapshot(place.folder) == before


@slow
@pytest.mark.parametrize("words", [("--baseline", "tide"), ("--metric", "bleu"), ("--table", "x")])
def test_compare_by_something_unknown(trained, words):
    before = snapshot(trained.runs)
    refused_ = trained.wtie("compare", *words)
    assert refused_.exit_code in (2, 5)
    assert_told(refused_, refused_.exit_code, words[1])
    assert snapshot(trained.runs) == before


def lasting_files(run_folder):
    """Return the files of a run that is being trained, without those that come and go."""
    found = set()
    for folder, below, files in os.walk(run_folder):
        below[:] = [name for name in below if name != "checkpoints"]
        found |= {os.path.join(folder, name) for name in files if ".tmp-" not in name}
    return found


@slow
def test_the_second_of_two_starts_is_told_who_holds_the_run(place):
    place.experiment({"training.budget": {"steps": 100_000}, "evaluation.every_steps": 50})
    first = place.start("train", "--config", "a.yaml")
    first.wait_for(": step ")
    before = lasting_files(place.run_folder())
    second = place.train()
    assert_told(second, 1, f"process {first.process.pid} on ", "since ", place.run_folder().name)
    assert first.process.poll() is None
    assert before <= lasting_files(place.run_folder())
    first.end()
    wait_until(lambda: place.train("--dry-run").exit_code == 0, "the lock is free again", 60)


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 8 MiB; only root may, and not everywhere."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root on Linux")
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this system does not let us mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@slow
def test_a_disk_too_small_for_the_checkpoints_is_refused_before_the_start(place, small_disk):
    words = ("--out", small_disk, "--seeds", "0-99")
    before = snapshot(small_disk)
    assert_told(place.train(*words), 1, str(small_disk), "checkpoints need", "--out")
    assert snapshot(small_disk) == before


@slow
def test_a_disk_that_is_full_already(place, small_disk):
    (small_disk / "filler").write_bytes(b"0" * (8 << 20))
    assert_told(place.train("--out", small_disk), 1, str(small_disk), "free")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


@slow
def test_a_disk_that_fills_while_training_loses_nothing(place, small_disk):
    place.experiment({"training.budget": {"steps": 100}, "evaluation.every_steps": 20})
    words = ("--out", small_disk, "--arms", "tied")
    run = place.start("train", "--config", "a.yaml", "--threads", "1", *words)
    run.wait_for(": step ")
    fill(small_disk / "filler")
    finished = run.finish()
    assert finished.exit_code == 1
    assert "Traceback" not in finished.stderr
    assert "No space left" in finished.stderr
    assert "free some space" in finished.stderr
    (small_disk / "filler").unlink()
    assert place.train(*words).exit_code == 0
    assert place.train("--arms", "tied").exit_code == 0
    assert_same_run(place.run_folder(), place.run_folder(small_disk), but=("command",))


def fill(path):
    """Write a file until the disk is full."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, b"0" * 512)
    except OSError as error:
        assert error.errno == errno.ENOSPC
    finally:
        os.close(descriptor)


@slow
def test_a_limit_on_file_size_is_told_in_words(place):
    """The disk's own refusal, for systems where no small disk can be mounted."""
    before = snapshot(place.folder)
    process = subprocess.run(
        [sys.executable, "-m", "tyro_cli", "train", "--config", "a.yaml"],
        cwd=place.folder,
        env=place.environment | {"WTIE_CACHE": str(place.folder / "cache")},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        check=False,
    )
    assert process.returncode == 1
    assert "\n  fix: " in process.stderr
    assert "Traceback" not in process.stderr
    assert "bug in wtie" not in process.stderr
    left = {name for name in snapshot(place.folder) if not name.startswith("cache")}
    assert left == set(before)


@slow
def test_a_read_only_disk(place, tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir()
    if os.geteuid() == 0:
        mount = ["mount", "-t", "tmpfs", "-o", "ro,size=64m", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("root ignores permissions, and nothing can be mounted here")
    else:
        folder.chmod(0o500)
    try:
        finished = place.train("--out", folder)
        assert_told(finished, 1, str(folder))
        assert "Read-only" in finished.stderr or "Permission denied" in finished.stderr
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(folder)], check=True)
        else:
            folder.chmod(0o700)


@slow
def test_a_cache_that_cannot_be_written(place):
    (place.folder / "cache").write_text("mine")
    place.environment["WTIE_CACHE"] = str(place.folder / "cache")
    refused(place, 1, "cache", "WTIE_CACHE")


def test_the_corpus_of_these_tests_is_large_enough_for_its_purpose(tmp_path):
    folder = write_corpus(tmp_path / "corpus")
    assert (folder / "train.txt").stat().st_size > 5000
