"""One-hot coding: each token is a vector with a single one, at the place of its id.

An embedding is this times a matrix: one_hot(ids) @ W = W[ids], which is why an embedding looks a row up instead.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from groundup.base.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

MOST_CELLS = 2**28


def one_hot(ids: Sequence[int], size: int) -> "np.ndarray":
    """The ids as rows of zeros and a one, (T, size), float32.

    Raises:
        UsageError: an id outside 0 to size - 1, or more than 2**28 numbers in all.
    """
    import numpy as np

    if wrong := [number for number in ids if not 0 <= number < size]:
        raise UsageError(f"id {wrong[0]} is outside 0 to {size - 1}")
    if len(ids) * size > MOST_CELLS:
        raise UsageError(f"{len(ids):,} ids times {size:,} places are too many: look rows of an embedding up instead")
    rows = np.zeros((len(ids), size), dtype=np.float32)  # (T, V)
    rows[np.arange(len(ids)), list(ids)] = 1.0
    return rows


def from_one_hot(rows: "np.ndarray") -> list[int]:
    """The ids of one-hot rows (T, V).

    Raises:
        UsageError: a row that is not all zeros and a single one.
    """
    import numpy as np

    rows = np.asarray(rows)
    if rows.ndim != 2 or not (np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all()):
        raise UsageError("each row must hold zeros and a single one")
    return rows.argmax(axis=1).tolist()
