"""Byte-level BPE: merges of byte pairs (Sennrich et al., 2016; over bytes: Radford et al., 2019, GPT-2).

Every text has a UTF-8 form and every byte a token, so no text is ever unknown. A text is cut into pieces
(`pretokenize`), each piece starts as its bytes, and learnt pairs are merged, the earliest-learnt first.

What is here is the form to read. Once a tokenizer has met much text it goes over to `compiled`, which gives the same
ids several times faster, where numba is there and the pattern is one of the named ones.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import regex

from groundup.base.errors import CheckpointError
from groundup.tokenizers import kernels
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.byte_symbols import BYTE_TO_SYMBOL, to_bytes, to_symbols
from groundup.tokenizers.merging import Merges, apply_merges
from groundup.tokenizers.pipeline.normal_forms import normalizer
from groundup.tokenizers.pretokenize import RULES, PreTokenizer
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer
from groundup.tokenizers.word_cache import WordCache

if TYPE_CHECKING:
    from groundup.tokenizers.compiled import CompiledEncoder

Merge = tuple[str, str]

MUCH = 2**22  # characters met before the compiled loops are loaded
SHORT_TEXT = 256  # characters below which a call of them costs more than it saves


class ByteBPE(Tokenizer):
    """Byte-level BPE.

    Attributes:
        merges: pairs of symbol strings, in the order in which they were learnt.
        pattern: the regular expression that cuts pieces.
        normal_form: "NFC" and the like, or None: the text is used as it stands.
        ignore_merges: a piece that is a token as a whole is that token, whether or not merges lead to it (Llama 3).

    Raises:
        CheckpointError: a byte of UTF-8 without a symbol, or a merge whose parts or result are not in the vocabulary.
    """

    kind = "byte_bpe"

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[Merge],
        added_tokens: Iterable[AddedToken] = (),
        *,
        pattern: str = "gpt2",
        normal_form: str | None = None,
        ignore_merges: bool = False,
        names: SpecialNames | None = None,
        chat_template: str | None = None,
        post_processor: dict[str, Any] | None = None,
    ):
        super().__init__(
            vocab,
            added_tokens,
            names=names,
            normalize=normalizer(normal_form),
            chat_template=chat_template,
            post_processor=post_processor,
        )
        self.model_vocab = dict(vocab)
        self.pre_tokenizer = PreTokenizer(pattern)
        self.pattern = self.pre_tokenizer.pattern
        self.normal_form = normal_form
        self.ignore_merges = ignore_merges
        self.merges = _last_of_each(merges)
        self._met = 0
        self._compiled: CompiledEncoder | None = None
        byte_ids = _byte_ids(self.model_vocab)
        ranks = _ranks(self.merges, self.model_vocab)
        self._cache = _Cache(byte_ids, ranks, self._whole(), self._merged_control())

    def _whole(self) -> dict[str, int]:
        """Tokens that a piece may be as a whole; never a control token."""
        chosen = self.model_vocab.items() if self.ignore_merges else ()
        return {token: number for token, number in chosen if token not in self.special_tokens}

    def _merged_control(self) -> dict[str, int]:
        """Control tokens that merges make: a file may say so, and yet no text becomes one."""
        made = {left + right for left, right in self.merges}
        return {token: number for token, number in self.special_tokens.items() if token in made}

    def _encode_text(self, text: str) -> list[int]:
        if len(text) > SHORT_TEXT and (compiled := self.compiled(len(text))):
            return compiled.one(text)
        pieces = self.pre_tokenizer.split(text)
        return list(itertools.chain.from_iterable(map(self._cache.__getitem__, pieces)))

    def encode_batch(
        self, texts: Sequence[str], *, bos: bool = False, eos: bool = False, allowed_special: bool = False
    ) -> list[list[int]]:
        """`encode` of each text; much text is encoded by a thread for each processor (OMP_NUM_THREADS sets another)."""
        compiled = self.compiled(sum(map(len, texts)))
        if compiled is None:
            return super().encode_batch(texts, bos=bos, eos=eos, allowed_special=allowed_special)
        front = [self._required(self.bos_id, "BOS")] if bos else []
        back = [self._required(self.eos_id, "EOS")] if eos else []
        return compiled.batch(texts, self.added, allowed_special, front, back)

    def compiled(self, size: int) -> "CompiledEncoder | None":
        """The compiled form, or None; `size` characters are met now, and it is made once there have been many."""
        if self._cache.control:  # that a piece spells one is seen to in the readable form alone
            return None
        self._met += size
        if self._compiled is None and self._met >= MUCH and self.pattern in RULES and kernels.available():
            self._compiled = self._compile()
        return self._compiled

    def _compile(self) -> "CompiledEncoder":
        from groundup.tokenizers.compiled import CompiledEncoder

        spelled = {number: data for token, number in self.model_vocab.items() if (data := to_bytes(token))}
        whole = [number for token, number in self._cache.whole.items() if number in spelled]
        return CompiledEncoder(self.pattern, self._cache.byte_ids, self._cache.merges, spelled, whole)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_compiled": None}  # compiled functions stay in their process

    def _bytes_of(self, token: str) -> bytes:
        data = to_bytes(token)
        return token.encode("utf-8", errors="replace") if data is None else data

    def to_json(self) -> dict[str, Any]:
        """The content of tokenizer.json."""
        from groundup.tokenizers.files import byte_bpe_to_json

        return byte_bpe_to_json(self)


class _Cache(WordCache[tuple[int, ...]]):
    """Piece -> ids, computed at the first sight of a piece."""

    def __init__(self, byte_ids: list[int], merges: Merges, whole: Mapping[str, int], control: Mapping[str, int]):
        super().__init__()
        self.byte_ids, self.merges, self.whole, self.control = byte_ids, merges, whole, control
        self._control_ids = frozenset(control.values())
        self._spelled = regex.compile("|".join(map(regex.escape, control))) if control else None

    def __missing__(self, piece: str) -> tuple[int, ...]:
        data = piece.encode("utf-8")
        known = self.whole.get(to_symbols(data)) if self.whole else None
        return self.keep(piece, tuple(self._merge(data)) if known is None else (known,))

    def _merge(self, data: bytes) -> list[int]:
        """The merged bytes; where they spell a control token that merges make, cut apart after its first byte."""
        table = self.byte_ids
        ids = apply_merges([table[byte] for byte in data], self.merges)
        if self._spelled is None or self._control_ids.isdisjoint(ids):
            return ids
        places = [match.start() + 1 for match in self._spelled.finditer(to_symbols(data), overlapped=True)]
        parts = itertools.pairwise([0, *places, len(data)])
        return [n for start, end in parts for n in apply_merges([table[byte] for byte in data[start:end]], self.merges)]


# Bytes that no UTF-8 text holds; some vocabularies (GPT-NeoX) leave them out.
_NOT_UTF8 = frozenset({0xC0, 0xC1, *range(0xF5, 0x100)})


def _byte_ids(vocab: Mapping[str, int]) -> list[int]:
    """The id of each byte; -1 for bytes that have none and never occur."""
    missing = [byte for byte, symbol in BYTE_TO_SYMBOL.items() if symbol not in vocab and byte not in _NOT_UTF8]
    if missing:
        raise CheckpointError(
            f"{len(missing)} of the 256 bytes have no symbol in the vocabulary (the first: 0x{min(missing):02x}); "
            "is this a byte-level vocabulary?"
        )
    return [vocab.get(BYTE_TO_SYMBOL[byte], -1) for byte in range(256)]


def _last_of_each(merges: Sequence[Merge]) -> list[Merge]:
    """Merges without repetitions; of a repeated pair the last place counts, as in the `tokenizers` library."""
    last = {pair: place for place, pair in enumerate(merges)}
    return [pair for place, pair in enumerate(merges) if last[pair] == place]


def _ranks(merges: Sequence[Merge], vocab: Mapping[str, int]) -> dict[tuple[int, int], tuple[int, int]]:
    ranks = {}
    for rank, (left, right) in enumerate(merges):
        try:
            ranks[vocab[left], vocab[right]] = (rank, vocab[left + right])
        except KeyError as error:
            raise CheckpointError(
                f"merge {rank} ({left!r} + {right!r}) needs {error.args[0]!r}, which is not in the vocabulary"
            ) from None
    return ranks
