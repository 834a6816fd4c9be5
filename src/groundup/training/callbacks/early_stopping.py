"""Ends the training when the validation loss no longer falls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.training.callbacks.callback import Callback
from groundup.training.early_stopping import EarlyStoppingConfig

if TYPE_CHECKING:
    from groundup.training.session import Training


class StopEarly(Callback):
    """Watches the `loss` of evaluations; the loop adds it where the config asks for it."""

    def __init__(self, config: EarlyStoppingConfig):
        self.watcher = config.build()

    def on_evaluate(self, training: Training, numbers: dict[str, float]) -> None:
        self.watcher.observe(numbers["loss"], training.step)
        if self.watcher.should_stop:
            training.stop("early stopping")

    def state_dict(self) -> dict[str, Any]:
        """Best loss and how long ago."""
        return dict(self.watcher.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back `state_dict()`."""
        self.watcher.load_state_dict(state)
