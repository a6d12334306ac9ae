"""What one checkpoint says of itself, held against the settings of its cell.

Invariant: names, shapes and kinds come from the header of the tensor file, so a tie is what the
tensors say and not what a flag does; no tensor is loaded and no torch needed. That the folder is
what was written is for its manifest to say; which checkpoints a cell must have, for `verify`.
"""

from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from tyro_cli.config.schema import ModelConfig
from tyro_cli.storage.checkpoints import MODEL, MOMENTS, OPTIMIZER, STATE
from tyro_cli.storage.files import read_json
from tyro_cli.storage.tensors import read_tensor_header

Shapes = Mapping[str, tuple[int, ...]]


def checkpoint_problems(
    path: Path, step: int, cell_id: str, model: ModelConfig, shapes: Shapes
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a checkpoint: the file, or "" for the whole, and the problem.

    Args:
        path: Its folder, which matches its manifest.
        step: The step in its name.
        cell_id: Identity of the cell it lies in.
        model: The cell's model.
        shapes: Shape of each of its parameters, by name.

    Raises:
        DamagedRecord: A file cannot be read as what it must be.
    """
    state = read_json(path / STATE)
    if not isinstance(state, dict) or state.get("format") != 1:
        yield "", f"{STATE} is not of format 1"
        return
    if state.get("cell_id") != cell_id:
        yield "", "belongs to another cell"
    progress = state.get("progress")
    reached = progress.get("step") if isinstance(progress, dict) else None
    if state.get("step") != step or reached != step:
        yield "", "belongs to another step"
    if state.get("tie") != _expected_tie(model.tying, shapes):
        yield "", f"the tie in {STATE} is not the one of the settings"
    moments = {f"{moment}/{name}": shapes[name] for moment in MOMENTS for name in shapes}
    for file, expected in ((MODEL, shapes), (OPTIMIZER, moments)):
        if file == MODEL or (path / file).exists():
            for problem in _tensor_problems(path / file, expected, model.tying):
                yield file, problem


def _expected_tie(tying: str, shapes: Shapes) -> dict[str, Any]:
    """Return what `models.tying.tie_metadata` finds in a model of this tie."""
    tie: dict[str, Any] = {
        "tying": tying,
        "softmax_matrix": "head.weight" if tying == "none" else "embedding.weight",
        "unique_parameters": sum(prod(shape) for shape in shapes.values()),
    }
    if any(name.startswith("encoder.") for name in shapes):
        own = "source_embedding.weight"
        tie["source_matrix"] = own if own in shapes else "embedding.weight"
    return tie


def _tensor_problems(path: Path, expected: Shapes, tying: str) -> Iterator[str]:
    entries = read_tensor_header(path)
    found = {name: entry.shape for name, entry in entries.items()}
    if found != expected:
        yield f"tying is {tying}, but {disagreement(found, expected)}"
    elif any(entry.dtype != "F32" for entry in entries.values()):
        yield "holds tensors that are not float32"


def disagreement(found: Shapes, expected: Shapes) -> str:
    """Say in which tensors two sets differ."""
    for text, names in (
        ("there is no", sorted(expected.keys() - found.keys())),
        ("there is", sorted(found.keys() - expected.keys())),
    ):
        if names:
            return f"{text} {', '.join(names[:3])[:200]}"
    name = next(name for name in sorted(expected) if found[name] != expected[name])
    return f"{name} is {list(found[name])}, not {list(expected[name])}"
