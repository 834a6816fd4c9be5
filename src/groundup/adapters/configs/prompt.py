"""Settings of prompt tuning. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from groundup.adapters.config import AdapterConfig

if TYPE_CHECKING:
    from groundup.adapters.plan import Plan


class PromptConfig(AdapterConfig):
    """Prompt tuning (Lester et al. 2021): vectors before the text learn."""

    kind: Literal["prompt"] = "prompt"
    length: int = Field(default=20, ge=1)
    """Vectors."""
    init: Literal["random", "vocabulary", "text", "labels"] = "vocabulary"
    """How they begin: uniform in -0.5 .. 0.5; as vectors of random common tokens; as those of `text` (or `ids`), repeated
    to fill the prompt; as those of the class `labels`, then of random tokens."""
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
