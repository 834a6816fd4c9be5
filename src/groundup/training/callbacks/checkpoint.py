"""A checkpoint every so many steps, and one at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup.training.callbacks.callback import Callback, due

if TYPE_CHECKING:
    from groundup.training.session import Training
    from groundup.training.step import StepResult


class SaveCheckpoints(Callback):
    """Writes them; the loop adds it, as the last of the callbacks."""

    def __init__(self) -> None:
        self.saved_step = -1

    def on_start(self, training: Training) -> None:
        latest = training.checkpoints.latest()
        if latest == training.checkpoints.path(training.step):
            self.saved_step = training.step

    def on_step(self, training: Training, result: StepResult) -> None:
        if due(training, training.config.checkpoint_every) and training.healthy:
            self._save(training)

    def on_end(self, training: Training) -> None:
        if self.saved_step != training.step:
            self._save(training)

    def _save(self, training: Training) -> None:
        path = training.save()
        self.saved_step = training.step
        training.log("checkpoint", {})
        for callback in training.callbacks:
            callback.on_checkpoint(training, path)
