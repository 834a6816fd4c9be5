"""Settings of low-rank adaptation. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from groundup.adapters.config import AdapterConfig

if TYPE_CHECKING:
    from groundup.adapters.config import FromPeft, InPeft, Loaded
    from groundup.adapters.plan import Plan


class LoRAConfig(AdapterConfig):
    """Low-rank adaptation (Hu et al. 2021): W x + alpha / r B A x, where only A (r, in) and B (out, r) learn."""

    peft_type: ClassVar[str] = "LORA"

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1)
    """r: the width of what is learned between."""
    alpha: float = Field(default=16.0, gt=0)
    """The update is multiplied by alpha / r."""
    rslora: bool = False
    """Multiply by alpha / sqrt(r) instead, so that the update does not shrink as r grows (Kalajdzievski 2023)."""
    dora: bool = False
    """DoRA (Liu et al. 2024): B A turns the rows of W, and a learned magnitude sets the length of each."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the input on its way into A."""
    init: Literal["kaiming", "gaussian", "pissa"] = "kaiming"
    """How it begins: A uniform as in nn.Linear and B zero; A normal with deviation 1 / r and B zero (both leave the
    model as it was); or B A the r largest singular values of W, held against their own copy (PiSSA, Meng et al. 2024).
    """
    bias: Literal["none", "lora_only", "all"] = "none"
    """Which of the base's biases learn too: none, those of the targets, all."""
    targets: list[str] = ["all-linear"]
    """Which layers: `all-linear` (those in blocks), leaf names (`q_proj`; `tokens` is the embedding), or patterns of
    dotted names (`blocks.1?.attn.*_proj`)."""
    ranks: dict[str, int] = {}
    """Other ranks for some targets: a leaf name or pattern of dotted names -> r; the first that fits counts."""
    alphas: dict[str, float] = {}
    """Other alphas for some targets, in the same form."""
    modules_to_save: list[str] = []
    """Modules of the base that learn in full beside it, by leaf name or pattern (`lm_head`)."""
    lr_ratio: float = Field(default=1.0, gt=0)
    """LoRA+ (Hayou et al. 2024): the learning rate of B is that of A times this."""

    def plan(self, model: Any, name: str) -> Plan:
        from groundup.adapters.lora import plan

        return plan(model, self)

    def to_peft(self, model: Any, name: str) -> InPeft:
        from groundup.adapters.lora_files import to_peft

        return to_peft(model, name, self)

    @classmethod
    def from_peft(cls, model: Any, given: FromPeft) -> Loaded:
        from groundup.adapters.lora_files import from_peft

        return from_peft(model, given)
