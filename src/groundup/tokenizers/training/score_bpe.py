"""Learning BPE pieces as SentencePiece does: characters, not bytes; validity of a piece decides; a score for each.

Of equally frequent pairs the one with fewer characters comes first, then the one first in the alphabet. A spelling
that two different pairs make is learnt from the first; the other never merges. (The reference looks only at the
most frequent twentieth of all pairs between updates, so late merges can differ.)
"""

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

Pair = tuple[str, str]
Progress = Callable[[int, int], None]


def learn_score_bpe(
    words: Mapping[str, int], size: int, valid: Callable[[str], bool], progress: Progress | None = None
) -> list[str]:
    """The merged pieces, in order; at most `size`.

    Args:
        words: how often each word occurs.
        size: merges wanted.
        valid: which strings may be pieces.
        progress: called after each merge.
    """
    learner = _Learner(words, valid)
    while len(learner.pieces) < size and learner.step():
        if progress is not None:
            progress(len(learner.pieces), size)
    return list(learner.pieces)


class _Learner:
    """Words as lists of symbols, counts of neighbours, and a heap: (-count, length, spelling, pair).

    An entry of the heap may be out of date; the count that is kept beside decides.
    """

    def __init__(self, words: Mapping[str, int], valid: Callable[[str], bool]):
        self.words = [list(word) for word in words]
        self.weights = list(words.values())
        self.valid = valid
        self.pieces: dict[str, None] = {}
        self.counts: Counter[Pair] = Counter()
        self.where: dict[Pair, set[int]] = defaultdict(set)
        self.allowed: dict[Pair, bool] = {}
        for number, word in enumerate(self.words):
            for pair in itertools.pairwise(word):
                self.counts[pair] += self.weights[number]
                self.where[pair].add(number)
        self.heap = [self._entry(pair) for pair in self.counts if self._may_merge(pair)]
        heapq.heapify(self.heap)

    def _entry(self, pair: Pair) -> tuple[int, int, str, Pair]:
        spelled = pair[0] + pair[1]
        return -self.counts[pair], len(spelled), spelled, pair

    def _may_merge(self, pair: Pair) -> bool:
        known = self.allowed.get(pair)
        if known is None:
            known = self.allowed[pair] = self.valid(pair[0] + pair[1])
        return known

    def step(self) -> bool:
        """Learn one piece; False when there are no pairs left."""
        while self.heap:
            entry = heapq.heappop(self.heap)
            pair, count = entry[3], self.counts[entry[3]]
            if count <= 0:
                continue
            if -entry[0] != count:
                heapq.heappush(self.heap, self._entry(pair))
                continue
            if entry[2] in self.pieces:  # spelled already, by another pair
                continue
            self.pieces[entry[2]] = None
            self._merge(pair)
            return True
        return False

    def _merge(self, pair: Pair) -> None:
        made: set[Pair] = set()
        for number in self.where.pop(pair):
            word, weight = self.words[number], self.weights[number]
            merged = _merged(word, pair)
            before, after = Counter(itertools.pairwise(word)), Counter(itertools.pairwise(merged))
            for neighbours in before.keys() | after.keys():
                change = after[neighbours] - before[neighbours]
                if change:
                    self.counts[neighbours] += change * weight
                if change > 0:
                    self.where[neighbours].add(number)
                    made.add(neighbours)
            self.words[number] = merged
        del self.counts[pair]
        for neighbours in made:
            if self._may_merge(neighbours):
                heapq.heappush(self.heap, self._entry(neighbours))


def _merged(word: list[str], pair: Pair) -> list[str]:
    """`word` with the pair merged wherever it stands, from the left."""
    out: list[str] = []
    place = 0
    while place < len(word):
        if word[place] == pair[0] and place + 1 < len(word) and word[place + 1] == pair[1]:
            out.append(pair[0] + pair[1])
            place += 2
        else:
            out.append(word[place])
            place += 1
    return out
