"""What a checkpoint holds, and how it is put back.

A checkpoint is a folder (`storage.checkpoints`): `model.safetensors`, `optimizer.safetensors`
where training may go on, and `state.json`. All randomness is keyed by step, so there is no
generator state to keep. On load the tensors are compared with the model that the configuration
describes, not with flags: names, shapes, dtypes and the tie must agree. A checkpoint is untrusted
input: everything in it is checked before it is used, and nothing in it is ever run.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tyro_cli.errors import BrokenArm, DamagedRecord, RunFolderError
from tyro_cli.models.tying import tie_metadata, verify_tie
from tyro_cli.storage.checkpoints import (
    MODEL,
    OPTIMIZER,
    STATE,
    Kind,
    newest_verified,
    save,
    set_aside,
)
from tyro_cli.storage.files import read_json, write_json
from tyro_cli.storage.tensors import read_tensor_header
from tyro_cli.training.optimizer import AdamW, optimizer_tensors, restore_optimizer
from tyro_cli.training.tasks import Model

FORMAT = 1
ONE_PROCESS = {"processes": 1}  # what a fingerprint without this key means
REMEDY = "move the checkpoint away, and the cell begins again without it"

Warn = Callable[[str], None]
Count = Annotated[int, Field(ge=0)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    """A part of `state.json`: complete, of the written types, and finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _ProgressState(_Part):
    step: Count
    batches_sha256: Hash
    evaluations: list[Annotated[tuple[Count, float, Hash], Field(strict=False)]]
    best_step: Count
    best_nats: float | None
    stopped_early: bool
    finished: bool


class _Digest(_Part):
    shape: list[Count]
    sha256: Hash


class _State(_Part):
    format: Literal[1]
    step: Count
    tie: dict[str, Any]
    cell_id: str
    total_steps: Count
    fingerprint: dict[str, Any]
    numeric_drift: list[dict[str, Any]]
    progress: _ProgressState
    initial_parameters: dict[str, _Digest] | None = None  # not in what was written without it


def save_checkpoint(
    folder: Path,
    kind: Kind,
    step: int,
    model: Model,
    optimizer: AdamW | None,
    state: dict[str, Any],
) -> Path:
    """Write the checkpoint `kind` (`last` or `best`) of `step` under `folder`, crash-safe.

    Args:
        folder: The cell's `checkpoints` folder.
        kind: `last` is what training resumes from, `best` is what the primary result scores.
        step: Updates done.
        model: Its tie is verified first.
        optimizer: None where training will not go on from here.
        state: JSON-serialisable; the tie's metadata is added.
    """
    verify_tie(model)

    def write(target: Path) -> None:
        _write_tensors(model.state_dict(), target / MODEL)
        if optimizer is not None:
            _write_tensors(optimizer_tensors(optimizer, model), target / OPTIMIZER)
        write_json(
            target / STATE, {"format": FORMAT, "step": step, "tie": tie_metadata(model), **state}
        )

    return save(folder, kind, step, write)


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path)
    except safetensors.SafetensorError as error:
        # A full disk reaches us as text; as an `OSError` it gets the remedy of one.
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def load_model(path: Path, model: Model) -> dict[str, Any]:
    """Copy a checkpoint's weights into `model` and return its state.

    Raises:
        DamagedRecord: If the file is no safetensors file or its tensors are not the model's.
        BrokenArm: If the checkpoint's tie is not the model's.
    """
    state: dict[str, Any] = read_json(path / STATE)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise DamagedRecord(f"{path / STATE}: it is not of format {FORMAT}", REMEDY)
    tensors = _read_tensors(path / MODEL)
    own = dict(model.named_parameters())
    if set(tensors) != set(own):
        differing = ", ".join(sorted(set(tensors) ^ set(own))[:4])
        raise BrokenArm(f"{path / MODEL}: tensors and configuration disagree: {differing}", REMEDY)
    for name, parameter in own.items():
        stored = tensors[name]
        if stored.shape != parameter.shape or stored.dtype != parameter.dtype:
            raise DamagedRecord(
                f"{path / MODEL}: {name} is {stored.dtype} {tuple(stored.shape)}, the "
                f"configuration says {parameter.dtype} {tuple(parameter.shape)}",
                REMEDY,
            )
        with torch.no_grad():
            parameter.copy_(stored)
    verify_tie(model)
    if state.get("tie") != tie_metadata(model):
        raise BrokenArm(f"{path / STATE}: the tie it records is not the model's", REMEDY)
    return state


