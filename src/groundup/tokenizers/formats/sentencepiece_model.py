"""SentencePiece's `.model` files (a protobuf message), both ways."""

from collections.abc import Iterable
from pathlib import Path

from groundup.base.errors import CheckpointError, UsageError
from groundup.base.files import write_atomic
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.formats.bounded import head, read_bounded
from groundup.tokenizers.formats.sentencepiece_proto import ModelFile, PieceType
from groundup.tokenizers.sentencepiece.tokenizer import SentencePiece
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer

MAX_BYTES = 2**27


def sniff(path: str | Path) -> bool:
    """Whether the file begins as a SentencePiece model does: a first piece, itself a message that begins with text."""
    start = head(path, 64)
    return len(start) > 4 and start[0] == 0x0A and 0x0A in start[2:4]


def read(
    path: str | Path,
    *,
    added: Iterable[AddedToken] = (),
    names: SpecialNames | None = None,
    chat_template: str | None = None,
) -> SentencePiece:
    """The tokenizer in the file.

    Args:
        path: the file.
        added: tokens that files beside it add, or say to be special; control and unknown pieces stay what they are.
        names: which special tokens are BOS, EOS, ...; the file's own unless given.
        chat_template: kept with the tokenizer.

    Raises:
        CheckpointError: too large, damaged, cut off or inconsistent; the message says where.
    """
    file = ModelFile.parse(read_bounded(path, MAX_BYTES), str(path))
    fixed = {piece.piece for piece in file.pieces if piece.type in (PieceType.CONTROL, PieceType.UNKNOWN)}
    try:
        return SentencePiece(
            file, [t for t in added if t.content not in fixed], names=names, chat_template=chat_template
        )
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def write(tokenizer: Tokenizer, path: str | Path) -> None:
    """Write a `.model` file, which the sentencepiece library loads.

    Raises:
        UsageError: a tokenizer of another kind.
    """
    if not isinstance(tokenizer, SentencePiece):
        raise UsageError(f"a {tokenizer.kind} tokenizer has no SentencePiece form; only `sentencepiece` ones have")
    write_atomic(path, tokenizer.file.to_bytes())
