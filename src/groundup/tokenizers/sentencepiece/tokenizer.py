"""SentencePiece (Kudo and Richardson, 2018): whole sentences in, no words cut out before; a space is a symbol, U+2581.

A text is normalized, its spaces become U+2581 (with one more in front), and a unigram model, BPE, words or characters
cut it. What no piece covers is unknown, or, with byte fallback, becomes its bytes.
"""

import codecs
import copy
import dataclasses
import hashlib
import itertools
import json
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from groundup.base.files import write_atomic
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.formats.sentencepiece_proto import ModelFile, ModelType, PieceType
from groundup.tokenizers.sentencepiece.models import cutter, symbols_of
from groundup.tokenizers.sentencepiece.text import SPACE, Normalizer
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer
from groundup.tokenizers.unigram import Cut, byte_piece

MODEL = "tokenizer.model"
REPLACEMENT = "\ufffd"
ONE_EACH = "groundup.replace_each_byte"


class SentencePiece(Tokenizer):
    """A tokenizer with the content of a SentencePiece `.model` file.

    Control pieces are special tokens: no text becomes one, unless `allowed_special` asks for it. Nor does it become a
    special one of `added_tokens`, of whatever type its piece is.

    Attributes:
        file: the content of the file.
        symbols: symbols that the user defined: found in text as they stand.

    Raises:
        CheckpointError: a damaged normalization map, or a special token that is not in the vocabulary.
    """

    kind = "sentencepiece"
    bytewise = False  # the first space is not shown

    def __init__(
        self,
        file: ModelFile,
        added_tokens: Iterable[AddedToken] = (),
        *,
        names: SpecialNames | None = None,
        chat_template: str | None = None,
        post_processor: dict[str, Any] | None = None,
    ):
        self.file = file
        control = [
            AddedToken(piece.piece, number)
            for number, piece in enumerate(file.pieces)
            if piece.type == PieceType.CONTROL
        ]
        vocab = {piece.piece: number for number, piece in enumerate(file.pieces)}
        known = {token.content for token in control}
        added_tokens = list(added_tokens)
        super().__init__(
            vocab,
            [*control, *(token for token in added_tokens if token.content not in known)],
            names=names or names_of(file),
            chat_template=chat_template,
            post_processor=post_processor,
        )
        searched = without(file, {token.content for token in added_tokens if token.special})
        self.symbols = tuple(symbols_of(searched))
        self.normalizer = Normalizer(file.normalizer, self.symbols, file.trainer.treat_whitespace_as_suffix)
        self.model = cutter(searched)
        self.model_type = ModelType(file.trainer.model_type)
        self.unknown = next(number for number, piece in enumerate(file.pieces) if piece.type == PieceType.UNKNOWN)
        self.byte_ids = [vocab[byte_piece(byte)] for byte in range(256)] if file.trainer.byte_fallback else None

    def _encode_text(self, text: str) -> list[int]:
        shown = self.normalizer(text)
        return [number for number, _ in self._with_unknown(shown, self.model.cut(shown))]

    def sample(self, text: str, alpha: float, generator: random.Random | None = None) -> list[int]:
        """Ids of a cut drawn at random, for subword regularization; no special tokens.

        Args:
            text: any string.
            alpha: for a unigram model the temperature: cuts have probability proportional to P^alpha. For BPE the
                probability with which each merge is left out (0: none).
            generator: where the randomness comes from.
        """
        shown = self.normalizer(text)
        cut = self.model.sample(shown, alpha, generator or random.Random())
        return [number for number, _ in self._with_unknown(shown, cut)]

    def pieces(self, text: str) -> list[str]:
        """The pieces of `text` as they stand in the normalized text; unknown ones too."""
        shown = self.normalizer(text)
        ends = [0, *(end for _, end in self._with_unknown(shown, self.model.cut(shown)))]
        return [shown[start:end] for start, end in itertools.pairwise(ends) if end > start]

    def _with_unknown(self, text: str, cut: Cut) -> Cut:
        """Neighbouring unknown pieces fused, or all of them turned into bytes."""
        unknown = self.unknown
        if all(number != unknown for number, _ in cut):
            return cut
        out: Cut = []
        start = 0
        for number, end in cut:
            if number != unknown:
                out.append((number, end))
            elif self.byte_ids is not None:
                out.extend((self.byte_ids[byte], end) for byte in text[start:end].encode("utf-8"))
            elif out and out[-1][0] == unknown:
                out[-1] = (unknown, end)
            else:
                out.append((unknown, end))
            start = end
        return out

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of `ids`, as sentencepiece gives it with `skip_special`; without, special tokens are spelled out.

        The space that normalization puts in front is taken away. Bytes that are not UTF-8 become U+FFFD, one a byte.

        Raises:
            UsageError: an id outside the vocabulary.
        """
        text = "".join(self._decoded(ids, skip_special))
        return text if self._denormalizer is None else self._denormalizer(text)

    def _decoded(self, ids: Iterable[int], skip_special: bool) -> Iterator[str]:
        spec = self.file.normalizer
        at_start = spec.add_dummy_prefix or spec.remove_extra_whitespaces
        waiting = bytearray()  # bytes of a character that may go on
        for number in ids:
            byte = self._byte_of.get(number)
            if byte is not None:
                waiting.append(byte)
                continue
            if waiting:
                yield utf8(bytes(waiting))
                waiting, at_start = bytearray(), False
            shown, stripped = self._piece_text(number, at_start, skip_special)
            # The first piece gives its space away; where spaces were removed, so do all until there is text.
            if shown or (stripped and not spec.remove_extra_whitespaces):
                at_start = False
            yield shown
        yield utf8(bytes(waiting))

    def _piece_text(self, number: int, at_start: bool, skip_special: bool) -> tuple[str, bool]:
        """The text of one piece, and whether its space in front was taken away."""
        token = self.token(number)
        if number in self._special_ids:
            return "" if skip_special else token, False
        if number == self.unknown:
            return self.file.trainer.unk_surface, False
        if number in self._added_ids:
            return token, False
        stripped = at_start and token.startswith(SPACE)
        return (token[1:] if stripped else token).replace(SPACE, " "), stripped

    @cached_property
    def _byte_of(self) -> dict[int, int]:
        return {number: byte for byte, number in enumerate(self.byte_ids or ())}

    @cached_property
    def _added_ids(self) -> frozenset[int]:
        return frozenset(token.id for token in self.added.tokens)

    @cached_property
    def _denormalizer(self) -> Normalizer | None:
        spec = self.file.denormalizer
        return Normalizer(spec) if spec is not None and spec.precompiled_charsmap else None

    def _bytes_of(self, token: str) -> bytes:
        number = self.vocab[token]
        if number in self._byte_of:
            return bytes([self._byte_of[number]])
        if number == self.unknown:
            return self.file.trainer.unk_surface.encode("utf-8")
        return token.replace(SPACE, " ").encode("utf-8")

    def to_json(self) -> dict[str, Any]:
        """The content of tokenizer.json.

        Raises:
            UsageError: a part that tokenizer.json cannot express.
        """
        from groundup.tokenizers.sentencepiece.to_json import sentencepiece_to_json

        return sentencepiece_to_json(self)

    @cached_property
    def _fingerprint(self) -> str:
        added = sorted((t.id, t.content, t.special, t.normalized) for t in self.added.tokens)
        content = json.dumps({"kind": self.kind, "added": added, "bos": self.bos_id, "eos": self.eos_id})
        return hashlib.sha256(content.encode("utf-8") + self.file.to_bytes()).hexdigest()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer.model, which says it all, and the usual files; tokenizer.json where it can say it."""
        from groundup.tokenizers.chat.files import write_templates
        from groundup.tokenizers.files import CONFIG, TOKENIZER, added_json, config_json
        from groundup.tokenizers.formats.sentencepiece_model import write

        folder = Path(folder)
        write(self, folder / MODEL)
        if self.model_type in (ModelType.UNIGRAM, ModelType.BPE):
            write_atomic(folder / TOKENIZER, json.dumps(self.to_json(), ensure_ascii=False, indent=2) + "\n")
        else:
            (folder / TOKENIZER).unlink(missing_ok=True)
        config = config_json(self) | {"groundup_kind": self.kind}
        kinds = {(number, piece.type) for number, piece in enumerate(self.file.pieces)}
        beyond = [token for token in self.added.tokens if (token.id, PieceType.CONTROL) not in kinds]
        if beyond:  # what the model file does not say
            config["added_tokens_decoder"] = {str(item.pop("id")): item for item in map(added_json, beyond)}
        write_atomic(folder / CONFIG, json.dumps(config, ensure_ascii=False, indent=2) + "\n")
        write_templates(self, folder)


