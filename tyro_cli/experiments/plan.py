"""The plan of an experiment: its arms solved, its cells, and their identities.

Invariant: planning writes nothing, and every arm of a plan has passed the confound guard. The
folder that holds the cells is left to `run_folder`, their training to launchers and the worker.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from tyro_cli.analysis.records import cell_parts
from tyro_cli.config.loading import LoadedExperiment
from tyro_cli.config.messages import nearest
from tyro_cli.config.paths import with_values
from tyro_cli.config.schema import Arm, Budget, DataConfig, Settings, TuneConfig
from tyro_cli.config.seeds import check_seeds
from tyro_cli.config.tuning import OWN, TuneSetting, grid_settings, seeds_message
from tyro_cli.data.batches import check_one_batch, count_windows
from tyro_cli.data.pair_batches import PairBatches
from tyro_cli.data.prepared_pairs import PreparedPairs
from tyro_cli.data.preparing import Prepared
from tyro_cli.errors import UsageError
from tyro_cli.experiments.confounds import check_confounds, differences_between
from tyro_cli.experiments.identity import cell_id, run_id
from tyro_cli.ledger.matching import NoMatch, SolvedArm, solve_matches
from tyro_cli.storage.names import inside

BUDGET = "training.budget"

SHARED_BY_PAIRS = (
    ("data", tuple(DataConfig.model_fields), "read other tokens"),
    ("training", ("batch_tokens", "micro_batch_tokens"), "take other batches or dropout masks"),
    ("training", ("precision", "deterministic", "compile"), "compute otherwise"),
    ("model", ("embedding_std",), "start from other values"),
)
"""Section, keys and reason: what no two arms of an experiment may have different."""


@dataclass(frozen=True)
class Cell:
    """One training run of the plan.

    Attributes:
        arm: Name of the arm.
        seed: The replicate.
        cell_id: Its identity by content, 64 hex digits.
        folder: Where its records belong, whether they are there or not.
        total_steps: Its updates.
        values: What its setting changes in the arm, by dotted key; empty but for `tune:`.
        label: Its setting in a word, for its name on the screen; empty for the arm as it is.
        is_trial: Whether it is a trial of a search, and stands in no contrast.
    """

    arm: str
    seed: int
    cell_id: str
    folder: Path
    total_steps: int
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)
    label: str = ""
    is_trial: bool = False

    def place(self, point: str = "") -> str:
        """Return where the cell stands in a word: its point in a study, and its setting."""
        return ",".join(part for part in (point, self.label) if part)

    def name(self, point: str = "") -> str:
        """Return how the cell is called on the screen; `point` is its place in a study."""
        return "/".join(part for part in (self.place(point), self.arm, f"seed-{self.seed}") if part)


@dataclass(frozen=True, eq=False)
class Plan:
    """What an experiment comes to; nothing of it is on the disk yet.

    Attributes:
        run_folder: `NAME-HASH8` below the runs root.
        run_id: The run's identity, 64 hex digits.
        arms: Every arm of the experiment, also those not selected, with matches solved.
        matches: How each arm's match was solved, as the manifest keeps it; None without a match.
        differences: For each arm its settings that differ from the baseline's, `[baseline's,
            arm's]` by dotted key.
        total_steps: Updates of a cell of each arm.
        seeds: The seeds planned.
        selected_arms: The arms planned, in the experiment's order.
        cells: Their cells: seed by seed, so that pairs are complete as early as possible. Without
            any where all arms share the setting that a search finds best for the baseline.
        settings: The settings of the search, in the order of the grid; none without `tune:`.
        trials: Its cells.
        vocab_size: V.
        precision: `fp32` or `bf16`.
        loaded: The experiment.
    """

    run_folder: Path
    run_id: str
    arms: dict[str, Arm]
    matches: dict[str, dict[str, Any] | None]
    differences: dict[str, dict[str, list[Any]]]
    total_steps: dict[str, int]
    seeds: tuple[int, ...]
    selected_arms: tuple[str, ...]
    cells: tuple[Cell, ...]
    vocab_size: int
    precision: str
    content_sha256: str
    loaded: LoadedExperiment = field(repr=False)
    settings: tuple[TuneSetting, ...] = ()
    trials: tuple[Cell, ...] = ()

    def cell(self, arm: str, seed: int, setting: TuneSetting | None = None) -> Cell:
        """Return the cell of a contrast, with the arm at a setting of the search or as it is."""
        if setting is None or setting.name == OWN:
            return _cell(self, arm, seed, {}, "", cell_parts(arm, seed))
        parts = cell_parts(arm, seed, setting.name)
        return _cell(self, arm, seed, setting.values, f"at {_label(setting)}", parts)


def planned_steps(budget: Budget, steps_per_epoch: Fraction, tokens_per_step: Fraction) -> int:
    """Return the updates that the budget pays for, rounded down, but at least 1.

    Args:
        budget: Of an arm.
        steps_per_epoch: Batches that read the training split once.
        tokens_per_step: Tokens of a batch, padding not counted, on average.
    """
    if budget.steps is not None:
        return budget.steps
    if budget.tokens is not None:
        return max(1, int(budget.tokens / tokens_per_step))
    assert budget.epochs is not None
    # As the decimal that was written: 0.1 epochs of 10 batches are one batch, not 0.999....
    return max(1, int(Fraction(repr(budget.epochs)) * steps_per_epoch))


def plan_experiment(
    loaded: LoadedExperiment,
    prepared: Prepared,
    *,
    precision: str,
    runs_root: Path,
    seeds: Sequence[int] | None = None,
    arms: Sequence[str] | None = None,
) -> Plan:
    """Plan the cells of an experiment; nothing is written.

    Args:
        loaded: The experiment.
        prepared: Its data.
        precision: What `training.precision` came to: `fp32` or `bf16`.
        runs_root: The folder of all runs; it need not exist.
        seeds: Instead of the experiment's.
        arms: Only these arms; the baseline may be missing.

    Raises:
        ConfigurationError: Arms differ in an undeclared key, a match has no solution, or an arm
            wants data of its own.
        UsageError: A seed or an arm that was asked for is not possible.
        DataError: The training split holds fewer tokens than one batch.
        RunFolderError: The run's folder is a symbolic link.
    """
    experiment = loaded.experiment
    selected_arms = _select_arms(experiment.arms, arms)
    selected_seeds = check_seeds(experiment.seeds if seeds is None else seeds)
    check_confounds(loaded)
    solved = _solve_arms(loaded, prepared)
    _check_pairable(loaded)
    settings = {name: one.arm.settings for name, one in solved.items()}
    baseline = settings[experiment.baseline]
    identity = run_id(base_settings(loaded), prepared.content_sha256, precision)
    run_folder = inside(runs_root, f"{experiment.name}-{identity[:8]}")
    plan = Plan(
        run_folder=run_folder,
        run_id=identity,
        arms={name: one.arm for name, one in solved.items()},
        matches={name: one.as_record() for name, one in solved.items()},
        differences={name: differences_between(baseline, one) for name, one in settings.items()},
        total_steps={name: _steps_of(one, prepared) for name, one in settings.items()},
        seeds=selected_seeds,
        selected_arms=selected_arms,
        cells=(),
        vocab_size=prepared.vocab_size,
        precision=precision,
        content_sha256=prepared.content_sha256,
        loaded=loaded,
    )
    cells = tuple(plan.cell(name, seed) for seed in selected_seeds for name in selected_arms)
    tune = experiment.tune
    if tune is None:
        return replace(plan, cells=cells)
    _check_search(tune, experiment.baseline, plan)
    searched = grid_settings(experiment)
    shares_best = tune.shared == "baseline-best"
    plan = replace(plan, cells=() if shares_best else cells, settings=searched)
    return replace(plan, trials=tuple(_trials(plan, tune, prepared)))


def _check_search(tune: TuneConfig, baseline: str, plan: Plan) -> None:
    shared = sorted(set(tune.seeds) & set(plan.seeds))
    if shared:
        raise UsageError(
            f"seeds: {seeds_message(shared)}", "choose others, or change the seeds of tune:"
        )
    if tune.shared == "baseline-best" and baseline not in plan.selected_arms:
        raise UsageError(
            f"--arms: leaves out {baseline}, and all arms share the setting that is best for it "
            "(tune: shared: baseline-best)",
            f"add {baseline} to --arms",
        )


def _trials(plan: Plan, tune: TuneConfig, prepared: Prepared) -> Iterator[Cell]:
    """Yield the cells of the search: seed by seed, and at each setting all arms."""
    budget = {} if tune.budget is None else {BUDGET: tune.budget.model_dump(mode="json")}
    for seed in tune.seeds:
        for setting in plan.settings:
            for arm in plan.selected_arms:
                values = {**setting.values, **budget}
                parts = cell_parts(arm, seed, setting.name, is_trial=True)
                cell = _cell(plan, arm, seed, values, f"trial {_label(setting)}", parts)
                cell = replace(cell, is_trial=True)
                if budget:
                    settings = changed_settings(plan.arms[arm].settings, values)
                    cell = replace(cell, total_steps=_steps_of(settings, prepared))
                yield cell


def _label(setting: TuneSetting) -> str:
    return ",".join(f"{value:g}" for value in setting.values.values())


def changed_settings(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return an arm's settings with values of a search in their places."""
    if not values:
        return settings
    return Settings.model_validate(with_values(settings.model_dump(mode="json"), values))


