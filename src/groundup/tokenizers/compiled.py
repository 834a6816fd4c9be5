"""Byte-level BPE for much text at once: the loops of `kernels`, many texts a call, calls side by side in threads.

The readable form is `byte_bpe.ByteBPE._encode_text`; both give the same ids, and tests hold one against the other.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from groundup.base.threads import default_threads
from groundup.tokenizers.added_tokens import AddedTokens
from groundup.tokenizers.classes import table
from groundup.tokenizers.merging import Merges
from groundup.tokenizers.pretokenize import RULES, chunks
from groundup.tokenizers.tokenizer import without_surrogates

ID_BITS = 24
PORTION = 2**19  # characters a call: long enough to be worth one, short enough for the caches


class CompiledCutter:
    """Cuts texts by a named pattern's rules."""

    def __init__(self, pattern: str):
        from groundup.tokenizers.kernels.cutting import GPT2, cut

        self.rules, self._cut = RULES[pattern], cut
        self.lines = self.rules != GPT2

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The texts' bytes (uint8), the ends of all pieces (int64), and how many there are up to each text's end."""
        parts = [text.encode("utf-8") for text in texts]
        data = np.frombuffer(b"".join(parts), np.uint8)
        text_ends = np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)))
        ends, pieces = np.empty(len(data), np.int64), np.empty(len(texts), np.int64)
        ascii_only = len(data) == sum(map(len, texts))
        classes = table(self.lines, 128) if ascii_only else table(self.lines)
        count = self._cut(data, text_ends, classes, self.rules, ends, pieces)
        return data, ends[:count], pieces


class CompiledEncoder:
    """Texts to ids.

    Args:
        pattern: one of `pretokenize.RULES`.
        byte_ids: the id of each byte, or -1.
        merges: pair of ids -> (rank, merged id); ids and ranks of a ByteBPE.
        token_bytes: id -> the bytes of the model's tokens.
        whole: ids of tokens that a piece may be without merges leading there.
    """

    def __init__(
        self,
        pattern: str,
        byte_ids: Sequence[int],
        merges: Merges,
        token_bytes: Mapping[int, bytes],
        whole: Sequence[int] = (),
    ):
        from groundup.tokenizers.kernels import encoding

        self.cutter = CompiledCutter(pattern)
        self._encode: Any = encoding.encode
        size = max(token_bytes) + 1
        parts = [token_bytes.get(number, b"") for number in range(size)]
        spelled = np.frombuffer(b"".join(parts), np.uint8)
        starts = np.zeros(size + 1, np.int64)
        np.cumsum(np.fromiter(map(len, parts), np.int64, size), out=starts[1:])
        bytes_to_ids = np.array(byte_ids, np.int32)
        pairs = _pair_table(merges)
        found = np.zeros(size, np.bool_)
        encoding.reached(spelled, starts, bytes_to_ids, *pairs, found)
        found[list(whole)] = True
        tokens = np.flatnonzero(found)
        keys, numbers = _empty(len(tokens), np.int32)
        encoding.fill_pieces(tokens, spelled, starts, keys, numbers)
        self.numbers = np.arange(size).astype(object)
        self.tables: Any = (bytes_to_ids, *pairs, keys, numbers, spelled, starts)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text."""
        data, ends, pieces = self.cutter(texts)
        out, out_ends = np.empty(len(data), np.int32), np.empty(len(texts), np.int64)
        self._encode(data, ends, pieces, *self.tables, out, out_ends)
        borders = out_ends.tolist()
        # One object for each id of the vocabulary, not one for each token of the text: faster, and less memory.
        ids = self.numbers.take(out[: borders[-1]]).tolist()
        if len(texts) == 1:
            return [ids]
        return [ids[start:end] for start, end in zip([0, *borders], borders, strict=False)]

    def one(self, text: str) -> list[int]:
        """The ids of one text, however long."""
        ids: list[int] = []
        for part in chunks(text, PORTION):
            ids += self([part])[0]
        return ids

    def batch(
        self, texts: Sequence[str], added: AddedTokens, allowed_special: bool, front: list[int], back: list[int]
    ) -> list[list[int]]:
        """The ids of each text between `front` and `back`, in threads; `added` tokens are cut out first."""

        def encode(place: tuple[int, int]) -> list[list[int]]:
            cuts = [list(added.cut(without_surrogates(text), allowed_special)) for text in texts[slice(*place)]]
            found = iter(self.all([part for parts in cuts for part in parts if isinstance(part, str)]))
            return [[*front, *_flat(parts, found), *back] for parts in cuts]

        places, threads = list(portions(texts)), default_threads()
        if threads == 1 or len(places) <= 1:
            return list(itertools.chain.from_iterable(map(encode, places)))
        with ThreadPoolExecutor(min(threads, len(places))) as pool:
            return list(itertools.chain.from_iterable(pool.map(encode, places)))

    def all(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text: one call, but a call for each that is very long."""
        if max(map(len, texts), default=0) > 2 * PORTION:
            return [self.one(text) for text in texts]
        return self(texts) if texts else []


def _flat(parts: list[str | int], found: Iterator[list[int]]) -> Iterable[int]:
    """Ids of added tokens as they are, and for each text the next of `found`."""
    if len(parts) == 1 and isinstance(parts[0], str):
        return next(found)
    return itertools.chain.from_iterable([part] if isinstance(part, int) else next(found) for part in parts)


def _pair_table(merges: Merges) -> tuple[np.ndarray, np.ndarray]:
    from groundup.tokenizers.kernels.hashing import fill_pairs

    keys, found = _empty(len(merges), np.int64)
    lefts, rights = np.array(list(merges), np.int64).reshape(-1, 2).T.copy()
    ranks, ids = np.array(list(merges.values()), np.int64).reshape(-1, 2).T
    fill_pairs(lefts, rights, ranks << ID_BITS | ids, keys, found)
    return keys, found


def _empty(entries: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Keys and values of a hash table that `entries` fill by a quarter to a half."""
    size = 1 << (2 * entries + 1).bit_length()
    return np.zeros(size, np.uint64), np.zeros(size, dtype)


def portions(texts: Sequence[str], size: int = PORTION) -> Iterator[tuple[int, int]]:
    """Ranges of texts that together have about `size` characters."""
    start, total = 0, 0
    for place, text in enumerate(texts):
        total += len(text)
        if total >= size:
            yield start, place + 1
            start, total = place + 1, 0
    if start < len(texts):
        yield start, len(texts)
