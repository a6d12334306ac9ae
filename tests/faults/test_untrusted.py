"""Input from a stranger stays data: pickles are never loaded, bombs are refused at once.

A canary is a pickle that creates a file when anything loads it. It is put wherever the program
reads, with matching hashes where there are hashes, and must still be there, unloaded, afterwards.
"""

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.faults.cells import SmallRun
from tests.faults.test_damage import STOPPED, stopping_at
from tyro_cli.analysis.records import load_run
from tyro_cli.config.loading import load_experiment
from tyro_cli.data.corpora import read_text
from tyro_cli.data.prepared import open_prepared
from tyro_cli.data.tokenizers import load_tokenizer
from tyro_cli.errors import Interrupted, WtieError
from tyro_cli.experiments import use
from tyro_cli.experiments.use import generate_text
from tyro_cli.experiments.verify import verify_run
from tyro_cli.storage.checkpoints import list_checkpoints
from tyro_cli.storage.manifests import write_manifest
from tyro_cli.storage.names import check_name

NAME = "tied/seed-0"


class Canary:
    """Sings, by creating a file, when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def canary(tmp_path):
    """Give a pickle; after the test, see that nothing has loaded it."""
    song = tmp_path / "song"
    yield b"cposix\nsystem\n(S'touch " + str(song).encode() + b"'\ntR."
    assert not song.exists(), "the canary sang"


@pytest.fixture(scope="module")
def stopped(long, tmp_path_factory) -> Path:
    """A cell that was stopped half-way."""
    folder = tmp_path_factory.mktemp("stopped") / "cell"
    with pytest.raises(Interrupted):
        long.train(NAME, folder, **stopping_at(STOPPED))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> SmallRun:
    run = SmallRun(tmp_path_factory.mktemp("finished"), steps=200, every=20)
    run.train_all()
    return run


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_pickle_in_a_checkpoint_is_refused(long, stopped, tmp_path, canary, injected, name):
    cell = Path(shutil.copytree(stopped, tmp_path / "cell"))
    newest = list_checkpoints(cell / "checkpoints", "last")[0][1]
    (newest / name).write_bytes(canary)
    write_manifest(newest)
    with pytest.raises(WtieError) as caught:
        long.train(NAME, cell)
    assert caught.value.remedy
    injected("pickles with a canary")


@pytest.mark.parametrize(
    "name", ["MANIFEST.json", "metrics.jsonl", "performance.json", "result.json"]
)
def test_a_pickle_among_the_records_of_a_cell_is_data(
    long, stopped, tmp_path, canary, injected, name
):
    cell = Path(shutil.copytree(stopped, tmp_path / "cell"))
    newest = list_checkpoints(cell / "checkpoints", "last")[0][1]
    ((newest if name == "MANIFEST.json" else cell) / name).write_bytes(canary)
    try:
        long.train(NAME, cell)
    except WtieError as error:
        assert name in error.message
    injected("pickles with a canary")


def test_a_pickle_as_configuration_is_refused(tmp_path, canary, injected):
    path = tmp_path / "a.yaml"
    path.write_bytes(canary)
    with pytest.raises(WtieError):
        load_experiment(path)
    injected("pickles with a canary")


def test_a_pickle_as_corpus_tokenizer_or_tokens_is_refused(long, tmp_path, canary, injected):
    path = tmp_path / "train.txt"
    path.write_bytes(canary)
    assert read_text(path) == canary.decode()  # it is text, and no more than that
    path.write_bytes(b"\x80\x04" + canary)
    for read in (read_text, load_tokenizer):
        with pytest.raises(WtieError):
            read(path)
        injected("pickles with a canary")
    for name in ("tokenizer.json", "prepared.json", "train.tokens", "train.tokens.json"):
        entry = Path(shutil.copytree(long.prepared.folder, tmp_path / name))
        (entry / name).write_bytes(canary)
        with pytest.raises(WtieError):
            open_prepared(entry)
        write_manifest(entry)
        if name != "tokenizer.json":  # a worker opens the arrays, and no tokenizer
            with pytest.raises(WtieError):
                open_prepared(entry)
        injected("pickles with a canary", 2)


@pytest.mark.parametrize("name", ["manifest.json", "resolved.yaml", "tokenizer.json"])
def test_a_pickle_in_a_foreign_run_is_refused(finished, tmp_path, canary, injected, name):
    folder = Path(shutil.copytree(finished.folder, tmp_path / finished.folder.name))
    (folder / name).write_bytes(canary)
    assert verify_run(folder).findings
    injected("pickles with a canary")


def test_an_array_of_objects_is_not_loaded(finished, tmp_path, injected):
    folder = Path(shutil.copytree(finished.folder, tmp_path / finished.folder.name))
    song = tmp_path / "song"
    path = folder / NAME / "documents.npz"
    with np.load(path) as content:
        arrays = dict(content)
    arrays["test_nats"] = np.array([Canary(song)], dtype=object)
    np.savez(path, **arrays)
    cell = load_run(folder).cells["tied", 0]
    with pytest.raises(WtieError, match="cannot be read as arrays"):
        cell.document_scores("test")
    assert any("documents.npz" in finding.place for finding in verify_run(folder).findings)
    assert not song.exists()
    injected("pickles with a canary", 2)


def test_an_archive_that_unpacks_to_much_is_not_unpacked(finished, tmp_path, injected):
    folder = Path(shutil.copytree(finished.folder, tmp_path / finished.folder.name))
    path = folder / NAME / "documents.npz"
    np.savez_compressed(path, test_nats=np.zeros(20 * 2**20))
    assert path.stat().st_size < 2**20
    cell = load_run(folder).cells["tied", 0]
    with pytest.raises(WtieError, match="more than 128 MiB"):
        cell.document_scores("test")
    injected("bombs")


GENERATE = {
    "arm": "tied", "seed": 0, "checkpoint": "best", "prompt": "a", "max_tokens": 1,
    "temperature": 0.0, "top_k": None, "random_seed": 0,
}  # fmt: skip


def test_settings_of_a_foreign_run_build_no_model_larger_than_its_tensors(
    finished, tmp_path, injected, monkeypatch
):
    folder = Path(shutil.copytree(finished.folder, tmp_path / finished.folder.name))
    for path in (folder / "manifest.json", *folder.glob("tied/*/result.json")):
        record = json.loads(path.read_text())
        holder = record["arms"]["tied"] if "arms" in record else record
        holder["settings"]["model"]["d_model"] = 2**16
        path.write_text(json.dumps(record))
    monkeypatch.setattr(use, "build_model", None)
    with pytest.raises(WtieError, match=r"parameters, the settings in result\.json say"):
        generate_text(folder, **GENERATE)
    injected("bombs")


@pytest.mark.parametrize("kind", ["large", "folder", "missing", "aborting"])
def test_a_tokenizer_that_is_no_small_file_of_ours_is_refused(finished, tmp_path, injected, kind):
    folder = Path(shutil.copytree(finished.folder, tmp_path / finished.folder.name))
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    path.unlink()
    if kind == "large":
        with path.open("wb") as file:
            file.truncate(65 * 2**20)
    elif kind == "folder":
        path.mkdir()
    elif kind == "aborting":  # the library would ask for a terabyte, and end the process
        padding = {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None}
        padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
        path.write_text(json.dumps(content | {"padding": padding}))
    with pytest.raises(WtieError, match=r"tokenizer\.json") as caught:
        generate_text(folder, **GENERATE)
    assert caught.value.remedy
    injected("bombs", kind in ("large", "aborting"))


HEADERS = {
    "a length of 2^63": struct.pack("<Q", 2**63) + b"{}",
    "a length past the end": struct.pack("<Q", 1000) + b"{}",
    "no length": b"\x01",
    "a header of nothing": struct.pack("<Q", 0),
    "a header of lists": struct.pack("<Q", 2) + b"[]",
    "a shape that overflows": None,
    "overlapping tensors": None,
}


def header(entries: object, num_bytes: int = 0) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * num_bytes


HEADERS["a shape that overflows"] = header(
    {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, 4
)
HEADERS["overlapping tensors"] = header(
    {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
        for name in ("embedding.weight", "head.weight")
    },
    4,
)


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_cannot_be_is_refused(long, stopped, tmp_path, injected, name):
    cell = Path(shutil.copytree(stopped, tmp_path / "cell"))
    newest = list_checkpoints(cell / "checkpoints", "last")[0][1]
    content = HEADERS[name]
    assert content is not None
    (newest / "model.safetensors").write_bytes(content)
    write_manifest(newest)
    with pytest.raises(WtieError, match="header"):
        long.train(NAME, cell)
    injected("headers that cannot be")


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "a b", "../x", "/etc", "a\nb", "", "a" * 101, "..", "é"]
)
def test_a_name_that_could_be_more_than_a_name_is_refused(injected, name):
    with pytest.raises(WtieError):
        check_name(name)
    injected("names that are more than names")


READ = """
import json, resource, sys, time
from pathlib import Path
from tyro_cli.analysis.records import load_run
from tyro_cli.config.loading import load_experiment
from tyro_cli.errors import WtieError
from tyro_cli.storage.files import read_json
from tyro_cli.storage.manifests import verify_manifest
from tyro_cli.storage.records import read_records
from tyro_cli.storage.tensors import read_tensor_header

