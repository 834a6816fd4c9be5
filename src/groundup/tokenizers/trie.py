"""RWKV World's tokenizer (Peng et al., 2024, Eagle and Finch): from left to right, the longest token that fits.

There is no cutting into words and there are no merges: the text's bytes walk down a trie, the last token passed is
taken, and the next walk begins behind it. Each byte is a token, so no text is unknown. Id 0 ends a text and has no
spelling in the vocabulary file.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from groundup.base.errors import CheckpointError
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.byte_symbols import to_bytes, to_symbols
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer

# Byte -> (id of the token that ends here or None, the nodes below).
Node = dict[int, "tuple[int | None, Node]"]


class Trie(Tokenizer):
    """Greedy longest match over bytes.

    Time is the text's length times, at worst, that of the longest token; a real text's walks are a little longer than
    its tokens.

    Args:
        vocab: token in byte symbols (`byte_symbols`) -> id.
        added_tokens: control tokens.
        size: number of ids, where a model has more rows than the vocabulary has tokens.
        names: which special tokens are BOS, EOS, ...
        chat_template: kept with the tokenizer.
        post_processor: kept for other readers.

    Raises:
        CheckpointError: one of the 256 bytes is no token, a token is not in byte symbols, or `size` is too small.
    """

    kind = "trie"

    def __init__(
        self,
        vocab: Mapping[str, int],
        added_tokens: Iterable[AddedToken] = (),
        *,
        size: int | None = None,
        names: SpecialNames | None = None,
        chat_template: str | None = None,
        post_processor: dict[str, Any] | None = None,
    ):
        super().__init__(vocab, added_tokens, names=names, chat_template=chat_template, post_processor=post_processor)
        self.model_vocab = dict(vocab)
        if size is not None:
            if not len(self._tokens) <= size <= 2**24:
                raise CheckpointError(f"size {size} is not between {len(self._tokens)} and {2**24}")
            self._tokens.extend([None] * (size - len(self._tokens)))
        self._root = _build(vocab, self.special_tokens)

    def _encode_text(self, text: str) -> list[int]:
        data = text.encode("utf-8")
        ids: list[int] = []
        append, root, place, size = ids.append, self._root, 0, len(data)
        while place < size:
            # The first step always finds the byte's own token.
            number, node = root[data[place]]
            place += 1
            best, walk = number, place
            while walk < size and (step := node.get(data[walk])) is not None:
                walk += 1
                number, node = step
                if number is not None:
                    best, place = number, walk
            append(best)  # pyright: ignore[reportArgumentType]
        return ids

    def _bytes_of(self, token: str) -> bytes:
        data = to_bytes(token)
        return token.encode("utf-8") if data is None else data

    def to_json(self) -> dict[str, Any]:
        """The content of tokenizer.json: WordPiece without a prefix over byte symbols is the same algorithm.

        The `tokenizers` library reads it and gives the same ids, in time quadratic in the text.
        """
        from groundup.tokenizers.files import trie_to_json

        return trie_to_json(self)


def _build(vocab: Mapping[str, int], special: Mapping[str, int]) -> Node:
    root: Node = {}
    for token, number in vocab.items():
        if token in special:
            continue
        data = to_bytes(token)
        if not data:
            raise CheckpointError(f"the token {token!r:.80} is not the spelling of bytes")
        node = root
        for byte in data[:-1]:
            if (step := node.get(byte)) is None:
                step = node[byte] = (None, {})
            node = step[1]
        below = node[data[-1]][1] if data[-1] in node else {}
        node[data[-1]] = (number, below)
    missing = [byte for byte in range(256) if root.get(byte, (None,))[0] is None]
    if missing:
        raise CheckpointError(
            f"{len(missing)} of the 256 bytes are no token (the first: 0x{missing[0]:02x}): some texts have no ids"
        )
    return root


def spell(data: bytes) -> str:
    """The vocabulary's spelling of a token's bytes."""
    return to_symbols(data)
