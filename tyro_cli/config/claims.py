"""The `claim:` of a study: a sentence, and the findings that would support or refute it.

Invariant: a finding names arms, factors and levels that its study has, so a claim whose rule no
longer fits its arms is an error before anything is trained. How findings become a word is decided
in `analysis.claims`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from tyro_cli.config.messages import nearest
from tyro_cli.config.schema import Arm, Experiment, ModelConfig, Section
from tyro_cli.config.values import Number, Text, Whole, tuple_from_list

Measure = Literal[
    "nats_per_word",
    "nats_per_token",
    "bits_per_byte",
    "valid_nats_per_token",
    "gap_nats",
    "last_gap_nats",
    "bleu",
    "parameters",
    "parameter_share",
    "memory_share",
    "neighbour_overlap",
    "linear_cka",
]

MEASURES_OF_TRANSLATION = ("bleu",)
MEASURES_OF_PROBES = ("neighbour_overlap", "linear_cka")
"""Agreement of a matrix with itself in other seeds; see docs/PROBES.md."""


FEWEST_SEEDS_OF_PROBES = 3
"""Agreement is between seeds, and its interval leaves one out at a time."""

TYINGS = get_args(ModelConfig.model_fields["tying"].annotation)
"""As the schema lists them: from the least that is tied to the most."""


class Finding(Section):
    """One thing that the claim says would be seen: a contrast, and the side of zero it is on."""

    name: Text
    """What would be seen, in a few words."""

    measure: Measure
    """What is compared: on test at the best-valid checkpoint `nats_per_word`, `nats_per_token`,
    `bits_per_byte` or `bleu`; `valid_nats_per_token` at the best-valid checkpoint; the
    generalisation gap there (`gap_nats`) or at the last step (`last_gap_nats`), in nats a token;
    `parameters`, `parameter_share` as a fraction of the baseline's, or `memory_share`, the same of
    the estimated training memory: these are counted and need no interval; or `neighbour_overlap`
    and `linear_cka`, the agreement across seeds of the tied matrix against one of the baseline's,
    which `wtie probe` measures."""

    arm: Text
    """The arm whose value comes first in the difference."""

    baseline: Text
    """The arm it is set against."""

    matrix: Literal["input", "output"] | None = None
    """For agreement across seeds, and for it alone: which matrix of the baseline."""

    at: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Factor to level. A factor left out makes the finding one at each of its levels."""

    minus: dict[str, Any] | None = None
    """Factor to level: the same contrast at these levels is subtracted, seed by seed, so that the
    finding is about a change of the contrast. Factors left out are those of `at`."""

    rates: Literal["shared", "each-best"] = "shared"
    """At the learning rates that all arms share, or with each arm at the best of its own search,
    which the experiment's `tune:` makes."""

    expected: Literal["lower", "higher"]
    """The side on which the difference lies if the claim is true."""

    margin: Annotated[Number, Field(gt=0.0)] | None = None
    """Differences within this margin, in the measure's unit, count as none. Left out: the margin of
    the experiment for nats a word, and no margin for other measures."""


class LedgerGrid(Section):
    """Models counted and not trained: the experiment's at these sizes, and published ones."""

    vocab_size: Annotated[
        tuple[Annotated[Whole, Field(ge=2, le=2**24)], ...], BeforeValidator(tuple_from_list)
    ]
    """Vocabularies, in tokens."""

    d_model: Annotated[
        tuple[Annotated[Whole, Field(ge=1, le=2**20)], ...], BeforeValidator(tuple_from_list)
    ]
    """Widths; depth and heads stay those of the experiment."""

    shapes: Annotated[tuple[Text, ...], BeforeValidator(tuple_from_list)] = ()
    """The `config.json` of published models, relative to the study file, as `wtie params --hf`
    reads them; each model is called what its file is called."""


class Claim(Section):
    """What a study is to decide, written down before it runs."""

    number: Annotated[Whole, Field(ge=1, le=999)]
    """Its number; studies of one number decide it together."""

    parts: Annotated[Whole, Field(ge=1, le=99)] = 1
    """How many studies that is: as long as one of them is not there, the claim is `not run`."""

    sentence: Text
    """The claim, as it is commonly put."""

    depends_on: Text
    """What the answer would depend on if some findings hold and others do not."""

    findings: Annotated[tuple[Finding, ...], Field(min_length=1), BeforeValidator(tuple_from_list)]
    """What would be seen if the claim is true."""

    ledger: LedgerGrid | None = None
    """Models to count beside those that are trained."""


