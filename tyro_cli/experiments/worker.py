"""The worker of one cell: a process of its own, from spec to `result.json`.

It reads a spec from standard input, writes events as JSON lines to standard output and everything
else to standard error (the cell's log). `result.json` is the last file written: a cell is done when
it is there. A stopped worker leaves a checkpoint; started again, it goes on from it. Where several
workers train a cell together, that of rank 0 owns the cell, writes and reports.
"""

import io
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tyro_cli.config.schema import Settings
from tyro_cli.data.preparing import Prepared, open_entry
from tyro_cli.errors import (
    BrokenArm,
    DamagedFolder,
    Diverged,
    Interrupted,
    LockHeld,
    ProcessLost,
    WtieError,
)
from tyro_cli.evaluation.quality import bleu_counts, translation_quality
from tyro_cli.evaluation.signatures import search_signature, signatures
from tyro_cli.experiments.clock import CellClock
from tyro_cli.experiments.identity import PROTOCOL
from tyro_cli.experiments.specs import CellSpec, read_result
from tyro_cli.ledger.ledger import ledger_of
from tyro_cli.models.translation_model import TranslationModel
from tyro_cli.models.tying import unique_parameters, verify_tie
from tyro_cli.storage.checkpoints import checkpoint_path
from tyro_cli.storage.files import write_bytes, write_json, write_text
from tyro_cli.storage.locks import owned
from tyro_cli.storage.system import make_folder, remove_leftovers, storage_errors, sync_folder
from tyro_cli.training.checkpoints import load_model, verified_best
from tyro_cli.training.hardware import configure_process
from tyro_cli.training.loop import CellContext, Trainer
from tyro_cli.training.processes import ALONE, Processes, joined
from tyro_cli.training.signals import polled_signals
from tyro_cli.training.tasks import FinalScores, Model, Task, Translation
from tyro_cli.training.world import read_world

RESULT_FORMAT = 1
REPORT_SECONDS = 0.25
ORPHAN_SECONDS = 20.0

Report = Callable[[dict[str, Any]], None]


def run_cell(spec: CellSpec, report: Report, poll: Callable[[], None]) -> None:
    """Train, evaluate and record one cell, unless it is done already.

    Args:
        spec: The cell.
        report: Takes events: `step`, `evaluation`, `phase`, `warning`.
        poll: Raises `Interrupted` where a stop was asked for.

    Raises:
        LockHeld: If another process owns the cell.
        Diverged: After recording it: the cell counts as done.
        CellFailed: If the arm is broken, or another process of the cell has ended.
        Interrupted: If `poll` raised it; a checkpoint was written.
    """
    folder = Path(spec.folder)
    settings = spec.resolved_settings()
    configure_process(spec.device, spec.threads, settings.training.deterministic)
    with ExitStack() as held:
        processes = held.enter_context(_processes(spec, poll))
        if processes.rank == 0:
            make_folder(folder)
            held.enter_context(_owned_soon(folder, f"cell {spec.name}", poll))
            _clear(folder)
        else:
            report = _say_nothing  # rank 0 says the same
        if read_result(folder, spec.cell_id) is not None:
            return
        data = open_entry(settings.task, Path(spec.prepared_folder))
        context = CellContext(
            cell_id=spec.cell_id,
            settings=settings,
            seed=spec.seed,
            data=data,
            total_steps=spec.total_steps,
            device=spec.device,
            precision=spec.precision,
            folder=folder,
            allow_numeric_drift=spec.allow_numeric_drift,
            poll=poll,
            warn=lambda text: report({"kind": "warning", "text": text}),
            report=report,
            processes=processes,
        )
        trainer = Trainer(context)
        _check_ledger(trainer.model, settings, data)
        clock = CellClock(folder / "performance.json", spec.device)
        try:
            trainer.run()
            clock.add(trainer)
            report({"kind": "phase", "text": "final evaluation"})
            final = _final_evaluation(context, trainer, spec)
        except Diverged:
            if processes.rank > 0:
                return  # it diverged in all of them, and that of rank 0 tells
            clock.add(trainer)
            clock.write()
            _finish(folder, _result(spec, trainer, data, None))
            raise
        except (Interrupted, ProcessLost):
            if processes.rank == 0:
                clock.add(trainer)
                clock.write()
            raise
        if processes.rank == 0:
            clock.write(final=True)
            _finish(folder, _result(spec, trainer, data, final))


