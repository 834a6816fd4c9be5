"""Settings of low-rank adaptation. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from groundup.adapters.config import AdapterConfig

if TYPE_CHECKING:
    from groundup.adapters.plan import Plan


class LoRAConfig(AdapterConfig):
    """Low-rank adaptation (Hu et al. 2021): W x + alpha / r B A x, where only A (r, in) and B (out, r) learn."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1)
    """r: the width of what is learned between."""
    alpha: float = Field(default=16.0, gt=0)
    """The update is multiplied by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the input on its way into A."""
    targets: list[str] = ["all-linear"]
    """Which layers: `all-linear` (those in blocks), leaf names (`q_proj`), or patterns of dotted names
    (`blocks.1?.attn.*_proj`)."""

    def plan(self, model: Any, name: str) -> Plan:
        from groundup.adapters.lora import plan

        return plan(model, self)
