"""From tokens back to text, as tokenizer.json describes it: each decoder turns a list of strings into another."""

import itertools
import re
from dataclasses import dataclass
from typing import Any, Self

from groundup.base.errors import CheckpointError
from groundup.tokenizers.byte_symbols import to_bytes
from groundup.tokenizers.pipeline.cutting import Pattern, mark
from groundup.tokenizers.pipeline.parts import Component, Json, Part, read_component
from groundup.tokenizers.pipeline.pre_tokenizers import Metaspace as MetaspaceSettings

MAX_STRIPPED = 2**20


class Decoder(Component):
    """A step from tokens to text; the strings that come out of the last step are joined."""

    def chain(self, tokens: list[str]) -> list[str]:
        """The strings after this step."""
        raise NotImplementedError


@dataclass(frozen=True)
class ByteLevel(Decoder):
    """Visible characters become the bytes they stand for, and all bytes together text; what is no UTF-8, U+FFFD."""

    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: bool = True
    type = "ByteLevel"

    def chain(self, tokens: list[str]) -> list[str]:
        data = ((token, to_bytes(token)) for token in tokens)
        joined = b"".join(token.encode("utf-8", "replace") if found is None else found for token, found in data)
        return [joined.decode("utf-8", errors="replace")]


def _clean(text: str) -> str:
    """English typography: no space before punctuation and shortened words."""
    for old, new in _CLEANED:
        text = text.replace(old, new)
    return text


