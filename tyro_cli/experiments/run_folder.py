"""The folder of a run: what it must hold, and how it is opened, extended and never overwritten.

Invariant: opening a run folder never overwrites what something else wrote: another run's folder,
an arm that means something else now, or data that has changed is refused with a remedy. Adding
arms or seeds extends the run. A folder appears whole or not at all. Owning the folder while it is
open is left to `run`.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tyro_cli.analysis.formats import Manifest
from tyro_cli.config.paths import value_at, with_values, without
from tyro_cli.config.schema import ROLE_GRADIENTS, Settings
from tyro_cli.data.prepared_pairs import PreparedPairs
from tyro_cli.data.preparing import Prepared
from tyro_cli.errors import DamagedRecord, RunFolderError
from tyro_cli.experiments.confounds import differences_between
from tyro_cli.experiments.identity import settings_sha256
from tyro_cli.experiments.plan import Plan
from tyro_cli.experiments.search import check_search, search_record
from tyro_cli.ledger.ledger import Ledger
from tyro_cli.storage.files import (
    move_aside,
    new_folder,
    read_json,
    write_bytes,
    write_json,
    write_text,
)
from tyro_cli.storage.names import inside
from tyro_cli.storage.system import remove_leftovers_of

MANIFEST_FORMAT = 1


def check_run_folder(plan: Plan, prepared: Prepared) -> dict[str, Any] | None:
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
            "choose another place with --out, another name: in the configuration, or wtie "
            "train --fresh, which moves the folder aside",
        )
    manifest = _read_manifest(path)
    if manifest["run_id"] != plan.run_id:
        raise RunFolderError(
            f"{folder} holds another run: its manifest says {manifest['run_id'][:16]}, this "
            f"experiment is {plan.run_id[:16]}",
            "change name: in the configuration, choose --out, or use wtie train --fresh, "
            "which moves the folder aside",
        )
    _check_tokens(plan, prepared, manifest)
    for name in plan.arms:
        _check_arm(plan, name, manifest)
    check_search(plan, manifest)
    return manifest


def open_run_folder(
    plan: Plan,
    *,
    prepared: Prepared,
    ledgers: Mapping[str, Ledger],
    threads: int,
    device: str,
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
    surroundings = {
        "threads": threads,
        "device": device,
        "precision": plan.precision,
        **environment,
    }
    if recorded is None:
        manifest = _manifest(plan, ledgers, prepared, {}) | surroundings
        manifest |= search_record(plan, {}, after_results=False)
        manifest["plans"] = [_plan_record(plan, after_results=False)]
        remove_leftovers_of(folder)
        # An empty folder may be there, made by hand.
        with new_folder(folder, replace=True) as new:
            write_text(new / "experiment.yaml", plan.loaded.text)
            write_text(new / "resolved.yaml", _resolved_yaml(plan, manifest))
            for name, content in _tokenizers(prepared).items():
                write_bytes(new / name, content)
            write_json(new / "manifest.json", manifest)
        return manifest
    results_known = has_results(folder, _planned_cells(recorded))
    manifest = recorded | _manifest(plan, ledgers, prepared, recorded)
    manifest |= search_record(plan, recorded, after_results=results_known)
    if _adds_cells(plan, recorded):
        mine = _plan_record(plan, after_results=results_known)
        manifest["plans"] = [*recorded["plans"], mine | {"environment": surroundings}]
    _keep_text(folder / "experiment.yaml", plan.loaded.text)
    _write_if_new(folder / "resolved.yaml", _resolved_yaml(plan, manifest))
    for name, content in _tokenizers(prepared).items():
        if not (folder / name).exists():
            write_bytes(folder / name, content)
    if manifest != recorded:
        write_json(folder / "manifest.json", manifest)
    return manifest


def _tokenizers(prepared: Prepared) -> dict[str, bytes]:
    """Return the tokenizers that a run keeps, by the name of the file."""
    paths = [prepared.tokenizer_path]
    if isinstance(prepared, PreparedPairs) and prepared.sharing == "separate":
        paths.append(prepared.source_tokenizer_path)
    return {path.name: path.read_bytes() for path in paths}


def _read_manifest(path: Path) -> dict[str, Any]:
    remedy = (
        "restore the file from a copy, or use wtie train --fresh, which moves the run folder aside"
    )
    try:
        manifest = read_json(path)
        Manifest.model_validate(manifest)
    except DamagedRecord as error:
        raise DamagedRecord(error.message, remedy) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DamagedRecord(f"{path}: {where}: {first['msg']}", remedy) from error
    assert isinstance(manifest, dict)
    return manifest


def _check_tokens(plan: Plan, prepared: Prepared, manifest: Mapping[str, Any]) -> None:
    """Refuse to add cells that would read other tokens than the cells that are there."""
    data = manifest.get("data")
    recorded = data if isinstance(data, dict) else {}
    hashes = {"tokenizer_sha256": prepared.tokenizer_sha256}
    if isinstance(prepared, PreparedPairs) and prepared.sharing == "separate":
        hashes["source_tokenizer_sha256"] = prepared.source_tokenizer_sha256
    changed = [key for key, now in hashes.items() if recorded.get(key) != now]
    if not changed and manifest["vocab_size"] == prepared.vocab_size:
        return
    key = (changed or list(hashes))[0]
    raise RunFolderError(
        f"{plan.run_folder}: the tokenizer trained on this corpus is not the one that the run was "
        f"started with ({str(recorded.get(key))[:12]} then, {hashes[key][:12]} now)",
        "install the version of tokenizers that manifest.json names, or use wtie train "
        "--fresh, which moves the run folder aside",
    )


def _check_arm(plan: Plan, name: str, manifest: Mapping[str, Any]) -> None:
    """Refuse an arm that has cells and means something else now."""
    if not _has_cells(plan.run_folder, name):
        return
    recorded = manifest["arms"].get(name, {})
    now = plan.arms[name].settings
    if recorded.get("settings_sha256") == settings_sha256(now, plan.precision):
        return
    raise RunFolderError(
        f"{plan.run_folder}: the arm '{name}' has cells that were trained with other settings"
        f"{_changes(recorded.get('settings'), now)}",
        f"give the changed arm a new name, or use wtie train --fresh, which moves "
        f"{plan.run_folder.name} aside and starts over",
    )


def _changes(recorded: object, now: Settings) -> str:
    """Say in which keys an arm differs from what was recorded of it, as far as that can be read."""
    try:
        found = differences_between(Settings.model_validate(recorded), now)
    except ValidationError:
        return ""
    parts = [f"{key} {then} then, {value} now" for key, (then, value) in found.items()]
    return f": {'; '.join(parts)}" if parts else ""


def _has_cells(run_folder: Path, arm: str) -> bool:
    """Say whether an arm has cells, at its own setting or at those of a search."""
    searched = [path for kind in ("trials", "tuned") for path in run_folder.glob(f"{kind}/{arm}/*")]
    return any(any(path.glob("seed-*")) for path in (inside(run_folder, arm), *searched))


def _planned_cells(manifest: Mapping[str, Any]) -> set[tuple[str, int]]:
    return {
        (arm, seed) for one in manifest["plans"] for arm in one["arms"] for seed in one["seeds"]
    }


def _adds_cells(plan: Plan, manifest: Mapping[str, Any]) -> bool:
    mine = {(arm, seed) for arm in plan.selected_arms for seed in plan.seeds}
    return not mine <= _planned_cells(manifest)


def has_results(folder: Path, cells: Iterable[tuple[str, int]]) -> bool:
    """Say whether any result of a contrast was there to be looked at.

    Args:
        folder: The run's.
        cells: Arm and seed of its cells that contrasts are about.
    """
    return any(
        inside(folder, arm, f"seed-{seed}", "result.json").exists() for arm, seed in cells
    ) or any(folder.glob("tuned/*/*/seed-*/result.json"))


def _plan_record(plan: Plan, *, after_results: bool) -> dict[str, Any]:
    return {
        "seeds": list(plan.seeds),
        "arms": list(plan.selected_arms),
        "after_results": after_results,
    }


def _manifest(
    plan: Plan,
    ledgers: Mapping[str, Ledger],
    prepared: Prepared,
    recorded: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what the manifest says of the experiment; arms of earlier starts are kept."""
    experiment = plan.loaded.experiment
    earlier: Mapping[str, Any] = recorded.get("arms", {})
    arms = {}
    for order, name in enumerate(plan.arms):
        arms[name] = _arm_record(plan, name, ledgers[name], order)
        # The same data at another path is the same arm: its record stays as it was, but for what
        # the cells to come measure.
        if earlier.get(name, {}).get("settings_sha256") == arms[name]["settings_sha256"]:
            every_steps = value_at(arms[name]["settings"], ROLE_GRADIENTS)
            settings = without(earlier[name]["settings"], ROLE_GRADIENTS)
            if every_steps is not None:
                settings = with_values(settings, {ROLE_GRADIENTS: every_steps})
            arms[name]["settings"] = settings
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
        **_source_vocabulary(prepared),
        "arms": arms,
        "data": prepared.facts(),
    }


def _source_vocabulary(prepared: Prepared) -> dict[str, int]:
    size = prepared.source_vocab_size
    return {} if size is None else {"source_vocab_size": size}


def _arm_record(plan: Plan, name: str, ledger: Ledger, order: int) -> dict[str, Any]:
    settings = plan.arms[name].settings
    return {
        "order": order,
        "settings": settings.as_record(),
        "settings_sha256": settings_sha256(settings, plan.precision),
        "differences": plan.differences[name],
        "match": plan.matches[name],
        "ledger": ledger.as_record(),
    }


def _resolved_yaml(plan: Plan, manifest: Mapping[str, Any]) -> str:
    """Return everything in effect: the experiment with its defaults, and every arm resolved."""
    arms = {name: arm.settings.as_record() for name, arm in plan.arms.items()}
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
