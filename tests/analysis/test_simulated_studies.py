"""How often intervals and verdicts are wrong on data whose truth is known.

Every rate is judged by three standard errors of its own estimate: at 1,000 repetitions a rate of
5 % may come out at 7.1 %. The draws are fixed, so a test that passes passes always.
"""

import math

import numpy as np
import pytest

from tests.analysis.fake_runs import sha256
from tyro_cli.analysis import studies
from tyro_cli.analysis.contrasts import Contrast
from tyro_cli.analysis.statistics import paired_t_interval
from tyro_cli.analysis.studies import PointRun, StudyRecords, sign_changes, study_contrasts
from tyro_cli.analysis.study_formats import FactorRecord, PointRecord, StudyManifest
from tyro_cli.analysis.verdicts import verdict

MARGIN = 0.01
MARGIN_NATS = math.log1p(MARGIN)


def allowed(nominal, repetitions):
    """Return the largest rate that a test which is right may be seen to have."""
    return nominal + 3 * math.sqrt(nominal * (1 - nominal) / repetitions)


def contrast_of(differences):
    """Return the contrast of verified pairs with these differences."""
    seeds = tuple(range(len(differences)))
    return Contrast(
        arm="tied",
        baseline="untied",
        metric="nats_per_word",
        split="test",
        at="best",
        planned_seeds=seeds,
        unpaired_seeds=(),
        diverged={},
        unfinished_seeds=(),
        proofs={},
        seeds=seeds,
        arm_values=tuple(map(float, differences)),
        baseline_values=(0.0,) * len(seeds),
        unavailable="",
        learning_rates=(0.002, 0.002),
        shared_rate=True,
        extended=False,
        drifted=(),
        forced="",
    )


def verdicts(samples):
    """Return the verdict on each row of differences, outside any family."""
    return [verdict(contrast_of(sample), MARGIN) for sample in samples]


@pytest.mark.parametrize("confidence", [0.90, 0.95])
@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_interval_covers_the_truth_as_often_as_it_says(n, confidence):
    repetitions = 2000
    samples = np.random.default_rng(n).normal(0.02, 0.015, size=(repetitions, n))
    intervals = [paired_t_interval(sample, confidence) for sample in samples]
    missed = np.mean([not one.low <= 0.02 <= one.high for one in intervals])
    nominal = 1 - confidence
    assert abs(missed - nominal) <= allowed(nominal, repetitions) - nominal


@pytest.mark.parametrize("spread", [0.002, 0.05])
@pytest.mark.parametrize("n", [3, 5])
def test_better_is_rare_where_there_is_no_difference(n, spread):
    repetitions = 1000
    samples = np.random.default_rng(10 + n).normal(0, spread, size=(repetitions, n))
    named = [one.winner for one in verdicts(samples)]
    for arm in ("tied", "untied"):
        assert named.count(arm) / repetitions <= allowed(0.025, repetitions)
    assert repetitions - named.count(None) > 0.03 * repetitions, "the test can find something"


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("n", "spread"), [(3, 0.002), (5, 0.004)])
def test_equivalent_is_rare_at_the_edge_of_the_margin(n, spread, sign):
    """`better, by less than` claims the margin as well, so it counts."""
    repetitions = 1000
    generator = np.random.default_rng(20 + n)
    samples = generator.normal(sign * MARGIN_NATS, spread, size=(repetitions, n))
    within = [one.kind in ("equivalent", "better-small") for one in verdicts(samples)]
    assert sum(within) / repetitions <= allowed(0.05, repetitions)
    assert sum(within) / repetitions > 0.03, "the test can find something"


def test_the_wrong_arm_is_hardly_ever_named():
    repetitions = 1000
    samples = np.random.default_rng(31).normal(0.01, 0.015, size=(repetitions, 3))
    named = [one.winner for one in verdicts(samples)]
    assert named.count("tied") / repetitions <= allowed(0.025, repetitions)
    assert named.count("untied") > named.count("tied")


