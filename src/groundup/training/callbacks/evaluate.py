"""Validation while training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from groundup.training.callbacks.callback import Callback, due

if TYPE_CHECKING:
    from groundup.training.session import Training
    from groundup.training.step import StepResult


class Evaluate(Callback):
    """Calls `function(model)` every `evaluate_every` steps, before the first and after the last one.

    Args:
        function: gives numbers by name; `loss` is the validation loss, which early stopping and the choice of the best
            checkpoint look at. The model is in eval mode, without gradient, and holds the moving average if there is
            one.
    """

    def __init__(self, function: Callable[[Any], dict[str, float]]):
        self.function = function
        self.evaluated_step = -1
        self.best = math.inf

    def on_start(self, training: Training) -> None:
        if training.step == 0:
            self._evaluate(training)

    def on_step(self, training: Training, result: StepResult) -> None:
        if due(training, training.config.evaluate_every):
            self._evaluate(training)

    def on_end(self, training: Training) -> None:
        if self.evaluated_step != training.step and not training.signal:
            self._evaluate(training)

    def _evaluate(self, training: Training) -> None:
        with training.evaluating() as model, torch.no_grad():
            numbers = self.function(model)
        self.evaluated_step = training.step
        if numbers.get("loss", math.inf) < self.best:
            self.best, training.best_step = numbers["loss"], training.step
        training.evaluated(numbers)

    def state_dict(self) -> dict[str, Any]:
        """Best loss and last step."""
        return {"best": self.best if math.isfinite(self.best) else None, "step": self.evaluated_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back `state_dict()`."""
        self.best = math.inf if state["best"] is None else state["best"]
        self.evaluated_step = state["step"]
