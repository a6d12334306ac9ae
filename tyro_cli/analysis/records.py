"""The records of a run, read and checked: what every contrast and table is computed from.

Invariant: what leaves this module is complete, finite and consistent. The files are untrusted: a
missing field, a wrong type, a number that is not finite or a sum that does not add up is a
`DamagedRecord` that names the file and the field. Keys this version does not know are ignored.
Which cells belong to a run is what its manifest planned; a planned cell without a result is
unfinished. What the numbers mean together is left to `pairs`, `contrasts` and `tables`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from tyro_cli.analysis.bleu import Counts, corpus_bleu
from tyro_cli.analysis.documents import (
    REMEDY,
    DocumentScores,
    damaged,
    read_bleu_counts,
    read_document_scores,
)
from tyro_cli.analysis.formats import (
    FORMAT,
    SUM_TOLERANCE,
    CellResult,
    Manifest,
    Performance,
    Record,
    Split,
)
from tyro_cli.analysis.trials import Search, Trial, search_of
from tyro_cli.config.paths import value_at, with_values
from tyro_cli.config.schema import ROLE_GRADIENTS
from tyro_cli.config.tuning import OWN
from tyro_cli.errors import DamagedRecord, NothingMatched, RunFolderError, UsageError
from tyro_cli.storage.files import read_json
from tyro_cli.storage.names import inside

Status = Literal["done", "diverged", "unfinished"]
Rates = Literal["own", "baseline-best", "each-best"]

TRIALS = "trials"
"""The folder of a run in which the trials of a search lie."""

MANIFEST_REMEDY = (
    "Restore the file from a copy, or train the run again with `wtie train --fresh`, which moves "
    "the folder aside."
)


@dataclass(frozen=True)
class CellRecord:
    """One planned cell: its result, or that it has none yet."""

    arm: str
    seed: int
    folder: Path
    status: Status
    result: CellResult | None
    performance: Performance | None

    @property
    def has_document_scores(self) -> bool:
        """Whether per-document scores were kept (a run published as tables may leave them out)."""
        return (self.folder / "documents.npz").is_file()

    def document_scores(self, split: Split) -> DocumentScores:
        """Read the per-document sums of one split (they are not kept in memory).

        Raises:
            DamagedRecord: The file is missing, is no plain array file, or does not sum to the
                result.
        """
        assert self.result is not None, "only a cell with a result has document scores"
        path = self.folder / "documents.npz"
        scores = read_document_scores(path, split)
        expected = self.result.scores(split, "best")
        sums: dict[str, tuple[float, float]] = {
            "nats": (float(scores.nats.sum()), expected.nats),
            "tokens": (int(scores.tokens.sum()), expected.tokens),
            "words": (int(scores.words.sum()), expected.words),
            "bytes": (int(scores.bytes.sum()), expected.bytes),
        }
        for name, (found, recorded) in sums.items():
            if not math.isclose(found, recorded, rel_tol=SUM_TOLERANCE if name == "nats" else 0):
                raise damaged(
                    path, f"{split}_{name} sums to {found}, but result.json says {recorded}"
                )
        return scores

    def bleu_counts(self, split: Split) -> Counts | None:
        """Read each sentence's counts of n-grams, or None where none were kept.

        Raises:
            DamagedRecord: The file is damaged, or its counts do not give the recorded BLEU.
        """
        assert self.result is not None and self.result.quality is not None
        path, name = self.folder / "documents.npz", f"{split}_bleu"
        if not path.is_file():
            return None
        quality = self.result.quality[split]
        counts = read_bleu_counts(path, split, quality.sentences)
        found = float(corpus_bleu(counts.sum(axis=0)))
        if not math.isclose(found, quality.bleu, abs_tol=1e-6):
            raise damaged(
                path, f"{name} gives a BLEU of {found}, but result.json says {quality.bleu}"
            )
        return counts


@dataclass(frozen=True)
class RunRecords:
    """One run folder: its manifest, and every planned cell in the order of arms and seeds.

    Attributes:
        folder: The run.
        manifest: What was planned; the arms' settings are those of `cells`.
        cells: Every planned cell by arm and seed, at the learning rates that `rates` says.
        search: Its search for learning rates, where it has one.
        rates: `own`: as the experiment says; else where the search put all arms, or each.
    """

    folder: Path
    manifest: Manifest
    cells: Mapping[tuple[str, int], CellRecord]
    search: Search | None = None
    rates: Rates = "own"

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms in the order of the experiment file."""
        arms = self.manifest.arms
        return tuple(sorted(arms, key=lambda name: (arms[name].order, name)))

    @property
    def translates(self) -> bool:
        """Whether the run's cells translate."""
        return self.manifest.task == "translation"

    @property
    def units(self) -> str:
        """What per-document sums are kept of, in a word."""
        return "sentences" if self.translates else "documents"

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Return the seeds planned for an arm, ascending."""
        return tuple(sorted(seed for name, seed in self.cells if name == arm))

    def cells_of(self, arm: str) -> Iterator[CellRecord]:
        """Yield the planned cells of an arm by ascending seed."""
        for seed in self.seeds_of(arm):
            yield self.cells[arm, seed]

    def done(self, arm: str) -> tuple[CellResult, ...]:
        """Return the result of every cell of an arm that is done, by seed."""
        return tuple(
            cell.result
            for cell in self.cells_of(arm)
            if cell.status == "done" and cell.result is not None
        )

    def results(self) -> Iterator[CellResult]:
        """Yield the result of every cell that is done, by arm and seed."""
        for arm in self.arms:
            yield from self.done(arm)

    def labelled(self, where: str = "") -> dict[str, CellResult]:
        """Return the same by `ARM seed SEED`, with `where` before it."""
        return {f"{where}{result.arm} seed {result.seed}": result for result in self.results()}

    def baseline(self, asked_for: str | None = None) -> str:
        """Return the baseline arm: the one asked for, or the experiment's own.

        Raises:
            NothingMatched: The run has no such arm.
        """
        if asked_for is None:
            return self.manifest.baseline
        if asked_for not in self.manifest.arms:
            raise NothingMatched(
                f"{self.folder.name} has no arm {asked_for!r}",
                f"Its arms are: {', '.join(self.arms)}.",
            )
        return asked_for


def load_run(folder: Path) -> RunRecords:
    """Read the manifest and every planned cell of a run folder, all arms at one setting.

    Raises:
        RunFolderError: The folder is not a run folder.
        DamagedRecord: A file in it does not say what it must.
    """
    manifest = read_manifest(folder)
    planned = planned_cells(manifest)
    search = read_search(folder, manifest)
    if search is not None and search.record.shared == "baseline-best":
        run = RunRecords(folder, manifest, {}, search, "baseline-best")
        return _at_settings(run, planned, dict.fromkeys(manifest.arms, search.shared))
    cells = {(arm, seed): read_cell(folder, manifest, arm, seed) for arm, seed in planned}
    return RunRecords(folder, manifest, cells, search)


def at_best(run: RunRecords) -> RunRecords:
    """Return the same cells with each arm at its own best setting.

    An arm without one is left out.

    Raises:
        DamagedRecord: A file of one of them does not say what it must.
    """
    assert run.search is not None, "only a run with a search has a best setting"
    best = {arm: name for arm in run.arms if (name := run.search.best.get(arm)) is not None}
    planned = [cell for cell in run.cells if cell[0] in best]
    return _at_settings(replace(run, rates="each-best"), planned, best)


def _at_settings(
    run: RunRecords, planned: Sequence[tuple[str, int]], names: Mapping[str, str | None]
) -> RunRecords:
    """Return a run with each arm at the setting of that name; None has no cells yet."""
    assert run.search is not None
    arms = {}
    cells = {}
    for arm, name in names.items():
        setting = run.search.setting(name) if name is not None else None
        values = setting.values if setting is not None else {}
        settings = with_values(run.manifest.arms[arm].settings, values)
        arms[arm] = run.manifest.arms[arm].model_copy(update={"settings": settings})
        for seed in [seed for one, seed in planned if one == arm]:
            if name is None:
                nowhere = run.folder / arm / f"seed-{seed}"
                cells[arm, seed] = CellRecord(arm, seed, nowhere, "unfinished", None, None)
                continue
            parts = cell_parts(arm, seed, name)
            cells[arm, seed] = read_cell(run.folder, run.manifest, arm, seed, parts, values)
    manifest = run.manifest.model_copy(update={"arms": arms})
    return replace(run, manifest=manifest, cells={key: cells[key] for key in planned})


def read_search(folder: Path, manifest: Manifest) -> Search | None:
    """Read every trial of a run; None where it has no search.

    Raises:
        DamagedRecord: A file of one of them does not say what it must.
    """
    record = manifest.tuning
    if record is None:
        return None
    budget = {} if record.budget is None else {"training.budget": record.budget}
    trials = {}
    for arm in dict.fromkeys(arm for arm, _ in planned_cells(manifest)):
        trials[arm] = tuple(
            Trial(
                arm,
                setting,
                tuple(
                    read_cell(
                        folder,
                        manifest,
                        arm,
                        seed,
                        cell_parts(arm, seed, setting.name, is_trial=True),
                        {**setting.values, **budget},
                    )
                    for seed in record.seeds
                ),
            )
            for setting in record.settings
        )
    return search_of(record, trials, manifest.baseline)


def cell_parts(
    arm: str, seed: int, setting: str = OWN, *, is_trial: bool = False
) -> tuple[str, ...]:
    """Return where a cell lies in its run, as the names of folders.

    Args:
        arm: The arm.
        seed: The replicate.
        setting: Name of the setting; the experiment's own is that of the arm itself.
        is_trial: Whether the cell is a trial of the search.
    """
    if is_trial:
        return TRIALS, arm, setting, f"seed-{seed}"
    if setting == OWN:
        return arm, f"seed-{seed}"
    return "tuned", arm, setting, f"seed-{seed}"


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a run folder.

    Raises:
        RunFolderError: The folder is not a run folder.
        DamagedRecord: The manifest does not say what it must.
    """
    if (folder / "study.yaml").is_file():
        raise RunFolderError(
            f"{folder} is the folder of a study, not of a run",
            f"name one of its runs, which lie beside it; `wtie runs show {folder}` names them",
        )
    path = folder / "manifest.json"
    if not path.is_file():
        raise RunFolderError(
            f"{folder} is not a run folder: it has no manifest.json",
            "Name a folder that `wtie train` wrote, for example runs/NAME-HASH; "
            "`wtie runs ls` lists them.",
        )
    return parse_record(Manifest, path, MANIFEST_REMEDY)


