"""Cutting a text at matches of a pattern, and what becomes of the matches."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import regex

from groundup.base.errors import CheckpointError, UsageError
from groundup.tokenizers.pipeline.alignment import Span
from groundup.tokenizers.pipeline.oniguruma import compile_pattern
from groundup.tokenizers.pipeline.parts import Json, Part

Marked = tuple[int, int, bool]  # start, end, whether it is a match

SECONDS_PER_MEGABYTE = 120  # of computing time, for a pattern that backtracks without end


@dataclass(frozen=True)
class Pattern:
    """What to look for: a text as it stands, or a regular expression in the dialect of Oniguruma.

    Raises:
        CheckpointError: not a regular expression.
    """

    text: str
    is_regex: bool = True

    def __post_init__(self) -> None:
        self.compiled  # noqa: B018 -- a wrong expression is found when it is read

    @classmethod
    def from_json(cls, part: Part) -> Self:
        """`{"String": ...}` or `{"Regex": ...}`."""
        part.only(String=Any, Regex=Any)
        found = [(kind, part.get(kind, str)) for kind in ("String", "Regex") if kind in part.value]
        if len(found) != 1 or found[0][1] is None:
            raise CheckpointError(f"{part.where}: a Regex or a String is expected")
        try:
            return cls(found[0][1], found[0][0] == "Regex")
        except CheckpointError as error:
            raise CheckpointError(f"{part.where}: {error}") from None

    def to_json(self) -> Json:
        """The object in tokenizer.json."""
        return {"Regex" if self.is_regex else "String": self.text}

    @cached_property
    def compiled(self) -> "regex.Pattern[str]":
        """The expression in the dialect of the `regex` module."""
        return compile_pattern(self.text) if self.is_regex else regex.compile(regex.escape(self.text))

    def spans(self, text: str) -> Iterator[Span]:
        """Where the pattern matches, from left to right; see `matches`."""
        return matches(self.compiled, text)


def matches(pattern: "regex.Pattern[str]", text: str) -> Iterator[Span]:
    """Spans of the matches. An empty match right after another does not count, as in Oniguruma, nor does any in "".

    Raises:
        UsageError: the pattern backtracks without end on this text.
    """
    limit = SECONDS_PER_MEGABYTE * max(0.25, len(text) / 2**20)
    last = -1
    if not text:
        return
    try:
        for match in pattern.finditer(text, timeout=limit):
            start, end = match.span()
            if start < end or start != last:
                yield start, end
            last = end
    except TimeoutError:
        raise UsageError(
            f"the pattern {pattern.pattern!r:.200} takes more than {limit:.0f} seconds "
            f"on a text of {len(text)} characters"
        ) from None


def mark(found: Iterable[Span], size: int) -> Iterator[Marked]:
    """Matches and what lies between them, in order."""
    end = 0
    for start, stop in found:
        if start > end:
            yield end, start, False
        yield start, stop, True
        end = stop
    if end < size:
        yield end, size, False


def _isolated(marked: Iterable[Marked]) -> list[Span]:
    return [(start, end) for start, end, _ in marked]


def _removed(marked: Iterable[Marked]) -> list[Span]:
    return [(start, end) for start, end, is_match in marked if not is_match]


def _contiguous(marked: Iterable[Marked]) -> list[Span]:
    """Neighbouring matches together."""
    spans: list[Span] = []
    previous = False
    for start, end, is_match in marked:
        if is_match == previous and spans:
            spans[-1] = spans[-1][0], end
        else:
            spans.append((start, end))
        previous = is_match
    return spans


def _merged_with_previous(marked: Iterable[Marked]) -> list[Span]:
    """A match belongs to the text before it, unless that is a match too."""
    spans: list[Span] = []
    previous = False
    for start, end, is_match in marked:
        if is_match and not previous and spans:
            spans[-1] = spans[-1][0], end
        else:
            spans.append((start, end))
        previous = is_match
    return spans


def _merged_with_next(marked: Iterable[Marked]) -> list[Span]:
    """A match belongs to the text after it, unless that is a match too."""
    spans: list[Span] = []
    previous = False
    for start, end, is_match in reversed(list(marked)):
        if is_match and not previous and spans:
            spans[-1] = start, spans[-1][1]
        else:
            spans.append((start, end))
        previous = is_match
    return spans[::-1]


BEHAVIORS: dict[str, Callable[[Iterable[Marked]], list[Span]]] = {
    "Removed": _removed,
    "Isolated": _isolated,
    "MergedWithPrevious": _merged_with_previous,
    "MergedWithNext": _merged_with_next,
    "Contiguous": _contiguous,
}


@dataclass(frozen=True)
class Cut:
    """Cuts pieces at the matches of an expression; with `invert` at all that is no match."""

    pattern: "regex.Pattern[str]"
    behavior: str = "Isolated"
    invert: bool = False

    def spans(self, text: str) -> list[Span]:
        """Where the pieces of `text` stand; none is empty."""
        marked = mark(matches(self.pattern, text), len(text))
        if self.invert:
            marked = ((start, end, not is_match) for start, end, is_match in marked)
        return [(start, end) for start, end in BEHAVIORS[self.behavior](marked) if start < end]
