"""Compiled blocks: the same training but for rounding, the same files, and exact resume."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.conftest import REPOSITORY
from tests.folders import digests
from tests.training.test_loop import interrupted_run
from tyro_cli.errors import DeviceError
from tyro_cli.storage.records import read_records
from tyro_cli.training.compiling import check_compiler
from tyro_cli.training.loop import Trainer

TRAINING = tiny.settings().training.model_dump(mode="json", exclude_none=True)
COMPILED = {"training": TRAINING | {"compile": True}}

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def stance() -> Iterator[None]:
    """Let no other test run under what a compiled cell asks of its process."""
    yield
    torch.compiler.set_stance("default")


@pytest.mark.parametrize("mode", ["error", "default"])
def test_the_compiler_is_told_whether_to_be_deterministic(mode):
    script = (
        "import torch\n"
        "from tests.tiny import tiny_model\n"
        "from tyro_cli.training.compiling import Compiled\n"
        f"torch.set_deterministic_debug_mode({mode!r})\n"
        "compiled = Compiled(tiny_model())\n"
        "import torch._inductor.config as inductor\n"
        f"assert inductor.deterministic == {mode == 'error'}\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, cwd=REPOSITORY)


def losses(folder: Path) -> list[tuple[str, int, float]]:
    return [
        (
            record["kind"],
            record["step"],
            record.get("loss_nats", record.get("valid_nats_per_token")),
        )
        for record in read_records(folder / "metrics.jsonl")
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own
@needs_compiler
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_compiled_training_is_plain_training_but_for_rounding(tmp_path: Path, family: str) -> None:
    options: dict[str, Any] = {"family": family, "dropout": 0.1, "tying": "in-out"}
    plain = tiny.trained(tmp_path / "plain", **options)
    compiled = tiny.trained(tmp_path / "compiled", **options, **COMPILED)
    for (kind, step, expected), (*same, nats) in zip(
        losses(tmp_path / "plain"), losses(tmp_path / "compiled"), strict=True
    ):
        assert same == [kind, step]
        assert nats == pytest.approx(expected, rel=1e-4)
    assert (plain.fingerprint["compile"], compiled.fingerprint["compile"]) == (False, True)
    names = [
        set(load_file(max((tmp_path / name / "checkpoints").glob("last-*")) / "model.safetensors"))
        for name in ("plain", "compiled")
    ]
    assert names[0] == names[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own
@needs_compiler
def test_a_stopped_compiled_cell_ends_with_the_same_bytes(tmp_path: Path) -> None:
    Trainer(tiny.context(tmp_path / "whole", dropout=0.1, **COMPILED)).run()
    interrupted_run(tmp_path / "stopped", 10, dropout=0.1, **COMPILED)
    assert digests(tmp_path / "stopped") == digests(tmp_path / "whole")


def test_a_missing_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match="there is no 'no-such-compiler' here") as caught:
        check_compiler("cpu")
    assert "take training.compile out" in caught.value.remedy


@pytest.mark.skipif(torch.version.cuda is not None, reason="has triton")
def test_a_gpu_needs_triton() -> None:
    with pytest.raises(DeviceError, match="needs triton"):
        check_compiler("cuda")
