"""Cutting a normalized text into pieces that no token crosses, as tokenizer.json describes it.

Each pre-tokenizer is a row of steps: cuts, and changes of pieces (spaces made visible, bytes spelled as characters).
`split` runs them over a text alone, `split_aligned` over a text whose characters know where they come from.
"""

from collections.abc import Sequence as Row
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Self

import regex

from groundup.base.errors import CheckpointError
from groundup.tokenizers.pipeline import normalizers
from groundup.tokenizers.pipeline.alignment import Aligned, Span, Traced, Transform
from groundup.tokenizers.pipeline.cutting import BEHAVIORS, Cut, Pattern
from groundup.tokenizers.pipeline.parts import Component, Json, Part, read_component
from groundup.tokenizers.pipeline.unicode_classes import NO_SCRIPT, NUMERIC, PUNCTUATION, SPACE, WORD_OR_SIGNS
from groundup.tokenizers.pretokenize import PATTERNS

Prepend = Literal["first", "never", "always"]


class Cutter:
    """Cuts pieces in a way that no expression describes."""

    def spans(self, text: str) -> list[Span]:
        """Where the pieces of `text` stand; none is empty."""
        raise NotImplementedError


Step = Cut | Cutter | Transform


def split(steps: Row[Step], text: str, first: bool) -> list[str]:
    """The pieces of `text`; `first`: it begins the whole text."""
    pieces = [text]
    for step in steps:
        if isinstance(step, Cut | Cutter):
            spans = step.spans(pieces[0]) if pieces else []
            first = first and bool(spans) and spans[0][0] == 0
            cut = [pieces[0][start:end] for start, end in spans]
            cut += [piece[start:end] for piece in pieces[1:] for start, end in step.spans(piece)]
            pieces = cut
        else:
            pieces = [step.apply(piece, first and place == 0) for place, piece in enumerate(pieces)]
    return pieces


def split_aligned(steps: Row[Step], text: Aligned) -> list[Aligned]:
    """The pieces of `text`, which know where they come from."""
    pieces = [text]
    for step in steps:
        if isinstance(step, Cut | Cutter):
            pieces = [piece.slice(start, end) for piece in pieces for start, end in step.spans(piece.text)]
        else:
            pieces = [piece.through(step) for piece in pieces]
    return pieces


class PreTokenizer(Component):
    """A row of steps."""

    def steps(self) -> Row[Step]:
        """What is done, in order."""
        raise NotImplementedError

    @property
    def asks_where(self) -> bool:
        """Whether a piece is treated otherwise at the begin of the text."""
        return any(isinstance(step, PrefixUnlessThere) and step.scheme == "first" for step in self.steps())


@dataclass(frozen=True)
class PrefixUnlessThere:
    """Puts a prefix in front of a piece that does not begin with it: of each, or of the first of the text."""

    prefix: str
    scheme: Prepend = "always"

    def _wanted(self, text: str, first: bool) -> bool:
        return bool(text) and not text.startswith(self.prefix) and (self.scheme == "always" or first)

    def apply(self, text: str, first: bool) -> str:
        """The piece with the prefix."""
        return self.prefix + text if self._wanted(text, first) else text

    def trace(self, text: str, first: bool) -> Traced:
        """The piece with the prefix, which stands where the first character does."""
        if not self._wanted(text, first):
            return text, range(len(text))
        return self.prefix + text, [*[0] * len(self.prefix), *range(len(text))]


_GPT2 = Cut(regex.compile(PATTERNS["gpt2"]))


@dataclass(frozen=True)
class ByteLevel(PreTokenizer):
    """GPT-2's: pieces by its pattern, their bytes spelled as visible characters."""

    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: bool = True
    type = "ByteLevel"

    def steps(self) -> Row[Step]:
        prefix = [PrefixUnlessThere(" ")] if self.add_prefix_space else []
        return [*prefix, *([_GPT2] if self.use_regex else []), normalizers.ByteLevel()]


def _checked(behavior: str, part: Part) -> None:
    if behavior not in BEHAVIORS:
        raise part.unsupported(f"`behavior` = {behavior!r:.80}")


@dataclass(frozen=True)
class Split(PreTokenizer):
    """Cuts at a pattern."""

    pattern: Pattern
    behavior: str = "Isolated"
    invert: bool = False
    type = "Split"

    @classmethod
    def from_json(cls, part: Part) -> Self:
        _checked(part.get("behavior", str, "Isolated"), part)
        return super().from_json(part)

    def steps(self) -> Row[Step]:
        return [Cut(self.pattern.compiled, self.behavior, self.invert)]


