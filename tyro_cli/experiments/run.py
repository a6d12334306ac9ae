"""From an experiment file to trained cells: the order in which everything happens.

Nothing is written before configuration, data, memory and disk have been found fit. Running the same
command again trains what is missing, which may be nothing. Display and tables belong to the caller.
"""

import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro_cli.config.loading import LoadedExperiment
from tyro_cli.config.paths import with_values
from tyro_cli.data.prepared import default_cache_folder
from tyro_cli.data.preparing import Prepared, prepare
from tyro_cli.errors import Interrupted, RunFolderError, UsageError
from tyro_cli.evaluation.quality import check_sacrebleu
from tyro_cli.experiments.confounds import check_confounds
from tyro_cli.experiments.environment import describe_environment
from tyro_cli.experiments.launchers.choice import Launcher, LauncherChoice
from tyro_cli.experiments.launchers.local import CellFailure
from tyro_cli.experiments.launchers.torchrun import check_world, run_together
from tyro_cli.experiments.limits import WORKER_BYTES, check_disk
from tyro_cli.experiments.live import LiveView
from tyro_cli.experiments.plan import Cell, Plan, plan_experiment
from tyro_cli.experiments.run_folder import check_run_folder, open_run_folder
from tyro_cli.experiments.search import most_to_come, open_cells
from tyro_cli.experiments.specs import CellSpec, read_result, set_aside_foreign_result
from tyro_cli.ledger.ledger import Ledger, ledger_of
from tyro_cli.storage.files import read_json
from tyro_cli.storage.locks import owned
from tyro_cli.training.signals import StopRequest, polled_signals
from tyro_cli.training.world import World

if TYPE_CHECKING:
    from rich.console import Console

CHECKPOINT_SLACK = 1.1  # headers, records and tables beside the tensors


@dataclass(frozen=True)
class StartRequest:
    """What every start of cells is asked for.

    Attributes:
        workers: Cells at once; None for as many as cells, cores, devices and memory allow.
        threads: Threads of a worker; None for cores divided by the cells at once. A run keeps the
            number of its first start.
        device: `auto`, `cpu` or `cuda`.
        out: The folder of runs.
        launcher: What carries the cells to where they are trained.
        command: The command line, for the manifest and the message that says how to resume.
        console: Where progress is shown (stderr).
    """

    workers: int | None
    threads: int | None
    device: str
    out: Path
    launcher: LauncherChoice
    command: list[str]
    console: "Console"

    def say(self, text: str) -> None:
        """Show one line of progress."""
        self.console.print(text, soft_wrap=True)


@dataclass(frozen=True)
class TrainRequest(StartRequest):
    """What `wtie train` is asked for.

    Attributes:
        loaded: The experiment.
        seeds: Instead of the experiment's, or None.
        arms: Only these arms, or None for all.
        fresh: Move an existing run folder aside first.
        allow_numeric_drift: Resume cells under another numeric fingerprint, and record it.
    """

    loaded: LoadedExperiment
    seeds: tuple[int, ...] | None
    arms: tuple[str, ...] | None
    fresh: bool
    allow_numeric_drift: bool

    def prepare(self, stop: StopRequest) -> "Start":
        """Return `prepare_start` of this request."""
        return prepare_start(
            self.loaded,
            seeds=self.seeds,
            arms=self.arms,
            device=self.device,
            out=self.out,
            fresh=self.fresh,
            say=self.say,
            stop=stop,
        )

    def missing(self, cells: Sequence[Cell]) -> list[Cell]:
        """Return the cells that are to be trained."""
        return [c for c in cells if self.fresh or read_result(c.folder, c.cell_id) is None]


@dataclass(frozen=True)
class TrainOutcome:
    """What `train_experiment` did.

    Attributes:
        run_folder: The run.
        trained_cells: Cells that were trained now.
        done_cells: Cells of the request that are done, diverged ones included.
        failed: One line for each cell that is not done.
    """

    run_folder: Path
    trained_cells: int
    done_cells: int
    failed: tuple[str, ...]


@dataclass(frozen=True)
class Start:
    """What is known of a start before anything is written."""

    data: Prepared
    device: str
    plan: Plan
    ledgers: dict[str, Ledger]


