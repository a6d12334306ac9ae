"""`wtie runs verify`: everything a run says about itself, held against everything else it says.

Invariant: nothing is changed, nothing but JSON, YAML, arrays and tensor headers is read, and no
file stops the checking of the others: what is wrong becomes a finding with its place. A run without
findings is one whose tables follow from its files; whether its numbers mean anything is left to the
verdict. No torch: names, shapes and hashes need none.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from tyro_cli.analysis.formats import CellResult, Manifest
from tyro_cli.analysis.pairs import verify_pair
from tyro_cli.analysis.records import (
    CellRecord,
    planned_cells,
    read_cell,
    read_manifest,
)
from tyro_cli.config.composing import Composer, FatalProblem, read_source
from tyro_cli.config.paths import with_values
from tyro_cli.config.positions import plain
from tyro_cli.config.schema import Settings
from tyro_cli.errors import NothingMatched, RunFolderError, WtieError
from tyro_cli.experiments.identity import cell_id, run_id, settings_sha256
from tyro_cli.experiments.verify_cells import PlannedCell, planned_groups
from tyro_cli.experiments.verify_checkpoints import checkpoint_problems, disagreement
from tyro_cli.ledger.parameters import count_parameters, parameter_shapes
from tyro_cli.storage.checkpoints import checkpoint_path, list_checkpoints
from tyro_cli.storage.files import encode_json, read_json
from tyro_cli.storage.manifests import sha256_of_file, verify_manifest
from tyro_cli.storage.names import inside
from tyro_cli.storage.records import read_records

KINDS: tuple[Literal["best", "last"], ...] = ("best", "last")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        place: The file or folder, relative to the run.
        problem: What is wrong with it.
    """

    place: str
    problem: str


@dataclass(frozen=True)
class Verification:
    """What was checked, and what was found.

    Attributes:
        run_folder: The run.
        cells: How many cells are done, diverged, unfinished or damaged.
        num_checkpoints: Checkpoints that were looked at.
        num_pairs: Pairs whose proof was compared.
        findings: What is wrong; empty where all is well.
    """

    run_folder: Path
    cells: dict[str, int]
    num_checkpoints: int
    num_pairs: int
    findings: tuple[Finding, ...]

    def as_record(self) -> dict[str, Any]:
        """Return plain values, for `--json`."""
        return {
            "run": str(self.run_folder),
            "cells": self.cells,
            "checkpoints": self.num_checkpoints,
            "pairs": self.num_pairs,
            "problems": [{"place": f.place, "problem": f.problem} for f in self.findings],
        }


def verify_run(folder: Path) -> Verification:
    """Check every manifest, hash, identity, tie and pairing proof of a run.

    Raises:
        NothingMatched: There is no such folder.
        RunFolderError: The folder is not a run.
    """
    if not folder.is_dir():
        raise NothingMatched(f"{folder}: there is no such run", "`wtie runs ls` lists the runs")
    return _Verifier(folder).verify()


