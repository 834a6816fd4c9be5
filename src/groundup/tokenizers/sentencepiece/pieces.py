"""Which substrings may be pieces of a SentencePiece vocabulary, and the words they are learnt from."""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import regex

from groundup.tokenizers.sentencepiece.text import SPACE

UNKNOWN_CHARACTER = "\u2585"  # stands for characters that are not covered; no piece holds it
BOUNDARY = "\t"  # stands for symbols of the user; no piece goes over it
LONGEST_WORD = 4192  # characters; longer ones are cut, so that no lattice gets too deep

# The names of Unicode's scripts (Standard Annex 24), the frequent ones first.
_SCRIPTS = (
    "Common Latin Han Inherited Cyrillic Greek Arabic Hebrew Devanagari Bengali Thai Hangul Hiragana Katakana Armenian "
    "Georgian Gurmukhi Gujarati Oriya Tamil Telugu Kannada Malayalam Sinhala Lao Tibetan Myanmar Ethiopic Cherokee "
    "Canadian_Aboriginal Ogham Runic Khmer Mongolian Bopomofo Yi Syriac Thaana Braille Tifinagh Coptic Gothic Nko "
    "Tagalog Hanunoo Buhid Tagbanwa Limbu Tai_Le Linear_B Ugaritic Shavian Osmanya Cypriot Buginese New_Tai_Lue "
    "Glagolitic Syloti_Nagri Old_Persian Kharoshthi Balinese Cuneiform Phoenician Phags_Pa Sundanese Lepcha Ol_Chiki "
    "Saurashtra Kayah_Li Rejang Lycian Carian Lydian Cham Tai_Tham Tai_Viet Avestan Egyptian_Hieroglyphs Samaritan "
    "Lisu Bamum Javanese Meetei_Mayek Imperial_Aramaic Old_South_Arabian Old_Turkic Kaithi Batak Brahmi Mandaic Chakma "
    "Adlam Deseret Nushu Tangut"
).split()


def script(character: str) -> str:
    """The script of a character; kana count as Han, because Japanese words mix them."""
    return _script(character)


@functools.lru_cache(maxsize=2**17)
def _script(character: str) -> str:
    if character == "\u30fc":  # the long vowel mark
        return "Han"
    for name in _SCRIPTS:
        if regex.match(rf"\p{{Script={name}}}", character):
            return "Han" if name in ("Hiragana", "Katakana") else name
    return "other"


@dataclass(frozen=True)
class PieceRules:
    """Which substrings may be pieces.

    Attributes:
        longest: characters in a piece.
        by_script: characters of different scripts are never in one piece.
        by_whitespace: U+2581 stands only at the start of a piece (at its end, with `suffix`).
        by_number: digits count as a script of their own; without, they go with any.
        digits_apart: a digit is a piece of its own.
        only_spaces: pieces of several U+2581 are allowed.
        suffix: words end, not begin, with U+2581.
    """

    longest: int = 16
    by_script: bool = True
    by_whitespace: bool = True
    by_number: bool = True
    digits_apart: bool = False
    only_spaces: bool = False
    suffix: bool = False

    def __call__(self, piece: str) -> bool:
        """Whether `piece` may be one."""
        if not 0 < len(piece) <= self.longest or any(c in piece for c in (UNKNOWN_CHARACTER, BOUNDARY, "\0", " ")):
            return False
        return self._spaces_allowed(piece) and self._scripts_allowed(piece)

    def _spaces_allowed(self, piece: str) -> bool:
        if SPACE not in piece or (self.only_spaces and not piece.strip(SPACE)):
            return True
        if self.by_whitespace:
            return SPACE not in (piece[:-1] if self.suffix else piece[1:])
        return len(piece) == 1 or piece[0 if self.suffix else -1] != SPACE

    def _scripts_allowed(self, piece: str) -> bool:
        before = None
        for character in piece:
            if character == SPACE:
                continue
            if character.isdecimal():
                if self.digits_apart and len(piece) > 1:
                    return False
                now = script(character) if self.by_number else None
            else:
                now = script(character)
                now = before if now == "Inherited" else now
            if self.by_script and None not in (now, before) and now != before:
                return False
            before = now
        return True


_WORDS = {
    # (suffix, runs of U+2581 stay together)
    (False, False): re.compile(f"{SPACE}[^{SPACE}]*|[^{SPACE}]+"),
    (False, True): re.compile(f"{SPACE}+[^{SPACE}]*|[^{SPACE}]+"),
    (True, False): re.compile(f"[^{SPACE}]*{SPACE}|[^{SPACE}]+"),
    (True, True): re.compile(f"[^{SPACE}]*{SPACE}+|[^{SPACE}]+"),
}


def split_words(text: str, rules: PieceRules) -> list[str]:
    """`text` cut before each U+2581, or after each, or whole: what no piece crosses."""
    return _WORDS[rules.suffix, rules.only_spaces].findall(text) if rules.by_whitespace else [text]


def covered(counts: Mapping[str, int], coverage: float, required: Iterable[str] = ()) -> list[str]:
    """The most frequent characters that together make up `coverage` of the text, and the required ones before them."""
    first = [character for character in dict.fromkeys(required) if character not in (" ", BOUNDARY, "\0")]
    total = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    chosen, seen = dict.fromkeys(first), sum(counts.get(character, 0) for character in first)
    for character, count in ranked:
        if total and seen / total >= coverage:
            break
        if character not in chosen:
            chosen[character] = None
            seen += count
    return [character for character in chosen if character not in (BOUNDARY, "\0", UNKNOWN_CHARACTER)]


def count_characters(words: Mapping[str, int]) -> Counter[str]:
    """How often each character occurs."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    return counts