def _cell(
    plan: Plan,
    arm: str,
    seed: int,
    values: Mapping[str, Any],
    label: str,
    parts: Sequence[str],
) -> Cell:
    settings = changed_settings(plan.arms[arm].settings, values)
    return Cell(
        arm=arm,
        seed=seed,
        cell_id=cell_id(settings, seed, plan.content_sha256, plan.precision),
        folder=inside(plan.run_folder, *parts),
        total_steps=plan.total_steps[arm],
        values=values,
        label=label,
    )


def _select_arms(known: Mapping[str, Any], asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the selected arms in the experiment's order."""
    if asked is None:
        return tuple(known)
    for name in asked:
        if name not in known:
            raise UsageError(
                f"--arms: there is no arm '{name}'{nearest(name, known)}",
                f"the arms are: {', '.join(known)}",
            )
    if not asked:
        raise UsageError("--arms: names no arm", f"the arms are: {', '.join(known)}")
    return tuple(name for name in known if name in set(asked))


def base_settings(loaded: LoadedExperiment) -> Settings:
    """Return the experiment without any arm."""
    experiment = loaded.experiment
    return Settings(**{name: getattr(experiment, name) for name in Settings.model_fields})


def _solve_arms(loaded: LoadedExperiment, prepared: Prepared) -> dict[str, SolvedArm]:
    try:
        return solve_matches(loaded.arms, prepared.vocab_size, prepared.source_vocab_size)
    except NoMatch as error:
        raise loaded.error(f"arms.{error.arm}.match", error.message, error.remedy) from error


def _check_pairable(loaded: LoadedExperiment) -> None:
    """Refuse arms whose cells could never be a pair, before any of them is trained."""
    base = loaded.experiment
    for name, arm in loaded.arms.items():
        for section, keys, why in SHARED_BY_PAIRS:
            own, common = getattr(arm.settings, section), getattr(base, section)
            differing = [key for key in keys if getattr(own, key) != getattr(common, key)]
            if differing:
                raise loaded.error(
                    f"arms.{name}.{section}.{differing[0]}",
                    f"arms share it: cells that {why} are no pair",
                    "write an experiment of its own for each value, or make the key a factor of "
                    "a study",
                )


def _steps_of(settings: Settings, prepared: Prepared) -> int:
    budget, batch_tokens = settings.training.budget, settings.training.batch_tokens
    if isinstance(prepared, PreparedPairs):
        batches = PairBatches(prepared.splits["train"], batch_tokens, seed=0)
        steps = batches.batches_per_epoch
        return planned_steps(budget, Fraction(steps), Fraction(batches.tokens_per_epoch, steps))
    batch_windows = batch_tokens // settings.data.context_length
    num_tokens = len(prepared.splits["train"].tokens)
    check_one_batch(num_tokens, settings.data.context_length, batch_windows)
    windows = count_windows(num_tokens, settings.data.context_length)
    return planned_steps(budget, Fraction(windows, batch_windows), Fraction(batch_tokens))
