"""Learning a unigram vocabulary (Kudo, 2018): begin with too many pieces, and let go of those that are missed least.

1. Seed: every character, and the substrings of words that cover the most text (occurrences times length).
2. EM: how often is each piece expected to be used, over all ways to cut the words; set the probabilities to that.
3. Prune: of the pieces that can be written with others, keep the share `keep` whose loss would cost the most.
4. Repeat 2 and 3 until there are few enough; finish with every required character and the best of the rest.

Words are counted once however often they occur. Their lattices are made once, as flat arrays of edges in order of the
position where they end, so that one step of EM is a few numpy calls for each position in a word, for all words at once.
`unigram_steps.py` has the same idea in plain Python.
"""

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from groundup.base.errors import DataError, UsageError
from groundup.tokenizers.unigram import UnigramModel

Progress = Callable[[int, int], None]  # (how far, of how much): whole numbers
Valid = Callable[[str], bool]
Scores = dict[str, float]

SEED_PIECES = 1_000_000
HEADROOM = 1.1  # EM stops at this multiple of the wanted size; the last ones go by their probability
LEAST_EXPECTED = 0.5  # pieces expected less often than this are dropped
REQUIRED_STEP = 0.0001  # what tells the scores of required characters apart that EM has dropped
# Shares of the time, measured: finding seeds, then making lattices, then rounds; EM in a round, the rest is pruning.
SEEDS, LATTICES, EM = 0.08, 0.3, 0.3


@dataclass(frozen=True)
class UnigramSettings:
    """How a unigram vocabulary is learnt.

    Attributes:
        keep: the share of pieces that each round keeps.
        steps: EM steps a round.
        longest: characters in a piece.
        bayesian: exp(digamma(count)) in place of the count, which takes more from rare pieces than from frequent ones
            (variational Bayes with a Dirichlet prior, as in the reference); without, EM proper.
        seeds: pieces to begin with.
    """

    keep: float = 0.75
    steps: int = 2
    longest: int = 16
    bayesian: bool = True
    seeds: int = SEED_PIECES

    def check(self) -> None:
        """Raises: UsageError: settings that cannot work."""
        if not 0 < self.keep < 1:
            raise UsageError(f"keep must be between 0 and 1, got {self.keep}: it is the share of pieces a round keeps")
        if self.steps < 1 or self.longest < 1 or self.seeds < 1:
            raise UsageError("steps, longest and seeds must be at least 1")


def learn_pieces(
    words: Mapping[str, int],
    size: int,
    settings: UnigramSettings = UnigramSettings(),
    *,
    required: Sequence[str] | None = None,
    valid: Valid | None = None,
    progress: Progress | None = None,
) -> list[tuple[str, float]]:
    """Pieces with log-probabilities, the most probable first.

    Args:
        words: how often each word occurs; no piece is longer than a word.
        size: pieces wanted; fewer come out where the words do not hold so many.
        settings: keep, steps, ...
        required: characters that must be in, the most frequent first; all of the words' unless given. Others are
            unknown: no piece holds one.
        valid: which substrings may be pieces.
        progress: called about a hundred times or more, with (how far, `size`).

    Raises:
        DataError: no words.
        UsageError: `size` is less than the required characters.
    """
    settings.check()
    words = {word: count for word, count in words.items() if word and count > 0}
    if not words:
        raise DataError("there is no text to learn from: the input is empty")
    required = list(characters_by_frequency(words)) if required is None else list(required)
    if len(required) > size:
        raise UsageError(
            f"a vocabulary of {size} pieces cannot hold the {len(required)} required characters: "
            "ask for more pieces, or for less character coverage"
        )
    tell = Telling(progress, size)
    seeds = seed_pieces(words, settings, frozenset(required), valid)
    tell(SEEDS)
    trainer = UnigramTrainer(words, seeds, settings, tell)
    trainer.fit(size)
    tell(1.0)
    return finished(trainer.scores(), required, size)


