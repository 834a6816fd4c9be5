"""What is done to a text before it is cut: Unicode normal forms (Unicode Standard Annex 15), case, accents, spaces.

Each normalizer can be asked in two ways: `apply` gives the new text, quickly; `trace` also tells for each new character
which old one it stems from, for offsets. Both give the same text.
"""

import base64
import binascii
import itertools
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Any, ClassVar, Literal, Self, cast, get_args

import regex

from groundup.base.errors import CheckpointError
from groundup.tokenizers.byte_symbols import to_symbols
from groundup.tokenizers.pipeline.alignment import Traced, follow
from groundup.tokenizers.pipeline.charsmap import CharsMap
from groundup.tokenizers.pipeline.cutting import Pattern
from groundup.tokenizers.pipeline.parts import Component, Json, Part, read_component
from groundup.tokenizers.pipeline.unicode_classes import CHINESE, CONTROL, MARK, NONSPACING, SPACE, WHITE_SPACE

NormalForm = Literal["NFC", "NFD", "NFKC", "NFKD"]
FORMS: tuple[str, ...] = get_args(NormalForm)

_LONG_RUN = regex.compile(r"\p{M}{32,}+")


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


class Normalizer(Component):
    """A change of the whole text."""

    def apply(self, text: str, first: bool = True) -> str:
        """The new text. `first` has no meaning here: it tells pre-tokenizers whether a piece begins the text."""
        return self.trace(text, first)[0]

    def trace(self, text: str, first: bool = True) -> Traced:
        """The new text, and for each of its characters the place of the old one it stems from (-1: none)."""
        raise NotImplementedError


class _Spellings(dict[int, str]):
    """What becomes of each character, worked out at its first sight; a table for `str.translate`."""

    def __init__(self, spell: Callable[[str], str]):
        super().__init__()
        self._spell = spell

    def __missing__(self, code: int) -> str:
        self[code] = spelled = self._spell(chr(code))
        return spelled


class PerCharacter(Normalizer):
    """Each character becomes other characters, or none, whatever stands beside it."""

    def spell(self, character: str) -> str:
        """What `character` becomes."""
        raise NotImplementedError

    @cached_property
    def _table(self) -> _Spellings:
        return _Spellings(self.spell)

    def apply(self, text: str, first: bool = True) -> str:
        return text.translate(self._table)

    def trace(self, text: str, first: bool = True) -> Traced:
        table = self._table
        spelled = [table[ord(character)] for character in text]
        return "".join(spelled), [place for place, new in enumerate(spelled) for _ in new]


@dataclass(frozen=True)
class Lowercase(PerCharacter):
    """Lower case, character by character: a sigma at the end of a word is like any other."""

    type = "Lowercase"

    def spell(self, character: str) -> str:
        return character.lower()


@dataclass(frozen=True)
class StripAccents(PerCharacter):
    """Removes marks; those inside of composed letters stay, unless NFD went before."""

    type = "StripAccents"

    def spell(self, character: str) -> str:
        return "" if MARK.match(character) else character


_NMT_REMOVED = frozenset(map(chr, [*range(0x01, 0x09), 0x0B, *range(0x0E, 0x20), 0x7F, 0x8F, 0x9F]))
_NMT_SPACES = frozenset("\t\n\x0c\r\u1680\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u2581\ufeff\ufffd")


@dataclass(frozen=True)
class Nmt(PerCharacter):
    """SentencePiece's cleaning for translation: controls are removed, and unusual spaces become spaces."""

    type = "Nmt"

    def spell(self, character: str) -> str:
        if character in _NMT_REMOVED:
            return ""
        return " " if character in _NMT_SPACES else character


@dataclass(frozen=True)
class ByteLevel(PerCharacter):
    """The bytes of UTF-8, spelled as visible characters."""

    type = "ByteLevel"

    def spell(self, character: str) -> str:
        return to_symbols(character.encode("utf-8"))


class _Cleaned(PerCharacter):
    """BERT's cleaning: controls are removed, and every white space becomes a space."""

    def spell(self, character: str) -> str:
        if character in "\t\n\r":
            return " "
        if character in "\x00\ufffd" or CONTROL.match(character):
            return ""
        return " " if SPACE.match(character) else character


