"""Early stopping: end when the held-out loss no longer falls (Prechelt 1998)."""

import math

from pydantic import Field

from groundup.base.config import Config


class EarlyStoppingConfig(Config):
    """When to give up waiting for a better held-out loss."""

    patience: int = Field(default=5, ge=1)
    """Evaluations in a row without improvement after which training stops."""
    min_delta: float = Field(default=0.0, ge=0)
    """How much lower counts as better."""

    def build(self) -> "EarlyStopping":
        """A fresh watcher."""
        return EarlyStopping(self)


class EarlyStopping:
    """Counts evaluations since the best one; a loss that is not finite is never better."""

    def __init__(self, config: EarlyStoppingConfig):
        self.config = config
        self.best = math.inf
        self.best_step: int | None = None
        self.waited = 0

    def observe(self, loss: float, step: int) -> bool:
        """Take in one evaluation; whether it is the best so far (keep that checkpoint)."""
        if loss < self.best - self.config.min_delta:
            self.best, self.best_step, self.waited = loss, step, 0
            return True
        self.waited += 1
        return False

    @property
    def should_stop(self) -> bool:
        """Whether patience is used up."""
        return self.waited >= self.config.patience

    def state_dict(self) -> dict[str, float | int | None]:
        """What a checkpoint keeps (JSON-able: no best yet is None)."""
        best = self.best if math.isfinite(self.best) else None
        return {"best": best, "best_step": self.best_step, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float | int | None]) -> None:
        """Take back `state_dict()`."""
        best, step, waited = state["best"], state["best_step"], state["waited"]
        self.best = math.inf if best is None else float(best)
        self.best_step = None if step is None else int(step)
        self.waited = int(waited or 0)
