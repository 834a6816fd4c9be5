"""Settings of P-tuning. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from groundup.adapters.config import AdapterConfig, FromPeft, InPeft, Loaded

if TYPE_CHECKING:
    from groundup.adapters.plan import Plan


class PTuningConfig(AdapterConfig):
    """P-tuning (Liu et al. 2021): the vectors before the text come from a small network that learns with them."""

    peft_type: ClassVar[str] = "P_TUNING"
    kind: Literal["p_tuning"] = "p_tuning"
    length: int = Field(default=20, ge=1)
    """Places before the text, anchors included."""
    encoder: Literal["lstm", "mlp"] = "lstm"
    """The network: a bidirectional LSTM and two layers, or three layers."""
    hidden: int = Field(default=128, ge=1)
    """Its width."""
    layers: int = Field(default=2, ge=1)
    """Of the LSTM."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Between the layers of the LSTM."""
    anchors: dict[int, int] = {}
    """Place in the prompt, from 0 -> id of the token that stands there as it is."""

    def plan(self, model: Any, name: str) -> Plan:
        from groundup.adapters.p_tuning import plan

        return plan(model, self)

    def to_peft(self, model: Any, name: str) -> InPeft:
        from groundup.adapters.prompt_files import prompt_to_peft

        return prompt_to_peft(model, name)

    @classmethod
    def from_peft(cls, model: Any, given: FromPeft) -> Loaded:
        from groundup.adapters.prompt_files import prompt_from_peft

        return prompt_from_peft(model, given)
