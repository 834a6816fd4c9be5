"""Finding any of many fixed spellings in a text: a tree of their characters (Fredkin, 1960).

A regular expression with thousands of alternatives tries them one by one at every place; here a place costs as many
steps as characters agree with some spelling, however many spellings there are.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

FEW = 8
_END = ""  # the key of the whole spelling's length in its last node; characters are never empty


class PrefixTree:
    """Leftmost, then longest matches of any of the spellings, without overlaps.

    Args:
        spellings: not empty strings.
    """

    def __init__(self, spellings: Iterable[str]):
        self._root: dict[str, Any] = {}
        for spelling in spellings:
            node = self._root
            for character in spelling:
                node = node.setdefault(character, {})
            node[_END] = len(spelling)
        self._start = re.compile(_beginnings(self._root)) if self._root else None

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Where each match begins and ends, from left to right."""
        place = 0
        while self._start is not None and (match := self._start.search(text, place)) is not None:
            start = match.start()
            end = self._longest(text, start)
            if end > start:
                yield start, end
            place = max(end, start + 1)

    def _longest(self, text: str, start: int) -> int:
        """The end of the longest spelling that begins at `start`; `start` where there is none."""
        node, end = self._root, start
        for place in range(start, len(text)):
            node = node.get(text[place])
            if node is None:
                break
            end = start + node.get(_END, end - start)
        return end


def _beginnings(root: dict[str, Any]) -> str:
    """A pattern for places where a spelling may begin: by two characters if few are the first, else by one."""
    if len(root) > FEW:
        return _any_of(root)
    pairs = (re.escape(first) + ("" if _END in node else _any_of(node)) for first, node in root.items())
    return "|".join(pairs)


def _any_of(characters: Iterable[str]) -> str:
    return f"[{''.join(map(re.escape, characters))}]"
