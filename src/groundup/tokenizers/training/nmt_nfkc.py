"""The normalization rules that SentencePiece calls nmt_nfkc, nfkc, nmt_nfkc_cf and nfkc_cf, from Unicode's data.

NFKC (Unicode Standard Annex 15) needs more than a table of characters: it composes sequences. Rules stand for it: each
character that NFKC changes, and each spelling of a sequence that it composes, as far as shorter rules do not already
give the same. What is longer (a letter with many marks) is composed in part only: that is the reference's behaviour.
"""

import functools
import itertools
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from typing import Literal, get_args

RuleName = Literal["identity", "nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf"]
NAMES: tuple[str, ...] = get_args(RuleName)

SPACES = "\t\n\f\r\u061c\u1680\u200b\u200c\u200e\u200f\u2028\u2029\u2581\ufeff\ufffd"
REMOVED = [*range(0x01, 0x09), 0x0B, *range(0x0E, 0x20), 0x7F, 0x8F, 0x9F]
FULLWIDTH_TILDE = "\uff5e"  # differs from the narrow one in Japanese, so it stays


@functools.lru_cache(maxsize=8)
def compiled_rules(name: RuleName) -> bytes:
    """The compiled map (see `charsmap_compiler`) of the rules with this name; no bytes for identity."""
    from groundup.tokenizers.training.charsmap_compiler import write_rules

    return write_rules(rules(name))


def rules(name: RuleName) -> Mapping[str, str]:
    """Sequence -> replacement; of all rules that fit, the longest applies."""
    if name == "identity":
        return {}
    found = nfkc_rules()
    if name.startswith("nmt_"):
        # Machine translation's view of white space and control characters.
        found |= dict.fromkeys(SPACES, " ") | dict.fromkeys(map(chr, REMOVED), "")
        del found[FULLWIDTH_TILDE]
    if name.endswith("_cf"):
        found = _fold_case(found)
    return _without_redundant(found)


def nfkc_rules() -> dict[str, str]:
    """What NFKC does to single characters and to the sequences it composes."""
    found: dict[str, str] = {}
    spellings: dict[str, list[str]] = defaultdict(list)  # normalized character -> characters that become it
    sequences: set[str] = set()
    for character in map(chr, range(1, sys.maxunicode + 1)):
        if unicodedata.category(character) in ("Cn", "Cs"):
            continue
        composed, decomposed = unicodedata.normalize("NFKC", character), unicodedata.normalize("NFKD", character)
        if composed != character:
            found[character] = composed
        if len(decomposed) == 1:
            spellings[decomposed].append(character)
        else:
            sequences.add(decomposed)
    for sequence in sequences:
        composed = unicodedata.normalize("NFKC", sequence)
        if composed != sequence:
            for spelled in map("".join, itertools.product(*(spellings[character] for character in sequence))):
                if spelled != composed:
                    found[spelled] = composed
    return _without_redundant(found)


def _fold_case(found: dict[str, str]) -> dict[str, str]:
    folded = {source: "".join(map(_folded, target)) for source, target in found.items()}
    for character in map(chr, range(1, sys.maxunicode + 1)):
        if character not in folded and _folded(character) != character:
            folded[character] = _folded(character)
    return folded


def _folded(character: str) -> str:
    """Simple case folding: one character stays one."""
    folded = character.casefold()
    return folded if len(folded) == 1 else character.lower() if len(character.lower()) == 1 else character


def _without_redundant(found: Mapping[str, str]) -> dict[str, str]:
    """The rules that shorter rules do not already make unnecessary."""
    kept = {source: target for source, target in found.items() if len(source) == 1}
    for length in range(2, max(map(len, found), default=0) + 1):
        new = {s: t for s, t in found.items() if len(s) == length and _apply(kept, s, length - 1) != t}
        kept |= new
    return kept


def _apply(found: Mapping[str, str], text: str, longest: int) -> str:
    """`text` under the rules: at each place the longest one that fits, of at most `longest` characters."""
    out, place = [], 0
    while place < len(text):
        for length in range(min(longest, len(text) - place), 0, -1):
            if (target := found.get(text[place : place + length])) is not None:
                break
        else:
            length, target = 1, text[place]
        out.append(target)
        place += length
    return "".join(out)