class _ChineseApart(PerCharacter):
    """Spaces around Chinese characters, so that each is a word."""

    def spell(self, character: str) -> str:
        return f" {character} " if CHINESE.match(character) else character


class _WithoutNonspacing(PerCharacter):
    def spell(self, character: str) -> str:
        return "" if NONSPACING.match(character) else character


@dataclass(frozen=True)
class _Form(Normalizer):
    """A Unicode normal form."""

    def apply(self, text: str, first: bool = True) -> str:
        return normalize(cast(NormalForm, self.type), text)

    def trace(self, text: str, first: bool = True) -> Traced:
        # Only a character outside of ASCII, and one before it, can change.
        parts, sources, end = [], [], 0
        for match in _NOT_ASCII.finditer(text):
            start, stop = match.span()
            new, places = _trace_form(self.type, match.group())
            parts += [text[end:start], new]
            sources.extend(range(end, start))
            sources.extend(place + start for place in places)
            end = stop
        parts.append(text[end:])
        sources.extend(range(end, len(text)))
        return "".join(parts), sources


class NFC(_Form):
    """Composed."""

    type = "NFC"


class NFD(_Form):
    """Decomposed."""

    type = "NFD"


class NFKC(_Form):
    """Composed, and compatible forms made equal."""

    type = "NFKC"


class NFKD(_Form):
    """Decomposed, and compatible forms made equal."""

    type = "NFKD"


_NOT_ASCII = regex.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")


def _trace_form(form: str, text: str) -> tuple[str, Iterable[int]]:
    if normalize(cast(NormalForm, form), text) == text:
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


@dataclass(frozen=True)
class BertNormalizer(Normalizer):
    """BERT's: cleaning, spaces around Chinese characters, accents stripped (None: as `lowercase` says), lower case."""

    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool | None = None
    lowercase: bool = True
    type = "BertNormalizer"

    @cached_property
    def _steps(self) -> "list[Normalizer]":
        accents = self.lowercase if self.strip_accents is None else self.strip_accents
        steps = [
            (self.clean_text, [_Cleaned()]),
            (self.handle_chinese_chars, [_ChineseApart()]),
            (accents, [NFD(), _WithoutNonspacing()]),
            (self.lowercase, [Lowercase()]),
        ]
        return [step for wanted, chosen in steps if wanted for step in chosen]

    def apply(self, text: str, first: bool = True) -> str:
        return _apply_all(self._steps, text)

    def trace(self, text: str, first: bool = True) -> Traced:
        return _trace_all(self._steps, text)


@dataclass(frozen=True)
class Strip(Normalizer):
    """Removes white space at the ends."""

    strip_left: bool = True
    strip_right: bool = True
    type = "Strip"

    def apply(self, text: str, first: bool = True) -> str:
        text = text.lstrip(WHITE_SPACE) if self.strip_left else text
        return text.rstrip(WHITE_SPACE) if self.strip_right else text

    def trace(self, text: str, first: bool = True) -> Traced:
        left = len(text) - len(text.lstrip(WHITE_SPACE)) if self.strip_left else 0
        new = self.apply(text)
        return new, range(left, left + len(new))


@dataclass(frozen=True)
class Prepend(Normalizer):
    """Puts something in front of a text that is not empty."""

    prepend: str
    type = "Prepend"

    def apply(self, text: str, first: bool = True) -> str:
        return self.prepend + text if text else text

    def trace(self, text: str, first: bool = True) -> Traced:
        added = len(self.prepend) if text else 0
        return self.apply(text), [*[0] * added, *range(len(text))]


@dataclass(frozen=True)
class Replace(Normalizer):
    """Puts `content` in the place of each match."""

    pattern: Pattern
    content: str
    type = "Replace"

    def apply(self, text: str, first: bool = True) -> str:
        if not self.pattern.is_regex and self.pattern.text:
            return text.replace(self.pattern.text, self.content)
        return self.trace(text)[0]

    def trace(self, text: str, first: bool = True) -> Traced:
        parts: list[str] = []
        sources: list[int] = []
        end = 0
        for start, stop in self.pattern.spans(text):
            parts += [text[end:start], self.content]
            sources.extend(range(end, start))
            sources.extend([stop - 1] * len(self.content))
            end = stop
        parts.append(text[end:])
        sources.extend(range(end, len(text)))
        return "".join(parts), sources


