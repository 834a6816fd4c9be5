"""Unigram language model (Kudo, 2018): a text is cut into the pieces whose probabilities multiply to the most.

    P(x_1 ... x_n) = p(x_1) p(x_2) ... p(x_n)

All ways to cut a text form a lattice: positions between characters, and an edge for each piece that fits. One pass
from left to right finds the best way (Viterbi), the sum over all ways (forward), or what is needed to draw a way at
random; each looks from a position only as far as some piece reaches, so time grows linearly with the text.
"""

import heapq
import math
import random
from array import array
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from functools import cached_property
from typing import Any

from groundup.base.errors import CheckpointError, UsageError

UNKNOWN_PENALTY = 10.0
UNKNOWN = -1  # the id of an edge over a character that no piece covers

Cut = list[tuple[int, int]]  # (id, end) pairs
Node = dict[str, Any]  # character -> [id or None, score, the node below or None]


class Pieces:
    """A trie of pieces with their scores: what the lattice of a text is made from.

    Attributes:
        unknown: the score of a character that no piece of one character covers.
        precision: "d" sums scores in double precision, as `tokenizers` does; "f" in single, as `sentencepiece` does:
            sums that are equal in one may differ in the other, and then the cuts do.
    """

    def __init__(self, scores: Iterable[tuple[str, int, float]], unknown: float, precision: str = "d"):
        self.unknown, self.precision = unknown, precision
        self.root: Node = {}
        for piece, number, score in scores:
            if piece:
                self._add(piece, number, score)

    def _add(self, piece: str, number: int, score: float) -> None:
        node, last = self.root, len(piece) - 1
        for place, character in enumerate(piece):
            entry = node.setdefault(character, [None, 0.0, None])
            if place < last:
                if entry[2] is None:
                    entry[2] = {}
                node = entry[2]
            else:
                entry[0], entry[1] = number, score

    def edges(self, text: str, start: int) -> Iterator[tuple[int, int, float]]:
        """(end, id, score) of the edges that leave position `start`, the shorter first, the unknown one last."""
        node: Node | None = self.root
        single, end = False, start
        while node is not None and end < len(text):
            entry = node.get(text[end])
            end += 1
            if entry is None:
                break
            if entry[0] is not None:
                single = single or end == start + 1
                yield end, entry[0], entry[1]
            node = entry[2]
        if not single:
            yield start + 1, UNKNOWN, self.unknown

    def best(self, text: str) -> Cut:
        """The best way to cut `text` (Viterbi); of equal ones that whose last piece is longest. `UNKNOWN` may occur.

        At each end the first edge to arrive stays unless a later one is better: the rule of both reference libraries.
        """
        size, root, unknown = len(text), self.root, self.unknown
        best: MutableSequence[float] = array(self.precision, [0.0]) * (size + 1)
        came_from, ids = [-1] * (size + 1), [UNKNOWN] * (size + 1)
        for start in range(size):
            here, node, end, single = best[start], root, start, False
            while node is not None and end < size:
                entry = node.get(text[end])
                if entry is None:
                    break
                end += 1
                number, score, node = entry
                if number is None:
                    continue
                single = single or end == start + 1
                # best(end) = max over pieces of best(start) + log p(piece); storing rounds, and what is rounded counts
                before, best[end] = best[end], here + score
                if came_from[end] < 0 or best[end] > before:
                    came_from[end], ids[end] = start, number
                else:
                    best[end] = before
            if not single:
                end = start + 1
                before, best[end] = best[end], here + unknown
                if came_from[end] < 0 or best[end] > before:
                    came_from[end], ids[end] = start, UNKNOWN
                else:
                    best[end] = before
        return _walk_back(came_from, ids)

    def forward(self, text: str, temperature: float = 1.0) -> list[float]:
        """For each position the log of the summed probability^temperature of all ways to cut what is before it."""
        # alpha(end) = log sum over pieces of exp(alpha(start) + temperature * log p(piece))
        arriving: list[list[float]] = [[] for _ in range(len(text) + 1)]
        arriving[0] = [0.0]
        alpha = [0.0] * (len(text) + 1)
        for start in range(len(text) + 1):
            alpha[start], arriving[start] = _log_sum_exp(arriving[start]), []
            if start < len(text):
                for end, _, score in self.edges(text, start):
                    arriving[end].append(alpha[start] + temperature * score)
        return alpha

    def sample(self, text: str, temperature: float, generator: random.Random) -> Cut:
        """A way to cut `text`, drawn with probability proportional to P(way)^temperature.

        Forward filtering, backward sampling: from the end, each piece is drawn given all that may stand before it.
        """
        alpha = self.forward(text, temperature)
        incoming: list[list[tuple[int, int, float]]] = [[] for _ in range(len(text) + 1)]
        for start in range(len(text)):
            for end, number, score in self.edges(text, start):
                incoming[end].append((start, number, alpha[start] + temperature * score))
        cut, end = [], len(text)
        while end:
            weights = [math.exp(weight - alpha[end]) for _, _, weight in incoming[end]]
            start, number, _ = generator.choices(incoming[end], weights)[0]
            cut.append((number, end))
            end = start
        return cut[::-1]

    def n_best(self, text: str, n: int) -> list[tuple[Cut, float]]:
        """The `n` best ways to cut `text` with their scores, the best first (fewer where there are fewer).

        Each position keeps its `n` best ways; the best ways to a position end in an edge from one of those before it.
        """
        # One way: (score, position before, its rank there, id).
        ways: list[list[tuple[float, int, int, int]]] = [[] for _ in range(len(text) + 1)]
        ways[0] = [(0.0, -1, 0, UNKNOWN)]
        for start in range(len(text)):
            ways[start] = heapq.nlargest(n, ways[start])
            for end, number, score in self.edges(text, start):
                arrived = ((way[0] + score, start, rank, number) for rank, way in enumerate(ways[start]))
                ways[end].extend(arrived)
                if len(ways[end]) > 64 * n:
                    ways[end] = heapq.nlargest(n, ways[end])
        ways[-1] = heapq.nlargest(n, ways[-1])
        return [(_follow(ways, len(text), rank), way[0]) for rank, way in enumerate(ways[-1])]