def prepare_start(
    loaded: LoadedExperiment,
    *,
    seeds: tuple[int, ...] | None,
    arms: tuple[str, ...] | None,
    device: str,
    out: Path,
    fresh: bool,
    say: Callable[[str], None],
    stop: StopRequest,
) -> Start:
    """Find out whether a request can be carried out; nothing is written but the cache.

    The arguments are those of a `TrainRequest`; `say` takes progress, `stop` is polled.

    Raises:
        UsageError: If anything about the request is wrong.
        Interrupted: If `stop` was asked to.
    """
    check_confounds(loaded)
    if loaded.experiment.task == "translation":
        check_sacrebleu()
    from tyro_cli.training.hardware import (  # torch: only once the experiment is known to be sound
        bfloat16_cost,
        is_faster_in_bfloat16,
        resolve_device,
        resolve_precision,
    )

    device = resolve_device(device)
    asked = loaded.experiment.training.precision
    precision = resolve_precision(asked, device)
    if precision == "bf16" and not is_faster_in_bfloat16(device):
        say(
            "warning: bf16 is not known to be faster on this hardware: a matrix product takes "
            f"{bfloat16_cost(device):.1f} times as long as in fp32, measured just now "
            "(training.precision=fp32 avoids that)"
        )
    if loaded.experiment.training.compile:
        from tyro_cli.training.compiling import check_compiler

        check_compiler(device)
    data = prepare(
        loaded.experiment.task,
        loaded.experiment.data,
        cache_folder=default_cache_folder(),
        on_progress=say,
        should_stop=stop.poll,
    )
    plan = plan_experiment(loaded, data, precision=precision, runs_root=out, seeds=seeds, arms=arms)
    ledgers = {
        name: ledger_of(
            arm.settings,
            data.vocab_size,
            precision,  # type: ignore[arg-type]
            data.source_vocab_size,
        )
        for name, arm in plan.arms.items()
    }
    if not fresh:
        check_run_folder(plan, data)
    return Start(data, device, plan, ledgers)


def largest_arm(ready: Start, missing: list[Cell]) -> tuple[str, int]:
    """Return the missing arm whose training takes the most memory, and that estimate in bytes."""
    names = {cell.arm for cell in missing} or set(ready.plan.selected_arms)
    needed = {name: ready.ledgers[name].training_memory_bytes for name in sorted(names)}
    largest = max(needed, key=lambda name: needed[name])
    return largest, needed[largest]


def train_experiment(request: TrainRequest, world: World) -> TrainOutcome:
    """Train every missing cell of an experiment.

    Args:
        request: What is asked for.
        world: Our place, rank 0, among the processes that torchrun started. Where there are
            several, they train one cell after the other together.

    Raises:
        UsageError: If anything about the request is wrong; nothing was written.
        Interrupted: After a signal; the message says how to go on.
    """
    fresh = request.fresh
    again = shlex.join(word for word in request.command if word != "--fresh")
    with polled_signals(world.parent) as stop, ExitStack() as held:
        stop.last_words = f"ended at once; go on with: {again}\n"
        try:
            ready = request.prepare(stop)
            plan = ready.plan
            cells = open_cells(plan, fresh=fresh)
            missing = request.missing(cells)
            at_most = [*missing, *most_to_come(plan, missing)]
            carrier = held.enter_context(request.launcher.opened(len(at_most)))
            num_workers = _choose_workers(ready, at_most, request.workers, world, carrier)
            ledgers = [ready.ledgers[cell.arm] for cell in at_most]
            if request.launcher.storage is None:
                check_disk(plan.run_folder, disk_bytes(ledgers, num_workers))
            held.enter_context(owned(plan.run_folder, f"run {plan.run_folder.name}"))
            num_threads = choose_threads(
                ready,
                request.threads,
                carrier.share_cores(num_workers * world.local_size),
                fresh=fresh,
                allow_drift=request.allow_numeric_drift,
                processes=world.size,
            )
            together = {"processes": world.size} if world.size > 1 else {}
            manifest = open_run_folder(
                plan,
                prepared=ready.data,
                ledgers=ready.ledgers,
                threads=num_threads,
                device=ready.device,
                environment=together | describe_environment(request.command, ready.device),
                fresh=fresh,
            )
            failures: list[CellFailure] = []
            tried: list[Cell] = []
            while missing:  # The trials of a search lead to more cells, once.
                request.say(
                    f"{plan.run_folder}: training {len(missing)} of {len(cells)} cells, "
                    f"{num_workers} at a time, {num_threads} thread(s) each, "
                    f"{plan.precision} on {ready.device}"
                    + (f", {world.size} processes a cell" if world.size > 1 else "")
                )
                for cell in missing:
                    if told := set_aside_foreign_result(cell.folder, cell.cell_id):
                        request.say(f"warning: {told}")
                specs = [
                    cell_spec(ready, cell, manifest, num_threads, request.allow_numeric_drift)
                    for cell in missing
                ]
                with LiveView(request.console, len(specs)) as view:
                    if world.size > 1:
                        failures += run_together(specs, len(tried), world, view.handle, stop)
                    else:
                        failures += carrier.run(specs, num_workers, view.handle, stop)
                tried += missing
                cells = open_cells(plan)
                missing = [
                    cell
                    for cell in cells
                    if cell not in tried and read_result(cell.folder, cell.cell_id) is None
                ]
        except Interrupted as error:
            raise Interrupted(error.signal_number, f"go on with: {again}") from None
    done = {cell.name() for cell in cells if read_result(cell.folder, cell.cell_id) is not None}
    failed = [failure.in_words() for failure in failures if failure.name not in done]
    return TrainOutcome(
        run_folder=plan.run_folder,
        trained_cells=sum(cell.name() in done for cell in tried),
        done_cells=len(done),
        failed=tuple(failed),
    )


