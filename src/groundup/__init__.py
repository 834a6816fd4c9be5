"""groundup: every part of a large model, from raw text to a served, measured assistant.

The names below are the whole top level; each is imported when it is first asked for, so `import groundup` stays fast.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "load_model": "groundup.models.hub",
    "load_tokenizer": "groundup.tokenizers.hub",
    "generate": "groundup.generation.generate",
    "stream": "groundup.generation.generate",
    "fit": "groundup.training.loop",
}

if TYPE_CHECKING:
    from groundup.generation.generate import generate, stream
    from groundup.models.hub import load_model
    from groundup.tokenizers.hub import load_tokenizer
    from groundup.training.loop import fit

__all__ = ["__version__", "fit", "generate", "load_model", "load_tokenizer", "stream"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'groundup' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
