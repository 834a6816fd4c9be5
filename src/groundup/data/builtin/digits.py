"""digits: 1797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998), which come with scikit-learn."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from groundup.base.errors import MissingDependency
from groundup.data.builtin.stories.items import Document

INK = " .,:;-~=+*o%&$#@M"


def load() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 8, 8) float32 from 0 to 1, and labels (1797,) int64. MissingDependency without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingDependency("scikit-learn", "data", "the digits corpus") from None
    found: Any = load_digits()
    return (found.images / 16).astype(np.float32), found.target.astype(np.int64)


def documents() -> Iterator[Document]:
    """Each digit as 8 lines of characters, from ` ` (no ink) to `M` (full), then a line with its name."""
    images, labels = load()
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        rows = ["".join(INK[round(float(level) * 16)] for level in row) for row in image]
        yield Document(
            f"digits-{number:04d}", "\n".join(rows) + f"\n{label}\n", kind="digit", meta={"label": int(label)}
        )
