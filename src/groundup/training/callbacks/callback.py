"""What a callback may do. All run on the first rank only; hooks that are not needed are left as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundup.training.session import Training
    from groundup.training.step import StepResult


class Callback:
    """Does nothing; subclasses override hooks. `training` holds everything: step, run, model, config, ..."""

    def on_load(self, training: Training) -> None:
        """Before a checkpoint is restored (and `load_state_dict` called)."""

    def on_start(self, training: Training) -> None:
        """Before the first update of this process."""

    def on_step(self, training: Training, result: StepResult) -> None:
        """After each update, or step that was skipped."""

    def on_log(self, training: Training, record: dict[str, Any]) -> None:
        """After a line was added to metrics.jsonl."""

    def on_evaluate(self, training: Training, numbers: dict[str, float]) -> None:
        """After an evaluation."""

    def on_checkpoint(self, training: Training, path: Path) -> None:
        """After a checkpoint was written."""

    def on_end(self, training: Training) -> None:
        """After the last update; evaluations, samples and checkpoints may follow."""

    def on_close(self, training: Training) -> None:
        """After everything was written to metrics.jsonl."""

    def on_error(self, training: Training) -> None:
        """When the training ends by an exception."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, JSON-able."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back `state_dict()`."""


def due(training: Training, every: int) -> bool:
    """Whether this step is a multiple of `every`."""
    return training.step % every == 0
