"""Functions compiled by numba: products of stored weights, and what stands between them in a step.

Weights are told by their addresses, 0 for none, so that a function is compiled once for all models. `like` is an empty
array that tells how they are stored: float32, uint16 for bfloat16, or one of the types in `blocks.FORMS`.
"""

from pathlib import Path

from groundup.base.compiled_functions import forget_if_changed

forget_if_changed(Path(__file__).parent)
