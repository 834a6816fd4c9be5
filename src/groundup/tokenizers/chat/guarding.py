"""Marking the control tokens that a text spells, so that they stay text.

A guard is a character that occurs nowhere else. It is put inside every control token that a message spells; the
rendered text is searched for control tokens with the guards still in it, so only the template's own are found. Then
they go.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from groundup.base.errors import UsageError

# Unicode noncharacters: never part of a text that is exchanged.
SIGNS = tuple(map(chr, range(0xFDD0, 0xFDF0)))
_ANY_SIGN = re.compile("[\ufdd0-\ufdef]")
# Words that templates compare; a guard at their edge would change them.
STRUCTURE = frozenset({"role", "type"})


def unused_signs(count: int, *values: Any) -> list[str]:
    """`count` characters that occur nowhere in the values."""
    used = set(_ANY_SIGN.findall(_one_text(values)))
    free = [character for character in SIGNS if character not in used]
    if len(free) < count:
        raise UsageError("the messages hold all of Unicode's noncharacters U+FDD0 to U+FDEF: they are no text")
    return free[:count]


def _one_text(values: Any) -> str:
    """A text in which every character of the values occurs."""
    try:
        return json.dumps(values, ensure_ascii=False)
    except (TypeError, ValueError):  # not plain JSON
        return "\n".join(texts(values))


def texts(value: Any) -> Iterator[str]:
    """Every text in a nested value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(key)
            yield from texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts(item)


class Spellings:
    """How a set of tokens is written: finds them whole, and parts of them at a text's edges."""

    def __init__(self, tokens: tuple[str, ...]):
        self.tokens = sorted({token for token in tokens if token}, key=len, reverse=True)
        long = [token for token in self.tokens if len(token) > 1]
        self.heads = {token[:i] for token in long for i in range(1, len(token))}
        self.tails = {token[i:] for token in long for i in range(1, len(token))}
        self.reach = max(map(len, long), default=1)
        self.tail_begins = {tail[0] for tail in self.tails}
        self.head_ends = {head[-1] for head in self.heads}
        # Leftmost, then longest; and the first characters of all spellings, also of those that overlap.
        self.whole = _pattern(self.tokens)
        begins = _pattern(long)
        self.first = re.compile(f"(?=({begins.pattern}))(.)", re.DOTALL) if begins else None

    def begins_inside(self, text: str) -> bool:
        """Whether the text begins with the rest of a token."""
        if text[:1] not in self.tail_begins:
            return False
        return any(text[:i] in self.tails for i in range(1, min(self.reach, len(text) + 1)))

    def ends_inside(self, text: str) -> bool:
        """Whether the text ends with the beginning of a token."""
        if text[-1:] not in self.head_ends:
            return False
        return any(text[-i:] in self.heads for i in range(1, min(self.reach, len(text) + 1)))

    def found(self, text: str) -> list[str]:
        """The tokens in a text, in order."""
        return self.whole.findall(text) if self.whole else []

    def cut(self, text: str) -> Iterator[tuple[str, bool]]:
        """The pieces of a text in order, and whether each is a token; none is empty."""
        end = 0
        for found in self.whole.finditer(text) if self.whole else ():
            if found.start() > end:
                yield text[end : found.start()], False
            yield found.group(), True
            end = found.end()
        if end < len(text):
            yield text[end:], False


def _pattern(tokens: list[str]) -> re.Pattern | None:
    return re.compile("|".join(map(re.escape, tokens))) if tokens else None


@lru_cache(maxsize=32)
def spellings(tokens: tuple[str, ...]) -> Spellings:
    """The spellings of some tokens; kept, since a tokenizer's tokens are asked for again and again."""
    return Spellings(tokens)


class Units:
    """A text of which each character keeps the guards behind it: places count characters alone."""

    def __init__(self, text: str, guard: str):
        self.each = re.findall(f"(?:^{guard}+)?[^{guard}]{guard}*", text)

    def __getitem__(self, place: int | slice) -> str:
        return "".join(self.each[place])


class Guards:
    """Puts a guard into the control tokens that texts spell.

    Args:
        spelled: the control tokens.
        guard: the character.
        edges: put it also at a text's edge where that holds a part of a control token, of which the rest could stand
            beyond the edge.

    Attributes:
        used: a guard was put somewhere.
        at_edges: an edge needs one.
    """

    def __init__(self, spelled: Spellings, guard: str, edges: bool = False):
        self.spelled, self.guard, self.edges = spelled, guard, edges
        self.used = self.at_edges = False

    def protect(self, value: Any) -> Any:
        """`value` with every text in it protected; keys and structural words only inside."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.inside(str(key)): self._item(key, item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.protect(item) for item in value]
        return value

    def _item(self, key: str, item: Any) -> Any:
        return self.inside(item) if key in STRUCTURE and isinstance(item, str) else self.protect(item)

    def text(self, text: str) -> str:
        """One text, protected inside, and at its edges where asked for."""
        begins, ends = self.spelled.begins_inside(text), self.spelled.ends_inside(text)
        self.at_edges |= begins or ends
        if not self.edges:
            return self.inside(text)
        self.used |= begins or ends
        return self.guard * begins + self.inside(text) + self.guard * ends

    def inside(self, text: str) -> str:
        """One text, protected where it spells a whole token."""
        if self.spelled.whole is None or self.spelled.first is None or not self.spelled.whole.search(text):
            return text
        guarded, count = self.spelled.first.subn(rf"\2{self.guard}", text)
        self.used |= count > 0
        return guarded

    def units(self, text: str) -> Units:
        """The text, to take characters or slices of."""
        return Units(text, self.guard)

    def remove(self, value: Any) -> Any:
        """`value` as it was before."""
        if isinstance(value, str):
            return value.replace(self.guard, "")
        if isinstance(value, Mapping):
            return {self.remove(key): self.remove(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.remove(item) for item in value]
        return value
