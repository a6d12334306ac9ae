"""Made-up input for every reader: refused in words or taken, never a traceback, nothing written.

The readers work in a folder of their own, which must afterwards hold what was put there. While they
read, the interpreter tells of whatever they open for writing, change, start or connect to, wherever
that is: there must be nothing. The slow tests make up more than 100,000 different inputs, the quick
ones a few hundred.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.analysis import fake_runs
from tyro_cli.analysis.records import load_run
from tyro_cli.cli.init import template
from tyro_cli.config.loading import load_experiment
from tyro_cli.errors import WtieError
from tyro_cli.storage.files import read_json
from tyro_cli.storage.manifests import verify_manifest, write_manifest
from tyro_cli.storage.names import inside
from tyro_cli.storage.records import read_records
from tyro_cli.storage.tensors import read_tensor_header

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["..", "../../x", "/etc/passwd", "in-out", "none", "untied", "3e-4", "NaN"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def paths_of(value: Any, path: tuple = ()) -> list[tuple]:
    """Return the path of everything in a value of lists and maps."""
    found = [path]
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in items:
            found += paths_of(child, (*path, key))
    return found


@st.composite
def changed_records(draw: st.DrawFn, record: Any) -> bytes:
    """Draw a record of which a few values are replaced, removed or renamed."""
    record = json.loads(json.dumps(record))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths_of(record)[1:] or [()]))
        if not path:
            break
        parent = record
        for key in path[:-1]:
            parent = parent[key]
        kind = draw(st.sampled_from(["replace", "remove", "rename"]))
        if kind == "replace":
            parent[path[-1]] = draw(VALUES)
        elif kind == "remove":
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=8))] = parent.pop(path[-1])
    return json.dumps(record).encode()


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw a text with a few pieces cut out, doubled, moved or replaced."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, len(data)))
        last = min(len(data), first + draw(st.integers(0, 30)))
        piece = bytes(data[first:last])
        new = draw(
            st.one_of(
                st.just(b""),
                st.just(piece * 2),
                st.binary(max_size=8),
                st.text(max_size=8).map(lambda text: text.encode("utf-8", "surrogatepass")),
                st.sampled_from(
                    [b": ", b"- ", b"\n", b"\t", b"&a ", b"*a", b"!!x ", b"{", b"]", b"'", b"\0",
                     b"---\n", b"%YAML 9\n", b"<<: ", b"? ", b"| ", b"../"]
                ),
            )
        )  # fmt: skip
        data[first:last] = new
    return bytes(data)


# What no reader may do, as the interpreter's audit events name it.
DEEDS = {
    *(f"os.{name}" for name in ("mkdir", "rename", "remove", "rmdir", "link", "symlink")),
    *(f"os.{name}" for name in ("truncate", "chmod", "chown", "utime", "system", "exec")),
    *(f"os.{name}" for name in ("posix_spawn", "fork", "kill")),
    *("subprocess.Popen", "pickle.find_class", "socket.connect", "socket.getaddrinfo"),
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _audit(event: str, arguments: tuple) -> None:
    if Watched.deeds is None or "__pycache__" in str(arguments[:1]):  # of a module's first import
        return
    is_writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
    if is_writing or event in DEEDS:
        Watched.deeds.append(f"{event} {arguments}")


@pytest.fixture(scope="module", autouse=True)
def _audited() -> None:
    sys.addaudithook(_audit)  # for good: there is no way to take one back


class Watched:
    """A folder that a reader works in.

    Attributes:
        deeds: What a reader does beside reading; None while none is at work.
    """

    deeds: ClassVar[list[str] | None] = None

    def __init__(self, place: Path) -> None:
        self.place = place
        self.folder = place / "root"
        self.folder.mkdir()
        (place / "beside").write_text("mine")

    def reads(self, read: Callable[[], object]) -> None:
        """Read; see that it was refused in words or taken, and that nothing else was done."""
        before = self._content()
        Watched.deeds = deeds = []
        try:
            read()
        except WtieError as error:
            assert error.message
        finally:
            Watched.deeds = None
        assert deeds == []
        assert self._content() == before

    def _content(self) -> list[tuple[str, int]]:
        return sorted(
            (os.path.join(folder, name), os.stat(os.path.join(folder, name)).st_size)
            for folder, _, names in os.walk(self.place)
            for name in names
        )


INPUTS_AN_EXAMPLE = 10


def fuzz(strategy: st.SearchStrategy[bytes], number: int, check: Callable[[bytes], None]) -> int:
    """Give a check so many different made-up inputs: examples, and variations of each.

    Returns:
        How many were given, as counted.
    """
    passed: set[bytes] = set()
    failed: set[bytes] = set()

    def give(data: bytes) -> bool:
        """Give an input unless it has passed before, or enough have; a failing one fails again."""
        digest = hashlib.sha256(data).digest()
        if digest in passed or (len(passed) >= number and not failed):
            return False
        failed.add(digest)
        check(data)
        failed.discard(digest)
        passed.add(digest)
        return True

    @settings(
        max_examples=number // INPUTS_AN_EXAMPLE + number // 50 + 1,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy, st.integers(0, 2**32))
    def run(data: bytes, seed: int) -> None:
        generator = random.Random(seed)
        new = give(data)
        for _ in range(3 * INPUTS_AN_EXAMPLE):
            if new == INPUTS_AN_EXAMPLE:
                return
            new += give(variation(data, generator))

    run()
    assert len(passed) == number
    return number


def variation(data: bytes, generator: random.Random) -> bytes:
    """Return data with up to three bytes or pieces of it changed, dropped or copied elsewhere."""
    varied = bytearray(data or b" ")
    for _ in range(generator.randint(1, 3)):
        place = generator.randrange(len(varied) or 1)
        kind = generator.randrange(4)
        if kind == 0:
            varied[place : place + 1] = bytes([generator.randrange(256)])
        elif kind == 1:
            varied[place : place + 1] = generator.choice(
                [b'"', b"{", b"]", b",", b":", b"\n", b"-"]
            )
        elif kind == 2:
            del varied[place : place + generator.randint(1, 8)]
        else:
            piece = varied[place : place + generator.randint(1, 8)]
            other = generator.randrange(len(varied) + 1)
            varied[other:other] = piece
    return bytes(varied)


MANY: Counter[str] = Counter()


def numbers(reader: str, quick: int, slow: int) -> Any:
    """Parametrize a test of a reader by how many inputs it makes up."""
    MANY[reader] += slow
    return pytest.mark.parametrize(
        "number",
        [pytest.param(quick, id="some"), pytest.param(slow, id="many", marks=pytest.mark.slow)],
    )


@pytest.fixture
def watched(tmp_path) -> Watched:
    return Watched(tmp_path)


@pytest.mark.parametrize(
    "deed",
    [
        lambda place: (place / "beside").open("a").close(),
        lambda place: (place / "new").mkdir(),
        lambda place: os.open(place / "new", os.O_CREAT),
        lambda place: os.rename(place / "beside", place / "elsewhere"),
        lambda place: sys.audit("pickle.find_class", "os", "system"),
        lambda place: subprocess.run(["true"], check=True),
    ],
    ids=["append", "folder", "file", "rename", "pickle", "process"],
)
def test_a_reader_that_does_more_than_read_is_found_out(watched, deed):
    with pytest.raises(AssertionError):
        watched.reads(lambda: deed(watched.place))


EXPERIMENT = template().encode()
SMALL_EXPERIMENT = b"""\
name: small
task: language-modeling
data: {corpus: kjv, tokenizer: {kind: word}, context_length: 8}
model: {d_model: 16, num_layers: 2, num_heads: 4}
training: {budget: {steps: 4}, batch_tokens: 32, optimizer: {learning_rate: 2e-3}}
arms: {untied: {}, tied: {model: {tying: in-out}}}
baseline: untied
seeds: [0, 1]
"""


@numbers("configurations", quick=150, slow=12_000)
def test_configurations(watched, injected, number):
    path = watched.folder / "a.yaml"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        watched.reads(lambda: load_experiment(path))

    injected("made-up configurations", fuzz(changed_bytes(SMALL_EXPERIMENT), number, check))


@numbers("configurations", quick=40, slow=500)
def test_the_configuration_that_init_writes(watched, injected, number):
    path = watched.folder / "a.yaml"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        watched.reads(lambda: load_experiment(path))

    injected("made-up configurations", fuzz(changed_bytes(EXPERIMENT), number, check))


@numbers("configurations", quick=60, slow=4_000)
def test_overrides_of_the_command_line(watched, injected, number):
    path = watched.folder / "a.yaml"
    path.write_bytes(SMALL_EXPERIMENT)
    keys = ["name", "model.d_model", "data", "arms.tied", "seeds", "training.budget", "extends", ""]

    def check(data: bytes) -> None:
        word = data.decode("utf-8", "replace")
        watched.reads(lambda: load_experiment(path, [word]))

    words = st.builds(
        lambda key, text: f"{key}={text}".encode("utf-8", "replace"),
        st.sampled_from(keys) | st.text(max_size=20),
        st.text(max_size=20) | VALUES.map(str),
    )
    injected("made-up configurations", fuzz(words, number, check))


@numbers("records", quick=100, slow=27_000)
def test_records_line_by_line(watched, injected, number):
    path = watched.folder / "metrics.jsonl"
    lines = fake_runs.metrics(fake_runs.result("tied", 0, {}, 4.5))[:3]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()

    def check(data: bytes) -> None:
        path.write_bytes(data)
        watched.reads(lambda: read_records(path))

    injected("made-up records", fuzz(changed_bytes(text) | st.binary(max_size=60), number, check))


@numbers("records", quick=100, slow=27_000)
def test_json(watched, injected, number):
    path = watched.folder / "a.json"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        watched.reads(lambda: read_json(path))

    injected(
        "made-up records",
        fuzz(VALUES.map(lambda v: json.dumps(v).encode()) | st.binary(max_size=60), number, check),
    )


@numbers("manifests", quick=60, slow=6_000)
def test_results_and_manifests_of_runs(watched, injected, number):
    cells = {("untied", 0): 4.5, ("tied", 0): 4.4}
    folder = fake_runs.make_run(watched.folder, nats_per_word=cells)
    result, manifest = folder / "tied" / "seed-0" / "result.json", folder / "manifest.json"
    originals = {path: path.read_bytes() for path in (result, manifest)}

    for path, original in originals.items():

        def check(data: bytes, path: Path = path) -> None:
            path.write_bytes(data)
            watched.reads(lambda: load_run(folder))

        made_up = fuzz(changed_records(json.loads(original)), number // 2, check)
        path.write_bytes(original)
        injected("made-up manifests and results", made_up)


@numbers("manifests", quick=100, slow=24_000)
def test_manifests_of_folders(watched, injected, number):
    (watched.folder / "a").write_text("a")
    (watched.folder / "b").write_text("b")
    write_manifest(watched.folder)
    path = watched.folder / "MANIFEST.json"
    original = path.read_bytes()

    def check(data: bytes) -> None:
        path.write_bytes(data)
        watched.reads(lambda: verify_manifest(watched.folder))

    injected(
        "made-up manifests and results",
        fuzz(changed_records(json.loads(original)) | changed_bytes(original), number, check),
    )


@numbers("headers", quick=100, slow=13_500)
def test_headers_of_tensors(watched, injected, number):
    path = watched.folder / "model.safetensors"
    entries = {
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [16, 20]},
    }

    def check(data: bytes) -> None:
        path.write_bytes(len(data).to_bytes(8, "little") + data + b"\0" * 20)
        watched.reads(lambda: read_tensor_header(path))

    injected(
        "made-up headers of tensors",
        fuzz(changed_records(entries) | changed_bytes(json.dumps(entries).encode()), number, check),
    )


@numbers("names", quick=100, slow=3_000)
def test_names_never_leave_their_root(watched, injected, number):
    root = watched.folder

    def check(data: bytes) -> None:
        parts = data.decode("utf-8", "replace").split("|")
        try:
            path = inside(root, *parts)
        except WtieError:
            return
        assert path != root
        assert root in path.resolve().parents

    pieces = st.lists(
        st.text(max_size=10) | st.sampled_from(["..", ".", "/", "a/b", "a", "-", "a..b"]),
        min_size=1,
        max_size=3,
    )
    injected(
        "made-up names",
        fuzz(pieces.map(lambda parts: "|".join(parts).encode("utf-8", "replace")), number, check),
    )


def test_the_slow_tests_make_up_a_hundred_thousand_inputs():
    assert MANY["configurations"] + MANY["records"] + MANY["manifests"] >= 100_000