def _walk_back(came_from: list[int], ids: list[int]) -> Cut:
    cut, end = [], len(ids) - 1
    while end > 0:
        cut.append((ids[end], end))
        end = came_from[end]
    return cut[::-1]


def _follow(ways: list[list[tuple[float, int, int, int]]], end: int, rank: int) -> Cut:
    cut = []
    while end > 0:
        _, start, before, number = ways[end][rank]
        cut.append((number, end))
        end, rank = start, before
    return cut[::-1]


def _log_sum_exp(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


class UnigramModel:
    """The Unigram model of tokenizer.json: pieces with log-probabilities.

    Attributes:
        pieces: (spelling, log-probability), in the order of their ids.
        vocab: spelling -> id.
        unk_id: the id of what no piece covers, or None: such text is an error.
        byte_fallback: what no piece covers becomes its bytes, where the vocabulary has all of them (`<0x0A>`).
        fuse_unk: neighbouring unknown characters become one token.

    Raises:
        CheckpointError: no pieces, a score that is no number, or an `unk_id` outside the vocabulary.
    """

    def __init__(
        self,
        pieces: Sequence[tuple[str, float]],
        unk_id: int | None = None,
        *,
        byte_fallback: bool = False,
        fuse_unk: bool = True,
    ):
        if not pieces:
            raise CheckpointError("a unigram model needs at least one piece")
        if wrong := next((piece for piece, score in pieces if not math.isfinite(score)), None):
            raise CheckpointError(f"the score of piece {wrong!r} is not a finite number")
        if unk_id is not None and not 0 <= unk_id < len(pieces):
            raise CheckpointError(f"unk_id {unk_id} is not in the vocabulary: ids go from 0 to {len(pieces) - 1}")
        self.pieces = list(pieces)
        self.vocab: Mapping[str, int] = {piece: number for number, (piece, _) in enumerate(self.pieces)}
        self.unk_id, self.byte_fallback, self.fuse_unk = unk_id, byte_fallback, fuse_unk

    @cached_property
    def lattice(self) -> Pieces:
        """The trie; of a spelling that occurs twice the later id counts."""
        least = min(score for _, score in self.pieces)
        entries = ((piece, number, self.pieces[number][1]) for piece, number in self.vocab.items())
        return Pieces(entries, least - UNKNOWN_PENALTY)

    @cached_property
    def _bytes(self) -> list[int | None]:
        return [self.vocab.get(byte_piece(byte)) for byte in range(256)]

    def cut(self, word: str) -> Cut:
        """(id, end) of the best cut; bytes of one unknown stretch all have its end.

        Raises:
            UsageError: a character that no piece covers, and no `unk_id`.
        """
        return self._named(word, self.lattice.best(word))

    def sample(self, word: str, alpha: float = 1.0, generator: random.Random | None = None) -> Cut:
        """A cut drawn with probability proportional to P^alpha (subword regularization; 0: all cuts alike)."""
        return self._named(word, self.lattice.sample(word, alpha, generator or random.Random()))

    def n_best(self, word: str, n: int) -> list[tuple[Cut, float]]:
        """The `n` best cuts with their log-probabilities, the best first."""
        if n < 1:
            raise UsageError(f"n must be at least 1, got {n}")
        return [(self._named(word, cut), score) for cut, score in self.lattice.n_best(word, n)]

    def log_likelihood(self, word: str) -> float:
        """The marginal likelihood: log P(word) = log of the sum of P over all ways to cut it."""
        return self.lattice.forward(word)[-1]

    def _named(self, word: str, cut: Cut) -> Cut:
        """Unknown characters fused, and turned into bytes or the unknown token."""
        named: Cut = []
        start = 0
        for number, end in self._fused(cut):
            if number == UNKNOWN or number == self.unk_id:
                named.extend((known, end) for known in self._unknown(word[start:end]))
            else:
                named.append((number, end))
            start = end
        return named

    def _fused(self, cut: Cut) -> Cut:
        if not self.fuse_unk:
            return cut
        fused: Cut = []
        unknown = {UNKNOWN, self.unk_id}
        for number, end in cut:
            if fused and number in unknown and fused[-1][0] in unknown:
                fused[-1] = (UNKNOWN, end)
            else:
                fused.append((number, end))
        return fused

    def _unknown(self, text: str) -> list[int]:
        known = self.vocab.get(text)  # several unknown characters together may spell a piece
        if known is not None:
            return [known]
        if self.byte_fallback:
            ids = [self._bytes[byte] for byte in text.encode("utf-8")]
            found = [number for number in ids if number is not None]
            if len(found) == len(ids):
                return found
        if self.unk_id is None:
            raise UsageError(
                f"{text!r:.80} is not covered by the vocabulary, and the model has no unknown token: "
                "train with a larger character coverage, an unknown token or byte fallback"
            )
        return [self.unk_id]

    def to_json(self) -> dict[str, Any]:
        """The `model` object of tokenizer.json."""
        return {
            "type": "Unigram",
            "unk_id": self.unk_id,
            "vocab": [[piece, score] for piece, score in self.pieces],
            "byte_fallback": self.byte_fallback,
        }


def byte_piece(byte: int) -> str:
    """How vocabularies with byte fallback spell a byte: `<0x0A>`."""
    return f"<0x{byte:02X}>"
