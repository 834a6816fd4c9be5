r"""RWKV's vocabulary file: a line for each token with its id, its text or bytes as a Python literal, and its length.

    1 '\x00' 1
    225 b'\xe0' 1
    8940 'unk' 3

RWKV's own reader evaluates the literals as code. Here a line is one string literal, checked by its shape and its length
before `ast.literal_eval` reads it: nothing in the file can be anything but text or bytes.
"""

import ast
import re
from pathlib import Path

from groundup.base.errors import CheckpointError
from groundup.base.files import write_atomic
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.byte_symbols import to_bytes
from groundup.tokenizers.formats.bounded import head, read_bounded_text
from groundup.tokenizers.tokenizer import MAX_ID, SpecialNames
from groundup.tokenizers.trie import Trie, spell

LONGEST_LINE = 4096
END_OF_TEXT = "<|rwkv_tokenizer_end_of_text|>"
# The published vocabulary has 65,529 tokens and id 0; its models have this many rows.
WORLD = (65_529, 65_536)

# An id; quotes, within them no bare quote of their kind, backslash or line end; a length in bytes.
_LINE = re.compile(r"""([0-9]{1,8}) (b?(?:'(?:[^'\\\r\n]|\\.)*'|"(?:[^"\\\r\n]|\\.)*")) ([0-9]{1,5})""")


def sniff(path: str | Path) -> bool:
    """Whether the file begins as RWKV's vocabulary does."""
    first = head(path).decode("utf-8", errors="replace").partition("\n")[0]
    return _LINE.fullmatch(first.removesuffix("\r")) is not None


def read(path: str | Path, *, chat_template: str | None = None) -> Trie:
    """The tokenizer of a vocabulary file.

    Raises:
        CheckpointError: a damaged line, a repeated id or token, or a byte without a token; the message names the line.
    """
    vocab: dict[str, int] = {}
    seen: set[int] = set()
    for place, line in enumerate(read_bounded_text(path).split("\n"), start=1):
        if not line.removesuffix("\r"):
            continue
        where = f"{path}, line {place}"
        number, data = _parse(line.removesuffix("\r"), where)
        token = spell(data)
        if token in vocab or number in seen:
            raise CheckpointError(
                f"{where}: the {'id' if number in seen else 'token'} stands in an earlier line already"
            )
        vocab[token] = number
        seen.add(number)
    if not vocab:
        raise CheckpointError(f"{path} holds no tokens")
    end = [] if 0 in seen else [AddedToken(END_OF_TEXT, 0)]
    names = SpecialNames(bos=END_OF_TEXT, eos=END_OF_TEXT) if end else None
    size = WORLD[1] if (len(vocab), max(seen)) == (WORLD[0], WORLD[0]) else None
    try:
        return Trie(vocab, end, size=size, names=names, chat_template=chat_template)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _parse(line: str, where: str) -> tuple[int, bytes]:
    match = _LINE.fullmatch(line) if len(line) <= LONGEST_LINE else None
    if match is None:
        raise CheckpointError(f"{where}: an id, a quoted text and its length are expected, found {line!r:.80}")
    number, literal, length = match.groups()
    try:
        value = ast.literal_eval(literal)
        data = value.encode("utf-8") if isinstance(value, str) else bytes(value)
    except (SyntaxError, ValueError) as error:  # an unknown escape, a lone surrogate, ...
        raise CheckpointError(f"{where}: {literal:.80} is no text: {error}") from None
    if len(data) != int(length) or not data:
        raise CheckpointError(f"{where}: {literal:.80} has {len(data)} bytes, and the line says {length}")
    if int(number) >= MAX_ID:
        raise CheckpointError(f"{where}: the id {number} is not below {MAX_ID:,}")
    return int(number), data


def write(tokenizer: Trie, path: str | Path) -> None:
    """Write the vocabulary; RWKV's own file comes out byte for byte. Control tokens have no place in it.

    Lines end as in that file, with CR and LF.
    """
    lines = []
    for token, number in sorted(tokenizer.model_vocab.items(), key=lambda item: item[1]):
        data = to_bytes(token)
        if token in tokenizer.special_tokens or data is None:
            continue
        lines.append(f"{number} {_literal(data)} {len(data)}\r\n")
    write_atomic(path, "".join(lines))


def _literal(data: bytes) -> str:
    try:
        return repr(data.decode("utf-8"))
    except UnicodeDecodeError:
        return repr(data)
