"""Settings of bottleneck adapters. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from groundup.adapters.config import AdapterConfig

if TYPE_CHECKING:
    from groundup.adapters.plan import Plan


class BottleneckConfig(AdapterConfig):
    """Adapters: x + W_up act(W_down x) in each block, near the identity at first (Houlsby et al. 2019; Pfeiffer et al.
    2021).
    """

    kind: Literal["bottleneck"] = "bottleneck"
    places: list[Literal["attention", "feed_forward", "block"]] = ["attention", "feed_forward"]
    """What an adapter follows: `attention` and `feed_forward`, before they are added to the stream (Houlsby), or
    `block`, the stream itself (Pfeiffer)."""
    reduction_factor: float = Field(default=16.0, gt=0)
    """D over the width of the bottleneck, which is at least 1."""
    activation: str = "silu"
    """Between the two matrices."""
    norm_before: bool = False
    """A LayerNorm of what goes into the bottleneck."""
    norm_after: bool = False
    """A LayerNorm of what comes out of it, before it is added."""
    scaling: float | Literal["learned", "channel"] = 1.0
    """What comes out of the bottleneck is multiplied by this: a number, a learned one, or one learned for each
    feature."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of what comes out of the bottleneck."""
    std: float = Field(default=0.02, ge=0)
    """Standard deviation of both matrices at the start; biases are zero."""
    leave_out: list[int] = []
    """Numbers of the blocks that get none."""

    @model_validator(mode="after")
    def _some_place(self) -> Self:
        if not self.places:
            raise ValueError("`places` is empty: name attention, feed_forward or block")
        return self

    @classmethod
    def houlsby(cls, **settings: Any) -> Self:
        """After attention and after the feed-forward network (Houlsby et al. 2019)."""
        return cls(**{"places": ["attention", "feed_forward"], "activation": "silu", **settings})

    @classmethod
    def pfeiffer(cls, **settings: Any) -> Self:
        """After the block only (Pfeiffer et al. 2021): half as many, nearly as good."""
        return cls(**{"places": ["block"], "activation": "relu", **settings})

    def plan(self, model: Any, name: str) -> Plan:
        from groundup.adapters.bottleneck import plan

        return plan(model, self)
