"""The four ways in which SentencePiece cuts a normalized text: unigram, BPE, words, characters.

Each is a class with `cut(text)`: (id, end) pairs. What no piece covers has the id of the unknown piece, one pair a
character (a word, among words); `SentencePiece` fuses them or turns them into bytes.
"""

import heapq
import random
from array import array
from collections.abc import Sequence
from typing import Protocol

from groundup.tokenizers.formats.sentencepiece_proto import ModelFile, ModelType, Piece, PieceType
from groundup.tokenizers.sentencepiece.text import SPACE, Longest
from groundup.tokenizers.unigram import UNKNOWN, UNKNOWN_PENALTY, Cut, Pieces
from groundup.tokenizers.word_cache import WordCache

LARGEST_SINGLE = (2 - 2.0**-23) * 2.0**127  # where the reference starts to look for the least score


class Cutter(Protocol):
    """How a normalized text is cut."""

    def cut(self, text: str) -> Cut:
        """(id, end) pairs; the ends are offsets in characters."""
        ...

    def sample(self, text: str, alpha: float, generator: random.Random) -> Cut:
        """A cut drawn at random."""
        ...


def cutter(file: ModelFile) -> Cutter:
    """The cutter that the file asks for."""
    kinds = {ModelType.UNIGRAM: Unigram, ModelType.BPE: ScoreBPE, ModelType.WORD: Words, ModelType.CHAR: Characters}
    return kinds[ModelType(file.trainer.model_type)](file)


def _unknown_id(file: ModelFile) -> int:
    return next(number for number, piece in enumerate(file.pieces) if piece.type == PieceType.UNKNOWN)


def _searchable(file: ModelFile, *also: PieceType) -> dict[str, int]:
    """Pieces that may be found in text; control, unknown and byte pieces never are."""
    kinds = (PieceType.NORMAL, PieceType.USER_DEFINED, *also)
    return {piece.piece: number for number, piece in enumerate(file.pieces) if piece.type in kinds}


def symbols_of(file: ModelFile) -> list[str]:
    """The symbols that the user defined: always one token."""
    return [piece.piece for piece in file.pieces if piece.type == PieceType.USER_DEFINED]


def single(value: float) -> float:
    """`value` rounded to single precision."""
    return array("f", [value])[0]


class Unigram:
    """The unigram model with the reference's numbers: sums in single precision, symbols of the user before all else."""

    def __init__(self, file: ModelFile):
        self.unknown = _unknown_id(file)
        normal = [piece.score for piece in file.pieces if piece.type == PieceType.NORMAL]
        entries = (
            (piece.piece, number, self.score(piece))
            for number, piece in enumerate(file.pieces)
            if piece.type in (PieceType.NORMAL, PieceType.USER_DEFINED)
        )
        least = min(normal, default=LARGEST_SINGLE)
        self.lattice = Pieces(entries, single(least - UNKNOWN_PENALTY), precision="f")

    @staticmethod
    def score(piece: Piece) -> float:
        """The log-probability of a piece; a symbol of the user has one above 0, the longer the more."""
        if piece.type == PieceType.NORMAL:
            return piece.score
        return single(0.1 * (len(piece.piece.encode("utf-8")) - 1))

    def cut(self, text: str) -> Cut:
        """The most probable cut."""
        return self._with_unknown(self.lattice.best(text))

    def sample(self, text: str, alpha: float, generator: random.Random) -> Cut:
        """A cut drawn with probability proportional to P^alpha (Kudo, 2018)."""
        return self._with_unknown(self.lattice.sample(text, alpha, generator))

    def _with_unknown(self, cut: Cut) -> Cut:
        return [(self.unknown if number == UNKNOWN else number, end) for number, end in cut]


class ScoreBPE:
    """BPE whose merges are the pieces themselves: neighbours that spell a piece merge, the highest score first.

    Of equal scores the leftmost comes first. Symbols of the user never merge with anything. A piece of the type UNUSED
    takes part, and is then split back into what it was merged from.
    """

    def __init__(self, file: ModelFile):
        self.ids = _searchable(file, PieceType.UNUSED)
        self.unknown = _unknown_id(file)
        self.scores = [-piece.score for piece in file.pieces]  # the smallest comes first in a heap
        self.unused = {number for number, piece in enumerate(file.pieces) if piece.type == PieceType.UNUSED}
        self.symbols = Longest(symbols_of(file))
        inner = [piece for piece in self.ids if SPACE in piece.strip(SPACE)]
        # Where no piece goes on over the border between words, words are cut one by one, and remembered.
        # (How an unused piece is split back may depend on the words around.)
        self.by_words = (
            not self.unused
            and not inner
            and not any(piece.strip(SPACE) and piece.endswith(SPACE) for piece in self.ids)
        )
        self._cache: WordCache[Cut] = WordCache()

    def cut(self, text: str) -> Cut:
        """The cut after all merges, in time n log n."""
        if not self.by_words:
            return self._merge(text)
        cut: Cut = []
        start = 0
        for word in words(text):
            found = self._cache.get(word)
            if found is None:
                found = self._cache.keep(word, self._merge(word))
            cut.extend([(number, start + end) for number, end in found])
            start += len(word)
        return cut

    def sample(self, text: str, alpha: float, generator: random.Random) -> Cut:
        """Each merge is left out with probability `alpha` (BPE-dropout, Provilkov et al., 2020)."""
        return self._merge(text, lambda: generator.random() < alpha)

    def _merge(self, text: str, skip: "_Skip | None" = None) -> Cut:
        merging = _Merging(self, text)
        merging.run(skip)
        cut: Cut = []
        start = 0
        for place in merging.left():
            end = start + merging.sizes[place]
            self._emit(text, start, end, merging.halves, cut)
            start = end
        return cut

    def _emit(self, text: str, start: int, end: int, halves: dict[str, int], cut: Cut) -> None:
        """One piece, or, where it is unused, those it was merged from."""
        todo = [(start, end)]
        while todo:
            start, end = todo.pop()
            number = self.ids.get(text[start:end], self.unknown)
            middle = halves.get(text[start:end]) if number in self.unused else None
            if middle is None:
                cut.append((self.unknown if number in self.unused else number, end))
            else:
                todo += [(start + middle, end), (start, start + middle)]