_CLEANED = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
    (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


@dataclass(frozen=True)
class WordPiece(Decoder):
    """A space before each token that does not begin with the prefix of word insides."""

    prefix: str = "##"
    cleanup: bool = True
    type = "WordPiece"

    def chain(self, tokens: list[str]) -> list[str]:
        first = tokens[:1]
        rest = [t.removeprefix(self.prefix) if t.startswith(self.prefix) else f" {t}" for t in tokens[1:]]
        return [_clean(token) if self.cleanup else token for token in first + rest]


@dataclass(frozen=True)
class Metaspace(MetaspaceSettings, Decoder):
    """The visible sign becomes a space again; in the first token it goes, where one was put in front."""

    def chain(self, tokens: list[str]) -> list[str]:
        if not tokens:
            return tokens
        first = "" if self.prepend_scheme != "never" else " "
        rest = [token.replace(self.replacement, " ") for token in tokens[1:]]
        return [tokens[0].replace(self.replacement, first), *rest]


@dataclass(frozen=True)
class BPEDecoder(Decoder):
    """The sign that ends words becomes a space, except in the last token."""

    suffix: str = "</w>"
    type = "BPEDecoder"

    def chain(self, tokens: list[str]) -> list[str]:
        if not self.suffix:
            last = len(tokens) - 1
            return [_between(token, "" if place == last else " ") for place, token in enumerate(tokens)]
        return [*(t.replace(self.suffix, " ") for t in tokens[:-1]), *(t.replace(self.suffix, "") for t in tokens[-1:])]


def _between(text: str, joint: str) -> str:
    return joint + "".join(character + joint for character in text)


BYTE = re.compile(r"<0x([0-9A-Fa-f]{2}|\+[0-9A-Fa-f])>")


@dataclass(frozen=True)
class ByteFallback(Decoder):
    """Runs of `<0x0A>` become text; if a run is not UTF-8, each byte U+FFFD."""

    type = "ByteFallback"

    def chain(self, tokens: list[str]) -> list[str]:
        out: list[str] = []
        for is_byte, group in itertools.groupby(tokens, key=lambda token: BYTE.fullmatch(token) is not None):
            run = list(group)
            out.extend(_text_of([int(token[3:5], 16) for token in run]) if is_byte else run)
        return out


def _text_of(data: list[int]) -> list[str]:
    try:
        return [bytes(data).decode("utf-8")]
    except UnicodeDecodeError:
        return ["\ufffd"] * len(data)


@dataclass(frozen=True)
class Fuse(Decoder):
    """All in one string."""

    type = "Fuse"

    def chain(self, tokens: list[str]) -> list[str]:
        return ["".join(tokens)]


@dataclass(frozen=True)
class Strip(Decoder):
    """Removes up to so many of a character at the start and at the end of each string."""

    content: str
    start: int
    stop: int
    type = "Strip"

    @classmethod
    def from_json(cls, part: Part) -> Self:
        made = super().from_json(part)
        if len(made.content) != 1:
            raise CheckpointError(f"{part.where}.content: one character is expected, found {made.content!r:.80}")
        if not (0 <= made.start <= MAX_STRIPPED and 0 <= made.stop <= MAX_STRIPPED):
            raise CheckpointError(f"{part.where}: `start` and `stop` must be 0 to {MAX_STRIPPED}")
        return made

    def chain(self, tokens: list[str]) -> list[str]:
        return [self._strip(token) for token in tokens]

    def _strip(self, token: str) -> str:
        begin = min(len(token) - len(token.lstrip(self.content)), self.start)
        end = len(token) - min(len(token) - len(token.rstrip(self.content)), self.stop)
        return token[begin : max(begin, end)]


@dataclass(frozen=True)
class Replace(Decoder):
    """Puts `content` in the place of each match."""

    pattern: Pattern
    content: str
    type = "Replace"

    def chain(self, tokens: list[str]) -> list[str]:
        if not self.pattern.is_regex and self.pattern.text:
            return [token.replace(self.pattern.text, self.content) for token in tokens]
        return [self._replace(token) for token in tokens]

    def _replace(self, token: str) -> str:
        if not token:
            return token
        marked = mark(self.pattern.spans(token), len(token))
        return "".join(self.content if is_match else token[start:end] for start, end, is_match in marked)


@dataclass(frozen=True)
class CTC(Decoder):
    """Repeated tokens are one (Graves et al., 2006); the padding goes, and the sign between words becomes a space."""

    pad_token: str = "<pad>"
    word_delimiter_token: str = "|"
    cleanup: bool = True
    type = "CTC"

    def chain(self, tokens: list[str]) -> list[str]:
        cleaned = (self._clean(token) for token, _ in itertools.groupby(tokens))
        return [token for token in cleaned if token]

    def _clean(self, token: str) -> str:
        token = token.replace(self.pad_token, "") if self.pad_token else token
        return _clean(token).replace(self.word_delimiter_token, " ") if self.cleanup else token


@dataclass(frozen=True)
class Sequence(Decoder):
    """One after the other."""

    decoders: tuple[Decoder, ...]
    type = "Sequence"

    @classmethod
    def from_json(cls, part: Part) -> Self:
        part.only(decoders=Any)
        return cls(tuple(read_decoder(item) for item in part.parts("decoders")))

    def to_json(self) -> Json:
        return {"type": self.type, "decoders": [item.to_json() for item in self.decoders]}

    def chain(self, tokens: list[str]) -> list[str]:
        for decoder in self.decoders:
            tokens = decoder.chain(tokens)
        return tokens


def steps_of(decoder: Decoder | None) -> tuple[Decoder, ...]:
    """The decoder's steps, those within sequences one by one."""
    if isinstance(decoder, Sequence):
        return tuple(step for item in decoder.decoders for step in steps_of(item))
    return () if decoder is None else (decoder,)


DECODERS: dict[str, type[Component]] = {
    kind.type: kind
    for kind in (ByteLevel, WordPiece, Metaspace, BPEDecoder, ByteFallback, Fuse, Strip, Replace, CTC, Sequence)
}


def read_decoder(part: Part) -> Decoder:
    """The decoder that `part` describes.

    Raises:
        CheckpointError: a kind that is not known, or wrong settings.
    """
    return read_component(part, DECODERS, "decoder")
