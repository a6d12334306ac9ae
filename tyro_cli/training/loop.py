"""The training of one cell: from initial values to the best and the last checkpoint.

Everything random is a function of (seed, step, micro-batch, rank), so the loop may stop after any
step and go on later with the same bytes. Evaluation reads and never writes: how often it runs
changes no training loss. Records of a step are on disk before the checkpoint that counts on them.
Several processes run this loop in step with each other (`processes`); rank 0 alone writes. What is
trained, and on what, is the task's (`tasks`).
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch

from tyro_cli.config.schema import Settings
from tyro_cli.data.preparing import Prepared
from tyro_cli.errors import BrokenArm, Diverged, Interrupted, ProcessLost, StorageError
from tyro_cli.ledger.parameters import role_of
from tyro_cli.models.initialization import keyed_seed, parameter_digests
from tyro_cli.models.layers import Dropout
from tyro_cli.models.tying import verify_tie
from tyro_cli.storage.checkpoints import list_checkpoints, prune
from tyro_cli.storage.files import read_json
from tyro_cli.storage.records import RecordWriter, truncate_records
from tyro_cli.storage.system import remove_leftovers
from tyro_cli.training.checkpoints import resume, save_checkpoint
from tyro_cli.training.compiling import Compiled
from tyro_cli.training.hardware import compute_dtype, fingerprint
from tyro_cli.training.optimizer import make_optimizer, set_rate
from tyro_cli.training.processes import ALONE, Processes
from tyro_cli.training.role_gradients import RoleGradients
from tyro_cli.training.schedule import rate_factor
from tyro_cli.training.tasks import task_of

TIE_CHECK_STEPS = 100
NO_BATCHES = "0" * 64


@dataclass
class Progress:
    """Where training stands: all that a resume needs beside the tensors.

    Attributes:
        step: Updates done.
        batches_sha256: Running hash of the consumed batches.
        evaluations: `[step, valid nats per token, batches_sha256]` of every evaluation.
        best_step: The evaluation with the lowest valid loss; 0 before the first.
        best_nats: That loss; None before the first evaluation.
        stopped_early: Whether early stopping ended training.
        finished: Whether no step is left.
        numeric_drift: Resumes under another numeric fingerprint, if any were allowed.
    """

    step: int = 0
    batches_sha256: str = NO_BATCHES
    evaluations: list[list[Any]] = field(default_factory=list)
    best_step: int = 0
    best_nats: float | None = None
    stopped_early: bool = False
    finished: bool = False
    numeric_drift: list[dict[str, Any]] = field(default_factory=list)

    def evaluations_since_best(self) -> int:
        """Count the evaluations after the best one."""
        return sum(1 for step, _, _ in self.evaluations if step > self.best_step)


@dataclass(frozen=True)
class CellContext:
    """What one cell is trained with.

    Attributes:
        cell_id: Identity of the cell, written into its checkpoints.
        settings: The arm's resolved settings.
        seed: The replicate.
        data: Prepared token arrays.
        total_steps: Updates that the budget allows.
        device: `cpu` or `cuda`.
        precision: `fp32` or `bf16`.
        folder: The cell's folder.
        allow_numeric_drift: Resume even under another numeric fingerprint.
        poll: Called at every safe point; raises `Interrupted` to stop.
        warn: Takes a sentence for the user.
        report: Takes an event for the live display.
        processes: Those that train the cell together.
    """

    cell_id: str
    settings: Settings
    seed: int
    data: Prepared
    total_steps: int
    device: str
    precision: str
    folder: Path
    allow_numeric_drift: bool
    poll: Callable[[], None]
    warn: Callable[[str], None]
    report: Callable[[dict[str, Any]], None]
    processes: Processes = ALONE


class Trainer:
    """Trains one cell; `run` is its only entry."""

    def __init__(self, context: CellContext) -> None:
        self.context = context
        self.processes = context.processes
        self.writes = self.processes.rank == 0
        self.settings = context.settings
        training = self.settings.training
        self.dtype = compute_dtype(context.precision)
        self.task = task_of(self.settings, context.data, context.seed)
        self.evaluate_every = self.settings.evaluation.every_steps or max(
            1, context.total_steps // 20
        )
        self.checkpoints = context.folder / "checkpoints"
        self.model = self.task.build_model()
        self.initial_parameters = parameter_digests(self.model)
        verify_tie(self.model.to(context.device))
        self.compiled = Compiled(self.model) if training.compile else None
        self.optimizer = make_optimizer(self.model, self.settings.model, training.optimizer)
        self.fingerprint = fingerprint(
            context.device,
            context.precision,
            training.deterministic,
            self.processes.count,
            training.compile,
        )
        self.role_gradients = (
            RoleGradients(self.settings, context.data)
            if self.writes and self.settings.evaluation.role_gradients_every_steps
            else None
        )
        self.without_gradient = {
            name for name, _ in self.model.named_parameters() if not self._is_frozen(name)
        }
        self.train_seconds = self.evaluation_seconds = 0.0
        self.train_tokens = 0
        self.progress = Progress()
        self.anchors: list[tuple[int, int]] = []  # step and best step of the `last` ones kept
        self.divergence: dict[str, Any] | None = None
        self.records: RecordWriter | None = None  # rank 0 alone has one

    def run(self) -> None:
        """Train to the end of the budget, from the newest checkpoint or from the start.

        Raises:
            Diverged: If a loss or gradient is not finite; the update is not made.
            BrokenArm: If a tie is gone, or a tensor got no gradient or did not move.
            Interrupted: After a signal; a checkpoint was written first.
            ProcessLost: After another process has ended; a checkpoint was written first.
        """
        context = self.context
        with self.processes.rank_zero_first():  # which sets a damaged checkpoint aside
            state = resume(
                self.checkpoints,
                context.cell_id,
                self.model,
                self.optimizer,
                self.fingerprint,
                allow_numeric_drift=context.allow_numeric_drift,
                warn=context.warn,
            )
        if state is not None:
            self.progress = Progress(**state["progress"])
            self.progress.numeric_drift = state["numeric_drift"]
            # Drawn anew they may differ, where training goes on under other numerics.
            self.initial_parameters = state.get("initial_parameters") or self.initial_parameters
            self._find_anchors()
        if self.writes:
            self._tidy()
            metrics = context.folder / "metrics.jsonl"
            truncate_records(metrics, self._is_behind)
            self.records = RecordWriter(metrics)
        try:
            self._train()
        finally:
            if self.records is not None:
                self.records.close()

    def _train(self) -> None:
        context, progress = self.context, self.progress
        if progress.step == 0:
            self._check_initial_loss()
        try:
            if progress.step and not progress.finished:
                self._after_step()  # what a stop right after this step left undone
            while not progress.finished:
                context.poll()
                roles = self._measure_roles()
                started, tokens_before = time.perf_counter(), self.tokens_done
                self._step()
                self.train_seconds += time.perf_counter() - started
                self.train_tokens += self.tokens_done - tokens_before
                if roles is not None:  # behind the step's own record: a resume makes both anew
                    self._record(roles)
                self._after_step()
        except (Interrupted, ProcessLost):
            self._save_last()
            raise

    def _measure_roles(self) -> dict[str, Any] | None:
        """Return the record of the gradients of the roles, where one is due."""
        if self.role_gradients is None:
            return None
        started = time.perf_counter()
        record = self.role_gradients.record(self.model, self.progress.step)
        self.evaluation_seconds += time.perf_counter() - started
        return record

    @property
    def tokens_done(self) -> int:
        """Tokens of the consumed batches."""
        return self.task.tokens_until(self.progress.step)

    def _is_behind(self, record: dict[str, Any]) -> bool:
        """Say whether a record of `metrics.jsonl` is part of the progress made so far."""
        step, evaluated = record.get("step"), self.progress.evaluations
        if not isinstance(step, int):
            return False
        if record.get("kind") == "evaluation":
            return bool(evaluated) and step <= int(evaluated[-1][0])
        return step <= self.progress.step

    def _step(self) -> None:
        """Make one update, or raise before it is made."""
        context, training, step = self.context, self.settings.training, self.progress.step
        batch = self.task.batch(step)
        batch_sha256 = self.task.chain_sha256(self.progress.batches_sha256, batch)
        parameters = list(self.model.parameters())
        loss_nats = self.processes.add_gradients(parameters, self._accumulate(batch))
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        gradient_norm = float(norm)
        if not (math.isfinite(loss_nats) and math.isfinite(gradient_norm)):
            self._save_last()
            self._diverge(
                step + 1, batch_sha256, "gradient" if math.isfinite(loss_nats) else "loss"
            )
        if training.gradient_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, training.gradient_clip, norm)
        if self.without_gradient:
            self._note_gradients()
        factor = rate_factor(training.schedule, step, context.total_steps)
        set_rate(self.optimizer, factor)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress.step = step + 1
        self.progress.batches_sha256 = batch_sha256
        self._record(
            {
                "kind": "train",
                "step": step + 1,
                "loss_nats": loss_nats,
                "gradient_norm": gradient_norm,
                "learning_rate": training.optimizer.learning_rate * factor,
            }
        )
        context.report({"kind": "step", "step": step + 1, "loss_nats": loss_nats})

    def _accumulate(self, batch: Any) -> float:
        """Add our part of the gradients of the batch's mean loss by micro-batches; return it.

        What is returned is in nats, whatever the labels are smoothed by.
        """
        device, rank = torch.device(self.context.device), self.processes.rank
        loss_nats = 0.0
        micro_batches = self.task.micro_batches(self.model, batch, self.processes)
        for index, micro in enumerate(micro_batches):
            self.context.poll()
            key = keyed_seed("dropout", self.context.seed, self.progress.step, index, rank)
            with nullcontext() if self.compiled is None else self.compiled.steps():
                objective, nats = micro.loss(self.dtype, Dropout(key, device))
                (objective * micro.share).backward()
            loss_nats += nats.item() * micro.share
        return loss_nats

    def _after_step(self) -> None:
        """Check, evaluate and save what is due at this step; what is done is not done again."""
        progress, training = self.progress, self.settings.training
        step = progress.step
        at_end = step >= self.context.total_steps
        if step % TIE_CHECK_STEPS == 0:
            verify_tie(self.model)
        evaluated = step % self.evaluate_every == 0 or at_end
        if evaluated:
            if not progress.evaluations or progress.evaluations[-1][0] < step:
                self._evaluate()
            stopping = training.early_stopping
            if stopping and progress.evaluations_since_best() >= stopping.patience:
                progress.stopped_early = not at_end
                at_end = True
        if at_end:
            self._check_moved()
        progress.finished = at_end
        every = training.checkpoint_every_steps
        if at_end or (evaluated if every is None else step % every == 0):
            self._save_last()

    def _evaluate(self) -> None:
        """Score valid in the training precision and keep the best checkpoint."""
        started, progress = time.perf_counter(), self.progress
        self._check_gradients()
        self.processes.verify_same_weights(self.model)
        valid_nats = self.task.valid_nats(self.model, self.dtype, self.context.poll, self.processes)
        if not math.isfinite(valid_nats):
            self._diverge(progress.step, progress.batches_sha256, "valid loss")
        progress.evaluations.append([progress.step, valid_nats, progress.batches_sha256])
        self._record(
            {
                "kind": "evaluation",
                "step": progress.step,
                "tokens": self.tokens_done,
                "valid_nats_per_token": valid_nats,
                "batches_sha256": progress.batches_sha256,
            }
        )
        if progress.best_nats is None or valid_nats < progress.best_nats:
            progress.best_step, progress.best_nats = progress.step, valid_nats
            if self.writes:
                save_checkpoint(
                    self.checkpoints, "best", progress.step, self.model, None, self._state()
                )
                self._prune()
        self.evaluation_seconds += time.perf_counter() - started
        self.context.report({"kind": "evaluation", "step": progress.step, "valid_nats": valid_nats})

    def _diverge(self, step: int, batch_sha256: str, what: str) -> NoReturn:
        """Keep the last checkpoint before `step` alone, and end the cell."""
        text = f"the {what} is not a finite number (batch {batch_sha256[:12]})"
        self.divergence = {"step": step, "batch_sha256": batch_sha256, "what": text}
        self.anchors = [anchor for anchor in self.anchors if anchor[0] < step][-1:]
        self._prune()
        raise Diverged(
            f"step {step}: {text}",
            "lower training.optimizer.learning_rate or set training.gradient_clip",
        )

    def _record(self, record: dict[str, Any]) -> None:
        if self.records is not None:
            self.records.append(record)

    def _save_last(self) -> None:
        """Write the checkpoint that a resume starts from, then drop what is not needed."""
        progress = self.progress
        if progress.step == 0 or self.records is None:
            return
        self.records.sync()
        optimizer = None if progress.finished else self.optimizer
        save_checkpoint(
            self.checkpoints, "last", progress.step, self.model, optimizer, self._state()
        )
        earlier = [anchor for anchor in self.anchors if anchor[0] < progress.step]
        kept = 1 if progress.finished else 2  # were the newest damaged, the one before serves
        self.anchors = [*earlier, (progress.step, progress.best_step)][-kept:]
        self._prune()

    def _prune(self) -> None:
        """Remove the checkpoints that no kept `last` needs."""
        if not (self.anchors and self.writes):
            return
        prune(self.checkpoints, "last", [step for step, _ in self.anchors])
        best = {best for _, best in self.anchors} | {self.progress.best_step}
        if best := best - {0}:
            prune(self.checkpoints, "best", best)

    def _tidy(self) -> None:
        """Remove what a killed process left half-done in the folder of checkpoints."""
        if self.checkpoints.is_dir():
            remove_leftovers(self.checkpoints)
        if self.progress.finished:
            self.anchors = self.anchors[-1:]
            self._prune()

    def _find_anchors(self) -> None:
        """Learn which `last` checkpoints are there, and the best one that each needs."""
        for step, path in reversed(list_checkpoints(self.checkpoints, "last")):
            with suppress(StorageError, KeyError, TypeError):
                best_step = read_json(path / "state.json")["progress"]["best_step"]
                # Nobody has verified it: what cannot be is passed over.
                if type(best_step) is int and 0 <= best_step <= step <= self.progress.step:
                    self.anchors.append((step, best_step))

    def _state(self) -> dict[str, Any]:
        progress = asdict(self.progress)
        drift = progress.pop("numeric_drift")
        return {
            "cell_id": self.context.cell_id,
            "total_steps": self.context.total_steps,
            "fingerprint": self.fingerprint,
            "numeric_drift": drift,
            "progress": progress,
            "initial_parameters": self.initial_parameters,
        }

    def _check_initial_loss(self) -> None:
        """Compare the loss before the first update with ln V: no arm may start ill."""
        loss_nats = self.task.initial_nats(self.model, self.dtype)
        uniform_nats = math.log(self.context.data.vocab_size)
        text = f"the loss starts at {loss_nats:.3f} nats, ln V is {uniform_nats:.3f}"
        if not loss_nats <= uniform_nats + 1.0:
            raise BrokenArm(
                f"broken arm: {text}", "lower model.embedding_std, or drop the scales of the model"
            )
        if loss_nats > uniform_nats * 1.05:
            self.context.warn(f"{text}: more than 5 % above; compare arms with care")

    def _is_frozen(self, name: str) -> bool:
        """Say whether the configuration keeps a parameter from moving: its role's rate is 0."""
        roles = self.settings.training.optimizer.roles
        return bool(getattr(roles, role_of(name, self.settings.model)).rate == 0)

    def _note_gradients(self) -> None:
        self.without_gradient = {
            name
            for name in self.without_gradient
            if (gradient := self.model.get_parameter(name).grad) is None or not gradient.any()
        }

    def _check_gradients(self) -> None:
        """Fail the cell if a tensor never received a gradient in this process."""
        if self.without_gradient and self.train_tokens:
            names = ", ".join(sorted(self.without_gradient))
            raise BrokenArm(f"broken arm: no gradient ever reached {names}")

    def _check_moved(self) -> None:
        """Fail the cell if a tensor never received a gradient or never moved."""
        self._check_gradients()
        now = parameter_digests(self.model)
        still = [
            name
            for name, digest in now.items()
            if digest == self.initial_parameters[name] and not self._is_frozen(name)
        ]
        if still:
            raise BrokenArm(f"broken arm: never moved in training: {', '.join(still)}")
