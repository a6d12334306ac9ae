"""The learning rate as a function of the step."""

import pytest

from tyro_cli.config.schema import ScheduleConfig
from tyro_cli.training.schedule import rate_factor


def test_warm_up_is_linear_and_reaches_the_peak() -> None:
    schedule = ScheduleConfig(kind="cosine", warmup_fraction=0.1, final_fraction=0.1)
    factors = [rate_factor(schedule, step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert max(factors) == 1.0
    assert factors[-1] == pytest.approx(0.1)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert rate_factor(schedule, 10 + 89 // 2, 100) == pytest.approx(0.55, abs=0.01)


def test_constant_stays_at_the_peak() -> None:
    schedule = ScheduleConfig(kind="constant", warmup_fraction=0.0)
    assert {rate_factor(schedule, step, 7) for step in range(7)} == {1.0}


@pytest.mark.parametrize("total", [1, 2, 3])
def test_very_short_runs_have_finite_positive_rates(total: int) -> None:
    schedule = ScheduleConfig()
    assert all(0 < rate_factor(schedule, step, total) <= 1 for step in range(total))
