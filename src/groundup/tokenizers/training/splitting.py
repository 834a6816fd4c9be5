"""How a text is cut into the words that a trainer counts: one class a way, each of which JSON describes.

A description goes to another process (`counting`), which cuts as this one does. The words of a long text are those of
its parts, if it is cut before a place that matches `border`.
"""

import base64
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import regex

from groundup.tokenizers.formats.sentencepiece_proto import NormalizerSpec
from groundup.tokenizers.pipeline.normal_forms import normalizer
from groundup.tokenizers.pipeline.normalizers import read_normalizer
from groundup.tokenizers.pipeline.normalizing import Normalizer
from groundup.tokenizers.pipeline.parts import Component, Json, Part, read_component
from groundup.tokenizers.pipeline.pre_tokenizers import PreTokenizer, read_pre_tokenizer, split
from groundup.tokenizers.pretokenize import BEFORE_SPACE, chunks
from groundup.tokenizers.pretokenize import PreTokenizer as Pattern
from groundup.tokenizers.sentencepiece.pieces import LONGEST_WORD, PieceRules, split_words
from groundup.tokenizers.sentencepiece.text import Longest
from groundup.tokenizers.sentencepiece.text import Normalizer as Rules
from groundup.tokenizers.word_cache import WordCache
from groundup.tokenizers.words import SIGNS, cut_words

BEFORE_LINE_END = regex.compile("\n")
STRETCH = regex.compile(r"[ \t\r\n]*+[^ \t\r\n]++|[ \t\r\n]++")  # up to white space, with what is before it


class Splitter(Component):
    """A way to cut."""

    @property
    def border(self) -> "regex.Pattern[str] | None":
        """Before such a place a text may be cut; None: nowhere."""
        return BEFORE_SPACE

    def __call__(self, text: str) -> Iterable[str]:
        """The words of a text, in order."""
        raise NotImplementedError

    def parts(self, text: str, size: int) -> Iterator[str]:
        """A long text in parts of about `size` characters."""
        return iter((text,)) if self.border is None else chunks(text, size, self.border)


@dataclass(frozen=True)
class ByPattern(Splitter):
    """The pieces of byte-level BPE.

    Attributes:
        pattern: a name in `pretokenize.PATTERNS`, or a regular expression.
        normal_form: Unicode normal form applied before.
    """

    pattern: str
    normal_form: str | None = None
    type: ClassVar[str] = "pattern"

    @cached_property
    def cutter(self) -> Pattern:
        """What cuts."""
        return Pattern(self.pattern)

    @property
    def border(self) -> "regex.Pattern[str] | None":
        """A named pattern's pieces do not cross one; of another nothing is known."""
        return BEFORE_SPACE if self.cutter.named else None

    def normalized(self, text: str) -> str:
        """The text in its normal form."""
        return self._normalize(text)

    @cached_property
    def _normalize(self) -> Any:
        return normalizer(self.normal_form) or str

    def __call__(self, text: str) -> Iterable[str]:
        return self.cutter.split(self._normalize(text))


class ByStretch(Splitter):
    """Ways that never look beyond white space.

    Text between spaces repeats itself, so what becomes of each stretch of it is remembered.
    """

    @cached_property
    def _known(self) -> "WordCache[list[str]]":
        return WordCache()

    def __call__(self, text: str) -> Iterable[str]:
        return itertools.chain.from_iterable(map(self._words, STRETCH.findall(text)))

    def _words(self, stretch: str) -> list[str]:
        known = self._known
        found = known.get(stretch)
        return known.keep(stretch, self.cut(stretch)) if found is None else found

    def cut(self, text: str) -> list[str]:
        """The words of a text."""
        raise NotImplementedError


@dataclass(frozen=True)
class ByParts(ByStretch):
    """What a normalizer and a pre-tokenizer of tokenizer.json make of a text; no others than look at words alone."""

    pre_tokenizer: PreTokenizer
    normalizer: Normalizer | None = None
    type: ClassVar[str] = "parts"

    @classmethod
    def from_json(cls, part: Part) -> Self:
        first, second = part.only(pre_tokenizer=Any, normalizer=Any).part("pre_tokenizer"), part.part("normalizer")
        assert first is not None
        return cls(read_pre_tokenizer(first), None if second is None else read_normalizer(second))

    @cached_property
    def _steps(self) -> Any:
        return list(self.pre_tokenizer.steps())

    def __call__(self, text: str) -> Iterable[str]:
        return super().__call__(text) if self.normalizer else self.cut(text)  # a plain cut is quicker than to look up

    def cut(self, text: str) -> list[str]:
        return split(self._steps, self.normalizer.apply(text) if self.normalizer else text, first=True)


@dataclass(frozen=True)
class BySigns(ByStretch):
    """Words and signs (`words.cut_words`).

    Attributes:
        signs: regular expression of what is a word by itself.
    """

    signs: str = SIGNS
    type: ClassVar[str] = "signs"

    def cut(self, text: str) -> list[str]:
        return cut_words(text, self.signs)


@dataclass(frozen=True)
class BySentence(Splitter):
    """SentencePiece's way: each line is normalized, its spaces become U+2581, and words are what no piece crosses.

    Attributes:
        spec: how lines are normalized.
        rules: which substrings may be pieces.
        symbols: of the user: found before normalization.
        apart: spellings that are borders between words: symbols and special tokens.
    """

    spec: NormalizerSpec
    rules: PieceRules
    symbols: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    type: ClassVar[str] = "sentence"

    @classmethod
    def from_json(cls, part: Part) -> Self:
        spec = NormalizerSpec.read(base64.b64decode(part.required("spec", str)), part.where)
        symbols, apart = (tuple(part.required(name, list)) for name in ("symbols", "apart"))
        return cls(spec, PieceRules(**part.required("rules", dict)), symbols, apart)

    def to_json(self) -> Json:
        """The map of rules as it is: to compile it takes seconds."""
        spec = base64.b64encode(self.spec.write()).decode("ascii")
        lists = {"symbols": list(self.symbols), "apart": list(self.apart)}
        return {"type": self.type, "spec": spec, "rules": asdict(self.rules), **lists}

    @property
    def border(self) -> "regex.Pattern[str] | None":
        """A line is a sentence."""
        return BEFORE_LINE_END

    @cached_property
    def _normalize(self) -> Rules:
        return Rules(self.spec, self.symbols, self.rules.suffix)

    @cached_property
    def _apart(self) -> Longest:
        return Longest(self.apart)

    def __call__(self, text: str) -> Iterator[str]:
        for line in text.split("\n"):
            words = split_words(self._normalize(line), self.rules)
            if self.apart:
                words = [part for word in words for part in self._apart.cut_out(word)]
            for word in words:
                if 0 < len(word) <= LONGEST_WORD:
                    yield word
                else:
                    yield from (word[i : i + LONGEST_WORD] for i in range(0, len(word), LONGEST_WORD))


SPLITTERS: dict[str, type[Component]] = {kind.type: kind for kind in (ByPattern, ByParts, BySigns, BySentence)}


def read_splitter(description: Json) -> Splitter:
    """The splitter of a description (`to_json`)."""
    return read_component(Part(description, "splitter"), SPLITTERS, "splitter")
