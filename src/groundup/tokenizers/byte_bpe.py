"""Byte-level BPE: merges of byte pairs (Sennrich et al., 2016; over bytes: Radford et al., 2019, GPT-2).

Every text has a UTF-8 form and every byte a token, so no text is ever unknown. A text is cut into pieces
(`pretokenize`), each piece starts as its bytes, and learnt pairs are merged, the earliest-learnt first.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from groundup.base.errors import CheckpointError
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.byte_symbols import BYTE_TO_SYMBOL, to_bytes, to_symbols
from groundup.tokenizers.merging import Merges, apply_merges
from groundup.tokenizers.normalizers import normalizer
from groundup.tokenizers.pretokenize import PreTokenizer
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer

Merge = tuple[str, str]

CACHED_PIECES = 2**18
LONGEST_CACHED = 64


class ByteBPE(Tokenizer):
    """Byte-level BPE.

    Attributes:
        merges: pairs of symbol strings, in the order in which they were learnt.
        pattern: the regular expression that cuts pieces.
        normal_form: "NFC" and the like, or None: the text is used as it stands.
        ignore_merges: a piece that is a token as a whole is that token, whether or not merges lead to it (Llama 3).

    Raises:
        CheckpointError: a byte without a symbol, or a merge whose parts or result are not in the vocabulary.
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
        self._cache = _Cache(_byte_ids(self.model_vocab), _ranks(self.merges, self.model_vocab), self._whole())

    def _whole(self) -> dict[str, int]:
        """Tokens that a piece may be as a whole; never a control token."""
        chosen = self.model_vocab.items() if self.ignore_merges else ()
        return {token: number for token, number in chosen if token not in self.special_tokens}

    def _encode_text(self, text: str) -> list[int]:
        pieces = self.pre_tokenizer.split(text)
        return list(itertools.chain.from_iterable(map(self._cache.__getitem__, pieces)))

    def _bytes_of(self, token: str) -> bytes:
        data = to_bytes(token)
        return token.encode("utf-8", errors="replace") if data is None else data

    def to_json(self) -> dict[str, Any]:
        """The content of tokenizer.json."""
        from groundup.tokenizers.files import byte_bpe_to_json

        return byte_bpe_to_json(self)


class _Cache(dict[str, tuple[int, ...]]):
    """Piece -> ids, computed at the first sight of a piece; text repeats itself, so this is where the speed is."""

    def __init__(self, byte_ids: list[int], merges: Merges, whole: Mapping[str, int]):
        super().__init__()
        self.byte_ids, self.merges, self.whole = byte_ids, merges, whole

    def __missing__(self, piece: str) -> tuple[int, ...]:
        data = piece.encode("utf-8")
        known = self.whole.get(to_symbols(data)) if self.whole else None
        table = self.byte_ids
        ids = tuple(apply_merges([table[byte] for byte in data], self.merges)) if known is None else (known,)
        if len(piece) <= LONGEST_CACHED:
            if len(self) >= CACHED_PIECES:
                self.clear()
            self[piece] = ids
        return ids


def _byte_ids(vocab: Mapping[str, int]) -> list[int]:
    missing = [byte for byte, symbol in BYTE_TO_SYMBOL.items() if symbol not in vocab]
    if missing:
        raise CheckpointError(
            f"{len(missing)} of the 256 bytes have no symbol in the vocabulary (the first: 0x{min(missing):02x}); "
            "is this a byte-level vocabulary?"
        )
    return [vocab[BYTE_TO_SYMBOL[byte]] for byte in range(256)]


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