class Telling:
    """Tells how far the training is, as a share of its time, in steps of a percent or so, never backwards.

    How many rounds are to come follows from the number of pieces and the share that a round keeps; each takes as long
    as it has pieces. EM drops pieces of its own, so the rounds that are left are reckoned anew after each: they share
    what is left of the bar.
    """

    def __init__(self, progress: Progress | None = None, size: int = 1):
        self.progress, self.size = progress, size
        self.done = 0.0
        self._start, self._end = 0.0, 1.0

    def __call__(self, share: float) -> None:
        """`share` of the time is over."""
        if share > self.done:
            self.done = share
            if self.progress is not None:
                self.progress(round(share * self.size), self.size)

    def begin(self, pieces: int, wanted: int, keep: float) -> None:
        """A round with so many pieces begins."""
        # Rounds with n, n keep, n keep^2, ... pieces until `wanted`: the first takes (1 - keep) / (1 - keep^rounds).
        rounds = max(0, math.ceil(math.log(pieces / wanted) / -math.log(keep))) + 1
        self._start = self.done
        self._end = self.done + (1 - self.done) * (1 - keep) / (1 - keep**rounds)

    def within(self, share: float) -> None:
        """`share` of the round is over."""
        self(self._start + share * (self._end - self._start))


def characters_by_frequency(words: Mapping[str, int]) -> dict[str, int]:
    """Characters with their counts, the most frequent first, equals in order of their code points."""
    counts: dict[str, int] = {}
    for word, count in words.items():
        for character in word:
            counts[character] = counts.get(character, 0) + count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def finished(scores: Scores, required: Sequence[str], size: int) -> list[tuple[str, float]]:
    """The required characters and the most probable other pieces, `size` in all, the most probable first."""
    least = min(scores.values())
    lost = [character for character in required if character not in scores]
    chosen = {character: scores[character] for character in required if character in scores}
    chosen |= {character: least + REQUIRED_STEP * place for place, character in enumerate(lost)}
    for piece, score in sorted(scores.items(), key=lambda item: (-item[1], item[0])):
        if len(chosen) >= size:
            break
        chosen.setdefault(piece, score)
    return sorted(chosen.items(), key=lambda item: (-item[1], item[0]))


def seed_pieces(
    words: Mapping[str, int], settings: UnigramSettings, required: frozenset[str], valid: Valid | None = None
) -> Scores:
    """Characters and frequent substrings with log-probabilities in proportion to how much text they cover.

    Substrings are counted by their length: positions with equal substrings of length n have equal numbers, and the
    pair (that number, the next character) numbers those of length n + 1; a substring that occurs in one place only is
    not followed further. A substring that is always followed by the same character is left to the longer one.
    """
    text, room = _one_row(words)
    found = {c: float(n) for c, n in characters_by_frequency(words).items() if c in required}
    if not found:
        raise DataError("there is no text to learn from: it has none of the required characters")
    joined = "".join(words)
    usable = np.isin(text, [ord(character) for character in required])
    places = np.flatnonzero(usable)
    names = np.zeros(len(places), dtype=np.int64)
    candidates: list[tuple[float, str]] = []
    for length in range(1, settings.longest + 1):
        fits = (room[places] >= length) & usable[np.minimum(places + length - 1, len(text) - 1)]
        places, names = places[fits], names[fits]
        if not len(places):
            break
        following = text[places + length - 1]
        _, first, names, counts = np.unique(
            names << 21 | following, return_index=True, return_inverse=True, return_counts=True
        )
        if length > 1:
            branching = _branching(text, room, places, names, len(counts), length)
            for number in np.flatnonzero((counts > 1) & branching):
                start = places[first[number]]
                piece = joined[start : start + length]
                if valid is None or valid(piece):
                    candidates.append((float(counts[number] * length), piece))
        repeated = counts[names] > 1
        places, names = places[repeated], names[repeated]
    candidates.sort(key=lambda item: (-item[0], item[1]))
    found |= {piece: score for score, piece in candidates[: max(0, settings.seeds - len(found))]}
    total = math.log(sum(found.values()))
    return {piece: math.log(score) - total for piece, score in found.items()}