@dataclass(frozen=True)
class Whitespace(PreTokenizer):
    r"""Words (`\w+`) and runs of other signs; white space is dropped."""

    type = "Whitespace"

    def steps(self) -> Row[Step]:
        return [Cut(WORD_OR_SIGNS, "Removed", invert=True)]


@dataclass(frozen=True)
class WhitespaceSplit(PreTokenizer):
    """What stands between white space."""

    type = "WhitespaceSplit"

    def steps(self) -> Row[Step]:
        return [Cut(SPACE, "Removed")]


@dataclass(frozen=True)
class BertPreTokenizer(PreTokenizer):
    """What stands between white space, each punctuation sign apart."""

    type = "BertPreTokenizer"

    def steps(self) -> Row[Step]:
        return [Cut(SPACE, "Removed"), Cut(PUNCTUATION)]


@dataclass(frozen=True)
class Digits(PreTokenizer):
    """Numbers apart, whole or digit by digit."""

    individual_digits: bool = False
    type = "Digits"

    def steps(self) -> Row[Step]:
        return [Cut(NUMERIC, "Isolated" if self.individual_digits else "Contiguous")]


@dataclass(frozen=True)
class Punctuation(PreTokenizer):
    """Cuts at punctuation."""

    behavior: str = "Isolated"
    type = "Punctuation"

    @classmethod
    def from_json(cls, part: Part) -> Self:
        _checked(part.get("behavior", str, "Isolated"), part)
        return super().from_json(part)

    def steps(self) -> Row[Step]:
        return [Cut(PUNCTUATION, self.behavior)]


def _one_character(value: str, name: str, part: Part) -> None:
    if len(value) != 1:
        raise CheckpointError(f"{part.where}.{name}: one character is expected, found {value!r:.80}")


@dataclass(frozen=True)
class CharDelimiterSplit(PreTokenizer):
    """What stands between a character."""

    delimiter: str
    type = "CharDelimiterSplit"

    @classmethod
    def from_json(cls, part: Part) -> Self:
        _one_character(part.required("delimiter", str), "delimiter", part)
        return super().from_json(part)

    def steps(self) -> Row[Step]:
        return [Cut(regex.compile(regex.escape(self.delimiter)), "Removed")]


@dataclass(frozen=True)
class Metaspace(PreTokenizer):
    """SentencePiece's: spaces become a visible sign, one is put in front, and a piece begins at each.

    Older files have `add_prefix_space` for `prepend_scheme`, and `str_rep`, which repeats `replacement`.
    """

    replacement: str = "\u2581"
    prepend_scheme: str = "always"
    split: bool = True
    type = "Metaspace"
    legacy = ("add_prefix_space", "str_rep")

    @classmethod
    def from_json(cls, part: Part) -> Self:
        made = super().from_json(part)
        _one_character(made.replacement, "replacement", part)
        if made.prepend_scheme not in ("first", "never", "always"):
            raise part.unsupported(f"`prepend_scheme` = {made.prepend_scheme!r:.80}")
        if part.get("add_prefix_space", bool, True):
            return made
        if part.get("prepend_scheme", str, "never") != "never":
            raise part.unsupported(f"`add_prefix_space` = False beside `prepend_scheme` = {made.prepend_scheme!r}")
        return cls(made.replacement, "never", made.split)

    def steps(self) -> Row[Step]:
        steps: list[Step] = [normalizers.Replace(Pattern(" ", is_regex=False), self.replacement)]
        if self.prepend_scheme != "never":
            steps.append(PrefixUnlessThere(self.replacement, "first" if self.prepend_scheme == "first" else "always"))
        if self.split:
            steps.append(Cut(regex.compile(regex.escape(self.replacement)), "MergedWithNext"))
        return steps


