"""Several tokenizers on one text: how long it gets, what they do not know, how fast they are, where they differ."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from groundup.base.errors import DataError, UsageError
from groundup.tokenizers.tokenizer import Tokenizer

LEAST_SECONDS = 0.05  # a short text is encoded again and again until so much time has passed
CONTEXT = 24  # characters shown on either side of a difference


@dataclass(frozen=True)
class Measured:
    """One tokenizer on one text. Where it cannot encode the text, the figures that need ids are None.

    Attributes:
        name: what the tokenizer is called here.
        kind: its kind.
        vocabulary: number of ids.
        tokens: length of the text in tokens.
        tokens_per_byte: tokens over bytes of UTF-8: the shorter the sequence, the smaller.
        tokens_per_word: tokens over words (between white space), the fertility of the vocabulary.
        unknown: how many tokens are the unknown token.
        coverage: the share of words, 0 to 1, that are encoded without the unknown token and without an error.
        megabytes_per_second: speed of encoding, on one thread.
        lossless: whether decoding gives the text back.
        ids: the ids.
        error: why it cannot encode the text.
    """

    name: str
    kind: str
    vocabulary: int
    tokens: int | None
    tokens_per_byte: float | None
    tokens_per_word: float | None
    unknown: int | None
    coverage: float
    megabytes_per_second: float | None
    lossless: bool
    ids: Sequence[int]
    error: str | None = None


@dataclass(frozen=True)
class Difference:
    """Where two tokenizers part: in their ids, and in how they cut the text (two vocabularies number tokens otherwise).

    Attributes:
        token: the first place where the ids differ, counted from 0.
        cut: the first place where the tokens stand for other bytes; None: the text is cut alike.
        byte: the byte at which that token begins, counted in what the first tokenizer's tokens spell.
        before: text just before, as the first decodes it.
        first: what the token there (at `cut`, or else at `token`) adds to the text in the first tokenizer; None at its
            end.
        second: the same for the second.
    """

    token: int
    cut: int | None
    byte: int
    before: str
    first: str | None
    second: str | None


def compare(tokenizers: Mapping[str, Tokenizer], text: str) -> list[Measured]:
    """Measure each tokenizer on the text.

    Raises:
        DataError: the text is empty.
    """
    if not text:
        raise DataError("the text is empty: there is nothing to compare on")
    return [measure(name, tokenizer, text) for name, tokenizer in tokenizers.items()]


def measure(name: str, tokenizer: Tokenizer, text: str) -> Measured:
    """One tokenizer's figures."""
    size, covered = len(text.encode("utf-8", errors="replace")), coverage(tokenizer, text)
    fixed = {"name": name, "kind": tokenizer.algorithm, "vocabulary": tokenizer.vocab_size, "coverage": covered}
    try:
        ids, seconds = _timed(tokenizer, text)
    except UsageError as error:
        none = dict.fromkeys(("tokens", "tokens_per_byte", "tokens_per_word", "unknown", "megabytes_per_second"))
        return Measured(**fixed, **none, lossless=False, ids=(), error=str(error))
    return Measured(
        **fixed,
        tokens=len(ids),
        tokens_per_byte=len(ids) / size,
        tokens_per_word=len(ids) / max(1, len(text.split())),
        unknown=0 if tokenizer.unk_id is None else ids.count(tokenizer.unk_id),
        megabytes_per_second=size / 1e6 / seconds,
        lossless=tokenizer.decode(ids) == text,
        ids=ids,
    )


def _timed(tokenizer: Tokenizer, text: str) -> tuple[list[int], float]:
    """The ids, and the shortest time that encoding took."""
    best, spent = float("inf"), 0.0
    while True:
        started = time.perf_counter()
        ids = tokenizer.encode(text)
        seconds = max(time.perf_counter() - started, 1e-9)
        best, spent = min(best, seconds), spent + seconds
        if spent >= LEAST_SECONDS:
            return ids, best


def coverage(tokenizer: Tokenizer, text: str) -> float:
    """The share of the text's words that the tokenizer knows, 0 to 1; words are counted as often as they occur."""
    words = Counter(text.split())
    known = sum(count for word, count in words.items() if _knows(tokenizer, word))
    return known / words.total() if words else 1.0


def _knows(tokenizer: Tokenizer, word: str) -> bool:
    try:
        ids = tokenizer.encode(word)
    except UsageError:
        return False
    return tokenizer.unk_id is None or tokenizer.unk_id not in ids


def first_difference(
    first: Tokenizer, first_ids: Sequence[int], second: Tokenizer, second_ids: Sequence[int]
) -> Difference | None:
    """Where the ids part; None where they are equal."""
    if list(first_ids) == list(second_ids):
        return None
    ours, theirs = ([t.token_bytes(n) for n in ids] for t, ids in ((first, first_ids), (second, second_ids)))
    token, cut = _first(first_ids, second_ids), _first(ours, theirs)
    place = (token or 0) if cut is None else cut
    before = b"".join(ours[:place])
    shown = [piece[place] if place < len(piece) else None for piece in (ours, theirs)]
    return Difference(
        len(first_ids) if token is None else token,
        cut,
        len(before),
        before.decode("utf-8", errors="replace")[-CONTEXT:],
        *(None if piece is None else piece.decode("utf-8", errors="backslashreplace") for piece in shown),
    )


def _first(one: Sequence[object], other: Sequence[object]) -> int | None:
    """The first place where two sequences differ."""
    if list(one) == list(other):
        return None
    both = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in both if a != b), min(len(one), len(other)))


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> Iterator[str]:
    r"""What each token adds to the text; a part of a character is shown as its bytes, `\xe4`."""
    for number in ids:
        yield tokenizer.token_bytes(number).decode("utf-8", errors="backslashreplace")
