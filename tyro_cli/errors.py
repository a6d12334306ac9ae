"""Every error that a user can meet, and the exit code it ends with.

    WtieError                  1  something could not be done
    ├── UsageError             2  a command or a value given to it is wrong
    │   ├── ConfigurationError 2  the experiment file is wrong (carries every problem found)
    │   ├── DataError          2  a corpus, tokenizer or prompt cannot be used
    │   ├── RunFolderError     2  a run folder does not fit what was asked of it
    │   └── DeviceError        2  hardware that was asked for is not there, or not enough
    ├── StorageError           1  a file could not be read or written
    │   ├── DamagedRecord      1  a file of ours does not say what it must
    │   ├── DamagedFolder      1  a folder does not match its manifest
    │   └── LockHeld           1  someone else owns this cell
    ├── CellFailed             1  a cell could not be trained
    │   ├── BrokenArm          1  a tensor never got a gradient, never moved, or a tie is gone
    │   ├── ProcessLost        1  another process that trained the cell has ended
    │   └── Diverged           1  a loss or a gradient is not a finite number
    ├── GateFailed             3  a --fail-if gate
    ├── NothingMatched         5  no run, arm or seed fits the request
    └── Interrupted          130  SIGINT (143 for SIGTERM)

A message says what is wrong and where; the remedy says what to do. No user mistake ever shows a
traceback: the command line prints these two lines and exits with the code.
"""

import signal


class WtieError(Exception):
    """A failure that is told to the user in words.

    Args:
        message: What is wrong, and where.
        remedy: What the user can do about it; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return (type(self), (self.message, self.remedy))


class UsageError(WtieError):
    """A command, or a value given to it, is wrong."""

    exit_code = 2


class ConfigurationError(UsageError):
    """The experiment file is wrong; the message holds every problem, one block each."""


class DataError(UsageError):
    """A corpus, a tokenizer or a prompt cannot be used."""


class RunFolderError(UsageError):
    """A run folder does not fit what was asked of it."""


class DeviceError(UsageError):
    """Hardware that was asked for is not there, or there is not enough of it."""


class StorageError(WtieError):
    """A file or folder could not be read or written."""


class DamagedRecord(StorageError):
    """A record does not parse, is too large, or does not say what it must."""


class DamagedFolder(StorageError):
    """A folder does not match its manifest."""


class LockHeld(StorageError):
    """Another process owns this cell."""


class CellFailed(WtieError):
    """A cell could not be trained."""


class BrokenArm(CellFailed):
    """A tensor never received a gradient or never moved, or the tie does not hold."""


class ProcessLost(CellFailed):
    """Another of the processes that train the cell together has ended, or never came."""


class Diverged(CellFailed):
    """A loss or a gradient is not a finite number."""


class GateFailed(WtieError):
    """A `--fail-if` gate closed."""

    exit_code = 3


class NothingMatched(WtieError):
    """No run, arm or seed fits the request."""

    exit_code = 5


class Interrupted(WtieError):
    """A signal asked the program to stop.

    Args:
        signal_number: `signal.SIGINT` or `signal.SIGTERM`; the exit code is 128 plus it.
        remedy: The command that resumes.
    """

    def __init__(self, signal_number: int = signal.SIGINT, remedy: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}", remedy)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number

    def __reduce__(self) -> tuple[type, tuple[int, str]]:  # type: ignore[override]
        return (type(self), (self.signal_number, self.remedy))