def cell_spec(
    ready: Start,
    cell: Cell,
    manifest: dict[str, Any],
    threads: int,
    allow_numeric_drift: bool,
    point: str = "",
) -> CellSpec:
    """Return what a worker is told about a cell; `point` names its place in a study."""
    return CellSpec(
        cell_id=cell.cell_id,
        arm=cell.arm,
        seed=cell.seed,
        # As first recorded: the same text at another path leaves the same record.
        settings=with_values(manifest["arms"][cell.arm]["settings"], cell.values),
        folder=str(cell.folder),
        prepared_folder=str(ready.data.folder),
        total_steps=cell.total_steps,
        device=ready.device,
        precision=ready.plan.precision,
        threads=threads,
        allow_numeric_drift=allow_numeric_drift,
        is_trial=cell.is_trial,
        point=cell.place(point),
    )


def disk_bytes(missing: Sequence[Ledger], num_workers: int) -> int:
    """Estimate the disk that cells take at their largest.

    A finished cell holds two sets of weights; a running one three full checkpoints while the newest
    is written, and three best ones.

    Args:
        missing: The ledger of each cell that will be trained.
        num_workers: How many of them run at once.
    """
    finished = [2 * ledger.checkpoint_bytes for ledger in missing]
    running = sorted(
        3 * (2 * ledger.checkpoint_bytes + ledger.optimizer_bytes) - 2 * ledger.checkpoint_bytes
        for ledger in missing
    )
    return int(CHECKPOINT_SLACK * (sum(finished) + sum(running[-num_workers:])))


def _choose_workers(
    ready: Start, missing: list[Cell], asked: int | None, world: World, launcher: Launcher
) -> int:
    """Return the cells at once that fit; of several processes each holds the whole model.

    Raises:
        UsageError: If the memory, the GPUs or a batch do not carry what was asked for.
    """
    largest, memory_bytes = largest_arm(ready, missing)
    if world.size == 1:
        return launcher.choose_workers(asked, len(missing), memory_bytes, ready.device, largest)
    arms = {name: ready.plan.arms[name].settings for name in ready.plan.selected_arms}
    check_world(world, arms, ready.device)
    if asked not in (None, 1):
        raise UsageError(
            f"--workers {asked}: under torchrun all processes train one cell at a time",
            "leave --workers out, or start without torchrun",
        )
    memory_bytes += ready.ledgers[largest].checkpoint_bytes  # the gradients under way
    if ready.device == "cpu":
        memory_bytes = memory_bytes * world.local_size + WORKER_BYTES * (world.local_size - 1)
        largest += f", {world.local_size} processes"
    return launcher.choose_workers(1, len(missing), memory_bytes, ready.device, largest)


def choose_threads(
    ready: Start,
    asked: int | None,
    share: int,
    *,
    fresh: bool,
    allow_drift: bool,
    processes: int = 1,
) -> int:
    """Return the threads of a worker: the run's own, or asked for, or its share of the cores.

    Raises:
        RunFolderError: If the run was started with another number, on another device or with
            another number of processes a cell: its cells would be no pairs.
    """
    path = ready.plan.run_folder / "manifest.json"
    recorded = read_json(path) if not fresh and path.exists() else {}
    threads, device = recorded.get("threads"), recorded.get("device", ready.device)
    other = []
    if asked is not None and threads not in (None, asked):
        other.append(f"with {threads} thread(s) a cell, not {asked}")
    if device != ready.device:
        other.append(f"on {device}, not {ready.device}")
    recorded_processes = recorded.get("processes", 1)
    if recorded and recorded_processes != processes:
        other.append(f"with {recorded_processes} process(es) a cell, not {processes}")
    if other and not allow_drift:
        raise RunFolderError(
            f"{ready.plan.run_folder} was started {' and '.join(other)}: cells that are "
            "computed otherwise are no pairs",
            "leave --threads and --device out and start as many processes, start anew with "
            "--fresh, or accept and record the difference with --allow-numeric-drift",
        )
    if asked is not None:
        return asked
    return int(threads or share)
