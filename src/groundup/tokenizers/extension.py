"""A trained tokenizer with more tokens: new ones by name, or those of a second vocabulary.

Ids of the tokens that were there stay as they are, so a model trained with them goes on from where it was once its
embedding has rows for the new ones (`models/resize.py`). What was one token stays one; text that the new tokens spell
gets fewer.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from groundup.base.errors import UsageError
from groundup.tokenizers.added_tokens import AddedToken, AddedTokens
from groundup.tokenizers.tokenizer import Tokenizer, tokens_by_id

if TYPE_CHECKING:
    from groundup.tokenizers.byte_bpe import ByteBPE
    from groundup.tokenizers.sentencepiece.tokenizer import SentencePiece


def next_id(tokenizer: Tokenizer) -> int:
    """The first id after all tokens; models may have rows for it already."""
    return max(tokenizer.vocab.values()) + 1


def add_tokens(tokenizer: Tokenizer, tokens: Sequence[str], *, special: bool) -> Tokenizer:
    """A tokenizer with new tokens at the next ids, found in the text before the vocabulary sees it.

    Args:
        tokenizer: stays as it is.
        tokens: their spellings.
        special: control tokens, which text becomes only where that is allowed; plain ones are found always.

    Raises:
        UsageError: a token is empty, repeated, or in the vocabulary already.
    """
    _check(tokenizer, tokens)
    start = next_id(tokenizer)
    if tokenizer.kind == "sentencepiece" and start == len(tokenizer.file.pieces):  # pyright: ignore[reportAttributeAccessIssue]
        return _with_pieces(tokenizer, tokens, special)  # pyright: ignore[reportArgumentType]
    new = [AddedToken(token, start + place, special, normalized=not special) for place, token in enumerate(tokens)]
    return _with_added(tokenizer, new)


def _check(tokenizer: Tokenizer, tokens: Sequence[str]) -> None:
    if len(set(tokens)) != len(tokens) or not all(tokens):
        raise UsageError(f"new tokens must be different and not empty, got {list(tokens)}")
    if known := next((token for token in tokens if token in tokenizer.vocab), None):
        raise UsageError(f"the token {known!r} is in the vocabulary already: its id is {tokenizer.vocab[known]}")


def _with_added(tokenizer: Tokenizer, new: Sequence[AddedToken]) -> Tokenizer:
    made = copy.copy(tokenizer)
    made.added = AddedTokens([*tokenizer.added.tokens, *new], tokenizer.added.normalize)
    made.vocab = tokenizer.vocab | {token.content: token.id for token in new}
    rows = tokens_by_id(made.vocab)
    made._tokens = rows + [None] * (tokenizer.vocab_size - len(rows))
    made.special_tokens = {token.content: token.id for token in made.added.tokens if token.special}
    for name in _cached(type(tokenizer)):
        made.__dict__.pop(name, None)
    return made


def _cached(kind: type) -> Iterable[str]:
    """The names of what is computed once: it may be another with more tokens."""
    return {name for cls in kind.__mro__ for name, value in vars(cls).items() if isinstance(value, cached_property)}


def _with_pieces(tokenizer: "SentencePiece", tokens: Sequence[str], special: bool) -> Tokenizer:
    """New pieces of the file itself: control symbols, or symbols that the user defined."""
    from groundup.tokenizers.formats.sentencepiece_proto import Piece, PieceType

    kind = PieceType.CONTROL if special else PieceType.USER_DEFINED
    return _of_pieces(tokenizer, [Piece(piece=token, score=0.0, type=int(kind)) for token in tokens])


def _of_pieces(tokenizer: "SentencePiece", pieces: list) -> "SentencePiece":
    """The tokenizer with more pieces in its file."""
    file = copy.copy(tokenizer.file)
    file.pieces = [*file.pieces, *pieces]
    file.trainer = dataclasses.replace(file.trainer, vocab_size=len(file.pieces))
    made = type(tokenizer)(
        file,
        tokenizer.added.tokens,
        names=tokenizer.names,
        chat_template=tokenizer.chat_template,
        post_processor=tokenizer.post_processor,
    )
    made.chat_templates = dict(tokenizer.chat_templates)
    return made


def merge_vocabularies(first: Tokenizer, second: Tokenizer) -> Tokenizer:
    """The first tokenizer with what the second knows more: as Chinese-LLaMA did (Cui et al., 2023).

    Control tokens of the second are left out; how text is normalized and cut is the first's.

    Raises:
        UsageError: two kinds, a kind that cannot be merged, or nothing new in the second.
    """
    if first.kind != second.kind:
        raise UsageError(
            f"a {first.algorithm} and a {second.algorithm} vocabulary cannot be merged: give two of one kind"
        )
    if first.kind not in _MERGED:
        raise UsageError(f"{first.algorithm} vocabularies cannot be merged; {', '.join(_MERGED)} can")
    merged = _MERGED[first.kind](first, second)
    merged.chat_templates = dict(first.chat_templates)
    if len(merged.vocab) == len(first.vocab):
        raise UsageError("the second vocabulary holds nothing that the first does not")
    return merged


def _new_tokens(first: Tokenizer, second: Tokenizer) -> list[str]:
    """The second's tokens that the first lacks, in order of their ids, without control tokens."""
    by_id = sorted(second.vocab.items(), key=lambda item: item[1])
    return [token for token, _ in by_id if token not in first.vocab and token not in second.special_tokens]


