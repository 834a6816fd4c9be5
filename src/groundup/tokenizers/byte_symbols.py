"""GPT-2's spelling of bytes as visible characters (Radford et al., 2019).

Vocabulary files hold text, and tokens are bytes: printable Latin-1 characters stand for their own code, and the other
68 bytes for U+0100 onwards, in order (the space is G with a dot above).
"""

_VISIBLE = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
_HIDDEN = [byte for byte in range(256) if byte not in _VISIBLE]
# The bytes in the order of their symbols, in which GPT-2 and later vocabularies of OpenAI's number them.
BYTE_ORDER: tuple[int, ...] = (*_VISIBLE, *_HIDDEN)

BYTE_TO_SYMBOL: dict[int, str] = {
    **{byte: chr(byte) for byte in _VISIBLE},
    **{byte: chr(0x100 + place) for place, byte in enumerate(_HIDDEN)},
}
SYMBOL_TO_BYTE: dict[str, int] = {symbol: byte for byte, symbol in BYTE_TO_SYMBOL.items()}
# The 256 symbols in order of their code point: the order in which a trained vocabulary begins.
ALPHABET: tuple[str, ...] = tuple(sorted(SYMBOL_TO_BYTE))


def to_symbols(data: bytes) -> str:
    """The spelling of bytes: b" a" is "\u0120a"."""
    return data.decode("latin-1").translate(BYTE_TO_SYMBOL)


def to_bytes(symbols: str) -> bytes | None:
    """The bytes that a spelling stands for; None if a character stands for none."""
    try:
        return bytes([SYMBOL_TO_BYTE[symbol] for symbol in symbols])
    except KeyError:
        return None
