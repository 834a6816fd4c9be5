"""Stop when asked: once politely, twice at once.

SIGTERM is what a scheduler sends before it takes the machine away, SIGINT is Ctrl-C. The first one only raises a flag,
so that the step is finished and a checkpoint written; the second one ends the process. Handlers are installed in the
main thread only (Python allows no other) and the old ones are put back, so a notebook keeps its own.
"""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from groundup.base.console import warn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(SystemExit):
    """Training was stopped by a signal after a clean checkpoint; ends the process with 128 + the signal's number."""

    def __init__(self, number: int, message: str):
        super().__init__(128 + number)
        self.message = message

    def __str__(self) -> str:
        return self.message


class StopSignals:
    """While this context is open, `requested` holds the number of the signal that asked to stop, or 0."""

    def __init__(self) -> None:
        self.requested = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(128 + number)
        self.requested = number
        name = signal.Signals(number).name
        warn(f"{name}: finishing this step, then writing a checkpoint; once more ends at once without one")
