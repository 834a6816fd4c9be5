"""One token's history: the bytes it stands for, and the merges that build it from the smallest symbols."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from groundup.base.errors import UsageError, did_you_mean
from groundup.tokenizers.byte_symbols import to_symbols
from groundup.tokenizers.tokenizer import Tokenizer

Rank = Callable[[str, str], int | None]  # of two neighbouring symbols: how early they merge, or None


@dataclass(frozen=True)
class Built:
    """One merge on the way to a token.

    Attributes:
        rank: its place among all merges, from 0: how early it was learnt.
        left: the first part.
        right: the second part.
        state: the symbols after it.
    """

    rank: int
    left: str
    right: str
    state: tuple[str, ...]


@dataclass(frozen=True)
class History:
    """What is known of one token.

    Attributes:
        id: its number.
        token: its spelling in the vocabulary.
        data: the bytes that it stands for.
        kind: the kind of tokenizer.
        sort: "special", "added" or "vocabulary".
        start: the symbols that it is built from; empty where the kind knows no merges.
        merges: the merges that build it, in order.
        whole: whether they lead to the token itself; one that they do not reach occurs as a whole piece, or never.
        notes: what else the kind knows.
    """

    id: int
    token: str
    data: bytes
    kind: str
    sort: str
    start: tuple[str, ...]
    merges: tuple[Built, ...]
    whole: bool
    notes: tuple[str, ...]


def find(tokenizer: Tokenizer, wanted: str) -> int:
    """The id of a token given as its id, its spelling in the vocabulary, or the text that it stands for.

    Raises:
        UsageError: there is no such token.
    """
    for spelling in (wanted, to_symbols(wanted.encode("utf-8", errors="replace")), wanted.replace(" ", "\u2581")):
        if (number := tokenizer.id(spelling)) is not None:
            return number
    if wanted.isascii() and wanted.isdigit():
        tokenizer.token(int(wanted))
        return int(wanted)
    raise UsageError(f"{wanted!r:.80} is no token.{did_you_mean(wanted, tokenizer.vocab)}")


def history(tokenizer: Tokenizer, id: int) -> History:
    """The history of a token.

    Raises:
        UsageError: the id is not in the vocabulary.
    """
    token = tokenizer.token(id)
    added = {token.id: token for token in tokenizer.added.tokens}
    sort = "vocabulary" if id not in added else "special" if added[id].special else "added"
    rank = rank_of(tokenizer) if sort == "vocabulary" else None
    prefix = getattr(getattr(tokenizer, "model", None), "prefix", "")
    start = _symbols(tokenizer, token, prefix) if rank else ()
    built = _build(start, rank, prefix) if rank else ()
    whole = len(built[-1].state if built else start) <= 1
    notes = (*_parts(tokenizer, id), *_of_model(tokenizer, token, id))
    return History(id, token, tokenizer.token_bytes(id), tokenizer.algorithm, sort, start, built, whole, notes)


def rank_of(tokenizer: Tokenizer) -> Rank | None:
    """How early a pair is merged, for kinds that merge; None for others."""
    ids = tokenizer.vocab
    if tokenizer.kind == "byte_bpe" and tokenizer.ignore_merges:  # pyright: ignore[reportAttributeAccessIssue]
        # Any two neighbours that make a token merge, and the rank is the token's id.
        return lambda left, right: ids.get(left + right)
    if tokenizer.kind == "sentencepiece":
        return _by_score(tokenizer)
    merges = getattr(tokenizer, "merges", None) or getattr(getattr(tokenizer, "model", None), "merges", None)
    if not merges:
        return None
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    return lambda left, right: ranks.get((left, right))


def _by_score(tokenizer: Tokenizer) -> Rank | None:
    """SentencePiece's BPE: any two neighbours that make a piece merge, the highest score first."""
    file = tokenizer.file  # pyright: ignore[reportAttributeAccessIssue]
    if file.trainer.model_type != 2:
        return None
    order = sorted(range(len(file.pieces)), key=lambda number: -file.pieces[number].score)
    ranks = {file.pieces[number].piece: rank for rank, number in enumerate(order) if file.pieces[number].type == 1}
    return lambda left, right: ranks.get(left + right)


def _symbols(tokenizer: Tokenizer, token: str, prefix: str) -> tuple[str, ...]:
    """The smallest symbols of a token: characters, with what marks the inside or the end of a word."""
    suffix = getattr(getattr(tokenizer, "model", None), "suffix", "")
    ends = bool(suffix) and token.endswith(suffix) and token != suffix
    inside = bool(prefix) and token.startswith(prefix)
    characters = list(token.removeprefix(prefix).removesuffix(suffix if ends else ""))
    if ends:
        characters[-1] += suffix
    return tuple(prefix + c if place or inside else c for place, c in enumerate(characters))


def _build(start: tuple[str, ...], rank: Rank, prefix: str) -> tuple[Built, ...]:
    """Merge the pair of the smallest rank until none is left."""
    state, taken = start, []
    while True:
        pairs = enumerate(itertools.pairwise(state))
        found = [(number, place) for place, pair in pairs if (number := rank(*pair)) is not None]
        if not found:
            return tuple(taken)
        number, place = min(found)
        left, right = state[place : place + 2]
        state = (*state[:place], left + right.removeprefix(prefix), *state[place + 2 :])
        taken.append(Built(number, left, right, state))


def _parts(tokenizer: Tokenizer, id: int) -> list[str]:
    played = {
        "BOS": tokenizer.bos_id,
        "EOS": tokenizer.eos_id,
        "padding": tokenizer.pad_id,
        "unknown": tokenizer.unk_id,
    }
    return [f"it is the {part} token" for part, number in played.items() if number == id]


def _of_model(tokenizer: Tokenizer, token: str, id: int) -> list[str]:
    from groundup.tokenizers.unigram import UnigramModel
    from groundup.tokenizers.wordpiece import WordPieceModel

    model = getattr(tokenizer, "model", None)
    if tokenizer.kind == "sentencepiece":
        return [f"its score is {tokenizer.file.pieces[id].score:g}"]  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(model, WordPieceModel) and token not in tokenizer.special_tokens:
        return ["it stands inside a word" if token.startswith(model.prefix) else "it begins a word"]
    if isinstance(model, UnigramModel) and id < len(model.pieces):
        return [f"its log-probability is {model.pieces[id][1]:g}"]
    return []
