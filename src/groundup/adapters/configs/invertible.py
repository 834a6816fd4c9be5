"""Settings of MAD-X's language adapters. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from groundup.adapters.configs.bottleneck import BottleneckConfig

if TYPE_CHECKING:
    from groundup.adapters.plan import Plan


class InvertibleConfig(BottleneckConfig):
    """A language adapter (MAD-X, Pfeiffer et al. 2020): adapters in the blocks, and an invertible one at the embedding,
    whose inverse stands before the head. Task adapters of kind `bottleneck` are stacked on it.
    """

    kind: Literal["invertible"] = "invertible"  # type: ignore[assignment]
    places: list[Literal["attention", "feed_forward", "block"]] = ["block"]
    """What an adapter follows; see `bottleneck`."""
    activation: str = "relu"
    """Between the two matrices, in the invertible adapter too."""
    embedding_reduction_factor: float = Field(default=2.0, gt=0)
    """D / 2 over the width of the invertible adapter's bottlenecks."""

    def plan(self, model: Any, name: str) -> Plan:
        from groundup.adapters.invertible import plan

        return plan(model, self)
