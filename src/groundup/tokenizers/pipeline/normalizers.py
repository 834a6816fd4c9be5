"""What is done to a text before it is cut: case, accents, spaces, replacements, Unicode normal forms.

Each normalizer is a small dataclass (see `normalizing`); `Sequence` joins several.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, cast

from groundup.tokenizers.byte_symbols import to_symbols
from groundup.tokenizers.pipeline.alignment import Traced
from groundup.tokenizers.pipeline.cutting import Pattern
from groundup.tokenizers.pipeline.normal_forms import NormalForm, normalize, trace_form
from groundup.tokenizers.pipeline.normalizing import Normalizer, PerCharacter, apply_all, trace_all
from groundup.tokenizers.pipeline.parts import Component, Json, Part, read_component
from groundup.tokenizers.pipeline.precompiled import Precompiled
from groundup.tokenizers.pipeline.unicode_classes import CHINESE, CONTROL, MARK, NONSPACING, SPACE, WHITE_SPACE


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
        return trace_form(cast(NormalForm, self.type), text)


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
        return apply_all(self._steps, text)

    def trace(self, text: str, first: bool = True) -> Traced:
        return trace_all(self._steps, text)


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
        return apply_all(self.normalizers, text)

    def trace(self, text: str, first: bool = True) -> Traced:
        return trace_all(self.normalizers, text)


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
