"""Learning byte-level BPE merges (Sennrich et al., 2016): count adjacent pairs, merge the most frequent, repeat.

Words are counted once however often they occur, each pair knows the words that hold it, and a heap hands out the most
frequent pair; so a merge costs only what it changes. Of equally frequent pairs the one with the smaller ids comes
first. Vocabulary and merges are those of the `tokenizers` library's BpeTrainer on the same texts.

`Learner` is the algorithm to read. For many words `compiled_training` does the same over arrays, a hundred times
faster, where numba is there; `counting` counts the words.
"""

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from groundup.base.errors import DataError, UsageError
from groundup.tokenizers import kernels
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.byte_bpe import ByteBPE, Merge
from groundup.tokenizers.byte_symbols import ALPHABET, to_symbols
from groundup.tokenizers.tokenizer import MAX_ID, SpecialNames
from groundup.tokenizers.training.counting import count_pieces
from groundup.tokenizers.training.splitting import ByPattern

if TYPE_CHECKING:
    from groundup.tokenizers.training.compiled import Pieces

Pair = tuple[int, int]
Progress = Callable[[int, int], None]  # (tokens so far, tokens wanted)
MANY_WORDS = 20_000  # from which loading the compiled learner pays
STEPS = 500  # merges between two looks at the clock


def train_byte_bpe(
    texts: Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str] = (),
    *,
    pattern: str = "gpt2",
    normal_form: str | None = None,
    min_frequency: int = 0,
    names: SpecialNames | None = None,
    chat_template: str | None = None,
    progress: Progress | None = None,
) -> ByteBPE:
    """Learn a byte-level BPE tokenizer from texts.

    Ids: special tokens first, then the 256 byte symbols, then merged tokens in the order in which they were learnt. The
    vocabulary is smaller than asked for when the texts hold no more pairs.

    Args:
        texts: each is cut into pieces on its own.
        vocab_size: number of ids wanted, special tokens and the 256 byte symbols included.
        special_tokens: control tokens.
        pattern: a name in `pretokenize.PATTERNS`, or a regular expression.
        normal_form: Unicode normal form applied before all else.
        min_frequency: a pair seen less often is not merged.
        names: which special tokens are BOS, EOS, ...
        chat_template: kept with the tokenizer.
        progress: called after each merge, or after several.

    Raises:
        UsageError: the vocabulary is too small for the byte symbols, or a special token is repeated or empty.
        DataError: the texts are empty.
    """
    special_tokens = list(special_tokens)
    _check(vocab_size, special_tokens)
    vocab = {token: number for number, token in enumerate(special_tokens)}
    for symbol in ALPHABET:
        vocab.setdefault(symbol, len(vocab))
    words = count_pieces(texts, ByPattern(pattern, normal_form))
    if not words:
        raise DataError("there is no text to learn from: the input is empty")
    merges = learn_merges(words, vocab, vocab_size, min_frequency, progress, frozenset(special_tokens))
    added = [AddedToken(token, vocab[token]) for token in special_tokens]
    return ByteBPE(
        vocab, merges, added, pattern=pattern, normal_form=normal_form, names=names, chat_template=chat_template
    )


def _check(vocab_size: int, special_tokens: Sequence[str]) -> None:
    smallest = 256 + len(special_tokens)
    if not smallest <= vocab_size <= MAX_ID:
        raise UsageError(
            f"vocab_size {vocab_size} must be {smallest} to {MAX_ID}: "
            f"256 bytes and {len(special_tokens)} special tokens are always in"
        )
    if len(set(special_tokens)) != len(special_tokens) or not all(special_tokens):
        raise UsageError(f"special tokens must be different and not empty, got {list(special_tokens)}")
    if byte := next((token for token in special_tokens if token in ALPHABET), None):
        raise UsageError(f"the special token {byte!r} is the symbol of a byte: choose a longer one, such as <|{byte}|>")


def learn_merges(
    words: "Counter[str] | Pieces",
    vocab: dict[str, int],
    vocab_size: int,
    min_frequency: int = 0,
    progress: Progress | None = None,
    forbidden: frozenset[str] = frozenset(),
) -> list[Merge]:
    """Merge until `vocab` (changed in place) holds `vocab_size` tokens; the merges in order.

    No merge makes a token in `forbidden`, the first ones of `vocab`: so plain text never becomes a control token.
    """
    if isinstance(words, Counter) and not (len(words) >= MANY_WORDS and kernels.available()):
        learner = Learner(words, vocab, min_frequency, forbidden)
        while len(vocab) < vocab_size and learner.step():
            if progress is not None:
                progress(len(vocab), vocab_size)
        return learner.merges
    return _learn_compiled(words, vocab, vocab_size, min_frequency, progress, forbidden)