def planned_cells(manifest: Manifest) -> list[tuple[str, int]]:
    """Return every planned cell, (arm, seed), in the order of arms and seeds."""
    planned = {(arm, seed) for plan in manifest.plans for arm in plan.arms for seed in plan.seeds}
    order = {name: (arm.order, name) for name, arm in manifest.arms.items()}
    return sorted(planned, key=lambda cell: (order[cell[0]], cell[1]))


def read_cell(
    folder: Path,
    manifest: Manifest,
    arm: str,
    seed: int,
    parts: Sequence[str] | None = None,
    values: Mapping[str, Any] = MappingProxyType({}),
) -> CellRecord:
    """Read the records of one planned cell.

    Args:
        folder: The run.
        manifest: Its manifest.
        arm: The arm.
        seed: The replicate.
        parts: Where the cell lies, if not in the arm's own folder.
        values: What its setting changes in the arm, by dotted key.

    Raises:
        DamagedRecord: A file of it does not say what it must, or is the record of another cell.
    """
    try:
        parts = cell_parts(arm, seed) if parts is None else parts
        cell_folder = inside(folder, *parts)
    except UsageError as error:
        problem = f"arms.{arm}: {error.message}"
        raise damaged(folder / "manifest.json", problem, error.remedy) from error
    result_path = cell_folder / "result.json"
    if not result_path.is_file():
        return CellRecord(arm, seed, cell_folder, "unfinished", None, None)
    result = parse_record(CellResult, result_path)
    _check_place(result_path, result, manifest, arm, seed)
    if result.status == "done" and not result.saw_test and parts[0] != TRIALS:
        problem = "evaluations.best.test: missing, as only in a trial of a search"
        raise damaged(result_path, problem)
    for key, value in values.items():
        found = value_at(result.settings, key)
        if found != value:
            raise damaged(
                result_path,
                f"settings.{key}: {found!r}, but manifest.json says {value!r} for this setting",
            )
    performance_path = cell_folder / "performance.json"
    performance = (
        parse_record(Performance, performance_path) if performance_path.is_file() else None
    )
    return CellRecord(arm, seed, cell_folder, result.status, result, performance)


