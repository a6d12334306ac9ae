"""What a checkpoint holds, and how it is put back.

A checkpoint is a folder (`storage.checkpoints`): `model.safetensors`, `optimizer.safetensors`
where training may go on, and `state.json`. All randomness is keyed by step, so there is no
generator state to keep. On load the tensors are compared with the model that the configuration
describes, not with flags: names, shapes, dtypes and the tie must agree.
"""

from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tyro_cli.errors import BrokenArm, DamagedRecord, RunFolderError
from tyro_cli.models.language_model import LanguageModel
from tyro_cli.models.tying import tie_metadata, verify_tie
from tyro_cli.storage.checkpoints import newest_verified, save
from tyro_cli.storage.files import read_json, write_json
from tyro_cli.training.optimizer import optimizer_tensors, restore_optimizer

FORMAT = 1
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


def save_checkpoint(
    folder: Path,
    kind: str,
    step: int,
    model: LanguageModel,
    optimizer: torch.optim.Optimizer | None,
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
        save_file(_contiguous(model.state_dict()), target / MODEL)
        if optimizer is not None:
            save_file(_contiguous(optimizer_tensors(optimizer, model)), target / OPTIMIZER)
        write_json(
            target / STATE, {"format": FORMAT, "step": step, "tie": tie_metadata(model), **state}
        )

    return save(folder, kind, step, write)  # type: ignore[arg-type]


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def load_model(path: Path, model: LanguageModel) -> dict[str, Any]:
    """Copy a checkpoint's weights into `model` and return its state.

    Raises:
        DamagedRecord: If the file is no safetensors file or its tensors are not the model's.
        BrokenArm: If the checkpoint's tie is not the model's.
    """
    state: dict[str, Any] = read_json(path / STATE)
    if state.get("format") != FORMAT:
        raise DamagedRecord(f"{path / STATE}: format {state.get('format')!r} is not {FORMAT}")
    tensors = _read_tensors(path / MODEL)
    own = dict(model.named_parameters())
    if set(tensors) != set(own):
        differing = ", ".join(sorted(set(tensors) ^ set(own))[:4])
        raise BrokenArm(f"{path / MODEL}: tensors and configuration disagree: {differing}")
    for name, parameter in own.items():
        stored = tensors[name]
        if stored.shape != parameter.shape or stored.dtype != parameter.dtype:
            raise DamagedRecord(
                f"{path / MODEL}: {name} is {stored.dtype} {tuple(stored.shape)}, the "
                f"configuration says {parameter.dtype} {tuple(parameter.shape)}"
            )
        with torch.no_grad():
            parameter.copy_(stored)
    verify_tie(model)
    if state.get("tie") != tie_metadata(model):
        raise BrokenArm(f"{path / STATE}: the tie it records is not the model's")
    return state


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise DamagedRecord(f"{path}: {error}") from error


def resume(
    folder: Path,
    cell_id: str,
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    current_fingerprint: dict[str, Any],
    *,
    allow_numeric_drift: bool,
    warn: Any,
) -> dict[str, Any] | None:
    """Restore the newest verified `last` checkpoint; None where there is none.

    A damaged one is quarantined and the one before it is taken, with a warning.

    Raises:
        RunFolderError: If it belongs to another cell, or was written under another numeric
            fingerprint and `allow_numeric_drift` is off.
    """
    found = newest_verified(
        folder,
        "last",
        on_damage=lambda path, why: warn(f"{path.name} is damaged and set aside: {why}"),
    )
    if found is None:
        return None
    step, path = found
    state: dict[str, Any] = read_json(path / STATE)
    if state.get("cell_id") != cell_id or state.get("step") != step:
        raise RunFolderError(
            f"{path}: this checkpoint belongs to another cell or step",
            "move it away, or train into another folder with --out",
        )
    saved = state["fingerprint"]
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
    if (path / OPTIMIZER).exists():
        restore_optimizer(optimizer, model, _read_tensors(path / OPTIMIZER), step)
    return state
