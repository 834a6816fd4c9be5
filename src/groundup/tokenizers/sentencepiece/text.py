"""Text on its way into SentencePiece: normalization rules, user-defined symbols, spaces as U+2581."""

import re
from collections.abc import Iterable

from groundup.tokenizers.formats.sentencepiece_proto import NormalizerSpec
from groundup.tokenizers.pipeline.charsmap import read_charsmap

SPACE = "\u2581"  # LOWER ONE EIGHTH BLOCK: how a space looks inside pieces
_SPACES = re.compile(" {2,}")
_NEVER = re.compile("(?!)")


class Longest:
    """The longest of some spellings at a place; `pattern` is a regular expression for the same."""

    def __init__(self, spellings: Iterable[str]):
        self.spellings = frozenset(spellings)
        self.pattern = "|".join(re.escape(spelling) for spelling in sorted(self.spellings, key=len, reverse=True))
        if self.spellings:  # most places are told by their first character
            self.pattern = f"(?=[{''.join(re.escape(spelling[0]) for spelling in self.spellings)}])(?:{self.pattern})"
        self._compiled = re.compile(self.pattern) if self.spellings else _NEVER

    def at(self, text: str, place: int) -> str | None:
        """The longest spelling that stands at `place`, or None."""
        match = self._compiled.match(text, place)
        return match.group() if match else None

    def parts(self, text: str) -> list[str]:
        """`text` in characters, but spellings whole."""
        if not self.spellings:
            return list(text)
        parts: list[str] = []
        end = 0
        for match in self._compiled.finditer(text):
            parts.extend(text[end : match.start()])
            parts.append(match.group())
            end = match.end()
        return parts + list(text[end:])

    def cut_out(self, text: str) -> list[str]:
        """What is left of `text` between the spellings."""
        return [part for part in self._compiled.split(text) if part]


class Normalizer:
    """Rules, then white space, as a `NormalizerSpec` says; symbols of the user stay as they are."""

    def __init__(self, spec: NormalizerSpec, symbols: Iterable[str] = (), suffix: bool = False):
        self.spec, self.suffix = spec, suffix
        self.space = SPACE if spec.escape_whitespaces else " "
        self._symbols = Longest(symbols)
        self._rules = read_charsmap(spec.precompiled_charsmap)
        starts = [self._symbols.pattern] if self._symbols.spellings else []
        starts += [self._rules.starts.pattern] if self._rules else []
        self._starts = re.compile("|".join(starts)) if starts else _NEVER

    def __call__(self, text: str) -> str:
        """The normalized text."""
        parts = self._parts(text)
        if self.spec.remove_extra_whitespaces:
            if all(part == " " for part in parts):
                return ""
            parts = _without_repeated_spaces(parts)
        shown = "".join(parts).replace(" ", self.space)
        prefixed = text and self.spec.add_dummy_prefix
        if prefixed and not self.suffix:
            shown = self.space + shown
        if self.spec.remove_extra_whitespaces:
            shown = shown.rstrip(self.space)
        return shown + self.space if prefixed and self.suffix else shown

    def _parts(self, text: str) -> list[str]:
        """Stretches of unchanged text, and between them what rules make of a place (and symbols) one by one."""
        parts: list[str] = []
        end = 0
        match = self._starts.search(text)
        while match:
            place = match.start()
            if place > end:
                parts.append(self._unchanged(text[end:place]))
            part, size = self._changed(text, place)
            parts.append(part)
            end = place + size
            match = self._starts.search(text, end)
        if end < len(text):
            parts.append(self._unchanged(text[end:]))
        return parts

    def _unchanged(self, stretch: str) -> str:
        return _SPACES.sub(" ", stretch) if self.spec.remove_extra_whitespaces else stretch

    def _changed(self, text: str, place: int) -> tuple[str, int]:
        """What stands for the text at `place`, and how many characters it stands for."""
        symbol = self._symbols.at(text, place)
        if symbol is not None:
            return symbol, len(symbol)
        rule = self._rules.longest(text, place) if self._rules else None
        return (text[place], 1) if rule is None else (rule[1], rule[0])


def _without_repeated_spaces(parts: list[str]) -> list[str]:
    """No space at the start, and none after a part that ends in one."""
    out: list[str] = []
    after_space = True
    for part in parts:
        shown = part.lstrip(" ") if after_space else part
        if shown:
            out.append(shown)
            after_space = shown.endswith(" ")
    return out
