r"""Words as tokens: the oldest tokenizers, and what is wrong with them.

Three steps of a ladder:

- `split_on_spaces`: words are what stands between spaces. `FAILURES` shows where that breaks.
- `Words`: words and signs by a regular expression, a vocabulary of those in the training text; a word outside of it is
  an error (`SimpleTokenizerV1`) or the unknown token (`SimpleTokenizerV2`).
- `coverage`: how much of another text such a vocabulary knows. What it does not know is why subwords came.

The two simple tokenizers, their expressions and their vocabularies are those of Raschka, Build a Large Language Model
(From Scratch), 2024, chapter 2.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import regex

from groundup.base.errors import DataError, UsageError
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer

UNKNOWN = "<|unk|>"
END_OF_TEXT = "<|endoftext|>"
# Single signs and the double dash, between which words stand. The book's first printing left out colon and semicolon.
SIGNS = r"""[,.:;?_!"()']|--"""
SIGNS_FIRST_PRINTING = r"""[,.?_!"()']|--"""
# No space stands before these in a text.
CLOSING = frozenset(",.:;?!\"()'")


def split_on_spaces(text: str) -> list[str]:
    """What stands between single spaces; joined by spaces it is the text again. Two spaces make an empty word."""
    return text.split(" ")


@dataclass(frozen=True)
class Failure:
    """A text on which splitting at spaces fails.

    Attributes:
        text: the text.
        wanted: the units that a reader sees.
        why: what goes wrong.
    """

    text: str
    wanted: tuple[str, ...]
    why: str

    @property
    def words(self) -> list[str]:
        """What splitting at spaces gives."""
        return split_on_spaces(self.text)


FAILURES = (
    Failure("今天天气很好", ("今天", "天气", "很", "好"), "Chinese writes no spaces: the sentence is one word"),
    Failure(
        "Abwasserbehandlungsanlage",
        ("Abwasser", "behandlungs", "anlage"),
        "a German compound is one word, seldom seen, though its parts are common",
    ),
    Failure("don't", ("do", "n't"), "two words are written as one"),
    Failure("Stop. Go!", ("Stop", ".", "Go", "!"), "signs stick to words: `Stop.` is not `Stop`"),
    Failure("a  b", ("a", "b"), "two spaces make an empty word"),
    Failure("one\ntwo", ("one", "two"), "a line end is no space"),
)


class UnknownWord(UsageError, KeyError):
    """A word that is not in the vocabulary; a `KeyError` too, as a dictionary would raise."""

    __str__ = UsageError.__str__


def cut_words(text: str, signs: str = SIGNS) -> list[str]:
    """Words and signs of a text, in order; white space is left out."""
    return [word for part in regex.split(r"\s+", text) for word in _isolate(part, signs)]


def _isolate(part: str, signs: str) -> Iterable[str]:
    end = 0
    for match in regex.finditer(signs, part):
        if match.start() > end:
            yield part[end : match.start()]
        if match.end() > match.start():
            yield match.group()
        end = match.end()
    if end < len(part):
        yield part[end:]


class Words(Tokenizer):
    """Words and signs of the vocabulary are the tokens; white space is lost.

    With an unknown token (`names.unk`) other words become it; without one they are errors.

    Args:
        vocab: word -> id.
        added_tokens: control tokens.
        signs: regular expression of what is a token by itself, even inside a word.
        names: which special tokens are BOS, EOS, unknown, ...
        chat_template: kept with the tokenizer.
        post_processor: kept for other readers.

    Raises:
        UsageError: `signs` is no regular expression.
    """

    kind = "words"
    bytewise = False  # the first word has no space before it

    def __init__(
        self,
        vocab: Mapping[str, int],
        added_tokens: Iterable[AddedToken] = (),
        *,
        signs: str = SIGNS,
        names: SpecialNames | None = None,
        chat_template: str | None = None,
        post_processor: dict[str, Any] | None = None,
    ):
        super().__init__(vocab, added_tokens, names=names, chat_template=chat_template, post_processor=post_processor)
        try:
            regex.compile(signs)
        except regex.error as error:
            raise UsageError(f"`signs` = {signs!r} is not a regular expression: {error}") from None
        self.model_vocab = dict(vocab)
        self.signs = signs
        self._ids = {token: number for token, number in vocab.items() if token not in self.special_tokens}

    def _encode_text(self, text: str) -> list[int]:
        words = cut_words(text, self.signs)
        if self.unk_id is not None:
            return [self._ids.get(word, self.unk_id) for word in words]
        try:
            return [self._ids[word] for word in words]
        except KeyError as error:
            raise UnknownWord(
                f"the word {error.args[0]!r:.80} is not in the vocabulary: train on text that has it, or with an "
                "unknown token (`unk`)"
            ) from None

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The words with a space between, and none before a closing sign."""
        return super().decode(ids, skip_special=skip_special).removeprefix(" ")

    @cached_property
    def _bytes(self) -> list[bytes]:
        """A word comes with the space before it."""
        spaced = ("" if token is None else token if token in CLOSING else " " + token for token in self._tokens)
        return [text.encode("utf-8", errors="replace") for text in spaced]

    def to_json(self) -> dict[str, Any]:
        """The content of tokenizer.json."""
        from groundup.tokenizers.files import words_to_json

        return words_to_json(self)


class SimpleTokenizerV1(Words):
    """Words without an unknown token: a word outside the vocabulary is an error (`UnknownWord`)."""

    def __init__(self, vocab: Mapping[str, int], signs: str = SIGNS):
        super().__init__(vocab, signs=signs)


class SimpleTokenizerV2(Words):
    """Words with `<|unk|>` for what is not in the vocabulary, and `<|endoftext|>` between texts."""

    def __init__(self, vocab: Mapping[str, int], signs: str = SIGNS):
        vocab = dict(vocab)
        for token in (END_OF_TEXT, UNKNOWN):
            vocab.setdefault(token, max(vocab.values(), default=-1) + 1)
        added = [AddedToken(token, vocab[token]) for token in (END_OF_TEXT, UNKNOWN)]
        names = SpecialNames(eos=END_OF_TEXT, unk=UNKNOWN)
        super().__init__(vocab, added, signs=signs, names=names)


def build_vocabulary(
    words: Iterable[str], special_tokens: Sequence[str] = (), min_frequency: int = 1
) -> dict[str, int]:
    """Words in order of their code points, then the special tokens.

    Raises:
        DataError: there are no words.
        UsageError: a special token is repeated, empty, or a word of the text.
    """
    counts = Counter(words)
    if not counts:
        raise DataError("there is no text to learn from: the input is empty")
    known = sorted(word for word, count in counts.items() if count >= min_frequency)
    special = list(special_tokens)
    if len(set(special)) != len(special) or not all(special) or set(special) & set(known):
        raise UsageError(f"special tokens must be different, not empty and no words of the text, got {special}")
    return {token: number for number, token in enumerate([*known, *special])}


def train_words(
    texts: Iterable[str],
    special_tokens: Sequence[str] = (),
    *,
    signs: str = SIGNS,
    unk: bool = True,
    min_frequency: int = 1,
    names: SpecialNames | None = None,
    chat_template: str | None = None,
) -> Words:
    """The words of `texts`, in order of their code points, and then the special tokens.

    Args:
        texts: each is read once.
        special_tokens: control tokens.
        signs: what is a token by itself, even inside a word.
        unk: add `<|unk|>` for words that are not in the texts.
        min_frequency: words seen less often are left out.
        names: which special tokens are BOS, EOS, ...
        chat_template: kept with the tokenizer.

    Raises:
        DataError: the texts are empty.
        UsageError: a special token is repeated, empty, or a word of the texts.
    """
    names = names or SpecialNames()
    special = list(special_tokens)
    if unk:
        names = SpecialNames(names.bos, names.eos, names.pad, names.unk or UNKNOWN)
        special = list(dict.fromkeys([*special, names.unk or UNKNOWN]))
    from groundup.tokenizers.training.counting import count_words
    from groundup.tokenizers.training.splitting import BySigns

    counts = count_words(texts, BySigns(signs))
    for token in special:
        del counts[token]
    vocab = build_vocabulary(counts, special, min_frequency)
    added = [AddedToken(token, vocab[token]) for token in special]
    return Words(vocab, added, signs=signs, names=names, chat_template=chat_template)


@dataclass(frozen=True)
class Coverage:
    """How much of a text's words a vocabulary holds.

    Attributes:
        words: number of words in the text.
        unknown: how many of them are not in the vocabulary.
        different: the unknown words, the most frequent first.
    """

    words: int
    unknown: int
    different: tuple[str, ...]

    @property
    def rate(self) -> float:
        """The share of words that are unknown (OOV rate), 0 to 1."""
        return self.unknown / max(1, self.words)


def coverage(vocab: Mapping[str, int], words: Iterable[str]) -> Coverage:
    """Count the words that are not in the vocabulary."""
    counts = Counter(words)
    unknown = Counter({word: count for word, count in counts.items() if word not in vocab})
    return Coverage(counts.total(), unknown.total(), tuple(word for word, _ in unknown.most_common()))


class WordLevelModel:
    """Each word is one token; words outside the vocabulary become the unknown token.

    Args:
        vocab: word -> id.
        unk: the token of unknown words; where the vocabulary lacks it, an unknown word is an error.
    """

    def __init__(self, vocab: Mapping[str, int], *, unk: str = "<unk>"):
        self.vocab = vocab
        self.unk = unk

    def cut(self, word: str) -> list[tuple[int, int]]:
        """The word's id, and its length in characters as the end.

        Raises:
            UnknownWord: the word is unknown, and so is the unknown token.
        """
        if not word:
            return []
        number = self.vocab.get(word, self.vocab.get(self.unk))
        if number is None:
            raise UnknownWord(f"the word {word!r:.80} is not in the vocabulary, and neither is {self.unk!r}")
        return [(number, len(word))]

    def to_json(self) -> dict[str, Any]:
        """The `model` of a tokenizer.json."""
        return {"type": "WordLevel", "vocab": dict(self.vocab), "unk_token": self.unk}
