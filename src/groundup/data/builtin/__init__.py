"""Corpora that need no network: `open_corpus(name)` yields their documents.

- `stories`: generated stories over consistent worlds, with questions whose answers are known (`builtin.stories`)
- `pydocs`: the English language reference that comes with CPython
- `pystdlib`: the Python source of the standard library
- `digits`: scikit-learn's handwritten digits, as text of 8 rows with 17 levels of ink (images: `builtin.digits.load`)
"""

import importlib
import itertools
from collections.abc import Iterator
from typing import Any

from groundup.base.config import Config
from groundup.base.errors import UsageError, did_you_mean
from groundup.data.builtin.stories.items import Document

NAMES = ("stories", "pydocs", "pystdlib", "digits")


class Limits(Config):
    """How much of a fixed corpus is read."""

    documents: int | None = None
    """Stop after so many documents."""
    bytes: int | None = None
    """Stop at the end of the document that reaches this size in UTF-8."""
    seed: int = 0
    """Accepted for all corpora alike; a fixed corpus has nothing to draw."""


def open_corpus(name: str, **settings: Any) -> Iterator[Document]:
    """The documents of a built-in corpus, one after the other.

    Args:
        name: one of `NAMES`.
        settings: for `stories` the fields of `StoriesConfig` (seed, split, documents, bytes, ...); the others are what
            they are: they take `documents` and `bytes` as limits and ignore `seed`.

    Raises:
        UsageError: an unknown corpus or setting.
        MissingDependency: `digits` without scikit-learn.
    """
    if name not in NAMES:
        raise UsageError(f"`{name}` is not a built-in corpus.{did_you_mean(name, NAMES)} One of: {', '.join(NAMES)}")
    module = importlib.import_module(f"groundup.data.builtin.{name}")
    if name == "stories":
        config = module.StoriesConfig.parse(settings, where="stories")
        config.check()
        return module.documents(config)
    limits = Limits.parse(settings, where=name)
    return _limited(module.documents(), limits.documents, limits.bytes)


def _limited(documents: Iterator[Document], most: int | None, size: int | None) -> Iterator[Document]:
    written = 0
    for document in itertools.islice(documents, most):
        if size is not None and written >= size:
            return
        yield document
        written += len(document.text.encode())
