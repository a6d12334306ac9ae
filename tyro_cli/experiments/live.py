"""What a user sees while cells train: a live table on a terminal, plain lines elsewhere.

It only reads events; nothing depends on what is drawn here. A terminal shows every running cell
side by side; without one, each evaluation is one plain line.
"""

import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

BAR_CELLS = 12
REFRESHES_PER_SECOND = 4


@dataclass
class CellLine:
    """What is known of one running cell."""

    total_steps: int
    batch_tokens: int
    step: int = 0
    first_step: int | None = None
    first_time: float = 0.0
    last_time: float = 0.0
    train_nats: float | None = None
    valid_nats: float | None = None
    phase: str = "starting"

    @property
    def tokens_per_second(self) -> float | None:
        """Training tokens a second since this process took the cell up; None at first."""
        if self.first_step is None or self.step <= self.first_step:
            return None
        seconds = self.last_time - self.first_time
        return (self.step - self.first_step) * self.batch_tokens / seconds if seconds else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the last step at the present rate; None where it is unknown."""
        rate = self.tokens_per_second
        return (self.total_steps - self.step) * self.batch_tokens / rate if rate else None


def duration(seconds: float | None) -> str:
    """Write seconds as `1:02` or `1:02:03`; a dash where unknown."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _number(value: float | None, text: str) -> str:
    return "-" if value is None else format(value, text)


class LiveView:
    """Draws events on a console for the length of a `with` block.

    Args:
        console: Where to draw; on stderr, so that results alone go to stdout.
        num_cells: Cells that will be trained.
    """

    def __init__(self, console: "Console", num_cells: int) -> None:
        self.console = console
        self.num_cells = num_cells
        self.num_ended = 0
        self.lines: dict[str, CellLine] = {}
        self.live: Any = None

    def __enter__(self) -> "LiveView":
        if self.console.is_terminal and self.num_cells:
            from rich.live import Live

            self.live = Live(
                get_renderable=self.table,
                console=self.console,
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=True,
            )
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def handle(self, event: dict[str, Any]) -> None:
        """Take one event of a worker or launcher."""
        kind, cell = event["kind"], event.get("cell", "")
        now = event.get("seconds", time.monotonic())  # from afar several events come at once
        if kind == "started":
            self.lines[cell] = CellLine(event["total_steps"], event["batch_tokens"])
            self._say(f"{cell}: started")
            return
        if kind == "stopping":
            self._say("stopping: writing checkpoints; once more ends at once", always=True)
            return
        if kind == "warning":
            self._say(f"{cell}: warning: {event['text']}", always=True)
            return
        line = self.lines.get(cell)
        if line is None:
            return
        if kind == "step":
            line.step, line.last_time, line.phase = event["step"], now, "training"
            line.train_nats = event["loss_nats"]
            if line.first_step is None:
                line.first_step, line.first_time = event["step"], now
        elif kind == "evaluation":
            line.step = max(line.step, event["step"])
            line.last_time = now
            line.valid_nats = event["valid_nats"]
            self._say(self._plain_line(cell, line))
        elif kind == "phase":
            line.phase = event["text"]
            self._say(f"{cell}: {event['text']}")
        elif kind in ("done", "failed", "stopped"):
            del self.lines[cell]
            if kind == "stopped":
                where = f"at step {line.step:,}" if line.phase == "training" else f"({line.phase})"
                self._say(f"{cell}: stopped {where}", always=True)
                return
            self.num_ended += 1
            ending = "done" if kind == "done" else f"failed: {event['message']}"
            self._say(f"{cell}: {ending} ({self.num_ended} of {self.num_cells})", always=True)

    def _plain_line(self, cell: str, line: CellLine) -> str:
        return (
            f"{cell}: step {line.step:,}/{line.total_steps:,}, "
            f"{_number(line.tokens_per_second, ',.0f')} tokens/s, "
            f"{duration(line.seconds_left)} left, "
            f"train {_number(line.train_nats, '.3f')}, valid {_number(line.valid_nats, '.3f')} nats"
        )

    def _say(self, text: str, always: bool = False) -> None:
        """Print a line; on a terminal only what the table does not show."""
        if self.live is None or always:
            self.console.print(text, soft_wrap=True)

    def table(self) -> "Table":
        """Return the table of all running cells."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, show_edge=False)
        for header in ("cell", "", "tokens", "tokens/s", "left", "train", "valid"):
            justify = "left" if header in ("cell", "") else "right"
            table.add_column(header, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for cell, line in list(self.lines.items()):  # `handle` may change it meanwhile
            if line.phase != "training":
                progress = line.phase
            else:
                filled = round(BAR_CELLS * line.step / line.total_steps)
                progress = "━" * filled + "╌" * (BAR_CELLS - filled)
            table.add_row(
                cell,
                progress,
                f"{line.step * line.batch_tokens:,}",
                _number(line.tokens_per_second, ",.0f"),
                duration(line.seconds_left),
                _number(line.train_nats, ".3f"),
                _number(line.valid_nats, ".3f"),
            )
        table.caption = f"{self.num_ended} of {self.num_cells} cells done"
        table.caption_justify = "left"
        return table
