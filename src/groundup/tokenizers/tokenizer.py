"""What every tokenizer does: text to ids, ids to text, special tokens, files.

A subclass brings a vocabulary and `_encode_text`; this class cuts out added tokens, puts BOS and EOS where they are
asked for, and decodes. Special tokens are control signals: in user text their spelling is plain text, and becomes the
control token only with `allowed_special=True`.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from groundup.base.errors import CheckpointError, UsageError
from groundup.tokenizers.added_tokens import AddedToken, AddedTokens
from groundup.tokenizers.encoding import Encoding
from groundup.tokenizers.pipeline.parts import MAX_ID, Part
from groundup.tokenizers.pipeline.post_processors import PostProcessor, read_post_processor

LARGE_BATCH = 2**18  # characters; smaller ones are over before a process has been asked


@dataclass(frozen=True)
class SpecialNames:
    """Which special token plays which part; None: there is none."""

    bos: str | None = None
    eos: str | None = None
    pad: str | None = None
    unk: str | None = None


class Tokenizer:
    """Text to token ids and back.

    Attributes:
        vocab: token as spelled in the file -> id, added tokens included.
        vocab_size: the number of ids: the largest id plus one.
        special_tokens: spelling -> id of the control tokens.
        bos_id, eos_id, pad_id, unk_id: ids of the tokens with a part to play, or None.
        chat_template: Jinja source that turns messages into text, or None.
        chat_templates: further templates by name; `tool_use` is chosen where tools are given.
        post_processor: what tokenizer.json says about tokens to be put around a text; kept for other readers.

    Raises:
        CheckpointError: ids that are repeated, negative, absurdly large or not whole numbers.
    """

    kind: ClassVar[str]
    bytewise: ClassVar[bool] = True  # decoding joins the bytes of the tokens, whatever stands beside them
    in_processes: ClassVar[bool] = True  # large batches are worth processes (`batches`)

    def __init__(
        self,
        vocab: Mapping[str, int],
        added_tokens: Iterable[AddedToken] = (),
        *,
        names: SpecialNames | None = None,
        normalize: Callable[[str], str] | None = None,
        chat_template: str | None = None,
        post_processor: dict[str, Any] | None = None,
    ):
        self.added = AddedTokens(added_tokens, normalize)
        self.vocab = dict(vocab)
        for token in self.added.tokens:
            if self.vocab.setdefault(token.content, token.id) != token.id:
                raise CheckpointError(
                    f"added token {token.content!r} has id {token.id}, "
                    f"but the vocabulary gives it {self.vocab[token.content]}"
                )
        self._tokens = tokens_by_id(self.vocab)
        self.names = names or SpecialNames()
        self.chat_template = chat_template
        self.chat_templates: dict[str, str] = {}
        self.post_processor = post_processor
        self.special_tokens = {token.content: token.id for token in self.added.tokens if token.special}
        self.bos_id, self.eos_id, self.pad_id, self.unk_id = (
            self._named(part) for part in (self.names.bos, self.names.eos, self.names.pad, self.names.unk)
        )

    def _named(self, token: str | None) -> int | None:
        if token is not None and token not in self.vocab:
            raise CheckpointError(f"the special token {token!r} is not in the vocabulary")
        return None if token is None else self.vocab[token]

    @property
    def vocab_size(self) -> int:
        """The number of ids, special tokens included."""
        return len(self._tokens)

    def encode(self, text: str, *, bos: bool = False, eos: bool = False, allowed_special: bool = False) -> list[int]:
        """Ids of `text`, with BOS in front and EOS at the end where asked for.

        Args:
            text: any string; lone surrogates, which have no UTF-8, count as U+FFFD.
            bos: put the beginning-of-sequence token in front.
            eos: put the end-of-sequence token at the end.
            allowed_special: spellings of special tokens become their ids; otherwise they are text like any other.

        Raises:
            UsageError: BOS or EOS is asked for and there is none, or a character is not in the vocabulary.
        """
        ids = [self._required(self.bos_id, "BOS")] if bos else []
        ids.extend(self._encode(without_surrogates(text), allowed_special))
        if eos:
            ids.append(self._required(self.eos_id, "EOS"))
        return ids

    def _encode(self, text: str, allowed_special: bool) -> list[int]:
        """Ids of a text that has a UTF-8 form, added tokens included."""
        ids: list[int] = []
        for piece in self.added.cut(text, allowed_special):
            if isinstance(piece, int):
                ids.append(piece)
            else:
                ids.extend(self._encode_text(piece))
        return ids

    def encode_batch(
        self, texts: Sequence[str], *, bos: bool = False, eos: bool = False, allowed_special: bool = False
    ) -> list[list[int]]:
        """`encode` of each text; large batches, once there have been many, by a process for each processor.

        OMP_NUM_THREADS sets another number than that of the processors; 1: all is done here.
        """
        options = {"bos": bos, "eos": eos, "allowed_special": allowed_special}

        def here(some: Sequence[str]) -> list[list[int]]:
            return [self.encode(text, **options) for text in some]

        if not self.in_processes or sum(map(len, texts)) < LARGE_BATCH:
            return here(texts)
        from groundup.tokenizers import batches

        return batches.encode(self, texts, options, here)

    def _encode_text(self, text: str) -> list[int]:
        """Ids of a normalized text without added tokens."""
        raise NotImplementedError

    def encode_offsets(
        self, text: str, *, bos: bool = False, eos: bool = False, allowed_special: bool = False
    ) -> Encoding:
        """`encode`, with where each token stands in `text`: (start, end) in characters.

        Raises:
            UsageError: as `encode`; or this kind of tokenizer neither keeps the text nor has a tokenizer.json.
        """
        encoding = self._with_offsets(text, allowed_special, special=False)
        around = Encoding()
        if bos:
            around.add(self._required(self.bos_id, "BOS"), self.token(self.bos_id or 0))
        around.extend(encoding)
        if eos:
            around.add(self._required(self.eos_id, "EOS"), self.token(self.eos_id or 0))
        return around

    def encode_with_special(self, text: str, pair: str | None = None, *, allowed_special: bool = False) -> Encoding:
        """`text`, and a second one if given, with the special tokens around that tokenizer.json's post-processor names.

        This is what the `tokenizers` library does by default: [CLS] text [SEP] pair [SEP] for BERT.
        """
        return self._with_offsets(text, allowed_special, True, *([] if pair is None else [pair]))

    def _with_offsets(self, text: str, allowed_special: bool, special: bool, *more: str) -> Encoding:
        texts = [without_surrogates(item) for item in (text, *more)]
        encodings = [self._align(item, allowed_special) for item in texts]
        for place, encoding in enumerate(encodings):
            encoding.type_ids = [place] * len(encoding)
        if self._post_processor is not None:
            encodings = self._post_processor.process(encodings, special)
        joined = Encoding()
        for encoding in encodings:
            joined.extend(encoding)
        return joined

    @cached_property
    def _post_processor(self) -> PostProcessor | None:
        found = self.post_processor
        return None if found is None else read_post_processor(Part(found, "post_processor"))

    def _align(self, text: str, allowed_special: bool) -> Encoding:
        """Ids of `text` with their offsets, nothing put around it.

        Where the bytes of the tokens are those of the text, offsets are found by counting. Others ask their own
        tokenizer.json, whose parts keep track of what they change.
        """
        ids = self._encode(text, allowed_special)
        pieces = [self._bytes[number] for number in ids]
        if b"".join(pieces) == text.encode("utf-8"):
            tokens = [self.token(number) for number in ids]
            return Encoding(ids, tokens, offsets_of_bytes(pieces, text), [0] * len(ids))
        return self._as_pipeline._align(text, allowed_special)

    @cached_property
    def _as_pipeline(self) -> "Tokenizer":
        from groundup.tokenizers.pipeline.reading import read_pipeline

        return read_pipeline(Part(self.to_json(), type(self).__name__), self.names)

    @staticmethod
    def _required(number: int | None, name: str) -> int:
        if number is None:
            raise UsageError(f"this tokenizer has no {name} token: leave {name.lower()} off")
        return number

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD.

        Raises:
            UsageError: an id outside the vocabulary.
        """
        table, hidden = self._bytes, self._special_ids if skip_special else frozenset()
        chosen = [number for number in ids if number not in hidden] if hidden else ids
        try:
            pieces = [table[number] for number in chosen]
        except (IndexError, TypeError):
            pieces = [self.token_bytes(number) for number in chosen]
        if len(chosen) and min(chosen) < 0:
            raise self._unknown_id(min(chosen))
        return b"".join(pieces).decode("utf-8", errors="replace")

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.special_tokens.values())

    @cached_property
    def _bytes(self) -> list[bytes]:
        """The bytes behind every id; ids that no token has hold nothing."""
        table = [b"" if token is None else self._bytes_of(token) for token in self._tokens]
        for token in self.added.tokens:
            table[token.id] = token.content.encode("utf-8", errors="replace")
        return table

    def _bytes_of(self, token: str) -> bytes:
        """The bytes that a vocabulary entry stands for."""
        return token.encode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes behind one id; a character may be spread over several ids."""
        self.token(id)
        return self._bytes[id]

    def token(self, id: int) -> str:
        """The vocabulary's spelling of an id."""
        token = self._tokens[id] if 0 <= id < len(self._tokens) else None
        if token is None:
            raise self._unknown_id(id)
        return token

    def _unknown_id(self, id: int) -> UsageError:
        return UsageError(f"id {id} is not in the vocabulary: ids go from 0 to {self.vocab_size - 1}")

    def id(self, token: str) -> int | None:
        """The id of a vocabulary entry, or None."""
        return self.vocab.get(token)

    @property
    def algorithm(self) -> str:
        """How text is cut, by the name that people and `groundup tokenizer train` call it: the kind, where that tells.

        `kind` is the class of files and goes into the fingerprint; a pipeline's algorithm is its model's.
        """
        return self.kind

    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of all that determines the ids: equal fingerprints encode equally."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        added = sorted((t.id, t.content, t.special, t.normalized, *_flags(t)) for t in self.added.tokens)
        model = {key: value for key, value in self.to_json().items() if key in ("normalizer", "pre_tokenizer", "model")}
        content = {"kind": self.kind, "added": added, "bos": self.bos_id, "eos": self.eos_id, **model}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The content of tokenizer.json."""
        raise NotImplementedError

    def save_pretrained(self, folder: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and, with a template, chat_template.jinja, each atomically."""
        from groundup.tokenizers.files import write_folder

        write_folder(self, folder)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, special_tokens={len(self.special_tokens)})"


