"""Shannon's game: guess the next letter until it is right; the numbers of guesses bound the entropy of the language.

    text      t h e r e   i s   n o   r e v e r s e
    guesses   1 1 1 5 1 1 2 1 1 2 1 1 15 1 17 1 1 1          (C. E. Shannon, 1951)

The numbers hold the whole text: a twin who would guess alike turns them back into letters. A person plays, or a model.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from groundup.base.errors import UsageError
from groundup.evaluation.entropy import guess_bounds, shares_of
from groundup.models.configs.ngram import ModifiedKneserNey
from groundup.models.ngrams.lookup import next_log2
from groundup.models.ngrams.smoothing import smooth

if TYPE_CHECKING:
    from groundup.tokenizers.tokenizer import Tokenizer


class Guesser(Protocol):
    """Someone who knows the language."""

    def probabilities(self, past: str) -> np.ndarray:
        """P of each letter of the alphabet after `past`, in the alphabet's order."""
        ...


class NGramGuesser:
    """Knows how often letters followed each other in a text (modified Kneser-Ney).

    Args:
        text: what it has read, in the alphabet.
        alphabet: the letters.
        order: n.
    """

    def __init__(self, text: str, alphabet: str, order: int = 6):
        self.alphabet = alphabet
        self._number = {letter: i for i, letter in enumerate(alphabet)}
        self._tables = smooth([self._ids(text)], order, len(alphabet), ModifiedKneserNey())

    def _ids(self, text: str) -> list[int]:
        try:
            return [self._number[letter] for letter in text]
        except KeyError as error:
            raise UsageError(f"{error} is not in the alphabet {self.alphabet!r}: see entropy.reduced") from None

    def probabilities(self, past: str) -> np.ndarray:
        """P of each letter, (A,)."""
        past = past[max(0, len(past) - len(self._tables.orders)) :]
        return 2.0 ** next_log2(self._tables, self._ids(past), np.arange(len(self.alphabet)))


class ModelGuesser:
    """A language model. What a letter gets is the probability of all ways to go on with it: with a token that begins
    with it, or with a longer token in place of the last ones, as "the" in place of "th".

        P(letter) ~ sum over j <= HEALED of P(last j tokens are cut as they are) sum over tokens that begin with their
                    text and the letter of P(token | all before them)

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        alphabet: the letters; capitals count as theirs, and what is no letter as a space where the alphabet has one.
        context: most tokens of the past that are read.
    """

    HEALED = 4
    """Most tokens at the end of the past that a longer one may replace."""

    def __init__(self, model: Any, tokenizer: "Tokenizer", alphabet: str, context: int = 128):
        from groundup.generation.generate import context_limit

        self.model, self.tokenizer, self.alphabet = model, tokenizer, alphabet
        self.context = min(context, context_limit(model) or context)
        texts = [self._in_alphabet(tokenizer.decode([id])) for id in range(tokenizer.vocab_size)]
        self._order = sorted(range(len(texts)), key=texts.__getitem__)  # tokens that begin alike stand together
        self._sorted = [texts[id] for id in self._order]

    def _in_alphabet(self, text: str) -> str:
        blank = " " if " " in self.alphabet else ""
        return "".join(c if c in self.alphabet else blank for c in text.lower())

    def probabilities(self, past: str) -> np.ndarray:
        """P of each letter among the alphabet's, (A,)."""
        ids = self.tokenizer.encode(past)[-self.context :]
        healed = min(self.HEALED, len(ids))
        p = self._next(ids, healed + 1)  # (healed + 1, V): after all tokens but the last `healed`, ..., after all
        found, weight = np.zeros(len(self.alphabet)), 1.0
        for row, cut in zip(p, range(healed, -1, -1), strict=True):
            begin = self._in_alphabet(self.tokenizer.decode(ids[len(ids) - cut :])) if cut else ""
            found += weight * self._by_letter(row, begin)
            if cut:
                weight *= row[ids[-cut]]
        return found / found.sum() if found.sum() > 0 else np.full(len(found), 1 / len(found))

    def _next(self, ids: list[int], positions: int) -> np.ndarray:
        """P of the next token after the last `positions` prefixes of the ids, (positions, V)."""
        import torch

        from groundup.generation.generate import evaluating, start_id

        read = torch.tensor([[start_id(self.tokenizer), *ids]], device=self.model.device)
        with torch.inference_mode(), evaluating(self.model):
            scores = self.model(read[:, -self.context :], head=lambda h, lm_head: lm_head(h[:, -positions:]))[0]
        return scores.float().softmax(-1)[:, : len(self._order)].cpu().numpy().astype(np.float64)

    def _by_letter(self, p: np.ndarray, begin: str) -> np.ndarray:
        """The probability of the tokens that begin with `begin` and a letter, by letter, (A,)."""
        found = np.zeros(len(self.alphabet))
        for index, letter in enumerate(self.alphabet):
            first = bisect_left(self._sorted, begin + letter)
            last = bisect_left(self._sorted, begin + letter + "\U0010ffff")
            found[index] = p[self._order[first:last]].sum()
        return found


class Game:
    """A text that is revealed letter by letter.

    Args:
        text: in the alphabet.
        known: letters that are shown before the game begins.
        alphabet: what may be guessed.

    Attributes:
        guesses: how many each guessed letter took.
    """

    def __init__(self, text: str, alphabet: str, known: int = 0):
        if not 0 <= known < len(text):
            raise UsageError(f"the text has {len(text)} letters: of these at least one must be left to guess")
        self.text, self.alphabet, self.place = text, alphabet, known
        self.guesses: list[int] = []
        self.tried: list[str] = []

    @property
    def past(self) -> str:
        """What is revealed."""
        return self.text[: self.place]

    @property
    def over(self) -> bool:
        """Whether everything is."""
        return self.place == len(self.text)

    def guess(self, letter: str) -> bool:
        """Name the next letter; whether it was right. A letter that was wrong here already is not counted again."""
        if letter not in self.alphabet or len(letter) != 1:
            raise UsageError(f"guess one letter of {self.alphabet!r}, not {letter!r}")
        if self.over:
            raise UsageError("the game is over: the whole text is revealed")
        if letter in self.tried:
            return False
        self.tried.append(letter)
        if letter != self.text[self.place]:
            return False
        self.guesses.append(len(self.tried))
        self.place, self.tried = self.place + 1, []
        return True

    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound of the entropy of a letter, in bits, from the guesses so far."""
        return guess_bounds(shares_of(self.guesses))


def ranking(guesser: Guesser, past: str, alphabet: str) -> Iterator[str]:
    """The letters in the order in which a guesser names them: the likeliest first, ties as in the alphabet."""
    for index in np.argsort(-guesser.probabilities(past), kind="stable"):
        yield alphabet[index]


def play(game: Game, guesser: Guesser) -> list[int]:
    """Let a guesser play to the end; the numbers of guesses."""
    while not game.over:
        for letter in ranking(guesser, game.past, game.alphabet):
            if game.guess(letter):
                break
    return game.guesses


def restore(guesses: Sequence[int], guesser: Guesser, alphabet: str, known: str = "") -> str:
    """The text from the numbers of guesses of a twin: what `play` made of it, turned back."""
    text = known
    for number in guesses:
        text += list(ranking(guesser, text, alphabet))[number - 1]
    return text


def predictor(guesser: Guesser, alphabet: str) -> Callable[[str], dict[str, float]]:
    """A guesser as `entropy.cross_entropy` asks for it."""
    return lambda past: dict(zip(alphabet, guesser.probabilities(past).tolist(), strict=True))
