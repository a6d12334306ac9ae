"""SIGINT and SIGTERM, polled at safe points.

The first signal is remembered and `poll` raises `Interrupted` at the next safe point; the second
ends the process at once. Nothing else is done inside a handler.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tyro_cli.errors import Interrupted


class StopRequest:
    """A request to stop, made by a signal or by the death of the process that started us.

    Args:
        parent: A process whose death counts as SIGTERM.

    Attributes:
        on_second: Called when a second signal ends the process.
        last_words: What the second signal says on standard error, with its line end.
    """

    def __init__(self, parent: int | None = None) -> None:
        self._signal_number: int | None = None
        self.on_second: Callable[[], object] = lambda: None
        self.last_words = ""
        self._parent = parent

    @property
    def signal_number(self) -> int | None:
        """The signal, once there was one."""
        if self._parent is not None and os.getppid() != self._parent:
            self._signal_number = self._signal_number or signal.SIGTERM
        return self._signal_number

    def handle(self, signal_number: int, frame: FrameType | None) -> None:
        """Remember the first signal; end the process on the second."""
        if self._signal_number is not None:
            self.on_second()
            os.write(2, self.last_words.encode())
            os._exit(128 + signal_number)
        self._signal_number = signal_number

    def poll(self) -> None:
        """Raise `Interrupted` if a stop was asked for."""
        number = self.signal_number
        if number is not None:
            raise Interrupted(number)


@contextmanager
def polled_signals(parent: int | None = None) -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a `StopRequest` for the length of the block."""
    request = StopRequest(parent)
    previous = {
        number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
