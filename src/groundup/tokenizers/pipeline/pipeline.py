"""Any tokenizer that tokenizer.json describes: normalizer, pre-tokenizer, model and decoder, one after the other.

    text -> added tokens cut out -> normalized -> cut into pieces -> each piece cut by the model -> ids

The plain byte-level kind has a class of its own, which is faster (`ByteBPE`).
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import regex

from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.byte_symbols import to_bytes
from groundup.tokenizers.encoding import Encoding
from groundup.tokenizers.pipeline.alignment import Aligned
from groundup.tokenizers.pipeline.decoders import BYTE, ByteFallback, ByteLevel, Decoder, steps_of
from groundup.tokenizers.pipeline.normalizers import ByteLevel as ByteSymbols
from groundup.tokenizers.pipeline.normalizing import Normalizer
from groundup.tokenizers.pipeline.pre_tokenizers import PreTokenizer, split, split_aligned
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer
from groundup.tokenizers.word_cache import WordCache


class Model(Protocol):
    """How a vocabulary cuts one piece."""

    @property
    def vocab(self) -> Mapping[str, int]:
        """Token -> id."""
        ...

    def cut(self, word: str) -> list[tuple[int, int]]:
        """(id, end) pairs; `end`: where the token ends, in characters of `word`.

        A token with the end of the one before it stands for a part of the same characters.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """The `model` object of tokenizer.json."""
        ...


class Pipeline(Tokenizer):
    """A tokenizer made of parts.

    Args:
        model: cuts pieces by its vocabulary.
        added_tokens: tokens that are found in the text first.
        normalizer: changes the text; None: it stays as it is.
        pre_tokenizer: cuts the normalized text; None: it is one piece.
        decoder: turns tokens into text; None: they are joined by spaces.
    """

    kind = "pipeline"
    bytewise = False

    def __init__(
        self,
        model: Model,
        added_tokens: Iterable[AddedToken] = (),
        *,
        normalizer: Normalizer | None = None,
        pre_tokenizer: PreTokenizer | None = None,
        decoder: Decoder | None = None,
        names: SpecialNames | None = None,
        chat_template: str | None = None,
        post_processor: dict[str, Any] | None = None,
    ):
        super().__init__(
            model.vocab,
            added_tokens,
            names=names,
            normalize=normalizer.apply if normalizer else None,
            chat_template=chat_template,
            post_processor=post_processor,
        )
        self.model, self.normalizer, self.pre_tokenizer, self.decoder = model, normalizer, pre_tokenizer, decoder
        self._all_steps = list(pre_tokenizer.steps()) if pre_tokenizer else []
        # Spelling pieces as bytes comes last and looks at nothing else: done once for each different piece.
        last = self._all_steps[-1] if self._all_steps else None
        self._spell = last.apply if isinstance(last, ByteSymbols) else None
        self._steps = self._all_steps[:-1] if self._spell else self._all_steps
        # Where a text begins is known only by following each character through the normalizer.
        self._follows = normalizer is not None and pre_tokenizer is not None and pre_tokenizer.asks_where
        self._cache: WordCache[tuple[int, ...]] = WordCache()

    @property
    def algorithm(self) -> str:
        """The model's: bpe, unigram, wordpiece or wordlevel."""
        return type(self.model).__name__.removesuffix("Model").lower()

    def _encode(self, text: str, allowed_special: bool) -> list[int]:
        if self._follows:
            return self._align(text, allowed_special).ids
        ids: list[int] = []
        for place, piece in enumerate(self.added.cut(text, allowed_special)):
            if isinstance(piece, int):
                ids.append(piece)
            else:
                for word in split(self._steps, piece, first=place == 0):
                    ids.extend(self._ids(word))
        return ids

    def _ids(self, word: str) -> tuple[int, ...]:
        """Ids of a piece; text repeats itself, so those of short pieces are kept."""
        found = self._cache.get(word)
        if found is None:
            spelled = self._spell(word) if self._spell else word
            found = self._cache.keep(word, tuple(number for number, _ in self._cut(spelled)))
        return found

    def _cut(self, word: str) -> list[tuple[int, int]]:
        """The model's cut, without control tokens: where text spells one, it is cut apart after its first character."""
        cut = self.model.cut(word)
        if self._control is None or self._control_ids.isdisjoint([number for number, _ in cut]):
            return cut
        cut, start = [], 0
        for end in [*(match.start() + 1 for match in self._control.finditer(word, overlapped=True)), len(word)]:
            cut.extend((number, start + stop) for number, stop in self.model.cut(word[start:end]))
            start = end
        return cut

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        """Ids that text must never become; the unknown token is what unknown text becomes."""
        unknown = self.names.unk if self.names.unk else getattr(self.model, "unk", None)
        ids = {token.id for token in self.added.tokens if token.special and token.content != unknown}
        return frozenset(ids - {getattr(self.model, "unk_id", None)})

    @cached_property
    def _control(self) -> "regex.Pattern[str] | None":
        ids = self._control_ids
        spelled = [t for t, number in self.model.vocab.items() if number in ids and len(t) > 1]
        return regex.compile("|".join(map(regex.escape, spelled))) if spelled else None

    def _align(self, text: str, allowed_special: bool) -> Encoding:
        encoding = Encoding()
        for piece, number in self.added.cut_aligned(Aligned(text), allowed_special, self.normalizer):
            if number is not None:
                encoding.add(number, piece.text, piece.span(0, len(piece.text)))
                continue
            for word in split_aligned(self._all_steps, piece):
                self._align_word(word, encoding)
        return encoding

    def _align_word(self, word: Aligned, encoding: Encoding) -> None:
        start = end = 0
        for number, stop in self._cut(word.text):
            if stop > end:
                start, end = end, stop
            encoding.add(number, self.token(number), word.span(start, end))

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Text of `ids`, as the decoder makes it.

        Raises:
            UsageError: an id outside the vocabulary.
        """
        tokens = [self.token(number) for number in ids]
        if skip_special:
            tokens = [token for token in tokens if token not in self.special_tokens]
        return self._join(tokens)

    def _join(self, tokens: list[str]) -> str:
        if self.decoder is None:
            return " ".join(tokens)
        return "".join(self.decoder.chain(tokens)) if tokens else ""

    @cached_property
    def ids_in_runs(self) -> frozenset[int]:
        """Ids of bytes, where one wrong byte makes a whole run of them U+FFFD."""
        if not any(isinstance(step, ByteFallback) for step in steps_of(self.decoder)):
            return frozenset()
        return frozenset(number for token, number in self.vocab.items() if BYTE.fullmatch(token))

    def _bytes_of(self, token: str) -> bytes:
        """What a token adds to a text after another token."""
        kinds = {type(step) for step in steps_of(self.decoder)}
        if ByteLevel in kinds and (data := to_bytes(token)) is not None:
            return data
        if ByteFallback in kinds and regex.fullmatch("<0x[0-9A-F]{2}>", token):
            return bytes([int(token[3:5], 16)])
        alone = self._join(["a"])
        return self._join(["a", token]).removeprefix(alone).encode("utf-8", errors="replace")

    def to_json(self) -> dict[str, Any]:
        """The content of tokenizer.json."""
        from groundup.tokenizers.files import pipeline_to_json

        return pipeline_to_json(self)
