"""BPE over characters (Sennrich et al., 2016): the model behind Llama 2, Gemma, CLIP and others.

What differs from `ByteBPE`: a word begins as its characters. One that is not in the vocabulary becomes its bytes
(`byte_fallback`), the unknown token, or nothing. The last character of a word may carry a suffix (CLIP's `</w>`), and
all but the first a prefix.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import regex

from groundup.base.errors import CheckpointError, UsageError
from groundup.tokenizers.merging import Merges, apply_merges
from groundup.tokenizers.word_cache import LONGEST, WordCache

Merge = tuple[str, str]

SPACE = "\u2581"


class BPEModel:
    """How BPE cuts a word.

    Args:
        vocab: token -> id.
        merges: pairs of tokens, the earliest-learnt first.
        unk: the token of unknown characters; None: they are left out.
        fuse_unk: neighbouring unknown characters become one token.
        byte_fallback: an unknown character becomes its bytes, `<0xE2>` and so on, if all are in the vocabulary.
        prefix: what tokens begin with that continue a word.
        suffix: what tokens end with that end a word.
        ignore_merges: a word that is a token as a whole is that token, whether or not merges lead to it.

    Raises:
        CheckpointError: a merge whose parts or result are not in the vocabulary.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[Merge],
        *,
        unk: str | None = None,
        fuse_unk: bool = False,
        byte_fallback: bool = False,
        prefix: str = "",
        suffix: str = "",
        ignore_merges: bool = False,
    ):
        self.vocab = vocab
        last = {pair: place for place, pair in enumerate(merges)}
        self.merges = [pair for place, pair in enumerate(merges) if last[pair] == place]
        self.unk, self.fuse_unk, self.byte_fallback = unk, fuse_unk, byte_fallback
        self.prefix, self.suffix, self.ignore_merges = prefix, suffix, ignore_merges
        self._ranks, self._symbols_in = self._read_merges()
        self._cache: WordCache[list[tuple[int, int]]] = WordCache()

    def _read_merges(self) -> tuple[Merges, dict[int, int]]:
        """Ranks and results of pairs; and of how many first symbols each merged token consists."""
        vocab, ranks, made = self.vocab, {}, []
        for rank, (left, right) in enumerate(self.merges):
            joined = left + right[len(self.prefix) :]
            missing = [token for token in (left, right, joined) if token not in vocab]
            if missing:
                raise CheckpointError(
                    f"merge {rank} ({left!r} + {right!r}) needs {missing[0]!r}, which is not in the vocabulary"
                )
            ranks[vocab[left], vocab[right]] = (rank, vocab[joined])
            made.append((self._length(left) + self._length(right), vocab[left], vocab[right], vocab[joined]))
        symbols: dict[int, int] = {}
        for _, left, right, joined in sorted(made):  # parts are shorter than what they make
            symbols.setdefault(joined, symbols.get(left, 1) + symbols.get(right, 1))
        return ranks, symbols

    def _length(self, token: str) -> int:
        return len(token.removeprefix(self.prefix)) if self.prefix else len(token)

    @cached_property
    def _byte_ids(self) -> list[int | None]:
        return [self.vocab.get(f"<0x{byte:02X}>") for byte in range(256)]

    @cached_property
    def _break(self) -> "regex.Pattern[str] | None":
        """Where a word may be cut before merging: before a visible space after something else, if no token has both.

        A vocabulary of SentencePiece has none; so a text that comes as one long word is merged word by word.
        """
        inside = any(SPACE in token.lstrip(SPACE) for token in self.vocab if token not in self._never_merged)
        if inside or SPACE not in self.vocab or self.prefix or self.suffix or self.ignore_merges:
            return None
        return regex.compile(f"{SPACE}*[^{SPACE}]*")

    @cached_property
    def _never_merged(self) -> set[str]:
        """Tokens that no merge makes and no character is: added ones."""
        made = {left + right[len(self.prefix) :] for left, right in self.merges}
        return {token for token in self.vocab if len(token) > 1 and token not in made}

    def cut(self, word: str) -> list[tuple[int, int]]:
        """(id, end) of each token; `end` is in characters. The bytes of one character all have its end.

        Raises:
            UsageError: a character is unknown, and so is the unknown token.
        """
        if self.ignore_merges and word in self.vocab:
            return [(self.vocab[word], len(word))]
        if len(word) <= LONGEST or self._break is None:
            return self._cached(word)
        cut: list[tuple[int, int]] = []
        start = 0
        for piece in self._break.findall(word):
            cut.extend((number, start + end) for number, end in self._cached(piece))
            start += len(piece)
        return cut

    def _cached(self, word: str) -> list[tuple[int, int]]:
        found = self._cache.get(word)
        return self._cache.keep(word, self._merge(word)) if found is None else found

    def _merge(self, word: str) -> list[tuple[int, int]]:
        symbols = self._symbols(word)
        ids = apply_merges([number for number, _ in symbols], self._ranks)
        cut, place, count = [], -1, self._symbols_in
        for number in ids:
            place += count.get(number, 1)
            cut.append((number, symbols[place][1]))
        return cut

    def _symbols(self, word: str) -> list[tuple[int, int]]:
        """What a word begins as: (id, end) pairs."""
        find, last = self.vocab.get, len(word) - 1
        symbols: list[tuple[int, int]] = []
        unknown: tuple[int, int] | None = None  # seen, and not yet written: more may join it
        for place, character in enumerate(word):
            spelled = (self.prefix if place else "") + character + (self.suffix if place == last else "")
            number = find(spelled)
            if number is not None:
                if unknown:
                    symbols.append(unknown)
                    unknown = None
                symbols.append((number, place + 1))
            elif (in_bytes := self._in_bytes(spelled)) is not None:
                symbols.extend((byte, place + 1) for byte in in_bytes)
            elif self.unk is not None:
                if unknown and not self.fuse_unk:
                    symbols.append(unknown)
                unknown = (self._unknown(character), place + 1)
        return [*symbols, unknown] if unknown else symbols

    def _in_bytes(self, spelled: str) -> list[int] | None:
        if not self.byte_fallback:
            return None
        ids = [self._byte_ids[byte] for byte in spelled.encode("utf-8")]
        found = [number for number in ids if number is not None]
        return found if len(found) == len(ids) else None

    def _unknown(self, character: str) -> int:
        number = self.vocab.get(self.unk or "")
        if number is None:
            raise UsageError(
                f"{character!r} (U+{ord(character):04X}) is not in the vocabulary, "
                f"and neither is the unknown token {self.unk!r}"
            )
        return number

    def to_json(self) -> dict[str, Any]:
        """The `model` object of tokenizer.json."""
        return {
            "type": "BPE",
            "dropout": None,
            "unk_token": self.unk,
            "continuing_subword_prefix": self.prefix or None,
            "end_of_word_suffix": self.suffix or None,
            "fuse_unk": self.fuse_unk,
            "byte_fallback": self.byte_fallback,
            "ignore_merges": self.ignore_merges,
            "vocab": dict(self.vocab),
            "merges": [list(pair) for pair in self.merges],
        }
