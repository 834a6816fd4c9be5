"""Settings of prompt tuning. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from groundup.adapters.config import AdapterConfig, FromPeft, InPeft, Loaded

if TYPE_CHECKING:
    from groundup.adapters.plan import Plan


class PromptConfig(AdapterConfig):
    """Prompt tuning (Lester et al. 2021): vectors before the text learn."""

    peft_type: ClassVar[str] = "PROMPT_TUNING"
    kind: Literal["prompt"] = "prompt"
    length: int = Field(default=20, ge=1)
    """Vectors."""
    init: Literal["random", "vocabulary", "text", "labels"] = "vocabulary"
    """How they begin: uniform in -0.5 .. 0.5; as vectors of random common tokens; as those of `text` (or `ids`),
    repeated to fill the prompt; as those of the class `labels`, then of random tokens."""
    text: str = ""
    """What the prompt begins as."""
    ids: list[int] = []
    """The same as ids of tokens; no tokenizer is needed then."""
    labels: list[str] = []
    """Names of classes; one of several tokens begins as their mean."""
    tokenizer: str | None = None
    """Folder or name of the tokenizer for `text` and `labels`."""

    def plan(self, model: Any, name: str) -> Plan:
        from groundup.adapters.prompt import plan

        return plan(model, self)

    def to_peft(self, model: Any, name: str) -> InPeft:
        from groundup.adapters.prompt_files import prompt_to_peft

        return prompt_to_peft(model, name)

    @classmethod
    def from_peft(cls, model: Any, given: FromPeft) -> Loaded:
        from groundup.adapters.prompt_files import prompt_from_peft

        return prompt_from_peft(model, given)
