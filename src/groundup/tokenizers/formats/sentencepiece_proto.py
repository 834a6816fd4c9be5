"""What a SentencePiece `.model` file says: pieces, how they were trained, how text is normalized.

The classes below are the messages of the file, with the defaults that an absent field has; fields that are not named here
are kept as they are and written back.
"""

import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Self

from groundup.base.errors import CheckpointError
from groundup.tokenizers.formats import protobuf

MAX_PIECES = 2**22


class PieceType(IntEnum):
    """What a piece is for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class ModelType(IntEnum):
    """How text is cut into pieces."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass
class Message:
    """A message whose fields `NUMBERS` lists; `other` holds (number, wire type, value) of those it does not."""

    NUMBERS: ClassVar[dict[str, int]]
    WIRE: ClassVar[dict[type, int]] = {
        int: protobuf.VARINT, bool: protobuf.VARINT, float: protobuf.FIXED32, str: protobuf.BYTES,
        bytes: protobuf.BYTES, tuple: protobuf.BYTES,
    }  # fmt: skip

    other: list[tuple[int, int, protobuf.Value]] = field(default_factory=list, kw_only=True)

    @classmethod
    def read(cls, data: bytes, where: str) -> Self:
        """The message in `data`; of a repeated single field the last one counts.

        Raises:
            CheckpointError: `data` is damaged, or a field has another type than it should.
        """
        message = cls()
        names = {number: name for name, number in cls.NUMBERS.items()}
        for number, wire, value in protobuf.fields(data, where):
            name = names.get(number)
            if name is None:
                message.other.append((number, wire, value))
                continue
            kind, place = type(getattr(message, name)), f"{where}.{name}"
            if wire != cls.WIRE[kind]:
                raise CheckpointError(f"{place}: wire type {cls.WIRE[kind]} is expected, found {wire}")
            read = _value(kind, value, place)
            setattr(message, name, (*getattr(message, name), *read) if kind is tuple else read)
        return message

    def write(self) -> bytes:
        """The message's bytes; fields that have their default are left out."""
        plain = type(self)()
        parts = [
            protobuf.write_field(number, self.WIRE[type(value)], raw)
            for name, number in self.NUMBERS.items()
            for value in [getattr(self, name)]
            if value != getattr(plain, name)
            for raw in _raw(value)
        ]
        return b"".join(parts + [protobuf.write_field(*entry) for entry in self.other])


def _value(kind: type, value: protobuf.Value, where: str) -> Any:
    if isinstance(value, int):
        return bool(value) if kind is bool else protobuf.signed(value)
    if kind is float:
        return protobuf.float_of(value)
    if kind is bytes:
        return value
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{where}: byte {error.start} is not UTF-8") from None
    return (text,) if kind is tuple else text


def _raw(value: Any) -> list[protobuf.Value]:
    if isinstance(value, tuple):
        return [text.encode("utf-8") for text in value]
    if isinstance(value, float):
        return [protobuf.bytes_of_float(value)]
    if isinstance(value, str):
        return [value.encode("utf-8")]
    return [value if isinstance(value, bytes) else int(value)]


@dataclass
class Piece(Message):
    """An entry of the vocabulary; its id is its place."""

    NUMBERS = {"piece": 1, "score": 2, "type": 3}

    piece: str = ""
    score: float = 0.0
    type: int = 1


@dataclass
class TrainerSpec(Message):
    """Settings of the training; some of them matter for encoding and decoding."""

    NUMBERS = {
        "model_type": 3, "vocab_size": 4, "character_coverage": 10, "shrinking_factor": 15, "max_piece_length": 20,
        "split_by_unicode_script": 21, "split_by_whitespace": 22, "split_by_number": 23,
        "treat_whitespace_as_suffix": 24, "split_digits": 25, "allow_whitespace_only_pieces": 26,
        "control_symbols": 30, "user_defined_symbols": 31, "byte_fallback": 35,
        "unk_id": 40, "bos_id": 41, "eos_id": 42, "pad_id": 43, "unk_surface": 44,
        "unk_piece": 45, "bos_piece": 46, "eos_piece": 47, "pad_piece": 48,
    }  # fmt: skip

    model_type: int = 1
    vocab_size: int = 8000
    character_coverage: float = 0.9995
    shrinking_factor: float = 0.75
    max_piece_length: int = 16
    split_by_unicode_script: bool = True
    split_by_whitespace: bool = True
    split_by_number: bool = True
    treat_whitespace_as_suffix: bool = False
    split_digits: bool = False
    allow_whitespace_only_pieces: bool = False
    control_symbols: tuple[str, ...] = ()
    user_defined_symbols: tuple[str, ...] = ()
    byte_fallback: bool = False
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1
    unk_surface: str = " \u2047 "
    unk_piece: str = "<unk>"
    bos_piece: str = "<s>"
    eos_piece: str = "</s>"
    pad_piece: str = "<pad>"