def _learn_compiled(
    words: "Counter[str] | Pieces",
    vocab: dict[str, int],
    vocab_size: int,
    min_frequency: int,
    progress: Progress | None,
    forbidden: frozenset[str],
) -> list[Merge]:
    from groundup.tokenizers.training.compiled import CompiledLearner, Pieces

    pieces = Pieces.of(words) if isinstance(words, Counter) else words
    learner = CompiledLearner(pieces, vocab, vocab_size, min_frequency, forbidden)
    while learner.learn(STEPS):
        if progress is not None:
            progress(learner.size, vocab_size)
    if progress is not None:
        progress(learner.size, vocab_size)
    return learner.result()


def bytes_of(word: str) -> str:
    """A word as the symbols of its bytes."""
    return to_symbols(word.encode("utf-8"))


class Learner:
    """Words as lists of ids, counts of adjacent pairs, and a heap of pairs.

    A heap entry is (-count, pair, words that hold the pair since the entry was made). Counts only fall between entries
    of a pair, so an entry whose count is out of date goes back with the right one.

    Args:
        words: word -> how often it occurs.
        vocab: token -> id, in the order of ids from 0; what is learnt is put in.
        min_frequency: rarer pairs are not merged.
        forbidden: tokens of `vocab` that no merge makes.
        symbols: what a word begins as, in tokens of `vocab`: its bytes, or something else (`training.bpe`).
    """

    def __init__(
        self,
        words: Counter[str],
        vocab: dict[str, int],
        min_frequency: int,
        forbidden: frozenset[str],
        symbols: Callable[[str], Iterable[str]] = bytes_of,
    ):
        self.words = [[vocab[symbol] for symbol in symbols(word)] for word in words]
        self.counts = list(words.values())
        self.vocab, self.spelling = vocab, list(vocab)
        self.least, self.forbidden = max(1, min_frequency), forbidden
        self.merges: list[Merge] = []
        self.pair_counts: dict[Pair, int] = defaultdict(int)
        self.heap: list[tuple[int, Pair, set[int]]] = []
        self._count_all()

    def _count_all(self) -> None:
        where: dict[Pair, set[int]] = defaultdict(set)
        for number, (word, count) in enumerate(zip(self.words, self.counts, strict=True)):
            for pair in itertools.pairwise(word):
                self.pair_counts[pair] += count
                where[pair].add(number)
        self.heap = [(-self.pair_counts[pair], pair, numbers) for pair, numbers in where.items()]
        heapq.heapify(self.heap)

    def step(self) -> bool:
        """Learn one merge; False when no pair is frequent enough."""
        while self.heap:
            negative, pair, numbers = self.heap[0]
            count = self.pair_counts[pair]
            if count != -negative:
                heapq.heapreplace(self.heap, (-count, pair, numbers))
                continue
            if count < self.least:
                return False
            heapq.heappop(self.heap)
            if self.spelling[pair[0]] + self.spelling[pair[1]] not in self.forbidden:
                self._merge(pair, numbers)
                return True
        return False

    def _merge(self, pair: Pair, numbers: set[int]) -> None:
        left, right = self.spelling[pair[0]], self.spelling[pair[1]]
        new = self.vocab.setdefault(left + right, len(self.vocab))
        if new == len(self.spelling):
            self.spelling.append(left + right)
        self.merges.append((left, right))
        where: dict[Pair, set[int]] = defaultdict(set)
        for number in numbers:
            self._merge_in_word(number, pair, new, where)
        for made, places in where.items():
            if (count := self.pair_counts[made]) > 0:
                heapq.heappush(self.heap, (-count, made, places))

    def _merge_in_word(self, number: int, pair: Pair, new: int, where: dict[Pair, set[int]]) -> None:
        """Replace the pair from left to right, and book the neighbours' pairs that go and come.

        The merged pair's own count is left as it is: it has left the heap.
        """
        word, count, pair_counts = self.words[number], self.counts[number], self.pair_counts
        left, right = pair
        place, last = 0, len(word) - 1
        while True:
            try:
                place = word.index(left, place, last)
            except ValueError:
                return
            if word[place + 1] != right:
                place += 1
                continue
            if place:
                before = word[place - 1]
                pair_counts[before, left] -= count
                pair_counts[before, new] += count
                where[before, new].add(number)
            word[place : place + 2] = [new]
            last -= 1
            if place < last:
                after = word[place + 1]
                pair_counts[right, after] -= count
                pair_counts[new, after] += count
                where[new, after].add(number)
            place += 1
