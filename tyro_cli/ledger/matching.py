"""Budget-matched arms: the whole number that gives an arm another arm's parameter count.

Invariant: no other allowed value of the solved key comes closer to the target; of two equally
close ones the smaller is taken. Settings go in and come out; where the file says so, and how an
arm without a solution is shown to the user, is left to `experiments`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tyro_cli.config.schema import Arm, Match, ModelConfig, Settings
from tyro_cli.errors import ConfigurationError
from tyro_cli.ledger.parameters import count_parameters, source_vocab_of

# The schema's own ranges: what lies outside them is no configuration.
_LARGEST = {"d_ff": 1_048_576, "d_model": 65_536, "num_layers": 1024}


class NoMatch(ConfigurationError):
    """No allowed value brings an arm to its target.

    Args:
        arm: Name of the arm that asks for the match.
        message: Why there is no solution.
        remedy: What the user can do about it.
    """

    def __init__(self, arm: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.arm = arm

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.arm, self.message, self.remedy))


@dataclass(frozen=True)
class SolvedArm:
    """An arm whose settings are final, and how its match was solved if it asked for one.

    Attributes:
        arm: The arm, its settings holding the solved number.
        parameters: Unique parameters of the arm.
        by: The key that was solved for: `d_ff`, `d_model` or `num_layers`; None without a match.
        value: The solved number.
        target_parameters: Parameters of the arm that is matched.
    """

    arm: Arm
    parameters: int
    by: str | None = None
    value: int | None = None
    target_parameters: int | None = None

    @property
    def difference(self) -> int | None:
        """Parameters beyond the target, which whole numbers cannot reach; None without a match."""
        if self.target_parameters is None:
            return None
        return self.parameters - self.target_parameters

    def as_record(self) -> dict[str, Any] | None:
        """Return the match as the manifest keeps it; None without a match."""
        if self.arm.match is None:
            return None
        return {
            "by": self.by,
            "value": self.value,
            "parameters_of": self.arm.match.parameters_of,
            "target_parameters": self.target_parameters,
            "parameters": self.parameters,
            "difference": self.difference,
        }


def solve_matches(
    arms: Mapping[str, Arm], vocab_size: int, source_vocab_size: int | None = None
) -> dict[str, SolvedArm]:
    """Return every arm in its order, with the matches solved.

    Args:
        arms: All arms by name.
        vocab_size: V.
        source_vocab_size: Translation: tokens of the source's vocabulary. Left out: V.

    Raises:
        NoMatch: The target lies outside what the key can reach; it names the arm and says why.
    """
    solved = {}
    for name, arm in arms.items():
        if arm.match is None:
            parameters = _count(arm.settings.model, arm.settings, vocab_size, source_vocab_size)
            solved[name] = SolvedArm(arm, parameters)
        else:
            target = arms[arm.match.parameters_of].settings
            target_parameters = _count(target.model, target, vocab_size, source_vocab_size)
            solved[name] = _solve(arm, arm.match, target_parameters, vocab_size, source_vocab_size)
    return solved


def _solve(
    arm: Arm,
    match: Match,
    target_parameters: int,
    vocab_size: int,
    source_vocab_size: int | None,
) -> SolvedArm:
    """Find the closest value by bisection: parameters never shrink when one of the keys grows."""
    settings, by = arm.settings, match.by
    if by == "d_ff" and settings.model.num_layers == 0:
        raise NoMatch(
            arm.name,
            "d_ff changes nothing in a model without layers (num_layers 0)",
            "match by d_model or num_layers",
        )
    # Heads are kept and their size stays even, so d_model moves in steps of two numbers a head.
    step = 2 * settings.model.num_heads if by == "d_model" else 1
    # A decoder without layers never looks at its source.
    least_layers = 1 if settings.task == "translation" else 0
    low, high = least_layers if by == "num_layers" else 1, _LARGEST[by] // step

    def parameters_at(multiple: int) -> int:
        model = _with(settings.model, by, multiple * step)
        return _count(model, settings, vocab_size, source_vocab_size)

    _check_reachable(arm, match, target_parameters, (low * step, parameters_at(low)), at_least=True)
    _check_reachable(
        arm, match, target_parameters, (high * step, parameters_at(high)), at_least=False
    )
    while high - low > 1:
        middle = (low + high) // 2
        if parameters_at(middle) <= target_parameters:
            low = middle
        else:
            high = middle
    best = min((low, high), key=lambda at: (abs(parameters_at(at) - target_parameters), at))
    model = ModelConfig.model_validate(_with(settings.model, by, best * step).model_dump())
    return SolvedArm(
        arm=arm.model_copy(update={"settings": settings.model_copy(update={"model": model})}),
        parameters=_count(model, settings, vocab_size, source_vocab_size),
        by=by,
        value=best * step,
        target_parameters=target_parameters,
    )


def _check_reachable(
    arm: Arm, match: Match, target: int, end: tuple[int, int], *, at_least: bool
) -> None:
    """Refuse a target beyond one end of what the key can do: `end` is (value, parameters)."""
    value, parameters = end
    if parameters <= target if at_least else parameters >= target:
        return
    size, remedy = ("smallest", "smaller") if at_least else ("largest", "larger")
    raise NoMatch(
        arm.name,
        f"there is no {match.by} that gives the {target:,} parameters of "
        f"'{match.parameters_of}': with the {size} possible, {value:,}, the arm has "
        f"{parameters:,}",
        f"match by another key, or make the rest of the arm {remedy}",
    )


def _with(model: ModelConfig, key: str, value: int) -> ModelConfig:
    return model.model_copy(update={key: value})


def _count(
    model: ModelConfig, settings: Settings, vocab_size: int, source_vocab_size: int | None
) -> int:
    source_vocab_size = source_vocab_of(settings, vocab_size, source_vocab_size)
    return count_parameters(model, vocab_size, settings.data.context_length, source_vocab_size)