def tokens_by_id(vocab: Mapping[str, int]) -> list[str | None]:
    """The vocabulary as a list; None where no token has the id.

    Raises:
        CheckpointError: ids that are repeated, negative, absurdly large or not whole numbers.
    """
    if not vocab:
        raise CheckpointError("the vocabulary is empty")
    wrong = next((t for t, n in vocab.items() if type(n) is not int or not 0 <= n < MAX_ID), None)
    if wrong is not None:
        raise CheckpointError(f"token {wrong!r} has the id {vocab[wrong]!r}: a whole number below {MAX_ID} is expected")
    tokens: list[str | None] = [None] * (max(vocab.values()) + 1)
    for token, number in vocab.items():
        if tokens[number] is not None:
            raise CheckpointError(f"id {number} belongs to both {tokens[number]!r} and {token!r}")
        tokens[number] = token
    return tokens


def _flags(token: AddedToken) -> tuple[str, ...]:
    return tuple(name for name in ("lstrip", "rstrip", "single_word") if getattr(token, name))


def offsets_of_bytes(pieces: Sequence[bytes], text: str) -> list[tuple[int, int]]:
    """Where pieces of a text's UTF-8 stand in it, in characters; a piece of a character stands where that does."""
    if text.isascii():
        ends = list(itertools.accumulate(map(len, pieces)))
        return list(zip([0, *ends], ends, strict=False))
    # Before each byte: how many characters begin before it; and with it.
    begun = list(itertools.accumulate((byte & 0xC0 != 0x80 for byte in text.encode("utf-8")), initial=0))
    offsets, start = [], 0
    for piece in pieces:
        end = start + len(piece)
        offsets.append((begun[start + 1] - 1, begun[end]) if piece else (begun[start], begun[start]))
        start = end
    return offsets


def without_surrogates(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates replaced by U+FFFD, so that it has a UTF-8 form."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", errors="surrogatepass").decode("utf-16-le", errors="replace")
    return text