@dataclass
class NormalizerSpec(Message):
    """What happens to a text before it is cut (or, in a denormalizer, after it is decoded)."""

    NUMBERS = {
        "name": 1, "precompiled_charsmap": 2, "add_dummy_prefix": 3, "remove_extra_whitespaces": 4,
        "escape_whitespaces": 5,
    }  # fmt: skip

    name: str = ""
    precompiled_charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True


@dataclass
class ModelFile:
    """The whole file. `other` holds fields that are not understood here (self-test samples, extensions)."""

    pieces: list[Piece]
    trainer: TrainerSpec = field(default_factory=TrainerSpec)
    normalizer: NormalizerSpec = field(default_factory=NormalizerSpec)
    denormalizer: NormalizerSpec | None = None
    other: list[tuple[int, int, protobuf.Value]] = field(default_factory=list)

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Read the bytes of a `.model` file.

        Raises:
            CheckpointError: damaged, cut off, or inconsistent; the message says where.
        """
        model = cls([])
        for number, wire, value in protobuf.fields(data, where):
            if number not in (1, 2, 3, 5):
                model.other.append((number, wire, value))
                continue
            if not isinstance(value, bytes) or wire != protobuf.BYTES:
                raise CheckpointError(f"{where}: field {number} should be a message; is this a SentencePiece model?")
            if number == 1:
                model.pieces.append(_read_piece(value, f"{where}: piece {len(model.pieces)}"))
                if len(model.pieces) > MAX_PIECES:
                    raise CheckpointError(f"{where}: more than {MAX_PIECES:,} pieces; such a file cannot be meant")
            elif number == 2:
                model.trainer = TrainerSpec.read(value, f"{where}: trainer_spec")
            else:
                spec = NormalizerSpec.read(value, f"{where}: {'de' if number == 5 else ''}normalizer_spec")
                model.normalizer, model.denormalizer = (
                    (spec, model.denormalizer) if number == 3 else (model.normalizer, spec)
                )
        model.check(where)
        return model

    def to_bytes(self) -> bytes:
        """The bytes of the file."""
        parts = [protobuf.write_field(1, protobuf.BYTES, _write_piece(piece)) for piece in self.pieces]
        parts.append(protobuf.write_field(2, protobuf.BYTES, self.trainer.write()))
        parts.append(protobuf.write_field(3, protobuf.BYTES, self.normalizer.write()))
        if self.denormalizer is not None:
            parts.append(protobuf.write_field(5, protobuf.BYTES, self.denormalizer.write()))
        return b"".join(parts + [protobuf.write_field(*entry) for entry in self.other])

    def check(self, where: str) -> None:
        """What the C++ library demands of a model, and that spellings are unique.

        Raises:
            CheckpointError: a piece is empty or there twice, no or several unknown pieces, bytes missing.
        """
        if not self.pieces:
            raise CheckpointError(f"{where}: no pieces; is this a SentencePiece model?")
        seen: dict[str, int] = {}
        for number, piece in enumerate(self.pieces):
            if not piece.piece:
                raise CheckpointError(f"{where}: piece {number} is empty")
            if seen.setdefault(piece.piece, number) != number:
                raise CheckpointError(f"{where}: piece {number} is {piece.piece!r}, as is piece {seen[piece.piece]}")
        if (unknown := sum(piece.type == PieceType.UNKNOWN for piece in self.pieces)) != 1:
            raise CheckpointError(f"{where}: one piece must be of the type UNKNOWN, found {unknown}")
        if self.trainer.model_type not in tuple(ModelType):
            raise CheckpointError(f"{where}: model_type {self.trainer.model_type} is not known")
        found = {piece.piece for piece in self.pieces if piece.type == PieceType.BYTE}
        if found and not self.trainer.byte_fallback:
            raise CheckpointError(f"{where}: there are byte pieces, but byte_fallback is off")
        if self.trainer.byte_fallback and found != {f"<0x{byte:02X}>" for byte in range(256)}:
            raise CheckpointError(f"{where}: byte_fallback is on, which needs the 256 byte pieces <0x00> to <0xFF>")


def _read_piece(data: bytes, where: str) -> Piece:
    piece = Piece.read(data, where)
    if piece.type not in tuple(PieceType):
        raise CheckpointError(f"{where}: type {piece.type} is not known")
    if not math.isfinite(piece.score):
        raise CheckpointError(f"{where}: the score is {piece.score}, a finite number is expected")
    return piece


def _write_piece(piece: Piece) -> bytes:
    """With its score even where that is 0, as the C++ library writes it."""
    head = protobuf.write_field(1, protobuf.BYTES, piece.piece.encode("utf-8"))
    score = protobuf.write_field(2, protobuf.FIXED32, protobuf.bytes_of_float(piece.score))
    kind = b"" if piece.type == PieceType.NORMAL else protobuf.write_field(3, protobuf.VARINT, piece.type)
    return head + score + kind + b"".join(protobuf.write_field(*entry) for entry in piece.other)


