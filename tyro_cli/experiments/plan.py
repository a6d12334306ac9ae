"""The plan of an experiment: its cells, their identities, and the run folder that holds them.

Invariant: planning writes nothing, and opening a run folder never overwrites what something else
wrote: another run's folder, an arm that means something else now, or data that has changed is
refused with a remedy. Adding arms or seeds extends the run. A folder appears whole or not at all.
Owning the folder and training its cells is left to `run`, the launchers and the worker.
"""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tyro_cli.analysis.formats import Manifest
from tyro_cli.config.loading import LoadedExperiment
from tyro_cli.config.schema import Arm, DataConfig, Settings
from tyro_cli.config.seeds import check_seeds
from tyro_cli.data.batches import check_one_batch, count_windows
from tyro_cli.data.prepared import PreparedData
from tyro_cli.errors import DamagedRecord, RunFolderError, UsageError
from tyro_cli.experiments.confounds import check_confounds, differences_between
from tyro_cli.experiments.identity import cell_id, run_id, settings_sha256
from tyro_cli.ledger.ledger import Ledger
from tyro_cli.ledger.matching import NoMatch, SolvedArm, solve_matches
from tyro_cli.storage.files import (
    move_aside,
    new_folder,
    read_json,
    write_bytes,
    write_json,
    write_text,
)
from tyro_cli.storage.names import inside

MANIFEST_FORMAT = 1


@dataclass(frozen=True)
class Cell:
    """One training run of the plan.

    Attributes:
        arm: Name of the arm.
        seed: The replicate.
        cell_id: Its identity by content, 64 hex digits.
        folder: Where its records belong, whether they are there or not.
    """

    arm: str
    seed: int
    cell_id: str
    folder: Path


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
        cells: Their cells: seed by seed, so that pairs are complete as early as possible.
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
    loaded: LoadedExperiment = field(repr=False)


