r"""The classes of characters that pre-tokenizer patterns speak of, as tables by code point.

`regex` decides: it is asked once for every code point, so that its version of Unicode, and nobody else's, holds.
"""

import functools
import sys

import numpy as np
import regex

SIGN, LETTER, NUMBER, SPACE, LINE = 0, 1, 2, 3, 4
_CLASSES = {LETTER: r"\p{L}+", NUMBER: r"\p{N}+", SPACE: r"\s+", LINE: r"[\r\n]+"}


@functools.cache
def table(lines: bool, size: int = sys.maxunicode + 1) -> np.ndarray:
    r"""The class of each code point below `size` (uint8); with `lines`, \r and \n have one of their own."""
    characters = "".join(map(chr, range(size)))
    found = np.zeros(size, np.uint8)
    for number, pattern in _CLASSES.items():
        if lines or number != LINE:
            for match in regex.finditer(pattern, characters):
                found[match.start() : match.end()] = number
    found.flags.writeable = False
    return found