def claim_problems(
    claim: Claim,
    factors: Mapping[str, Sequence[Any]],
    points: Sequence[Mapping[str, Any]] | None,
    arms: Mapping[str, Arm],
    experiment: Experiment,
    num_seeds: int,
) -> list[tuple[tuple[str | int, ...], str]]:
    """Return what does not fit the study: the place below `claim`, and what is wrong there.

    Args:
        claim: A valid claim.
        factors: The levels of each factor of the study.
        points: The levels of its points where some are excluded and they are known; else None.
        arms: Arms of its experiment, resolved.
        experiment: What is trained at every point.
        num_seeds: Of the study.
    """
    problems = _shape_problems(claim.ledger.shapes) if claim.ledger is not None else []
    for index, finding in enumerate(claim.findings):
        where: tuple[str | int, ...] = ("findings", index)
        for key in ("arm", "baseline"):
            name = getattr(finding, key)
            if name not in arms:
                known = ", ".join(arms)
                message = f"the experiment has no arm {name[:60]!r}{nearest(name, arms)}"
                problems.append(((*where, key), f"{message}; its arms are {known}"))
        if finding.arm == finding.baseline:
            problems.append(((*where, "baseline"), f"is the arm itself ({finding.arm[:60]})"))
        elif finding.arm in arms and finding.baseline in arms:
            first, second = arms[finding.arm], arms[finding.baseline]
            problems += [
                ((*where, key), text) for key, text in _arm_problems(finding, first, second)
            ]
        if finding.measure in MEASURES_OF_TRANSLATION and experiment.task != "translation":
            message = f"{finding.measure} is for the task translation, not {experiment.task}"
            problems.append(((*where, "measure"), message))
        for earlier, other in enumerate(claim.findings[:index]):
            if _is_about_the_same(other, finding):
                message = f"asks what findings[{earlier}] asks; take one of them out"
                problems.append((where, message))
        if (finding.measure in MEASURES_OF_PROBES) != (finding.matrix is not None):
            needs = "needs" if finding.matrix is None else "does not compare matrices: it takes no"
            message = f"{finding.measure} {needs} `matrix: input` or `matrix: output`"
            problems.append(((*where, "measure"), message))
        elif finding.measure in MEASURES_OF_PROBES and num_seeds < FEWEST_SEEDS_OF_PROBES:
            message = (
                f"{finding.measure} needs {FEWEST_SEEDS_OF_PROBES} seeds or more, "
                f"the study has {num_seeds}"
            )
            problems.append(((*where, "measure"), message))
        if finding.rates == "each-best" and experiment.tune is None:
            problems.append(((*where, "rates"), "the experiment has no tune: to find a best with"))
        so_far = len(problems)
        for key in ("at", "minus"):
            for factor, level in (getattr(finding, key) or {}).items():
                place = (*where, key, factor)
                if factor not in factors:
                    guess = nearest(factor, list(factors))
                    problems.append((place, f"the study has no factor {factor[:60]!r}{guess}"))
                elif level not in factors[factor]:
                    known = ", ".join(str(one) for one in factors[factor])
                    problems.append((place, f"{factor} has no level {level!r}: it has {known}"))
        if finding.minus is not None:
            fixed = {**finding.at, **finding.minus}
            if not finding.minus or fixed == finding.at:
                problems.append(((*where, "minus"), "names the levels of `at` again"))
            loose = sorted(set(finding.minus) - set(finding.at))
            if loose:
                message = f"names {loose[0]!r}, for which `at` names no level"
                problems.append(((*where, "minus"), message))
        if points is not None and len(problems) == so_far:
            places = [one for one in points if finding.at.items() <= one.items()]
            if not places:
                message = "names no point that is left: `exclude` takes them out"
                problems.append(((*where, "at"), message))
            elif any({**one, **(finding.minus or {})} not in points for one in places):
                message = "names a point that `exclude` takes out"
                problems.append(((*where, "minus"), message))
    return problems


def _arm_problems(finding: Finding, arm: Arm, baseline: Arm) -> list[tuple[str, str]]:
    """Return what is wrong with the two arms of a finding, each with its key."""
    ties, ties_of_baseline = (TYINGS.index(one.settings.model.tying) for one in (arm, baseline))
    if arm.settings == baseline.settings and arm.match == baseline.match:
        return [("arm", f"{arm.name[:60]} and {baseline.name[:60]} are set alike: nothing differs")]
    if ties < ties_of_baseline:
        message = (
            f"{arm.name[:60]} ties less than its baseline {baseline.name[:60]}: exchange the two "
            "and turn `expected` round, as a difference is the tied model's minus the other's"
        )
        return [("arm", message)]
    if finding.measure in MEASURES_OF_PROBES and not ties:
        return [("arm", f"{finding.measure} is of a tied matrix, and {arm.name[:60]} has none")]
    if finding.measure in MEASURES_OF_PROBES and ties_of_baseline:
        message = (
            f"{finding.measure} sets a tied matrix against an untied one, and this arm is tied"
        )
        return [("baseline", message)]
    return []


def _is_about_the_same(one: Finding, other: Finding) -> bool:
    """Say whether two findings compare the same numbers, whatever they expect of them."""
    said = {"name": "", "expected": "lower", "margin": None}
    return one.model_copy(update=said) == other.model_copy(update=said)


def _shape_problems(shapes: Sequence[str]) -> list[tuple[tuple[str | int, ...], str]]:
    """Return a problem for each file whose model would be called as an earlier one."""
    names = [Path(shape).stem for shape in shapes]
    return [
        (
            ("ledger", "shapes", index),
            f"an earlier file is called {name[:60]!r} as well; rename one",
        )
        for index, name in enumerate(names)
        if name in names[:index]
    ]