class _Skip(Protocol):
    def __call__(self) -> bool: ...


class _Merging:
    """Symbols of one text as a linked list, and a heap of the neighbours that may merge."""

    def __init__(self, model: ScoreBPE, text: str):
        self.model, self.text = model, text
        parts = model.symbols.parts(text)
        count = len(parts)
        self.sizes = [len(part) for part in parts]  # 0: merged into the symbol before
        self.starts = _starts(self.sizes)
        self.frozen = bytearray(part in model.symbols.spellings for part in parts) if model.symbols.spellings else None
        self.following, self.previous = list(range(1, count + 1)), list(range(-1, count - 1))
        self.heap: list[tuple[float, int, int, int]] = []  # (-score, left, right, size of both)
        self.halves: dict[str, int] = {}  # unused piece -> size of its left half
        for place in range(count - 1):
            self._offer(place, place + 1, push=False)
        heapq.heapify(self.heap)

    def _offer(self, left: int, right: int, push: bool = True) -> None:
        if left < 0 or right >= len(self.sizes) or (self.frozen and (self.frozen[left] or self.frozen[right])):
            return
        size = self.sizes[left] + self.sizes[right]
        spelled = self.text[self.starts[left] : self.starts[left] + size]
        number = self.model.ids.get(spelled)
        if number is None:
            return
        entry = (self.model.scores[number], left, right, size)
        if push:
            heapq.heappush(self.heap, entry)
        else:
            self.heap.append(entry)
        if number in self.model.unused:
            self.halves[spelled] = self.sizes[left]

    def run(self, skip: "_Skip | None" = None) -> None:
        """Merge until no neighbours spell a piece."""
        sizes, heap = self.sizes, self.heap
        while heap:
            _, left, right, size = heapq.heappop(heap)
            if not sizes[left] or not sizes[right] or sizes[left] + sizes[right] != size:
                continue  # an entry from before a neighbour changed
            if skip is not None and skip():
                continue
            sizes[left], sizes[right] = size, 0
            after = self.following[left] = self.following[right]
            if after < len(sizes):
                self.previous[after] = left
            self._offer(self.previous[left], left)
            self._offer(left, after)

    def left(self) -> list[int]:
        """Places of the symbols that are left."""
        return [place for place, size in enumerate(self.sizes) if size]


def _starts(sizes: Sequence[int]) -> list[int]:
    starts, total = [], 0
    for size in sizes:
        starts.append(total)
        total += size
    return starts


def words(text: str) -> list[str]:
    """`text` cut before each U+2581 that follows another character."""
    parts = text.split(SPACE)
    out: list[str] = [parts[0]] if parts[0] else []
    pending = ""
    for part in parts[1:]:
        pending += SPACE
        if part:
            out.append(pending + part)
            pending = ""
    return [*out, pending] if pending else out


class Words:
    """Each word, with the U+2581 in front of it, is a piece or unknown."""

    def __init__(self, file: ModelFile):
        self.ids, self.unknown = _searchable(file), _unknown_id(file)

    def cut(self, text: str) -> Cut:
        """A pair a word: a U+2581 begins one."""
        parts = text.split(SPACE)
        cut: Cut = []
        end = 0
        for word in parts[:1] * bool(parts[0]) + [SPACE + part for part in parts[1:]]:
            end += len(word)
            cut.append((self.ids.get(word, self.unknown), end))
        return cut

    def sample(self, text: str, alpha: float, generator: random.Random) -> Cut:
        """There is one way only."""
        return self.cut(text)


class Characters:
    """Each character, or symbol of the user, is a piece or unknown."""

    def __init__(self, file: ModelFile):
        self.ids, self.unknown = _searchable(file), _unknown_id(file)
        self.symbols = Longest(symbols_of(file))

    def cut(self, text: str) -> Cut:
        """A pair a character."""
        cut: Cut = []
        end = 0
        for part in self.symbols.parts(text):
            end += len(part)
            cut.append((self.ids.get(part, self.unknown), end))
        return cut

    def sample(self, text: str, alpha: float, generator: random.Random) -> Cut:
        """There is one way only."""
        return self.cut(text)
