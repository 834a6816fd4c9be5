"""Compiled forms of the slow loops (numba), each proven equal to the readable Python beside which it stands.

| kernel | does what | the readable form |
|---|---|---|
| `cutting` | UTF-8 bytes to ends of pieces | the regular expressions of `pretokenize` |
| `encoding` | pieces to ids | `merging.apply_merges` |
| `counting` | pieces to counts | `collections.Counter` |
| `learning` | counts to merges | `training.byte_bpe.Learner` |

They hold no lock of the interpreter, so threads run them side by side. Loading them takes about a second (the first
time ever, while they are compiled and kept on disk, some ten), so callers use them for much text only: `compiled`.
"""

import functools
import importlib.util
import os
from pathlib import Path

from groundup.base.compiled_functions import forget_if_changed

forget_if_changed(Path(__file__).parent)

OFF = "GROUNDUP_NO_KERNELS"


@functools.cache
def available() -> bool:
    """Whether the kernels can be used: numba is there (extra `fast`), and GROUNDUP_NO_KERNELS is not set."""
    return importlib.util.find_spec("numba") is not None and not os.environ.get(OFF)
