"""A small run of two arms and two seeds, trained here in this process by the real worker."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from traceback import walk_stack
from typing import Any

import torch
import yaml

from tests.end_to_end.workplace import write_corpus
from tests.folders import digests
from tyro_cli.config.loading import load_experiment
from tyro_cli.data.prepared import PreparedData, open_prepared, prepare_data
from tyro_cli.experiments.plan import Plan, plan_experiment
from tyro_cli.experiments.run_folder import open_run_folder
from tyro_cli.experiments.specs import CellSpec
from tyro_cli.experiments.worker import run_cell
from tyro_cli.ledger.ledger import ledger_of
from tyro_cli.training.loop import CellContext

EXPERIMENT: dict[str, Any] = {
    "name": "faults",
    "task": "language-modeling",
    "data": {"tokenizer": {"kind": "byte"}, "context_length": 8},
    "model": {"d_model": 16, "num_layers": 1, "num_heads": 2, "dropout": 0.1},
    "training": {"batch_tokens": 32, "optimizer": {"learning_rate": 1e-2}, "precision": "fp32"},
    "evaluation": {"stride": 8},
    "arms": {"untied": {}, "tied": {"model": {"tying": "in-out"}}},
    "baseline": "untied",
}

# What may differ between two ways to the same cell: times, and what was said on the way.
UNSTABLE = ("performance.json", "log.txt")


class SmallRun:
    """A run folder, and the four cells in it.

    Args:
        folder: An empty folder for the corpus, the prepared data and the runs.
        steps: Updates of a cell.
        every: Steps between two evaluations, and so between two checkpoints.
        seeds: The replicates.
        **changes: What differs from `EXPERIMENT`, by section, as `model={"d_model": 64}`.
    """

    def __init__(
        self,
        folder: Path,
        steps: int,
        every: int,
        seeds: tuple[int, ...] = (0, 1),
        **changes: Mapping[str, Any],
    ) -> None:
        torch.set_num_threads(1)
        self.steps, self.every = steps, every
        folder.mkdir(parents=True, exist_ok=True)
        write_corpus(folder / "corpus", num_train_documents=40, num_other_documents=3)
        content = EXPERIMENT | {"seeds": list(seeds)}
        content["data"] = {"corpus": str(folder / "corpus"), **EXPERIMENT["data"]}
        content["training"] = {"budget": {"steps": steps}, **EXPERIMENT["training"]}
        content["evaluation"] = {"every_steps": every, **EXPERIMENT["evaluation"]}
        for section, values in changes.items():
            content[section] = {**content[section], **values}
        self.config = folder / "faults.yaml"
        self.config.write_text(yaml.safe_dump(content, sort_keys=False))
        loaded = load_experiment(self.config)
        self.prepared: PreparedData = prepare_data(
            loaded.experiment.data, cache_folder=folder / "cache"
        )
        self.plan: Plan = plan_experiment(
            loaded, self.prepared, precision="fp32", runs_root=folder / "runs"
        )
        self.folder = self.plan.run_folder
        open_run_folder(
            self.plan,
            prepared=self.prepared,
            ledgers={
                name: ledger_of(arm.settings, self.prepared.vocab_size)
                for name, arm in self.plan.arms.items()
            },
            threads=1,
            device="cpu",
            environment={
                "versions": {}, "hardware": {}, "git": {}, "command": ["wtie"], "created": "now",
            },
        )  # fmt: skip

    @property
    def names(self) -> list[str]:
        """The cells, `ARM/seed-N`."""
        return [f"{cell.arm}/seed-{cell.seed}" for cell in self.plan.cells]

    def spec(self, name: str, folder: Path | None = None) -> CellSpec:
        """Return what the worker of a cell is told, to work in its own folder or another."""
        [cell] = [cell for cell in self.plan.cells if f"{cell.arm}/seed-{cell.seed}" == name]
        return CellSpec(
            cell_id=cell.cell_id,
            arm=cell.arm,
            seed=cell.seed,
            settings=self.plan.arms[cell.arm].settings.model_dump(mode="json"),
            folder=str(folder or cell.folder),
            prepared_folder=str(self.prepared.folder),
            total_steps=self.plan.total_steps[cell.arm],
            device="cpu",
            precision="fp32",
            threads=1,
        )

    def train(
        self,
        name: str,
        folder: Path | None = None,
        report: Callable[[dict[str, Any]], None] = lambda event: None,
        poll: Callable[[], None] = lambda: None,
    ) -> Path:
        """Train a cell to its end, as its worker does; return its folder."""
        spec = self.spec(name, folder)
        with deterministic():
            run_cell(spec, report, poll)
        return Path(spec.folder)

    def train_all(self) -> Path:
        """Train every cell; return the run folder."""
        for name in self.names:
            self.train(name)
        return self.folder

    def context(
        self, name: str, folder: Path, warn: Callable[[str], None] = lambda text: None
    ) -> CellContext:
        """Return what a trainer of a cell is given, to work in any folder."""
        spec = self.spec(name)
        return CellContext(
            cell_id=spec.cell_id,
            settings=spec.resolved_settings(),
            seed=spec.seed,
            data=open_prepared(self.prepared.folder),
            total_steps=spec.total_steps,
            device="cpu",
            precision="fp32",
            folder=folder,
            allow_numeric_drift=False,
            poll=lambda: None,
            warn=warn,
            report=lambda event: None,
        )


def is_saving() -> bool:
    """Say whether this is called from within the writing of a checkpoint."""
    return any(frame.f_code.co_name == "save_checkpoint" for frame, _ in walk_stack(None))


class deterministic:
    """Deterministic algorithms for the length of a block, as in a worker; then as before."""

    def __enter__(self) -> None:
        self.before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)

    def __exit__(self, *error: object) -> None:
        torch.use_deterministic_algorithms(self.before)


def stable_digests(folder: Path) -> dict[str, str]:
    """Return the hash of each file that must be the same whichever way its cell was trained."""
    return {
        name: digest
        for name, digest in digests(folder).items()
        if Path(name).name not in UNSTABLE and ".lock" not in Path(name).name
    }


def copied(source: Path, target: Path) -> Path:
    """Copy a folder, in place of what is there; return the copy."""
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target)
    return target
