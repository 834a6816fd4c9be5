r"""Cutting UTF-8 bytes into the pieces of the named patterns, as `regex` would.

A pattern's alternatives are tried in their order at each place; each is a run of one class of characters with a few
characters in front or behind, so a loop over bytes decides them, and each byte is looked at a small number of times.
Classes come in a table by code point (`classes`): what is a letter is decided by `regex` alone.
"""

from typing import Any

import numba

# Classes of characters. LINE (\r and \n) is white space too.
SIGN, LETTER, NUMBER, SPACE, LINE = 0, 1, 2, 3, 4
BLANK, APOSTROPHE = 32, 39
GPT2 = 0  # other rules are those of GPT-4, and the number is the most digits of a piece

COMPILED: Any = {"cache": True, "nogil": True, "error_model": "numpy"}


@numba.njit(**COMPILED)
def width(byte: int) -> int:
    """Bytes of the character that begins with `byte`."""
    if byte < 0x80:
        return 1
    return 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4


@numba.njit(**COMPILED)
def kind(data: Any, i: int, table: Any) -> int:
    """The class of the character at byte i; the bytes are valid UTF-8."""
    byte = numba.uint32(data[i])
    if byte < 0x80:
        return table[byte]
    second = numba.uint32(data[i + 1]) & 0x3F
    if byte < 0xE0:
        return table[(byte & 0x1F) << 6 | second]
    third = numba.uint32(data[i + 2]) & 0x3F
    if byte < 0xF0:
        return table[(byte & 0x0F) << 12 | second << 6 | third]
    return table[(byte & 0x07) << 18 | second << 12 | third << 6 | numba.uint32(data[i + 3]) & 0x3F]


@numba.njit(**COMPILED)
def run(data: Any, i: int, end: int, table: Any, wanted: int) -> int:
    """Where the characters of class `wanted` from i on end."""
    while i < end and kind(data, i, table) == wanted:
        i += width(data[i])
    return i


@numba.njit(**COMPILED)
def contraction(data: Any, i: int, end: int, any_case: bool) -> int:
    """Bytes of 's 't 'm 'd 're 've 'll at the apostrophe i, or 0. Without regard to case a long s is an s."""
    if i + 1 >= end:
        return 0
    first = data[i + 1] | 32 if any_case else data[i + 1]
    if first == 115 or first == 116 or first == 109 or first == 100:  # s t m d
        return 2
    if i + 2 >= end:
        return 0
    if any_case and data[i + 1] == 0xC5 and data[i + 2] == 0xBF:  # U+017F
        return 3
    second = data[i + 2] | 32 if any_case else data[i + 2]
    if second == 101 and (first == 114 or first == 118):  # re ve
        return 3
    return 3 if first == 108 and second == 108 else 0  # ll


@numba.njit(**COMPILED)
def white(data: Any, i: int, end: int, table: Any) -> int:
    r"""The end of the piece that begins with white space at i.

    `\s*[\r\n]+` up to the last line end of the run; else `\s+(?!\S)`, the run without its last character where text
    follows; else `\s+`.
    """
    place, last, line = i, i, 0
    while place < end:
        found = kind(data, place, table)
        if found < SPACE:
            break
        last = place
        place += width(data[place])
        if found == LINE:
            line = place
    if line:
        return line
    return place if place == end or last == i else last


@numba.njit(**COMPILED)
def gpt2_end(data: Any, i: int, end: int, table: Any) -> int:
    r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ (the table knows no LINE)."""
    if data[i] == APOSTROPHE:
        size = contraction(data, i, end, False)
        if size:
            return i + size
    start = i + 1 if data[i] == BLANK and i + 1 < end else i
    found = kind(data, start, table)
    if found < SPACE:
        return run(data, start + width(data[start]), end, table, found)
    return white(data, i, end, table)


@numba.njit(**COMPILED)
def gpt4_end(data: Any, i: int, end: int, table: Any, digits: int) -> int:
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+."""
    if data[i] == APOSTROPHE:
        size = contraction(data, i, end, True)
        if size:
            return i + size
    found, after = kind(data, i, table), i + width(data[i])
    if found == LETTER:
        return run(data, after, end, table, LETTER)
    if found == NUMBER:
        for _ in range(digits - 1):
            if after < end and kind(data, after, table) == NUMBER:
                after += width(data[after])
        return after
    following = kind(data, after, table) if after < end else -1
    if found != LINE and following == LETTER:
        return run(data, after, end, table, LETTER)
    if found == SIGN or (data[i] == BLANK and following == SIGN):
        return run(data, run(data, after, end, table, SIGN), end, table, LINE)
    return white(data, i, end, table)


@numba.njit(**COMPILED)
def cut(data: Any, text_ends: Any, table: Any, rules: int, ends: Any, pieces: Any) -> int:
    """Put the end of each piece of each text into `ends`; returns how many pieces there are.

    Args:
        data: uint8, texts in UTF-8, one behind the other; read only.
        text_ends: int64, where each text ends.
        table: uint8, the class of each code point that occurs.
        rules: `GPT2`, or for GPT-4's rules the most digits of a piece.
        ends: int64, room for len(data) numbers.
        pieces: int64, filled with how many pieces there are up to the end of each text.
    """
    count, start = 0, 0
    for text in range(len(text_ends)):
        end = text_ends[text]
        while start < end:
            if rules == GPT2:
                start = gpt2_end(data, start, end, table)
            else:
                start = gpt4_end(data, start, end, table, rules)
            ends[count] = start
            count += 1
        pieces[text] = count
    return count
