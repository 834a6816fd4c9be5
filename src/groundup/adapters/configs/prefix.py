"""Settings of prefix tuning and P-tuning v2. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.adapters.config import AdapterConfig, FromPeft, InPeft, Loaded

if TYPE_CHECKING:
    from groundup.adapters.plan import Plan


class PrefixConfig(AdapterConfig):
    """Prefix tuning (Li & Liang 2021): keys and values before those of the text learn, in every layer."""

    peft_type: ClassVar[str] = "PREFIX_TUNING"
    kind: Literal["prefix"] = "prefix"
    length: int = Field(default=20, ge=1)
    """Keys and values a layer and head."""
    projection: bool = True
    """Whether they come from a network while they learn; `bake` throws it away."""
    hidden: int | None = Field(default=None, ge=1)
    """Its width; that of the model when None."""
    dim: int | None = Field(default=None, ge=1)
    """Width of what goes into it; that of the model when None."""
    init: Literal["random", "zero"] = "random"
    """How keys and values begin, or the network's last layer."""
    ids: list[int] = []
    """Tokens whose keys and values the prefix begins as, as many as `length`; without projection."""
    layers: list[int] | None = None
    """The blocks that get a prefix; all when None."""
    head: bool = False
    """Whether the model's head learns beside it."""

    @model_validator(mode="after")
    def _one_beginning(self) -> PrefixConfig:
        if self.ids and self.projection:
            raise ValueError("a prefix that begins as tokens takes no projection: set projection to false")
        return self

    def plan(self, model: Any, name: str) -> Plan:
        from groundup.adapters.prefix import plan

        return plan(model, self)

    def to_peft(self, model: Any, name: str) -> InPeft:
        from groundup.adapters.prompt_files import prefix_to_peft

        return prefix_to_peft(model, name)

    @classmethod
    def from_peft(cls, model: Any, given: FromPeft) -> Loaded:
        from groundup.adapters.prompt_files import prefix_from_peft

        return prefix_from_peft(model, given)


class PTuningV2Config(PrefixConfig):
    """P-tuning v2 (Liu et al. 2022): prefix tuning without the network, for tasks with a head of their own too."""

    kind: Literal["p_tuning_v2"] = "p_tuning_v2"  # type: ignore[assignment]
    projection: bool = False