def planned_steps(settings: Settings, windows_per_epoch: int) -> int:
    """Return the updates that the budget pays for, rounded down, but at least 1.

    Args:
        settings: What the arm resolves to.
        windows_per_epoch: Training windows of one epoch, at least one batch of them.
    """
    budget, batch_tokens = settings.training.budget, settings.training.batch_tokens
    if budget.steps is not None:
        return budget.steps
    if budget.tokens is not None:
        return max(1, budget.tokens // batch_tokens)
    assert budget.epochs is not None
    # As the decimal that was written: 0.1 epochs of 10 batches are one batch, not 0.999....
    windows = Fraction(repr(budget.epochs)) * windows_per_epoch
    return max(1, int(windows / (batch_tokens // settings.data.context_length)))


def plan_experiment(
    loaded: LoadedExperiment,
    prepared: PreparedData,
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
    solved = _solve_arms(loaded, prepared.vocab_size)
    _check_one_corpus(loaded)
    settings = {name: one.arm.settings for name, one in solved.items()}
    baseline = settings[experiment.baseline]
    identity = run_id(_base_settings(loaded), prepared.content_sha256, precision)
    run_folder = inside(runs_root, f"{experiment.name}-{identity[:8]}")
    return Plan(
        run_folder=run_folder,
        run_id=identity,
        arms={name: one.arm for name, one in solved.items()},
        matches={name: one.as_record() for name, one in solved.items()},
        differences={name: differences_between(baseline, one) for name, one in settings.items()},
        total_steps={name: _steps_of(one, prepared) for name, one in settings.items()},
        seeds=selected_seeds,
        selected_arms=selected_arms,
        cells=tuple(
            Cell(
                arm=name,
                seed=seed,
                cell_id=cell_id(settings[name], seed, prepared.content_sha256, precision),
                folder=inside(run_folder, name, f"seed-{seed}"),
            )
            for seed in selected_seeds
            for name in selected_arms
        ),
        vocab_size=prepared.vocab_size,
        precision=precision,
        loaded=loaded,
    )


def check_run_folder(plan: Plan, prepared: PreparedData) -> dict[str, Any] | None:
    """Return the manifest that lies in the plan's folder, or None where there is no run yet.

    Args:
        plan: What is to be done there.
        prepared: Its data.

    Raises:
        RunFolderError: The folder is not this run's, an arm with cells means something else now,
            or the same text gives other tokens than those that the run was started on.
        DamagedRecord: The manifest is not one.
    """
    folder = plan.run_folder
    if not folder.is_dir() and not os.path.lexists(folder):
        return None
    if not folder.is_dir():
        raise RunFolderError(
            f"{folder} is in the way: it is not a folder", "move it away, or choose --out"
        )
    path = folder / "manifest.json"
    if not path.exists():
        if not any(folder.iterdir()):
            return None
        raise RunFolderError(
            f"{folder} is not a run folder of ours: it holds files, but no manifest.json",
            "choose another place with --out, another name: in the configuration, or --fresh, "
            "which moves the folder aside",
        )
    manifest = _read_manifest(path)
    if manifest["run_id"] != plan.run_id:
        raise RunFolderError(
            f"{folder} holds another run: its manifest says {manifest['run_id'][:16]}, this "
            f"experiment is {plan.run_id[:16]}",
            "change name: in the configuration, choose --out, or use --fresh, which moves the "
            "folder aside",
        )
    _check_tokens(plan, prepared, manifest)
    for name in plan.arms:
        _check_arm(plan, name, manifest)
    return manifest


def open_run_folder(
    plan: Plan,
    *,
    prepared: PreparedData,
    ledgers: Mapping[str, Ledger],
    threads: int,
    device: str,
    precision: str,
    environment: Mapping[str, Any],
    fresh: bool = False,
) -> dict[str, Any]:
    """Create the run folder, or extend it by what the plan adds; return its manifest.

    The caller owns the folder. Doing the same again writes nothing. What a first start recorded of
    its surroundings stays; a later one that adds cells records its own beside its plan. The text of
    the experiment is the newest, older ones are kept as `experiment.yaml.old-N`.

    Args:
        plan: What is to be done there.
        prepared: Its data.
        ledgers: The account of every arm of the plan.
        threads: Threads of a worker.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.
        environment: `versions`, `hardware`, `git`, `command` and `created`.
        fresh: Move an existing folder aside first, whatever it is; nothing is deleted.

    Raises:
        RunFolderError, DamagedRecord: As `check_run_folder`; nothing was written.
        StorageError: The system refused.
    """
    folder = plan.run_folder
    if fresh and os.path.lexists(folder):
        move_aside(folder)
    recorded = check_run_folder(plan, prepared)
    surroundings = {"threads": threads, "device": device, "precision": precision, **environment}
    if recorded is None:
        manifest = _manifest(plan, ledgers, prepared, {}) | surroundings
        manifest["plans"] = [_plan_record(plan, after_results=False)]
        # An empty folder may be there, made by hand.
        with new_folder(folder, replace=True) as new:
            write_text(new / "experiment.yaml", plan.loaded.text)
            write_text(new / "resolved.yaml", _resolved_yaml(plan, manifest))
            write_bytes(new / "tokenizer.json", prepared.tokenizer_path.read_bytes())
            write_json(new / "manifest.json", manifest)
        return manifest
    manifest = recorded | _manifest(plan, ledgers, prepared, recorded)
    if _adds_cells(plan, recorded):
        mine = _plan_record(plan, after_results=_has_results(folder, recorded))
        manifest["plans"] = [*recorded["plans"], mine | {"environment": surroundings}]
    _keep_text(folder / "experiment.yaml", plan.loaded.text)
    _write_if_new(folder / "resolved.yaml", _resolved_yaml(plan, manifest))
    if not (folder / "tokenizer.json").exists():
        write_bytes(folder / "tokenizer.json", prepared.tokenizer_path.read_bytes())
    if manifest != recorded:
        write_json(folder / "manifest.json", manifest)
    return manifest


def _select_arms(known: Mapping[str, Any], asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the selected arms in the experiment's order."""
    if asked is None:
        return tuple(known)
    for name in asked:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise UsageError(
                f"--arms: there is no arm '{name}'{hint}", f"the arms are: {', '.join(known)}"
            )
    if not asked:
        raise UsageError("--arms: names no arm", f"the arms are: {', '.join(known)}")
    return tuple(name for name in known if name in set(asked))


def _base_settings(loaded: LoadedExperiment) -> Settings:
    """Return the experiment without any arm."""
    experiment = loaded.experiment
    return Settings(**{name: getattr(experiment, name) for name in Settings.model_fields})


def _solve_arms(loaded: LoadedExperiment, vocab_size: int) -> dict[str, SolvedArm]:
    try:
        return solve_matches(loaded.arms, vocab_size)
    except NoMatch as error:
        raise loaded.error(f"arms.{error.arm}.match", error.message, error.remedy) from error


def _check_one_corpus(loaded: LoadedExperiment) -> None:
    """Refuse arms with data of their own: their cells could never be a pair."""
    base = loaded.experiment.data
    for name, arm in loaded.arms.items():
        if arm.settings.data != base:
            differing = [
                key
                for key in DataConfig.model_fields
                if getattr(arm.settings.data, key) != getattr(base, key)
            ]
            raise loaded.error(
                f"arms.{name}.data.{differing[0]}",
                "arms share one corpus, tokenizer and context: cells that read other tokens are "
                "no pair",
                "write an experiment of its own for each",
            )


def _steps_of(settings: Settings, prepared: PreparedData) -> int:
    context_length = settings.data.context_length
    num_tokens = len(prepared.splits["train"].tokens)
    check_one_batch(num_tokens, context_length, settings.training.batch_tokens // context_length)
    return planned_steps(settings, count_windows(num_tokens, context_length))


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = read_json(path)
    try:
        Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DamagedRecord(
            f"{path}: {where}: {first['msg']}",
            "restore the file from a copy, or use --fresh, which moves the run folder aside",
        ) from error
    assert isinstance(manifest, dict)
    return manifest


def _check_tokens(plan: Plan, prepared: PreparedData, manifest: Mapping[str, Any]) -> None:
    """Refuse to add cells that would read other tokens than the cells that are there."""
    data = manifest.get("data")
    recorded = data.get("tokenizer_sha256") if isinstance(data, dict) else None
    if recorded == prepared.tokenizer_sha256 and manifest["vocab_size"] == prepared.vocab_size:
        return
    raise RunFolderError(
        f"{plan.run_folder}: the tokenizer trained on this corpus is not the one that the run was "
        f"started with ({str(recorded)[:12]} then, {prepared.tokenizer_sha256[:12]} now)",
        "install the version of tokenizers that manifest.json names, or use --fresh, which moves "
        "the run folder aside",
    )


def _check_arm(plan: Plan, name: str, manifest: Mapping[str, Any]) -> None:
    """Refuse an arm that has cells and means something else now."""
    if not _has_cells(inside(plan.run_folder, name)):
        return
    recorded = manifest["arms"].get(name, {})
    now = plan.arms[name].settings
    if recorded.get("settings_sha256") == settings_sha256(now, plan.precision):
        return
    raise RunFolderError(
        f"{plan.run_folder}: the arm '{name}' has cells that were trained with other settings"
        f"{_changes(recorded.get('settings'), now)}",
        f"give the changed arm a new name, or use --fresh, which moves {plan.run_folder.name} "
        "aside and starts over",
    )


def _changes(recorded: object, now: Settings) -> str:
    """Say in which keys an arm differs from what was recorded of it, as far as that can be read."""
    try:
        found = differences_between(Settings.model_validate(recorded), now)
    except ValidationError:
        return ""
    parts = [f"{key} {then} then, {value} now" for key, (then, value) in found.items()]
    return f": {'; '.join(parts)}" if parts else ""


def _has_cells(arm_folder: Path) -> bool:
    return arm_folder.is_dir() and any(
        path.name.startswith("seed-") for path in arm_folder.iterdir()
    )


def _planned_cells(manifest: Mapping[str, Any]) -> set[tuple[str, int]]:
    return {
        (arm, seed) for one in manifest["plans"] for arm in one["arms"] for seed in one["seeds"]
    }


def _adds_cells(plan: Plan, manifest: Mapping[str, Any]) -> bool:
    return not {(cell.arm, cell.seed) for cell in plan.cells} <= _planned_cells(manifest)


def _has_results(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Say whether any result was there to be looked at."""
    return any(
        inside(folder, arm, f"seed-{seed}", "result.json").exists()
        for arm, seed in sorted(_planned_cells(manifest))
    )


def _plan_record(plan: Plan, *, after_results: bool) -> dict[str, Any]:
    return {
        "seeds": list(plan.seeds),
        "arms": list(plan.selected_arms),
        "after_results": after_results,
    }


def _manifest(
    plan: Plan,
    ledgers: Mapping[str, Ledger],
    prepared: PreparedData,
    recorded: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the manifest says of the experiment; arms of earlier starts are kept."""
    experiment = plan.loaded.experiment
    earlier: Mapping[str, Any] = recorded.get("arms", {})
    arms = {}
    for order, name in enumerate(plan.arms):
        arms[name] = _arm_record(plan, name, ledgers[name], order)
        # The same data at another path is the same arm: its record stays as it was.
        if earlier.get(name, {}).get("settings_sha256") == arms[name]["settings_sha256"]:
            arms[name]["settings"] = earlier[name]["settings"]
    left_over = sorted(earlier.keys() - arms.keys(), key=lambda name: earlier[name]["order"])
    for order, name in enumerate(left_over, start=len(plan.arms)):
        arms[name] = earlier[name] | {"order": order}
    return {
        "format": MANIFEST_FORMAT,
        "run_id": plan.run_id,
        "name": experiment.name,
        "task": experiment.task,
        "baseline": experiment.baseline,
        "margin": experiment.analysis.margin,
        "vocab_size": plan.vocab_size,
        "arms": arms,
        "data": prepared.facts(),
    }


def _arm_record(plan: Plan, name: str, ledger: Ledger, order: int) -> dict[str, Any]:
    settings = plan.arms[name].settings
    return {
        "order": order,
        "settings": settings.model_dump(mode="json"),
        "settings_sha256": settings_sha256(settings, plan.precision),
        "differences": plan.differences[name],
        "match": plan.matches[name],
        "ledger": ledger.as_record(),
    }


def _resolved_yaml(plan: Plan, manifest: Mapping[str, Any]) -> str:
    """Return everything in effect: the experiment with its defaults, and every arm resolved."""
    arms = {name: arm.settings.model_dump(mode="json") for name, arm in plan.arms.items()}
    left_over = {
        name: record["settings"] for name, record in manifest["arms"].items() if name not in arms
    }
    resolved = {
        "run_id": plan.run_id,
        "vocab_size": plan.vocab_size,
        "precision": plan.precision,
        "experiment": plan.loaded.experiment.model_dump(mode="json"),
        "arms": arms | left_over,
    }
    return yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)


def _keep_text(path: Path, text: str) -> None:
    """Write the experiment's text; an older one is moved aside, never lost."""
    if path.exists() and path.read_bytes() != text.encode("utf-8"):
        move_aside(path)
    _write_if_new(path, text)


def _write_if_new(path: Path, text: str) -> None:
    if not path.exists() or path.read_bytes() != text.encode("utf-8"):
        write_text(path, text)
