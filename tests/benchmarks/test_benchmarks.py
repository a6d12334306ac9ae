"""Every case runs at a tiny size, and the measuring says what it should; no time is tested."""

import math
import shutil
import sys

import pytest
import torch

from benchmarks import (
    compiling,
    curves,
    evaluating,
    measuring,
    memory,
    pairs,
    quality,
    report,
    start_up,
    tokenizing,
    translating,
)
from benchmarks.__main__ import FIGURES, all_cases, parse
from benchmarks.measuring import Call, Case, Comparison, MeasurementFailed, Outcome, Side

CONFIGURATION = """
name: tiny
task: language-modeling
data: {corpus: CORPUS, tokenizer: {kind: byte}, context_length: 8}
model: {d_model: 16, num_layers: 1, num_heads: 2}
training: {budget: {steps: 4}, batch_tokens: 16, optimizer: {learning_rate: 1.0e-3}}
arms: {untied: {}, tied: {model: {tying: in-out}}}
baseline: untied
seeds: [0]
"""


@pytest.fixture(autouse=True)
def _numerics_stay_as_they_were():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def corpus(tmp_path):
    for stem in ("train", "valid", "test"):
        (tmp_path / f"{stem}.txt").write_text("A line of words.\n\nAnother line of them.\n" * 40)
    return tmp_path


@pytest.fixture
def configuration(corpus):
    path = corpus / "wtie.yaml"
    path.write_text(CONFIGURATION.replace("CORPUS", str(corpus)))
    return path


def run_here(case: Case) -> None:
    """Run every call of a case in this process, once."""
    calls = {
        (call.function, repr(call.arguments)): call
        for comparison in case.comparisons
        for side in (comparison.ours, comparison.peer)
        for stage in side.stages
        for call in stage
    }
    for call in calls.values():
        if "transformers" in case.title.lower() and call.function.startswith("peers:"):
            continue  # see test_the_trainer_is_timed
        started = []
        cost = call.resolve()(lambda started=started: started.append(1), 0.0, **call.arguments)
        assert started == [1], "a call says once that it is warm"
        assert math.isfinite(cost)
        assert cost > 0


GROUPS = (pairs, memory, curves, evaluating, translating)
TINY_CASES = {case.name: case for group in GROUPS for case in group.cases(True)}


@pytest.mark.parametrize("name", TINY_CASES)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_case_of_models_runs_at_a_tiny_size(name):
    run_here(TINY_CASES[name])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own
@pytest.mark.skipif(not shutil.which("g++"), reason="compiled blocks need a C++ compiler")
def test_compiled_blocks_are_timed():
    run_here(*compiling.cases(True))


def test_quality_runs_at_a_tiny_size(configuration):
    run_here(*quality.cases(configuration, steps=2))


def test_tokenizing_runs_on_a_small_corpus(corpus):
    run_here(*tokenizing.cases(str(corpus), 262))


def test_a_worker_is_timed_to_its_first_step(configuration):
    first_step, _ = start_up.cases(True, configuration)
    (call,) = first_step.comparisons[0].ours.stages[0]
    assert call.resolve()(lambda: None, 0.0, **call.arguments) > 0


def test_a_command_is_timed():
    assert 0 < start_up.command(lambda: None, 0.0, words=["-c", "pass"]) < 60_000


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_is_timed():
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    (call,) = TINY_CASES["pair-2048"].comparisons[0].peer.stages[0]
    assert call.resolve()(lambda: None, 0.0, **call.arguments) > 0


def test_every_case_has_a_name_of_its_own_and_resolves():
    cases = all_cases()
    assert not set(cases) & set(FIGURES)
    for case in cases.values():
        for comparison in case.comparisons:
            for side in (comparison.ours, comparison.peer):
                assert all(callable(call.resolve()) for stage in side.stages for call in stage)


def comparison(ours: tuple[float, ...] = (), size: int | None = None, **sides) -> Comparison:
    command = Call("start_up:command", {"words": ["-c", "pass"]})
    side = Side("python", ((command,),), **sides)
    return Comparison(f"size {size}", side, side, size)


def test_a_measurement_is_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(start_up, "command", lambda *rest, **words: pytest.fail("ran here"))
    assert measuring.cost_of_side(comparison().ours, 0.0) > 0


def test_a_measurement_that_dies_says_what_it_said():
    side = Side("broken", ((Call("start_up:command", {"words": ["-c", "pass", 3]}),),))
    with pytest.raises(MeasurementFailed, match="expected str"):
        measuring.cost_of_side(side, 0.0)


def test_calls_of_a_stage_run_at_once_and_stages_add_up(monkeypatch):
    costs = {"a": 3.0, "b": 5.0, "c": 7.0}
    monkeypatch.setattr(
        measuring, "_run_at_once", lambda calls, seconds: [costs[c.function] for c in calls]
    )
    at_once = Side("at once", ((Call("a"), Call("b")),))
    after = Side("one after the other", ((Call("a"),), (Call("b"), Call("c"))))
    assert measuring.cost_of_side(at_once, 1.0) == 5.0
    assert measuring.cost_of_side(after, 1.0) == 10.0


def test_sides_alternate(monkeypatch):
    seen = []

    def cost(side: Side, seconds: float) -> float:
        seen.append(side.name)
        return float(len(seen))

    monkeypatch.setattr(measuring, "cost_of_side", cost)
    call = Call("nothing:at_all")
    sides = Comparison("one", Side("A", ((call,),)), Side("B", ((call,),)))
    (outcome,) = measuring.run_case(Case("name", "title", "s", (sides,)), 1.0, 2)
    assert "".join(seen) == "ABAB"
    assert outcome.ratios == (2.0, 4 / 3)


def test_what_the_memory_does_not_carry_is_not_started():
    case = Case("name", "title", "s", (comparison(needed_bytes=2**60),))
    (outcome,) = measuring.run_case(case, 1.0, 1)
    assert outcome.why_not.startswith("needs 1073741824 GiB")
    assert "not measured: needs" in report.describe_case(case, [outcome])


def test_the_exponent_of_a_power_is_found():
    sizes = [64, 128, 256, 1024]
    assert measuring.exponent(sizes, [3e-4 * size**1.5 for size in sizes]) == pytest.approx(1.5)


def test_the_report_of_a_case_shows_every_cost_and_the_spread_of_the_ratios():
    case = Case("name", "A title", "s", (), goal=2.0, work=(1e6, "tokens/s"))
    outcome = Outcome(comparison(size=64), (1.0, 2.0, 4.0), (3.0, 3.0, 8.0))
    text = report.describe_case(case, [outcome])
    assert "| size 64 | python | 1, 2, 4 | 2 | 500,000 tokens/s |" in text
    assert "| size 64 | 2.000 | 1.500 | 3.000 | reached |" in text
    slower = Outcome(comparison(size=128), (4.0,), (4.0,))
    text = report.describe_case(case, [outcome, slower])
    assert "| size 128 | 1.000 | 1.000 | 1.000 | missed |" in text
    assert "- python: exponent 1.00 over all, 1.00 over the last two." in text


def test_an_unknown_case_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        parse(["pair-1"], ["pair-8192"])
    assert "no case pair-1; there are pair-8192" in capsys.readouterr().err
