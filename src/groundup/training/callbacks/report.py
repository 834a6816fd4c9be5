"""report.html at the end of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from groundup.training.callbacks.callback import Callback
from groundup.training.run import Run

if TYPE_CHECKING:
    from groundup.training.session import Training


class Report(Callback):
    """Calls `write(run)` once everything is in the run folder.

    Args:
        write: makes report.html of a run; `groundup.pages` has one.
    """

    def __init__(self, write: Callable[[Run], object]):
        self.write = write

    def on_close(self, training: Training) -> None:
        self.write(training.run)
