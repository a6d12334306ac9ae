"""Hardware that is asked for and is not there, or only in name: told before anything is read."""

import pytest
import torch

from tests.experiments.small_experiments import load, prepared_data
from tyro_cli.errors import DeviceError
from tyro_cli.experiments import run
from tyro_cli.experiments.run import Start, prepare_start
from tyro_cli.training import hardware
from tyro_cli.training.signals import StopRequest


@pytest.fixture(autouse=True)
def _no_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "prepare", lambda *_, **__: prepared_data(tmp_path))


def start(tmp_path, *overrides: str, device: str = "cpu") -> tuple[Start, list[str]]:
    """Return what a start would be, and what it said."""
    said: list[str] = []
    ready = prepare_start(
        load(tmp_path, "arms: {a: {}}\nbaseline: a\nseeds: [0]\n", *overrides),
        seeds=None,
        arms=None,
        device=device,
        out=tmp_path / "runs",
        fresh=False,
        say=said.append,
        stop=StopRequest(),
    )
    return ready, said


@pytest.mark.parametrize(
    ("asked", "faster", "precision"),
    [
        ("auto", False, "fp32"),
        ("auto", True, "bf16"),
        ("fp32", False, "fp32"),
        ("bf16", True, "bf16"),
    ],
)
def test_precision_that_costs_nothing_is_taken_in_silence(
    tmp_path, monkeypatch, asked, faster, precision
):
    monkeypatch.setattr(hardware, "is_faster_in_bfloat16", lambda device: faster)
    ready, said = start(tmp_path, f"training.precision={asked}")
    assert (ready.plan.precision, said) == (precision, [])


def test_bf16_that_may_save_no_time_is_done_with_a_warning_of_its_cost(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "is_faster_in_bfloat16", lambda device: False)
    seconds = {torch.bfloat16: 0.07, torch.float32: 0.02}
    monkeypatch.setattr(hardware, "_product_seconds", lambda dtype, device: seconds[dtype])
    ready, said = start(tmp_path, "training.precision=bf16")
    assert ready.plan.precision == "bf16"
    assert said == [
        "warning: bf16 is not known to be faster on this hardware: a matrix product takes "
        "3.5 times as long as in fp32, measured just now (training.precision=fp32 avoids that)"
    ]


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "name", "precision"),
    [
        (True, True, "Intel(R) Xeon(R) Processor", "bf16"),
        (False, True, "Intel(R) Xeon(R) Processor", "fp32"),  # a virtual machine hides AMX
        (False, True, "AMD EPYC", "bf16"),
        (False, False, "AMD EPYC", "fp32"),
    ],
)
def test_auto_takes_bf16_on_a_cpu_that_multiplies_it_faster_than_float32(
    monkeypatch, amx, avx512_bf16, name, precision
):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(hardware, "processor_name", lambda: name)
    assert hardware.resolve_precision("auto", "cpu") == precision


def test_the_cost_is_measured():
    assert 0 < hardware.bfloat16_cost("cpu") < float("inf")


def test_a_gpu_that_is_not_there_is_told_before_any_data_is_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    prepared = []
    monkeypatch.setattr(run, "prepare", lambda *_, **__: prepared.append(True))
    with pytest.raises(DeviceError, match="--device cuda: torch sees no GPU here") as caught:
        start(tmp_path, device="cuda")
    assert prepared == []
    assert caught.value.exit_code == 2
    assert "--device cpu" in caught.value.remedy