def _merge_byte_bpe(first: "ByteBPE", second: "ByteBPE") -> Tokenizer:
    """New tokens, and the merges that make them, after all of the first's."""
    from groundup.tokenizers.byte_bpe import ByteBPE

    plain = {token.content for token in second.added.tokens}
    new = [token for token in _new_tokens(first, second) if token not in plain]
    start = next_id(first)
    vocab = first.model_vocab | {token: start + place for place, token in enumerate(new)}
    known = set(first.merges)
    return ByteBPE(
        vocab,
        [*first.merges, *(pair for pair in second.merges if pair not in known)],
        first.added.tokens,
        pattern=first.pattern,
        normal_form=first.normal_form,
        ignore_merges=first.ignore_merges,
        names=first.names,
        chat_template=first.chat_template,
        post_processor=first.post_processor,
    )


def _merge_sentencepiece(first: "SentencePiece", second: "SentencePiece") -> Tokenizer:
    """The second's ordinary pieces behind the first's, with score 0, as Chinese-LLaMA's were.

    In BPE the highest score is merged first, so a new piece goes before all old ones that overlap with it.
    """
    from groundup.tokenizers.formats.sentencepiece_proto import PieceType

    ordinary = (PieceType.NORMAL, PieceType.USER_DEFINED)
    pieces = [
        dataclasses.replace(piece, score=0.0)
        for piece in second.file.pieces
        if piece.type in ordinary and piece.piece not in first.vocab
    ]
    return _of_pieces(first, pieces)


def _merge_lists(first: Tokenizer, second: Tokenizer) -> Tokenizer:
    """Kinds whose vocabulary is a list of units: the new ones go behind."""
    start = next_id(first)
    new = {token: start + place for place, token in enumerate(_new_tokens(first, second))}
    own: dict[str, Any] = {}  # settings of the kind
    if first.kind == "words":
        own["signs"] = first.signs  # pyright: ignore[reportAttributeAccessIssue]
    if first.kind == "trie":
        own["size"] = max(first.vocab_size, start + len(new))  # rows that a model has, with a token or without
    made = copy.copy(first)
    made.__init__(  # pyright: ignore[reportCallIssue]
        first.model_vocab | new,  # pyright: ignore[reportAttributeAccessIssue]
        first.added.tokens,
        names=first.names,
        chat_template=first.chat_template,
        post_processor=first.post_processor,
        **own,
    )
    return made


_MERGED: dict[str, Callable[..., Tokenizer]] = {
    "byte_bpe": _merge_byte_bpe,
    "sentencepiece": _merge_sentencepiece,
    "characters": _merge_lists,
    "words": _merge_lists,
    "trie": _merge_lists,
}
