"""Settings of AdapterFusion. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from groundup.adapters.config import AdapterConfig

if TYPE_CHECKING:
    from groundup.adapters.plan import Plan


class FusionConfig(AdapterConfig):
    """AdapterFusion (Pfeiffer et al. 2021): a learned attention over what several trained adapters give, at each place;
    they stay as they are.
    """

    kind: Literal["fusion"] = "fusion"
    of: list[str] = Field(min_length=2)
    """Names of the adapters, of kind `bottleneck`, at the same places."""
    value: bool = True
    """Whether there is a matrix of values, V, which begins as the identity; without it V z = z."""
    regularisation: float = Field(default=0.01, ge=0)
    """Weight of the sum of (V - 1)^2 in the loss."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the scores."""

    def needs(self) -> tuple[str, ...]:
        return tuple(self.of)

    def plan(self, model: Any, name: str) -> Plan:
        from groundup.adapters.fusion import plan

        return plan(model, self)