# Scripts that the library tells apart; characters of others, and unassigned ones, belong anywhere.
_SCRIPTS = (
    "Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali Bhaiksuki "
    "Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee "
    "Common Coptic Cuneiform Cypriot Cyrillic Deseret Devanagari Duployan Egyptian_Hieroglyphs Elbasan Ethiopic "
    "Georgian Glagolitic Gothic Grantha Greek Gujarati Gurmukhi Han Hangul Hanunoo Hatran Hebrew Hiragana "
    "Imperial_Aramaic Inherited Inscriptional_Pahlavi Inscriptional_Parthian Javanese Kaithi Kannada Katakana "
    "Kayah_Li Kharoshthi Khmer Khojki Khudawadi Lao Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian "
    "Mahajani Malayalam Mandaic Manichaean Marchen Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs "
    "Miao Modi Mongolian Mro Multani Myanmar Nabataean New_Tai_Lue Newa Nko Ogham Ol_Chiki Old_Hungarian Old_Italic "
    "Old_North_Arabian Old_Permic Old_Persian Old_South_Arabian Old_Turkic Oriya Osage Osmanya Pahawh_Hmong "
    "Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic Samaritan Saurashtra Sharada Shavian "
    "Siddham SignWriting Sinhala Sora_Sompeng Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le Tai_Tham "
    "Tai_Viet Takri Tamil Tangut Telugu Thaana Thai Tibetan Tifinagh Tirhuta Ugaritic Vai Warang_Citi Yi "
)


_OTHERWISE = {"\u0589": "Common", "\u061c": "Common", "\u0953": "Devanagari", "\u0954": "Devanagari"}


@lru_cache(maxsize=1)
def _scripts() -> "regex.Pattern[str]":
    return regex.compile("|".join(f"(?P<{name}>\\p{{Script={name}}})" for name in _SCRIPTS.split()))


@lru_cache(maxsize=2**16)
def _script(character: str) -> str | None:
    """The script of a character; None for one that fits to any. Kana count as Han, as SentencePiece has it."""
    if character == " " or NO_SCRIPT.match(character):
        return None
    found = _scripts().match(character)
    name = _OTHERWISE.get(character) or (found.lastgroup if found else None)
    return "Han" if name in ("Hiragana", "Katakana") or character == "\u30fc" else name


class _ScriptChanges(Cutter):
    def spans(self, text: str) -> list[Span]:
        starts, last = [], ""
        for place, character in enumerate(text):
            script = _script(character)
            if script is None:
                continue
            if script != last:
                starts.append(place)
            last = script
        # As in the library: what stands before the first character of a script is dropped.
        return list(zip(starts, [*starts[1:], len(text)], strict=False))


@dataclass(frozen=True)
class UnicodeScripts(PreTokenizer):
    """Cuts where the script changes."""

    type = "UnicodeScripts"

    def steps(self) -> Row[Step]:
        return [_ScriptChanges()]


@dataclass(frozen=True)
class _Length(Cutter):
    length: int

    def spans(self, text: str) -> list[Span]:
        return [(start, min(start + self.length, len(text))) for start in range(0, len(text), self.length)]


@dataclass(frozen=True)
class FixedLength(PreTokenizer):
    """Pieces of so many characters."""

    length: int = 5
    type = "FixedLength"

    @classmethod
    def from_json(cls, part: Part) -> Self:
        made = super().from_json(part)
        if made.length < 1:
            raise CheckpointError(f"{part.where}.length: a number from 1 on is expected, found {made.length}")
        return made

    def steps(self) -> Row[Step]:
        return [_Length(self.length)]


@dataclass(frozen=True)
class Sequence(PreTokenizer):
    """One after the other."""

    pretokenizers: tuple[PreTokenizer, ...]
    type = "Sequence"

    @classmethod
    def from_json(cls, part: Part) -> Self:
        part.only(pretokenizers=Any)
        return cls(tuple(read_pre_tokenizer(item) for item in part.parts("pretokenizers")))

    def to_json(self) -> Json:
        return {"type": self.type, "pretokenizers": [item.to_json() for item in self.pretokenizers]}

    def steps(self) -> Row[Step]:
        return [step for item in self.pretokenizers for step in item.steps()]


PRE_TOKENIZERS: dict[str, type[Component]] = {
    kind.type: kind
    for kind in (
        ByteLevel, Split, Whitespace, WhitespaceSplit, Metaspace, BertPreTokenizer, Digits, Punctuation,
        CharDelimiterSplit, UnicodeScripts, FixedLength, Sequence,
    )
}  # fmt: skip


def read_pre_tokenizer(part: Part) -> PreTokenizer:
    """The pre-tokenizer that `part` describes.

    Raises:
        CheckpointError: a kind that is not known, or wrong settings.
    """
    return read_component(part, PRE_TOKENIZERS, "pre-tokenizer")