def _say_nothing(event: dict[str, Any]) -> None:
    pass


@contextmanager
def _processes(spec: CellSpec, poll: Callable[[], None]) -> Iterator[Processes]:
    if spec.processes == 1:
        yield ALONE
        return
    with joined(read_world(), spec.meeting, spec.device, poll) as processes:
        yield processes


def _clear(folder: Path) -> None:
    """Remove what a crash left unfinished in a cell, or a loss of power brought back."""
    for place in (folder, folder / "checkpoints", folder / "translations"):
        if place.is_dir():
            remove_leftovers(place)


def _finish(folder: Path, result: dict[str, Any]) -> None:
    """Write `result.json`, once the removals before it cannot be undone by a loss of power.

    Nothing would clear them away later: a cell that is done is not opened again.
    """
    checkpoints = folder / "checkpoints"
    if checkpoints.is_dir():
        with storage_errors(checkpoints, "sync"):
            sync_folder(checkpoints)
    write_json(folder / "result.json", result)


@contextmanager
def _owned_soon(folder: Path, what: str, poll: Callable[[], None]) -> Iterator[None]:
    """Own a cell, after a moment for a worker whose starter was killed to save and end."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(owned(folder, what))
                break
            except LockHeld:
                if time.monotonic() > deadline:
                    raise
                poll()
                time.sleep(REPORT_SECONDS)
        yield


def _check_ledger(model: Model, settings: Settings, data: Prepared) -> None:
    counted = unique_parameters(model)
    expected = ledger_of(settings, data.vocab_size, source_vocab_size=data.source_vocab_size).total
    if counted != expected:
        raise BrokenArm(f"the model holds {counted:,} parameters, the ledger says {expected:,}")


def _final_evaluation(context: CellContext, trainer: Trainer, spec: CellSpec) -> dict[str, Any]:
    """Score valid, test and a part of train at the best and at the last checkpoint, in float32.

    Writes `documents.npz`, the per-document sums at the best checkpoint, and what that translates.
    A trial of a search is for choosing, so it is not shown test and translates nothing. Several
    processes share the sweeps, and each returns all of the scores.

    Returns:
        The parts `evaluations` and `quality` of the result.
    """
    processes, task = context.processes, trainer.task

    def record(final: FinalScores, step: int) -> dict[str, Any]:
        scores = {name: split.as_record() for name, split in final.splits.items()}
        gap = scores["valid"]["nats_per_token"] - scores["train_part"]["nats_per_token"]
        return {"step": step, **scores, "generalisation_gap_nats": gap}

    best_step, last_step = trainer.progress.best_step, trainer.progress.step
    best = task.build_model()
    checkpoints = context.folder / "checkpoints"
    with processes.rank_zero_first():  # which sets a damaged checkpoint aside
        path = verified_best(checkpoints, best_step, context.cell_id, context.warn)
        if path is None:
            raise DamagedFolder(
                f"{checkpoint_path(checkpoints, 'best', best_step)}: the best checkpoint is lost",
                "run the same command again: the cell is then trained anew",
            )
        load_model(path, best)
    verify_tie(best.to(context.device))
    final = task.final_scores(best, context.poll, processes, spec.splits)
    at_best = at_last = record(final, best_step)
    if best_step != last_step:
        last = task.final_scores(trainer.model, context.poll, processes, spec.splits)
        at_last = record(last, last_step)
    quality, counts = (None, {}) if spec.is_trial else _translations(context, task, best)
    if processes.rank == 0:
        buffer = io.BytesIO()
        np.savez(buffer, **final.documents, **counts)  # type: ignore[arg-type]
        write_bytes(context.folder / "documents.npz", buffer.getvalue())
    return {"evaluations": {"best": at_best, "last": at_last}, "quality": quality}


def _translations(
    context: CellContext, task: Task, best: Model
) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """Translate valid and test, and keep the text; return its quality, and counts by sentence."""
    if not isinstance(task, Translation) or not isinstance(best, TranslationModel):
        return None, {}
    context.report({"kind": "phase", "text": "translation"})
    quality: dict[str, Any] = {}
    counts: dict[str, np.ndarray] = {}
    make_folder(context.folder / "translations")
    for name, texts in task.translations(best, context.poll).items():
        split = task.data.splits[name]
        write_text(
            context.folder / "translations" / f"{name}.txt", "".join(f"{t}\n" for t in texts)
        )
        quality[name] = translation_quality(texts, split.target_sentences, split.source_sentences)
        quality[name]["signatures"] = {
            score: f"{signature}|{search_signature(context.settings)}"
            for score, signature in quality[name]["signatures"].items()
        }
        counts[f"{name}_bleu"] = bleu_counts(texts, split.target_sentences)
    return quality, counts


def _result(
    spec: CellSpec,
    trainer: Trainer,
    data: Prepared,
    final: dict[str, Any] | None,
) -> dict[str, Any]:
    settings, progress, model = trainer.settings, trainer.progress, trainer.model
    known = data.known_entropy
    return {
        "format": RESULT_FORMAT,
        "cell_id": spec.cell_id,
        "arm": spec.arm,
        "seed": spec.seed,
        "status": "done" if trainer.divergence is None else "diverged",
        "diverged": trainer.divergence,
        "settings": settings.as_record(),
        "vocab_size": data.vocab_size,
        "parameters": {
            "total": sum(parameter.numel() for parameter in model.parameters()),
            "unique_storage": unique_parameters(model),
            "tied": model.head is None,
        },
        "pairing": {
            "initial_parameters": trainer.initial_parameters,
            "batches": [[step, digest] for step, _, digest in progress.evaluations],
            "fingerprint": trainer.fingerprint,
            "numeric_drift": progress.numeric_drift,
        },
        "training": {
            "steps": progress.step,
            "planned_steps": spec.total_steps,
            "tokens": trainer.tokens_done,
            "best_step": progress.best_step,
            "stopped_early": progress.stopped_early,
            "still_improving": progress.best_step == progress.step,
            "learning_rate": settings.training.optimizer.learning_rate,
        },
        "evaluations": final and final["evaluations"],
        **({"quality": final["quality"]} if final and final["quality"] else {}),
        **({"known_entropy": known.as_record()} if known is not None else {}),
        "signatures": {
            split: signatures(settings, data, split, precision="fp32", protocol=PROTOCOL)
            for split in spec.splits
        },
    }


def main() -> int:
    """Run the cell that standard input describes; return the exit code."""
    spec = CellSpec(**json.load(sys.stdin))
    out = sys.stdout
    last_step_report = 0.0
    held_back: dict[str, Any] | None = None

    def report(event: dict[str, Any]) -> None:
        nonlocal last_step_report, held_back
        if event["kind"] == "step":
            now = time.perf_counter()
            if now - last_step_report < REPORT_SECONDS:
                held_back = event
                return
            last_step_report, held_back = now, None
        elif held_back is not None:  # what follows is about that step
            last, held_back = held_back, None
            send(last)
        send(event)

    def send(event: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the parent is gone; `poll` will notice
            print(json.dumps({"cell": spec.name, **event}), file=out, flush=True)
        if event["kind"] != "step":
            with suppress(OSError):  # the log may lie on a full disk; the event does not
                print(json.dumps(event), file=sys.stderr, flush=True)

    parent = int(os.environ.get("WTIE_PARENT", os.getppid()))
    with polled_signals(parent) as stop:
        try:
            run_cell(spec, report, stop.poll)
        except Interrupted as error:
            report({"kind": "stopped"})
            return error.exit_code
        except WtieError as error:
            report({"kind": "failed", "message": error.message, "remedy": error.remedy})
            return error.exit_code
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            report(
                {
                    "kind": "failed",
                    "message": f"unexpected {type(error).__name__}: {error}",
                    "remedy": f"the traceback is in {Path(spec.folder) / 'log.txt'}",
                }
            )
            return 1
    report({"kind": "done"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
