"""Unicode normal forms (Unicode Standard Annex 15), in linear time, and where each character of the result comes from.

`normalize` asks Python. `trace_form` composes and decomposes step by step, which tells what became of each character.
"""

import itertools
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Literal, cast, get_args

import regex

from groundup.tokenizers.pipeline.alignment import Traced, follow

NormalForm = Literal["NFC", "NFD", "NFKC", "NFKD"]
FORMS: tuple[str, ...] = get_args(NormalForm)

_LONG_RUN = regex.compile(r"\p{M}{32,}+")
_NOT_ASCII = regex.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")


def normalizer(form: str | None) -> Callable[[str], str] | None:
    """The function for a form's name; None for None."""
    return None if form is None else partial(normalize, cast(NormalForm, form))


def normalize(form: NormalForm, text: str) -> str:
    """`text` in a Unicode normal form, in time that grows about linearly.

    CPython sorts the marks after a letter by insertion, which is quadratic: long runs are put in canonical order first.
    """
    if text.isascii():
        return text
    return unicodedata.normalize(form, _LONG_RUN.sub(_in_canonical_order, text))


def _in_canonical_order(match: "regex.Match[str]") -> str:
    marks = "".join(unicodedata.normalize("NFD", mark) for mark in match.group())
    ordered: list[str] = []
    # A character of class 0 stands still, and nothing moves across it.
    for _, piece in itertools.groupby(marks, key=lambda mark: unicodedata.combining(mark) == 0):
        ordered.extend(sorted(piece, key=unicodedata.combining))
    return "".join(ordered)


def trace_form(form: NormalForm, text: str) -> Traced:
    """`normalize`, and for each new character the place of the old one it stems from."""
    # Only a character outside of ASCII, and one before it, can change.
    parts, sources, end = [], [], 0
    for match in _NOT_ASCII.finditer(text):
        start, stop = match.span()
        new, places = _trace_stretch(form, match.group())
        parts += [text[end:start], new]
        sources.extend(range(end, start))
        sources.extend(place + start for place in places)
        end = stop
    parts.append(text[end:])
    sources.extend(range(end, len(text)))
    return "".join(parts), sources


def _trace_stretch(form: NormalForm, text: str) -> tuple[str, Iterable[int]]:
    if normalize(form, text) == text:
        return text, range(len(text))
    pieces = _decomposed("NFKD" if "K" in form else "NFD", text)
    composed = list(_composed(pieces) if form in ("NFC", "NFKC") else pieces)
    return "".join(character for character, _ in composed), follow((change for _, change in composed), len(text))


def _decomposed(form: NormalForm, text: str) -> Iterator[tuple[str, int]]:
    """Characters of the decomposed text in canonical order, each with its change (see `alignment.follow`)."""
    waiting: list[tuple[int, str, int]] = []
    for character in text:
        for place, part in enumerate(unicodedata.normalize(form, character)):
            order = unicodedata.combining(part)
            if order == 0:
                yield from _in_order(waiting)
                waiting = []
            waiting.append((order, part, int(place > 0)))
    yield from _in_order(waiting)


def _in_order(waiting: list[tuple[int, str, int]]) -> Iterator[tuple[str, int]]:
    return ((part, change) for _, part, change in sorted(waiting, key=lambda entry: entry[0]))


def _composed(pieces: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Canonical composition: a mark joins the starter before it, if none of the same or a higher class is between."""
    starter: tuple[str, int] | None = None
    after: list[tuple[str, int]] = []  # what follows the starter and did not join it
    last = 0  # the class of the last of these
    for part, change in pieces:
        order = unicodedata.combining(part)
        if starter is None:
            if order:
                yield part, change
            else:
                starter = part, change
            continue
        joined = _compose(starter[0], part) if not after or (order > last and order) else None
        if joined:
            starter = joined, starter[1] + change - 1
        elif order:
            after.append((part, change))
            last = order
        else:
            yield starter
            yield from after
            starter, after, last = (part, change), [], 0
    if starter is not None:
        yield starter
    yield from after


@lru_cache(maxsize=2**16)
def _compose(first: str, second: str) -> str | None:
    both = unicodedata.normalize("NFC", first + second)
    return both if len(both) == 1 else None