for path in sorted(Path(sys.argv[1]).iterdir()):
    kind = path.name.split(" ")[0]
    read = {
        "yaml": load_experiment, "json": read_json, "record": read_records,
        "safetensors": read_tensor_header, "manifest": verify_manifest, "run": load_run,
    }[kind]
    seconds = []
    for _ in range(2):  # the faster counts: whatever else the machine does only slows
        begun = time.process_time()
        try:
            read(path)
            outcome = "taken"
        except WtieError as error:
            outcome = "refused" if len(str(error)) < 2_000 else "a message too long"
        seconds.append(time.process_time() - begun)
    print(json.dumps([path.name, outcome, min(seconds)]), flush=True)
status = Path("/proc/self/status")
if status.exists():  # ru_maxrss counts what started us, too
    [peak_kib] = [line.split()[1] for line in open(status) if line.startswith("VmHWM")]
    print(int(peak_kib) * 1024)
else:
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""

_HEADER = b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}' + b" " * 50_000_000
_ANCHORS = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)
)
BOMBS = {
    "yaml with a python tag": b"name: !!python/object/apply:os.getcwd []\n",
    "yaml with a module": b"!!python/module:os {}\n",
    "yaml with anchors of anchors": _ANCHORS.encode(),
    "yaml that holds itself": b"a: &a [*a]\n",
    "yaml with a merge key": b"a: &a {b: 1}\nc: {<<: *a}\n",
    "yaml of 10 MB": b"name: " + b"x" * 10_000_000,
    "yaml of 500,000 values": b"[" + b"1," * 500_000 + b"1]",
    "yaml 10,000 deep in brackets": b"[" * 10_000 + b"]" * 10_000,
    "yaml 10,000 deep in braces": b"{a: " * 10_000 + b"}" * 10_000,
    "yaml 1,000 deep in lines": "".join(" " * i + f"k{i}:\n" for i in range(1_000)).encode(),
    "json 10,000 deep": b"[" * 10_000 + b"]" * 10_000,
    "json 10,000,000 deep": b"[" * 10_000_000,
    "json of 17 MB": b" " * (17 * 2**20),
    "json of 5,000,000 maps": b"[" + b"{}," * 5_000_000 + b"{}]",
    "json of 1,000,001 numbers": b"[" + b"1," * 1_000_000 + b"1]",
    "json of a wide text": b'["\\u0041' + "\N{GRINNING FACE}".encode() * 4_000_000 + b'", 1e999]',
    "json with a number of 10 MB": b"1" * 10_000_000,
    "record of 10 MB": b'{"a": "' + b"x" * 10_000_000 + b'"}\n{}\n',
    "record 10,000 deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"\n{}\n",
    "safetensors header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "safetensors header of 50 MB": struct.pack("<Q", len(_HEADER)) + _HEADER,
    "safetensors header 10,000 deep": (struct.pack("<Q", 20_000) + b"[" * 10_000 + b"]" * 10_000),
}
FOLDERS = {"manifest 100,000 deep": "MANIFEST.json", "run 100,000 deep": "manifest.json"}


def test_bombs_are_refused_in_a_second_and_300_mb(repository, tmp_path, injected):
    for name, content in BOMBS.items():
        (tmp_path / name).write_bytes(content)
    for name, file in FOLDERS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(b'{"a":' * 100_000)
    finished = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    *lines, peak_bytes = [json.loads(line) for line in finished.stdout.splitlines()]
    assert len(lines) == len(BOMBS) + len(FOLDERS)
    assert [(name, outcome) for name, outcome, _ in lines if outcome != "refused"] == []
    assert [(name, seconds) for name, _, seconds in lines if seconds >= 1.0] == []
    assert peak_bytes < 300e6
    injected("bombs", len(lines))