def without(file: ModelFile, control: Collection[str]) -> ModelFile:
    """The file as it would be if no text became one of some pieces."""
    types = {PieceType.NORMAL: PieceType.UNUSED, PieceType.USER_DEFINED: PieceType.CONTROL}
    if not any(piece.piece in control and piece.type in types for piece in file.pieces):
        return file
    made = copy.copy(file)
    made.pieces = [
        dataclasses.replace(piece, type=int(types[PieceType(piece.type)]))
        if piece.piece in control and piece.type in types
        else piece
        for piece in file.pieces
    ]
    return made


def names_of(file: ModelFile) -> SpecialNames:
    """BOS, EOS and padding where they are control pieces, and the unknown piece."""
    kinds = {piece.piece: piece.type for piece in file.pieces}
    trainer = file.trainer
    parts = {"bos": trainer.bos_piece, "eos": trainer.eos_piece, "pad": trainer.pad_piece}
    unknown = next(piece for piece, kind in kinds.items() if kind == PieceType.UNKNOWN)
    named = {part: piece for part, piece in parts.items() if kinds.get(piece) == PieceType.CONTROL}
    return SpecialNames(**named, unk=unknown)


def utf8(data: bytes) -> str:
    """`data` as text; each byte that belongs to no character becomes one U+FFFD."""
    return data.decode("utf-8", errors=ONE_EACH)


def _one_each(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return REPLACEMENT, error.start + 1


codecs.register_error(ONE_EACH, _one_each)