class _Verifier:
    """Looks at one run; what is wrong gathers in `findings`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.findings: list[Finding] = []
        self.num_checkpoints = self.num_pairs = 0

    def verify(self) -> Verification:
        is_planned = False
        cells: dict[PlannedCell, CellRecord | None] = {}
        with self._looking_at("manifest.json"):
            self.manifest: Manifest = read_manifest(self.folder)
            self.raw: dict[str, Any] = read_json(self.folder / "manifest.json")
            is_planned = bool(planned_cells(self.manifest))
            self._check_text("manifest.json", self.raw)
        if is_planned:
            self.arms = {name: self._settings_of(name) for name in self.manifest.arms}
            self._check_resolved()
            self._check_tokenizers()
            for group in planned_groups(self.folder, self.manifest):
                new = [one for one in group if one not in cells]
                cells |= {one: self._check_cell(one) for one in new}
                if new:
                    self._check_pairs({one: cells[one] for one in group})
        elif not self.findings:
            self._note("manifest.json", "no cell is planned")
        counts = Counter("damaged" if cell is None else cell.status for cell in cells.values())
        return Verification(
            self.folder, dict(counts), self.num_checkpoints, self.num_pairs, tuple(self.findings)
        )

    def _note(self, place: str, problem: str) -> None:
        self.findings.append(Finding(place, problem))

    @contextmanager
    def _looking_at(self, place: str) -> Iterator[None]:
        """Turn what the body raises about a file into a finding."""
        try:
            yield
        except RunFolderError:
            if place == "manifest.json":
                raise
            self._note(place, "leads out of the run through a symbolic link")
        except WtieError as error:
            text = error.message.replace(f"{self.folder}/", "").removeprefix(place)
            self._note(place, text.removeprefix(":").strip())

    def _check_text(self, place: str, value: object) -> None:
        if (self.folder / place).read_bytes() != encode_json(value).encode():
            self._note(place, "has changed: it is not the text that was written")

    # The run

    def _precision(self) -> str:
        return str(self.raw.get("precision"))

    def _data(self, key: str) -> str:
        data = self.raw.get("data")
        return str(data.get(key)) if isinstance(data, dict) else "None"

    def _settings_of(self, name: str) -> Settings | None:
        """Return what an arm's record resolves to, checked against its hash and its ledger."""
        arm, place = self.manifest.arms[name], f"manifest.json arms.{name}"
        settings = self._settings(arm.settings, place)
        if settings is None:
            return None
        recorded = self.raw["arms"][name].get("settings_sha256")
        if recorded != settings_sha256(settings, self._precision()):
            self._note(place, "settings_sha256 is not that of its settings")
        counted = count_parameters(
            settings.model,
            self.manifest.vocab_size,
            settings.data.context_length,
            self.manifest.source_vocab_size,
        )
        if counted != arm.ledger.total:
            self._note(
                place, f"the ledger has {arm.ledger.total:,} parameters, its settings {counted:,}"
            )
        return settings

    def _settings(self, values: object, place: str) -> Settings | None:
        try:
            return Settings.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            self._note(place, f"its settings are not valid: {where}: {first['msg']}")
            return None

    def _check_resolved(self) -> None:
        """Hold resolved.yaml against the manifest: identity, vocabulary, precision, arms."""
        place = "resolved.yaml"
        with self._looking_at(place):
            resolved = _read_yaml(self.folder / place)
            if not isinstance(resolved, dict):
                self._note(place, "cannot be read as YAML of ours")
                return
            for key in ("run_id", "vocab_size", "precision"):
                if resolved.get(key) != self.raw.get(key):
                    self._note(place, f"{key} is not that of manifest.json")
            self._check_run_id(resolved)
            arms = resolved.get("arms")
            arms = arms if isinstance(arms, dict) else {}
            for name in sorted(arms.keys() ^ self.arms.keys()):
                self._note(place, f"the arm {name} is not in both this file and manifest.json")
            for name in sorted(arms.keys() & self.arms.keys()):
                mine, theirs = self._settings(arms[name], f"{place} arms.{name}"), self.arms[name]
                if mine and theirs and self._differ(mine, theirs):
                    self._note(place, f"arms.{name}: its settings are not those of manifest.json")

    def _check_run_id(self, resolved: Mapping[str, Any]) -> None:
        experiment = resolved.get("experiment")
        values = experiment if isinstance(experiment, dict) else {}
        base = self._settings(
            {key: values.get(key) for key in Settings.model_fields}, "resolved.yaml experiment"
        )
        if base is None:
            return
        identity = run_id(base, self._data("content_sha256"), self._precision())
        if identity != self.manifest.run_id:
            self._note("manifest.json", "run_id is not that of its settings and data")
        if not self.folder.name.startswith(f"{self.manifest.name}-{self.manifest.run_id[:8]}"):
            self._note("manifest.json", f"the run {self.manifest.name} lies in another's folder")

    def _differ(self, one: Settings, other: Settings) -> bool:
        precision = self._precision()
        return settings_sha256(one, precision) != settings_sha256(other, precision)

    def _check_tokenizers(self) -> None:
        recorded = {"tokenizer.json": self._data("tokenizer_sha256")}
        if self._data("sharing") == "separate":
            recorded["source-tokenizer.json"] = self._data("source_tokenizer_sha256")
        for place, sha256 in recorded.items():
            with self._looking_at(place):
                if sha256_of_file(self.folder / place) != sha256:
                    self._note(place, "has changed: its sha256 is not the one in manifest.json")

    # One cell

    def _settings_at(self, one: PlannedCell) -> Settings | None:
        arm = self.arms[one.arm]
        if arm is None or not one.values:
            return arm
        return self._settings(with_values(arm.model_dump(mode="json"), one.values), one.place)

    def _check_cell(self, one: PlannedCell) -> CellRecord | None:
        """Check the files of one cell; return its records where they can be read."""
        settings, place = self._settings_at(one), one.place
        cell: CellRecord | None = None
        with self._looking_at(f"{place}/result.json"):
            cell = read_cell(self.folder, self.manifest, one.arm, one.seed, one.parts, one.values)
            if cell.result is not None:
                self._check_text(f"{place}/result.json", read_json(cell.folder / "result.json"))
        result = cell.result if cell else None
        if result is not None:
            self._check_result(result, settings, f"{place}/result.json")
        if cell is not None and result is not None and cell.status == "done":
            for split in result.splits:
                with self._looking_at(f"{place}/documents.npz"):
                    cell.document_scores(split)
        with self._looking_at(f"{place}/metrics.jsonl"):
            path = inside(self.folder, *one.parts, "metrics.jsonl")
            if path.exists():
                self._check_metrics(read_records(path), result, f"{place}/metrics.jsonl")
            elif result is not None:
                self._note(f"{place}/metrics.jsonl", "is missing")
        if settings is not None:
            with self._looking_at(f"{place}/checkpoints"):
                self._check_checkpoints(one, settings, result)
        return cell

    def _check_result(self, result: CellResult, planned: Settings | None, place: str) -> None:
        settings = self._settings(result.settings, place)
        if settings is None:
            return
        precision = result.pairing.fingerprint.get("precision")
        if precision != self._precision():
            self._note(place, f"precision is {precision!r}, the run's is {self._precision()!r}")
        identity = cell_id(settings, result.seed, self._data("content_sha256"), self._precision())
        if result.cell_id != identity:
            self._note(place, "cell_id is not that of its settings, seed and data")
        if planned is not None and self._differ(settings, planned):
            self._note(place, f"its settings are not those of the arm {result.arm}")
        shapes = self._shapes(settings)
        drawn = {name: tuple(p.shape) for name, p in result.pairing.initial_parameters.items()}
        if drawn != shapes:
            self._note(place, f"pairing.initial_parameters: {disagreement(drawn, shapes)}")
        if result.parameters.tied != (settings.model.tying != "none"):
            self._note(place, f"parameters.tied is not what tying {settings.model.tying} says")
        if result.status == "done":
            steps = {"best": result.training.best_step, "last": result.training.steps}
            for at in KINDS:
                if result.evaluation(at).step != steps[at]:
                    self._note(place, f"evaluations.{at} is not of step {steps[at]}")

    def _check_metrics(
        self, records: list[dict[str, Any]], result: CellResult | None, place: str
    ) -> None:
        """Check that steps follow each other, and that the result is about the same training."""
        steps = [record.get("step") for record in records if record.get("kind") == "train"]
        if steps != list(range(1, len(steps) + 1)):
            self._note(place, "the steps of training do not follow each other from 1")
        numbers = (value for record in records for value in record.values())
        if any(isinstance(value, float) and not math.isfinite(value) for value in numbers):
            self._note(place, "holds a number that is not finite")
        if result is None:
            return
        if len(steps) != result.training.steps:
            self._note(place, f"ends at step {len(steps)}, the result at {result.training.steps}")
        evaluations = [record for record in records if record.get("kind") == "evaluation"]
        batches = [(record.get("step"), record.get("batches_sha256")) for record in evaluations]
        if batches != list(result.pairing.batches):
            self._note(place, "its evaluations and batch hashes are not those of result.json")
        losses = [
            (nats, record.get("step"))
            for record in evaluations
            if isinstance(nats := record.get("valid_nats_per_token"), int | float)
        ]
        best_step = min(losses, key=lambda item: item[0])[1] if losses else 0
        if best_step != (result.training.best_step or 0):
            self._note(place, f"the lowest valid loss is at step {best_step}, not the best step")

    # Checkpoints

    def _check_checkpoints(
        self, one: PlannedCell, settings: Settings, result: CellResult | None
    ) -> None:
        folder = inside(self.folder, *one.parts, "checkpoints")
        identity = cell_id(settings, one.seed, self._data("content_sha256"), self._precision())
        for kind in KINDS:
            for step, path in list_checkpoints(folder, kind):
                self.num_checkpoints += 1
                place = path.relative_to(self.folder).as_posix()
                with self._looking_at(place):
                    verify_manifest(path)
                    for file, problem in checkpoint_problems(
                        path, step, identity, settings.model, self._shapes(settings)
                    ):
                        self._note(f"{place}/{file}" if file else place, problem)
        if result is not None and result.status == "done":
            wanted = {"best": result.training.best_step or 0, "last": result.training.steps}
            for kind in KINDS:
                path = checkpoint_path(folder, kind, wanted[kind])
                if not path.is_dir():
                    self._note(path.relative_to(self.folder).as_posix(), "is missing")

    def _shapes(self, settings: Settings) -> dict[str, tuple[int, ...]]:
        return parameter_shapes(
            settings.model,
            self.manifest.vocab_size,
            settings.data.context_length,
            self.manifest.source_vocab_size,
        )

    def _check_pairs(self, cells: Mapping[PlannedCell, CellRecord | None]) -> None:
        """Compare every cell's proof with that of the baseline at the same seed."""
        baseline = self.manifest.baseline
        others = {one.seed: cell for one, cell in cells.items() if one.arm == baseline}
        for one, cell in cells.items():
            other = others.get(one.seed)
            if one.arm == baseline or cell is None or other is None:
                continue
            if cell.result is None or other.result is None:
                continue
            if not (cell.result.pairing.batches and other.result.pairing.batches):
                continue  # one of them diverged before its first evaluation: nothing to compare
            self.num_pairs += 1
            proof = verify_pair(other.result, cell.result)
            if not proof.verified:
                self._note(one.place, f"is no pair with the baseline: {proof.reason}")


def _read_yaml(path: Path) -> Any:
    """Read YAML of ours from anyone: bounded, no tags, no objects; None where that fails."""
    source, text = read_source(path, 0)
    composer = Composer(source)
    try:
        root = composer.compose(text)
    except FatalProblem:
        return None
    return None if root is None or composer.problems else plain(root)
