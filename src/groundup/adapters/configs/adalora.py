"""Settings of AdaLoRA. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from groundup.adapters.config import AdapterConfig

if TYPE_CHECKING:
    from groundup.adapters.config import FromPeft, InPeft, Loaded
    from groundup.adapters.plan import Plan


class AdaLoRAConfig(AdapterConfig):
    """AdaLoRA (Zhang et al. 2023): W x + alpha / r P diag(l) Q x, where the budget of all singular values l shrinks in
    training, and the layers where they matter least lose theirs.
    """

    peft_type: ClassVar[str] = "ADALORA"

    kind: Literal["adalora"] = "adalora"
    steps: int = Field(ge=1)
    """Of the whole training."""
    rank: int = Field(default=12, ge=1)
    """Singular values of each layer at the start."""
    target_rank: int = Field(default=8, ge=1)
    """Singular values of each layer at the end, on average."""
    warmup: int = Field(default=0, ge=0)
    """First steps, at the full budget."""
    final: int = Field(default=0, ge=0)
    """Last steps, in which what was chosen stays."""
    every: int = Field(default=1, ge=1)
    """Steps from one choice to the next."""
    beta1: float = Field(default=0.85, gt=0, lt=1)
    """Of the running mean of sensitivity."""
    beta2: float = Field(default=0.85, gt=0, lt=1)
    """Of the running mean of uncertainty."""
    orthogonality: float = Field(default=0.5, ge=0)
    """Weight of the penalty that keeps P and Q orthogonal."""
    alpha: float = Field(default=8.0, gt=0)
    """The update is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Of the input on its way into Q."""
    targets: list[str] = ["all-linear"]
    """Which layers; see `lora`. Experts that lie in one tensor are none of them."""

    @model_validator(mode="after")
    def _phases(self) -> Self:
        if self.warmup >= self.steps - self.final:
            raise ValueError("warmup + final leaves no step in which the budget shrinks: raise `steps`")
        if self.target_rank > self.rank:
            raise ValueError("target_rank is above rank: a budget only shrinks")
        return self

    def plan(self, model: Any, name: str) -> Plan:
        from groundup.adapters.adalora import plan

        return plan(model, self)

    def to_peft(self, model: Any, name: str) -> InPeft:
        from groundup.adapters.adalora_files import to_peft

        return to_peft(model, name, self)

    @classmethod
    def from_peft(cls, model: Any, given: FromPeft) -> Loaded:
        from groundup.adapters.adalora_files import from_peft

        return from_peft(model, given)