def _branching(
    text: np.ndarray, room: np.ndarray, places: np.ndarray, names: np.ndarray, count: int, length: int
) -> np.ndarray:
    """For each substring: is it followed by different characters, or by the end of a word?"""
    ends = room[places] == length
    following = np.where(ends, -1, text[np.minimum(places + length, len(text) - 1)])
    least, most = np.full(count, 2**62), np.full(count, -2)
    np.minimum.at(least, names, following)
    np.maximum.at(most, names, following)
    return (least != most) | (least == -1)


def _one_row(words: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """(code points of all words in a row, characters from each position to the end of its word)."""
    words = list(words)
    text = np.frombuffer("".join(words).encode("utf-32-le", errors="surrogatepass"), "<u4").astype(np.int64)
    lengths = np.array([len(word) for word in words])
    ends = np.repeat(np.cumsum(lengths), lengths)
    return text, ends - np.arange(len(text))


class UnigramTrainer:
    """EM and pruning over the lattices of all words.

    An edge is a piece at a place in a word. Positions of all words are numbered through: word w with n characters has
    the n + 1 positions first[w] to first[w] + n. Edges are sorted by the level (the place in its word) where they end,
    then by position, so a level's edges stand together, and those of one position among them.
    """

    def __init__(
        self,
        words: Mapping[str, int],
        scores: Scores,
        settings: UnigramSettings = UnigramSettings(),
        tell: Telling | None = None,
    ):
        self.settings, self.tell = settings, tell or Telling()
        self.names = list(scores)
        self.log_p = np.array(list(scores.values()))
        self.words = list(words)
        self.counts = np.array([words[word] for word in self.words], dtype=np.float64)
        self._first = np.concatenate([[0], np.cumsum([len(word) + 1 for word in self.words])])
        self._make_edges()

    def scores(self) -> Scores:
        """The pieces with their log-probabilities."""
        return dict(zip(self.names, self.log_p.tolist(), strict=True))

    def _make_edges(self) -> None:
        """All edges; a character that no piece covers gets one of piece -1."""
        ids = {name: number for number, name in enumerate(self.names)}
        longest = max(map(len, self.names))
        prefixes = {name[:length] for name in self.names for length in range(1, len(name) + 1)}
        edges = array("q")  # piece, start, end, level, in a row
        often = math.ceil(len(self.words) / 100)
        for number, (word, first) in enumerate(zip(self.words, self._first.tolist(), strict=False)):
            if number % often == 0:
                self.tell(SEEDS + (LATTICES - SEEDS) * number / len(self.words))
            for place in range(len(word)):
                single = False
                for stop in range(place + 1, min(len(word), place + longest) + 1):
                    text = word[place:stop]
                    piece = ids.get(text)
                    if piece is not None:
                        single = single or stop == place + 1
                        edges.extend((piece, first + place, first + stop, stop))
                    elif text not in prefixes:
                        break
                if not single:
                    edges.extend((-1, first + place, first + place + 1, place + 1))
        columns = np.frombuffer(edges, dtype=np.int64).reshape(-1, 4).T  # (4, edges)
        self.piece, self.start, self.end, self.level = columns[:, np.lexsort((columns[2], columns[3]))]
        self._find_groups()

    def _find_groups(self) -> None:
        """Where the edges of each level, and of each position within it, begin."""
        self._levels = [0, *(np.flatnonzero(np.diff(self.level)) + 1).tolist(), len(self.level)]
        self._groups = [
            np.concatenate([[0], np.flatnonzero(np.diff(self.end[low:high])) + 1])
            for low, high in zip(self._levels, self._levels[1:], strict=False)
        ]

    def _edge_scores(self) -> np.ndarray:
        unknown = self.log_p.min() - 10.0
        return np.where(self.piece < 0, unknown, self.log_p[self.piece])

    def _forward(self, scores: np.ndarray) -> np.ndarray:
        # alpha(end) = log sum over edges of exp(alpha(start) + log p)
        alpha = np.zeros(self._first[-1])
        for low, high, groups in zip(self._levels, self._levels[1:], self._groups, strict=False):
            arriving = alpha[self.start[low:high]] + scores[low:high]
            top = np.maximum.reduceat(arriving, groups)
            sums = np.add.reduceat(np.exp(arriving - np.repeat(top, np.diff([*groups, high - low]))), groups)
            alpha[self.end[low:high][groups]] = top + np.log(sums)
        return alpha

    def _posterior(self, scores: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        """The probability that each edge is used; backwards, from the ends of words.

        usage(position) is 1 at the end of a word; it flows back over each edge in proportion to
        exp(alpha(start) + log p - alpha(end)), the probability that the last piece before `end` is this one.
        """
        share = np.exp(alpha[self.start] + scores - alpha[self.end])
        usage = np.zeros(len(alpha))
        usage[self._first[1:] - 1] = 1.0
        used = np.empty(len(share))
        for low, high in zip(self._levels[-2::-1], self._levels[:0:-1], strict=True):
            used[low:high] = share[low:high] * usage[self.end[low:high]]
            usage += np.bincount(self.start[low:high], used[low:high], len(usage))
        return used

    def _word_of_edges(self) -> np.ndarray:
        return np.searchsorted(self._first, self.start, side="right") - 1

    def log_likelihood(self) -> float:
        """The log-likelihood of the text: the sum over words of count * log P(word)."""
        alpha = self._forward(self._edge_scores())
        return float(alpha[self._first[1:] - 1] @ self.counts)

    def expected_counts(self) -> tuple[float, np.ndarray]:
        """The E step: (log-likelihood, how often each piece is expected to be used in the text)."""
        scores = self._edge_scores()
        alpha = self._forward(scores)
        used = self._posterior(scores, alpha) * self.counts[self._word_of_edges()]
        known = self.piece >= 0
        counts = np.bincount(self.piece[known], used[known], len(self.names))
        return float(alpha[self._first[1:] - 1] @ self.counts), counts

    def step(self) -> float:
        """One EM step; the log-likelihood before it."""
        likelihood, counts = self.expected_counts()
        if not self.settings.bayesian:
            with np.errstate(divide="ignore"):
                self.log_p = np.maximum(np.log(counts) - math.log(counts.sum()), -1e4)  # p = count / sum of counts
            return likelihood
        kept = counts >= LEAST_EXPECTED
        self.log_p = np.where(kept, digamma(np.maximum(counts, LEAST_EXPECTED)) - digamma(counts[kept].sum()), -1e4)
        self.keep_only(kept)
        return likelihood

    def keep_only(self, kept: np.ndarray) -> None:
        """Let go of the pieces that `kept` (a boolean each) does not name."""
        if kept.all():
            return
        single = (self.end - self.start == 1) & (self.piece >= 0)
        number = np.cumsum(kept) - 1
        # The edge over one character stays, as unknown.
        gone = (self.piece >= 0) & ~kept[self.piece]
        self.piece = np.where(gone, -1, np.where(self.piece < 0, -1, number[self.piece]))
        stay = ~gone | single
        self.piece, self.start, self.end, self.level = (
            column[stay] for column in (self.piece, self.start, self.end, self.level)
        )
        self.names = [name for name, keep in zip(self.names, kept, strict=True) if keep]
        self.log_p = self.log_p[kept]
        self._find_groups()

    def fit(self, size: int) -> None:
        """EM and pruning in turn until about `size` pieces are left."""
        wanted = int(size * HEADROOM)
        while True:
            self.tell.begin(len(self.names), wanted, self.settings.keep)
            for step in range(self.settings.steps):
                self.step()
                self.tell.within(EM * (step + 1) / self.settings.steps)
            if len(self.names) <= wanted:
                return
            before = len(self.names)
            self.prune(max(wanted, int(before * self.settings.keep)))
            if len(self.names) >= before:
                return

    def prune(self, size: int) -> None:
        """Keep `size` pieces: those that nothing else can write, and those whose loss costs the most likelihood."""
        counts = self.best_counts()
        total = counts.sum()
        always, losses = [], []
        model = UnigramModel(list(self.scores().items())).lattice
        with_word = self._weight_of_words_with()
        often = math.ceil(len(self.names) / 100)
        for number, name in enumerate(self.names):
            if number % often == 0:
                self.tell.within(EM + (1 - EM) * number / len(self.names))
            ways = model.n_best(name, 2)
            if len(ways) == 1:
                always.append(number)
            elif len(ways[0][0]) == 1 and counts[number] > 0:
                others = [piece for piece, _ in ways[1][0]]
                # Its uses go to the pieces of the second best way to write it, and there are that many more pieces.
                after = math.log(total + counts[number] * (len(others) - 1))
                instead = sum(math.log(counts[other] + counts[number]) - after for other in others)
                loss = with_word[number] * (math.log(counts[number]) - math.log(total) - instead)
                losses.append((-loss, number))
        kept = np.zeros(len(self.names), dtype=bool)
        kept[always] = True
        kept[[number for _, number in sorted(losses)[: max(0, size - len(always))]]] = True
        self.keep_only(kept)

    def best_counts(self) -> np.ndarray:
        """How often each piece is used when every word is cut in its best way (Viterbi)."""
        on_path = self._on_best_path() & (self.piece >= 0)
        weights = self.counts[self._word_of_edges()][on_path]
        self._used = self.piece[on_path], self._word_of_edges()[on_path]
        return np.bincount(self.piece[on_path], weights, len(self.names))

    def _on_best_path(self) -> np.ndarray:
        scores = self._edge_scores()
        best, last = np.zeros(self._first[-1]), np.full(self._first[-1], -1)
        for low, high, groups in zip(self._levels, self._levels[1:], self._groups, strict=False):
            arriving = best[self.start[low:high]] + scores[low:high]
            top = np.maximum.reduceat(arriving, groups)
            sizes = np.diff([*groups, high - low])
            winners = np.flatnonzero(arriving == np.repeat(top, sizes))[::-1]  # of equals the first is written last
            ends = self.end[low:high]
            best[ends[groups]] = top
            last[ends[winners]] = winners + low
        on_path = np.zeros(len(self.piece), dtype=bool)
        places = self._first[1:] - 1
        while len(places):
            edges = last[places]
            on_path[edges] = True
            places = self.start[edges]
            places = places[last[places] >= 0]
        return on_path

    def _weight_of_words_with(self) -> np.ndarray:
        """For each piece the share of the text's words whose best cut has it."""
        pieces, words = self._used
        pairs = np.unique(pieces * len(self.words) + words)
        weights = self.counts[pairs % len(self.words)]
        return np.bincount(pairs // len(self.words), weights, len(self.names)) / self.counts.sum()


def digamma(x: np.ndarray | float) -> np.ndarray:
    """The derivative of log gamma: by recurrence up to 7, then the asymptotic series about x - 1/2."""
    x = np.asarray(x, dtype=np.float64).copy()
    result = np.zeros_like(x)
    for _ in range(7):
        small = x < 7
        result = np.where(small, result - 1 / x, result)
        x = np.where(small, x + 1, x)
    half = 1 / (x - 0.5) ** 2
    return result + np.log(x - 0.5) + half / 24 - half**2 * 7 / 960 + half**3 * 31 / 8064 - half**4 * 127 / 30720