def _read_tensors(path: Path) -> dict[str, Tensor]:
    read_tensor_header(path)  # bounded; the library would take up to 100 MB of names
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise DamagedRecord(f"{path}: {error}", REMEDY) from error


def _read_state(path: Path, step: int, cell_id: str) -> dict[str, Any]:
    """Read the state of a checkpoint that has been verified, and see that it is this cell's.

    Raises:
        DamagedRecord: If it does not say what a state must.
        RunFolderError: If it belongs to another cell or step.
    """
    state: dict[str, Any] = read_json(path / STATE)
    try:
        checked = _State.model_validate(state)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DamagedRecord(f"{path / STATE}: {where}: {first['msg']}", REMEDY) from error
    if checked.cell_id != cell_id or not checked.step == checked.progress.step == step:
        raise RunFolderError(
            f"{path}: this checkpoint belongs to another cell or step",
            "move it away, or train into another folder with --out",
        )
    return state


def verified_best(folder: Path, step: int, cell_id: str, warn: Warn) -> Path | None:
    """Return the `best` checkpoint of a step; None where it is gone or was damaged.

    A damaged one is quarantined, with a warning.

    Raises:
        RunFolderError: If it belongs to another cell or step.
    """
    found = newest_verified(folder, "best", at_most_step=step, on_damage=_telling(warn))
    if found is None or found[0] != step:
        return None
    _read_state(found[1], step, cell_id)
    return found[1]


def _telling(warn: Warn) -> Callable[[Path, str], None]:
    return lambda path, why: warn(f"{path.name} is damaged and set aside: {why}")


def resume(
    folder: Path,
    cell_id: str,
    model: Model,
    optimizer: AdamW,
    current_fingerprint: dict[str, Any],
    *,
    allow_numeric_drift: bool,
    warn: Warn,
) -> dict[str, Any] | None:
    """Restore the newest verified `last` checkpoint; None where training must begin anew.

    A damaged one is quarantined and the one before it is taken, with a warning. So is one whose
    best checkpoint is lost: only training it anew can give the primary result.

    Raises:
        RunFolderError: If it belongs to another cell, or was written under another numeric
            fingerprint and `allow_numeric_drift` is off.
        DamagedRecord: If what it says, though it matches its manifest, cannot be used.
    """
    at_most_step: int | None = None
    while True:
        found = newest_verified(folder, "last", at_most_step=at_most_step, on_damage=_telling(warn))
        if found is None:
            return None
        step, path = found
        state = _read_state(path, step, cell_id)
        best_step = state["progress"]["best_step"]
        if not best_step or verified_best(folder, best_step, cell_id, warn) is not None:
            break
        warn(f"{path.name} is set aside: its best checkpoint, of step {best_step}, is lost")
        set_aside(path)
        at_most_step = step - 1  # it may not have been possible
    saved = ONE_PROCESS | state["fingerprint"]
    current_fingerprint = ONE_PROCESS | current_fingerprint
    if saved != current_fingerprint:
        changed = ", ".join(
            f"{key} {saved.get(key)} -> {current_fingerprint.get(key)}"
            for key in sorted(set(saved) | set(current_fingerprint))
            if saved.get(key) != current_fingerprint.get(key)
        )
        if not allow_numeric_drift:
            raise RunFolderError(
                f"{path}: was written under other numerics ({changed}), so going on would not "
                "give the same bytes",
                "resume where it began, start anew with --fresh, or accept and record the "
                "difference with --allow-numeric-drift",
            )
        warn(f"going on under other numerics: {changed}")
        state["numeric_drift"] = [*state["numeric_drift"], {"step": step, "changed": changed}]
    load_model(path, model)
    digests = state.get("initial_parameters")
    if digests is not None and set(digests) != {name for name, _ in model.named_parameters()}:
        raise DamagedRecord(f"{path / STATE}: initial_parameters: not the model's tensors", REMEDY)
    if not state["progress"]["finished"]:
        moments = _read_tensors(path / OPTIMIZER)
        try:
            restore_optimizer(optimizer, model, moments, step)
        except DamagedRecord as error:
            raise DamagedRecord(f"{path / OPTIMIZER}: {error.message}", REMEDY) from error
    return state
