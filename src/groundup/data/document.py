"""The unit of text: one document."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Document:
    """One text that stands on its own.

    `id` names it in error messages and logs ("notes/a.txt", "train.jsonl:17"): relative, so that it does not change
    when the data is moved. `meta` says where it came from (`source`, `line`); a corpus that has its own held-out part
    sets `meta["split"]` to "train", "validation" or "test".
    """

    id: str
    text: str
    meta: dict[str, Any] = field(default_factory=dict)