def _check_place(path: Path, result: CellResult, manifest: Manifest, arm: str, seed: int) -> None:
    """Refuse the record of another cell: it would decide the verdict with a wrong number."""
    if (result.arm, result.seed) != (arm, seed):
        raise damaged(
            path,
            f"arm, seed: it is the record of {result.arm}, seed {result.seed}, "
            f"in the folder of {arm}, seed {seed}",
        )
    if result.vocab_size != manifest.vocab_size:
        raise damaged(
            path,
            f"vocab_size: {result.vocab_size:,}, but manifest.json says {manifest.vocab_size:,}",
        )
    planned = manifest.arms[arm]
    for name in differing_settings(planned.settings, result.settings):
        if name.split(".")[0] == "model":
            raise damaged(
                path,
                f"settings.{name}: {value_at(result.settings, name)!r}, but manifest.json says "
                f"{value_at(planned.settings, name)!r} for the arm {arm}",
            )
    for name in ("total", "unique_storage"):
        counted = getattr(result.parameters, name)
        if counted != planned.ledger.total:
            raise damaged(
                path,
                f"parameters.{name}: {counted:,}, but the ledger of the arm {arm} in "
                f"manifest.json has {planned.ledger.total:,}",
            )


def differing_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the dotted paths of the settings in which two arms differ, sorted.

    What only measures is in no identity (`experiments.identity`), and no difference here.
    """
    flat_first, flat_second = dict(flattened(first)), dict(flattened(second))
    absent = object()
    return tuple(
        path
        for path in sorted((flat_first.keys() | flat_second.keys()) - {ROLE_GRADIENTS})
        if flat_first.get(path, absent) != flat_second.get(path, absent)
    )


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of every value in nested mappings."""
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{path}.")
        else:
            yield path, value


RecordType = TypeVar("RecordType", bound=Record)


def parse_record(record: type[RecordType], path: Path, remedy: str = REMEDY) -> RecordType:
    """Read a file as a record; the remedy is for a file that is damaged.

    Raises:
        DamagedRecord: It does not say what it must.
    """
    try:
        content = read_json(path)
    except DamagedRecord as error:
        raise DamagedRecord(error.message, remedy) from error
    if not isinstance(content, dict):
        raise damaged(path, "it must hold one JSON object", remedy)
    version = content.get("format", FORMAT)
    if type(version) is int and version > FORMAT:
        raise damaged(
            path,
            f"format: {version}, but this version of wtie reads format {FORMAT}",
            "Read it with the version of wtie that wrote it, or a newer one.",
        )
    try:
        return record.model_validate(content)
    except ValidationError as error:
        raise damaged(path, _first_problem(error), remedy) from error


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    field = ".".join(str(part) for part in problems[0]["loc"]) or "record"
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    text = problems[0]["msg"].removeprefix("Value error, ")
    return f"{field}: {text[:1].lower()}{text[1:]}{more}"
