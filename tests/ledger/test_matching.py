"""Budget-matched arms: the closest whole number, or a reason why there is none."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tyro_cli.config.schema import Arm, Match, Settings
from tyro_cli.ledger.ledger import ledger_of
from tyro_cli.ledger.matching import NoMatch, solve_matches

V = 61


def arm(name: str, match: tuple[str, str] | None = None, **model: Any) -> Arm:
    settings = Settings.model_validate(
        {
            "task": "language-modeling",
            "data": {"corpus": "kjv", "tokenizer": {"kind": "word"}, "context_length": 8},
            "model": {"d_model": 16, "num_layers": 2, "num_heads": 4} | model,
            "training": {
                "budget": {"steps": 1},
                "batch_tokens": 64,
                "optimizer": {"learning_rate": 1e-3},
            },
        }
    )
    wanted = (
        None if match is None else Match.model_validate({"parameters_of": match[0], "by": match[1]})
    )
    return Arm(name=name, settings=settings, match=wanted)


def arms(*given: Arm) -> dict[str, Arm]:
    return {one.name: one for one in given}


def test_the_tied_arm_with_its_savings_reinvested() -> None:
    solved = solve_matches(arms(arm("untied"), arm("wide", ("untied", "d_ff"), tying="in-out")), V)
    # 61 * 16 = 976 saved; one unit of d_ff costs 2 layers * 3 * 16 = 96: ten more, 16 left over.
    wide = solved["wide"]
    assert wide.value == wide.arm.settings.model.d_ff == 48 + 10
    assert wide.difference == -16
    assert wide.parameters == ledger_of(wide.arm.settings, V).total
    assert wide.as_record() == {
        "by": "d_ff",
        "value": 58,
        "parameters_of": "untied",
        "target_parameters": 8688,
        "parameters": 8672,
        "difference": -16,
    }


def test_arms_without_a_match_stay_as_they_are_and_in_their_order() -> None:
    given = arms(arm("wide", ("untied", "d_ff"), tying="in-out"), arm("untied"))
    solved = solve_matches(given, V)
    assert list(solved) == ["wide", "untied"]
    assert solved["untied"].arm is given["untied"]
    assert solved["untied"].as_record() is None
    assert solved["untied"].parameters == 8688


def test_the_untied_arm_shrunk_keeps_its_heads_and_an_even_head_size() -> None:
    given = arms(
        arm("tied", tying="in-out", d_model=128), arm("narrow", ("tied", "d_model"), d_model=128)
    )
    narrow = solve_matches(given, 2048)["narrow"].arm.settings.model
    assert narrow.d_model < 128
    assert narrow.num_heads == 4
    assert narrow.d_model % 8 == 0
    # A d_ff that was left out follows the width; one that was written stays.
    assert narrow.d_ff is None


@given(
    by=st.sampled_from(["d_ff", "d_model", "num_layers"]),
    family=st.sampled_from(["llama", "gpt2"]),
    d_ff=st.none() | st.integers(1, 80),
    target_layers=st.integers(1, 6),
    vocab_size=st.integers(40, 400),
)
def test_no_other_number_comes_closer(
    by: str, family: str, d_ff: int | None, target_layers: int, vocab_size: int
) -> None:
    if by == "d_ff":
        d_ff = None
    target = arm("target", family=family, num_layers=target_layers)
    one = arm("one", ("target", by), family=family, d_ff=d_ff, tying="in-out")
    candidates = {
        "d_ff": range(1, 400),
        "d_model": range(8, 200, 8),
        "num_layers": range(0, 60),
    }[by]
    distances = {}
    for value in candidates:
        model = one.settings.model.model_copy(update={by: value})
        changed = one.settings.model_copy(update={"model": model})
        distances[value] = abs(
            ledger_of(changed, vocab_size).total - ledger_of(target.settings, vocab_size).total
        )
    solved = solve_matches(arms(target, one), vocab_size)["one"]
    assert solved.value == min(distances, key=lambda value: (distances[value], value))
    assert abs(solved.difference or 0) == distances[solved.value]


def test_an_exact_match_has_no_difference() -> None:
    solved = solve_matches(arms(arm("a"), arm("b", ("a", "num_layers"), num_layers=7)), V)
    assert (solved["b"].value, solved["b"].difference) == (2, 0)


def refused(*given: Arm, vocab_size: int = V) -> NoMatch:
    with pytest.raises(NoMatch) as caught:
        solve_matches(arms(*given), vocab_size)
    return caught.value


def test_a_target_below_the_smallest_is_refused_with_both_numbers() -> None:
    error = refused(arm("tied", tying="in-out", num_layers=0), arm("b", ("tied", "num_layers")))
    assert error.arm == "b"
    assert error.exit_code == 2
    assert error.message == (
        "there is no num_layers that gives the 992 parameters of 'tied': with the smallest "
        "possible, 0, the arm has 1,968"
    )
    assert error.remedy


def test_a_target_above_the_largest_is_refused() -> None:
    huge = arm("huge", d_model=65536, num_heads=16, num_layers=1024)
    error = refused(huge, arm("b", ("huge", "num_layers")))
    assert "with the largest possible, 1,024" in error.message


def test_d_ff_of_a_model_without_layers_is_no_way() -> None:
    error = refused(arm("a"), arm("b", ("a", "d_ff"), num_layers=0))
    assert "without layers" in error.message


def test_the_error_survives_the_way_between_processes() -> None:
    # copy takes the same way as multiprocessing: __reduce__.
    error = copy.copy(NoMatch("b", "why", "what"))
    assert (error.arm, error.message, error.remedy) == ("b", "why", "what")