@dataclass(frozen=True)
class Precompiled(Normalizer):
    """SentencePiece's table of replacements, applied to grapheme clusters as the `tokenizers` library does.

    A cluster of up to five bytes is replaced as a whole by what the shortest key it begins with stands for; in others
    each character is replaced on its own.
    """

    precompiled_charsmap: str = field(repr=False)
    type = "Precompiled"
    LONGEST: ClassVar[int] = 5

    @classmethod
    def from_json(cls, part: Part) -> Self:
        made = super().from_json(part)
        try:
            made._map  # noqa: B018
        except CheckpointError as error:
            raise CheckpointError(f"{part.where}: {error}") from None
        return made

    @cached_property
    def _map(self) -> CharsMap | None:
        if not self.precompiled_charsmap:
            return None
        try:
            return CharsMap(base64.b64decode(self.precompiled_charsmap, validate=True))
        except (binascii.Error, ValueError) as error:
            raise CheckpointError(f"precompiled_charsmap is not base64: {error}") from None

    @cached_property
    def _known(self) -> dict[str, list[tuple[str, str]]]:
        return {}

    def _replaced(self, cluster: str) -> list[tuple[str, str]]:
        """(old, new) parts of a cluster."""
        assert self._map is not None
        if len(whole := cluster.encode("utf-8")) <= self.LONGEST:
            found = self._map.shortest(whole)
            if found is not None:
                return [(cluster, found)]
        parts = [(character, self._map.shortest(character.encode("utf-8"))) for character in cluster]
        return [(old, old if new is None else new) for old, new in parts]

    def _parts(self, text: str) -> Iterator[tuple[str, str]]:
        known = self._known
        for cluster in _CLUSTER.findall(text):
            parts = known.get(cluster)
            if parts is None:
                parts = self._replaced(cluster)
                if len(cluster) <= self.LONGEST and len(known) < 2**16:
                    known[cluster] = parts
            yield from parts

    def apply(self, text: str, first: bool = True) -> str:
        return text if self._map is None else "".join(new for _, new in self._parts(text))

    def trace(self, text: str, first: bool = True) -> Traced:
        if self._map is None:
            return text, range(len(text))
        changes: list[int] = []
        parts = list(self._parts(text))
        for old, new in parts:
            grown = len(new) - len(old)
            changes.extend([0] * (len(new) - max(grown, 0)) + [1] * max(grown, 0))
            if grown < 0 and changes:
                changes[-1] += grown
        return "".join(new for _, new in parts), follow(changes, len(text))


_CLUSTER = regex.compile(r"\X")


@dataclass(frozen=True)
class Sequence(Normalizer):
    """One after the other."""

    normalizers: tuple[Normalizer, ...]
    type = "Sequence"

    @classmethod
    def from_json(cls, part: Part) -> Self:
        part.only(normalizers=Any)
        return cls(tuple(read_normalizer(item) for item in part.parts("normalizers")))

    def to_json(self) -> Json:
        return {"type": self.type, "normalizers": [item.to_json() for item in self.normalizers]}

    def apply(self, text: str, first: bool = True) -> str:
        return _apply_all(self.normalizers, text)

    def trace(self, text: str, first: bool = True) -> Traced:
        return _trace_all(self.normalizers, text)


def _apply_all(steps: Iterable[Normalizer], text: str) -> str:
    for step in steps:
        text = step.apply(text)
    return text


def _trace_all(steps: Iterable[Normalizer], text: str) -> Traced:
    sources: Any = range(len(text))
    for step in steps:
        text, places = step.trace(text)
        sources = [sources[place] if place >= 0 else -1 for place in places]
    return text, sources


NORMALIZERS: dict[str, type[Component]] = {
    kind.type: kind
    for kind in (
        NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, BertNormalizer, Replace, Prepend, Strip, Nmt, Precompiled,
        ByteLevel, Sequence,
    )
}  # fmt: skip


def read_normalizer(part: Part) -> Normalizer:
    """The normalizer that `part` describes.

    Raises:
        CheckpointError: a kind that is not known, or wrong settings.
    """
    return read_component(part, NORMALIZERS, "normalizer")
