"""Settings of (IA)3. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from groundup.adapters.config import AdapterConfig

if TYPE_CHECKING:
    from groundup.adapters.config import FromPeft, InPeft, Loaded
    from groundup.adapters.plan import Plan


class IA3Config(AdapterConfig):
    """(IA)3 (Liu et al. 2022): keys, values and the feed-forward network's inner activations times learned vectors."""

    peft_type: ClassVar[str] = "IA3"

    kind: Literal["ia3"] = "ia3"
    outputs: list[str] = ["k_proj", "v_proj"]
    """Layers whose outputs are multiplied (l_k and l_v): leaf names, or patterns of dotted names."""
    inputs: list[str] = ["down_proj"]
    """Layers whose inputs are multiplied (l_ff): leaf names, or patterns of dotted names."""

    def plan(self, model: Any, name: str) -> Plan:
        from groundup.adapters.ia3 import plan

        return plan(model, self)

    def to_peft(self, model: Any, name: str) -> InPeft:
        from groundup.adapters.ia3_files import to_peft

        return to_peft(model, name)

    @classmethod
    def from_peft(cls, model: Any, given: FromPeft) -> Loaded:
        from groundup.adapters.ia3_files import from_peft

        return from_peft(model, given)
