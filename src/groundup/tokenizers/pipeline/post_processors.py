"""What tokenizer.json puts around a text, or around two: [CLS] A [SEP] B [SEP].

`encode` does none of it: BOS and EOS are added where they are asked for, and these parts tell which tokens they are.
`encode_with_special` does all of it, as the `tokenizers` library does by default. Trimming of offsets (white space at
the ends of a token does not belong to it) is done in both, as there.
"""

from dataclasses import dataclass
from typing import Any, Self

from groundup.base.errors import CheckpointError
from groundup.tokenizers.encoding import Encoding
from groundup.tokenizers.pipeline.alignment import Span
from groundup.tokenizers.pipeline.parts import MAX_ID, Component, Json, Part, read_component
from groundup.tokenizers.pipeline.unicode_classes import WHITE_SPACE

Named = tuple[str, int]  # a token and its id

_SPACES = WHITE_SPACE + "\u0120"  # and the space as byte-level vocabularies spell it


class PostProcessor(Component):
    """What happens to the encodings of one text or of two."""

    def process(self, encodings: list[Encoding], special: bool) -> list[Encoding]:
        """The encodings with special tokens put in, if `special`, and offsets trimmed; joined they are the result."""
        raise NotImplementedError

    def around(self) -> tuple[str | None, str | None]:
        """The tokens before and after a single text."""
        return None, None


def trim(encoding: Encoding, add_prefix_space: bool) -> None:
    """Take the white space at the ends of tokens out of their offsets."""
    for place, (token, offset) in enumerate(zip(encoding.tokens, encoding.offsets, strict=True)):
        left = len(token) - len(token.lstrip(_SPACES))
        right = len(token) - len(token.rstrip(_SPACES))
        if left or right:
            encoding.offsets[place] = _trimmed(offset, left, right, add_prefix_space and (place == 0 or offset[0] == 0))


def _trimmed(offset: Span, left: int, right: int, may_be_ours: bool) -> Span:
    start, end = offset
    if not (may_be_ours and left == 1):  # one space at the begin is the one that was put in front
        start = min(start + left, end)
    if end >= right:
        end = max(end - right, start)
    return start, end


@dataclass(frozen=True)
class ByteLevel(PostProcessor):
    """Trims offsets."""

    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: bool = True
    type = "ByteLevel"

    def process(self, encodings: list[Encoding], special: bool) -> list[Encoding]:
        if self.trim_offsets:
            for encoding in encodings:
                trim(encoding, self.add_prefix_space)
        return encodings


class _Pair(PostProcessor):
    """Settings `sep` and `cls`: a token and its id each."""

    sep: Named
    cls: Named

    @classmethod
    def from_json(cls, part: Part) -> Self:
        part.only(sep=Any, cls=Any, trim_offsets=Any, add_prefix_space=Any)
        flags = {k: part.get(k, bool) for k in ("trim_offsets", "add_prefix_space") if k in part.value}
        return cls(sep=_named(part, "sep"), cls=_named(part, "cls"), **flags)  # type: ignore[call-arg]

    def around(self) -> tuple[str | None, str | None]:
        return self.cls[0], self.sep[0]

    def to_json(self) -> Json:
        return super().to_json() | {"sep": list(self.sep), "cls": list(self.cls)}


def _named(part: Part, key: str) -> Named:
    found = part.required(key, list)
    if len(found) != 2 or not isinstance(found[0], str):
        raise CheckpointError(f"{part.where}.{key}: a token and its id are expected, found {found!r:.80}")
    return found[0], _id(found[1], f"{part.where}.{key}")


def _id(value: Any, where: str) -> int:
    if type(value) is not int or not 0 <= value < MAX_ID:
        raise CheckpointError(f"{where}: an id below {MAX_ID} is expected, found {value!r:.80}")
    return value


def _surrounded(encoding: Encoding, before: list[Named], after: list[Named], type_id: int) -> Encoding:
    around = Encoding()
    for token, number in before:
        around.add(number, token, type_id=type_id)
    around.extend(encoding)
    for token, number in after:
        around.add(number, token, type_id=type_id)
    return around


@dataclass(frozen=True)
class BertProcessing(_Pair):
    """[CLS] A [SEP] B [SEP]."""

    sep: Named
    cls: Named
    type = "BertProcessing"

    def process(self, encodings: list[Encoding], special: bool) -> list[Encoding]:
        if not special:
            return encodings
        first, *rest = encodings
        made = [_surrounded(first, [self.cls], [self.sep], 0)]
        return made + [_surrounded(encoding, [], [self.sep], 1) for encoding in rest]


@dataclass(frozen=True)
class RobertaProcessing(_Pair):
    """<s> A </s></s> B </s>, all of type 0; trims offsets."""

    sep: Named
    cls: Named
    trim_offsets: bool = True
    add_prefix_space: bool = True
    type = "RobertaProcessing"

    def process(self, encodings: list[Encoding], special: bool) -> list[Encoding]:
        for encoding in encodings:
            if self.trim_offsets:
                trim(encoding, self.add_prefix_space)
            encoding.type_ids = [0] * len(encoding)
        if not special:
            return encodings
        first, *rest = encodings
        made = [_surrounded(first, [self.cls], [self.sep], 0)]
        return made + [_surrounded(encoding, [self.sep], [self.sep], 0) for encoding in rest]


