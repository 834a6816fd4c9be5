"""Gradual unfreezing (Howard & Ruder 2018, ULMFiT): the top layer learns first, then one more with each stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.base.errors import UsageError
from groundup.training.callbacks.callback import Callback
from groundup.training.optimizers.groups import depth

if TYPE_CHECKING:
    from groundup.training.session import Training
    from groundup.training.step import StepResult


class GradualUnfreezing(Callback):
    """Freezes all layers below the top at the start, and lets one more learn every `steps` steps.

    Layers are those of `optimizers.groups.depth`: what stands above the blocks, the blocks, the embedding.

    Args:
        steps: of each stage (an epoch in the paper).
    """

    def __init__(self, steps: int):
        if steps < 1:
            raise UsageError(f"a stage of gradual unfreezing has at least one step, not {steps}")
        self.steps = steps
        self._levels: dict[float, list[Any]] = {}

    def on_start(self, training: Training) -> None:
        for name, parameter in training.model.named_parameters():
            if parameter.requires_grad:
                self._levels.setdefault(depth(name), []).append(parameter)
        self._set(training.step)

    def on_step(self, training: Training, result: StepResult) -> None:
        self._set(training.step)

    def on_end(self, training: Training) -> None:
        self._set(None)

    def _set(self, step: int | None) -> None:
        """Which layers learn in the step that comes; all of them for None."""
        levels = sorted(self._levels, reverse=True)
        learning = len(levels) if step is None else 1 + step // self.steps
        for number, level in enumerate(levels):
            for parameter in self._levels[level]:
                parameter.requires_grad_(number < learning)