class Simulator:
    """Studies of one factor whose contrasts are given, through the code that real ones take."""

    def __init__(self, monkeypatch, num_points):
        monkeypatch.setattr(studies, "decisive_contrast", lambda run, *_, **__: run)
        monkeypatch.setattr(
            studies,
            "verdict_on",
            lambda _, one, margin, family: verdict(one, margin, family=family),
        )
        levels = list(range(num_points))
        self.manifest = StudyManifest(
            format=1,
            study_id=sha256("study"),
            name="simulated",
            family="all",
            factors={"size": FactorRecord(order=0, keys=["model.d_model"], levels=levels)},
            points=[PointRecord(levels={"size": i}, run=f"run-{i}", run_id="0") for i in levels],
            arms=["untied", "tied"],
            baseline="untied",
            margin=MARGIN,
            seeds=[0],
        )

    def study(self, tmp_path, samples):
        """Return a study with one row of differences for each point."""
        points = tuple(
            PointRun({"size": index}, contrast_of(sample)) for index, sample in enumerate(samples)
        )
        return StudyRecords(tmp_path, self.manifest, points, ())


def rates(tmp_path, monkeypatch, truth, spread, repetitions, shared=0.0, seeds=5):
    """Return how often any wrong arm, any wrong `within` and any wrong crossover is stated.

    Args:
        tmp_path: A folder to name.
        monkeypatch: Puts the contrasts in place.
        truth: The true difference at each point.
        spread: The standard deviation over seeds.
        repetitions: Studies.
        shared: Share of the variance that all points of a seed have in common.
        seeds: Seeds of each point.
    """
    truth = np.array(truth)
    simulator = Simulator(monkeypatch, len(truth))
    generator = np.random.default_rng(40 + len(truth))
    wrong_arm = wrong_within = wrong_crossover = right = 0
    for _ in range(repetitions):
        common = generator.normal(0, math.sqrt(shared), size=seeds)
        own = generator.normal(0, math.sqrt(1 - shared), size=(len(truth), seeds))
        study = simulator.study(tmp_path, truth[:, None] + spread * (common + own))
        found = study_contrasts(study)
        winners = [one.verdict.winner for one in found]
        better = [{"tied": -1, "untied": 1, None: 0}[winner] for winner in winners]
        wrong_arm += any(side and side != np.sign(t) for side, t in zip(better, truth, strict=True))
        right += sum(side == np.sign(t) != 0 for side, t in zip(better, truth, strict=True))
        within = [one.verdict.kind in ("equivalent", "better-small") for one in found]
        wrong_within += any(w and abs(t) >= MARGIN_NATS for w, t in zip(within, truth, strict=True))
        wrong_crossover += any(one.is_established for one in sign_changes(study, found))
    return {
        "arm": wrong_arm / repetitions,
        "within": wrong_within / repetitions,
        "crossover": wrong_crossover / repetitions,
        "right": right / repetitions,
    }


@pytest.mark.parametrize("shared", [0.0, pytest.param(0.7, marks=pytest.mark.slow)])
def test_a_family_without_any_difference_rarely_names_an_arm(tmp_path, monkeypatch, shared):
    """Eight contrasts; without Holm one of three such studies would, if they are independent."""
    found = rates(tmp_path, monkeypatch, [0.0] * 8, 0.05, 300, shared)
    assert found["arm"] <= allowed(0.05, 300)
    assert found["crossover"] <= found["arm"]


@pytest.mark.slow
def test_a_family_at_the_edge_of_the_margin_is_rarely_called_equivalent(tmp_path, monkeypatch):
    edge = [MARGIN_NATS, -MARGIN_NATS] * 4
    found = rates(tmp_path, monkeypatch, edge, 0.003, 500)
    assert found["within"] <= allowed(0.05, 500)


@pytest.mark.slow
def test_among_real_differences_the_others_are_rarely_named(tmp_path, monkeypatch):
    """Holm's family shrinks as contrasts are decided, but not below those that are nothing."""
    found = rates(tmp_path, monkeypatch, [0.2] * 4 + [0.0] * 4, 0.05, 500)
    assert found["arm"] <= allowed(0.05, 500)
    assert found["right"] > 3, "of the four differences most are found"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("truth", "spread"),
    [
        ([0.0] * 4, 0.05),
        ([0.0] * 12, 0.05),
        ([0.1, 0.1, 0.0, 0.0], 0.05),
        ([MARGIN_NATS] * 4, 0.003),
    ],
)
@pytest.mark.parametrize("seeds", [3, 5])
def test_families_of_every_size_keep_their_level(tmp_path, monkeypatch, truth, spread, seeds):
    repetitions = 1500
    found = rates(tmp_path, monkeypatch, truth, spread, repetitions, shared=0.3, seeds=seeds)
    assert found["arm"] <= allowed(0.05, repetitions)
    assert found["within"] <= allowed(0.05, repetitions)
    assert found["crossover"] <= allowed(0.05, repetitions)
