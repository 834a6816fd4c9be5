"""Exponential moving average of weights, as a setting. Imports no torch; the average itself is in `averaging.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from groundup.base.config import Config

if TYPE_CHECKING:
    from torch import Tensor

    from groundup.training.averaging import EMA


class EMAConfig(Config):
    """Exponential moving average of the weights (Polyak and Juditsky 1992)."""

    decay: float = Field(default=0.999, ge=0, lt=1)
    """Share of the average that is kept at each step."""
    warmup: bool = True
    """Begin with a small decay, min(decay, (1 + t) / (10 + t)), so that the random start is soon forgotten."""

    def build(self, weights: dict[str, Tensor]) -> EMA:
        """An average that begins at `weights`: `optimizer.masters()`, or `dict(model.named_parameters())`."""
        from groundup.training.averaging import EMA

        return EMA(weights, self)