@dataclass(frozen=True)
class Piece:
    """A place in a template: a text ("A" or "B"), or a special token by its name."""

    name: str
    type_id: int
    is_text: bool

    @classmethod
    def from_json(cls, part: Part) -> Self:
        """`{"Sequence": {"id": "A", "type_id": 0}}` or `{"SpecialToken": {...}}`."""
        part.only(Sequence=Any, SpecialToken=Any)
        if len(part.value) != 1:
            raise CheckpointError(f"{part.where}: a Sequence or a SpecialToken is expected")
        (kind,) = part.value
        inner = part.part(kind)
        if inner is None:
            raise CheckpointError(f"{part.where}: a Sequence or a SpecialToken is expected")
        name = inner.only(id=Any, type_id=Any).required("id", str)
        if kind == "Sequence" and name not in ("A", "B"):
            raise CheckpointError(f"{inner.where}.id: A or B is expected, found {name!r:.80}")
        return cls(name, _id(inner.get("type_id", int, 0), inner.where), kind == "Sequence")

    def to_json(self) -> Json:
        """The object in tokenizer.json."""
        return {"Sequence" if self.is_text else "SpecialToken": {"id": self.name, "type_id": self.type_id}}


@dataclass(frozen=True)
class TemplateProcessing(PostProcessor):
    """Texts and special tokens in the order of a template; `special_tokens`: name -> the tokens it stands for."""

    single: tuple[Piece, ...]
    pair: tuple[Piece, ...]
    special_tokens: dict[str, tuple[Named, ...]]
    type = "TemplateProcessing"

    @classmethod
    def from_json(cls, part: Part) -> Self:
        part.only(single=Any, pair=Any, special_tokens=Any)
        single, pair = (tuple(Piece.from_json(item) for item in part.parts(key)) for key in ("single", "pair"))
        special = part.part("special_tokens") or Part({}, part.where)
        tokens = {name: _tokens(special, name) for name in special.value}
        if missing := next((p.name for p in (*single, *pair) if not p.is_text and p.name not in tokens), None):
            raise CheckpointError(f"{part.where}: the template names {missing!r:.80}, which is no special token there")
        if any(piece.is_text and piece.name == "B" for piece in single):
            raise CheckpointError(f"{part.where}.single: there is no second text")
        return cls(single, pair, tokens)

    def to_json(self) -> Json:
        special = {
            name: {"id": name, "ids": [number for _, number in tokens], "tokens": [token for token, _ in tokens]}
            for name, tokens in self.special_tokens.items()
        }
        single, pair = ([piece.to_json() for piece in pieces] for pieces in (self.single, self.pair))
        return {"type": self.type, "single": single, "pair": pair, "special_tokens": special}

    def process(self, encodings: list[Encoding], special: bool) -> list[Encoding]:
        return [self._place(p, encodings) for p in self._pieces(encodings) if p.is_text or special]

    def _pieces(self, encodings: list[Encoding]) -> tuple[Piece, ...]:
        return self.single if len(encodings) == 1 else self.pair

    def _place(self, piece: Piece, encodings: list[Encoding]) -> Encoding:
        if not piece.is_text:
            return _surrounded(Encoding(), list(self.special_tokens[piece.name]), [], piece.type_id)
        found = encodings[0 if piece.name == "A" else 1]
        return Encoding(found.ids, found.tokens, found.offsets, [piece.type_id] * len(found))

    def around(self) -> tuple[str | None, str | None]:
        place = next((i for i, piece in enumerate(self.single) if piece.is_text), len(self.single))
        return self._first(self.single[:place]), self._first(self.single[place + 1 :])

    def _first(self, pieces: tuple[Piece, ...]) -> str | None:
        return pieces[0].name if pieces and not pieces[0].is_text else None


def _tokens(special: Part, name: str) -> tuple[Named, ...]:
    part = special.part(name)
    if part is None:
        raise CheckpointError(f"{special.where}.{name}: an object is expected")
    ids, tokens = (part.only(id=Any, ids=Any, tokens=Any).required(key, list) for key in ("ids", "tokens"))
    if len(ids) != len(tokens) or not all(isinstance(token, str) for token in tokens):
        raise CheckpointError(f"{part.where}: as many tokens as ids are expected")
    return tuple((token, _id(number, part.where)) for token, number in zip(tokens, ids, strict=True))


@dataclass(frozen=True)
class Sequence(PostProcessor):
    """One after the other."""

    processors: tuple[PostProcessor, ...]
    type = "Sequence"

    @classmethod
    def from_json(cls, part: Part) -> Self:
        part.only(processors=Any)
        return cls(tuple(read_post_processor(item) for item in part.parts("processors")))

    def to_json(self) -> Json:
        return {"type": self.type, "processors": [item.to_json() for item in self.processors]}

    def process(self, encodings: list[Encoding], special: bool) -> list[Encoding]:
        for processor in self.processors:
            encodings = processor.process(encodings, special)
        return encodings

    def around(self) -> tuple[str | None, str | None]:
        found = [processor.around() for processor in self.processors]
        return next((pair for pair in reversed(found) if any(pair)), (None, None))


POST_PROCESSORS: dict[str, type[Component]] = {
    kind.type: kind for kind in (TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel, Sequence)
}


def read_post_processor(part: Part) -> PostProcessor:
    """The post-processor that `part` describes.

    Raises:
        CheckpointError: a kind that is not known, or wrong settings.
    """
    return read_component(part, POST_PROCESSORS, "post-processor")
