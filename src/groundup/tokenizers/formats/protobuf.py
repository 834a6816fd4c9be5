"""The wire format of Protocol Buffers, as much of it as flat messages need.

A message is a row of fields: a varint (number << 3 | wire type), then the value: a varint (0), 8 bytes (1), a length and
that many bytes (2), or 4 bytes (5). Nothing here recurses: a nested message is bytes until its reader looks inside, so
files nested a million deep cost nothing. Groups (3, 4), which proto2 gave up, are refused.
"""

import struct
from collections.abc import Iterator

from groundup.base.errors import CheckpointError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Value = int | bytes
MAX_FIELDS = 2**24


def fields(data: bytes, where: str) -> Iterator[tuple[int, int, Value]]:
    """(number, wire type, value) of each field; bytes for all but varints.

    Raises:
        CheckpointError: `data` is cut off, or is no such message; `where` names it.
    """
    place, count = 0, 0
    while place < len(data):
        count += 1
        if count > MAX_FIELDS:
            raise CheckpointError(f"{where}: more than {MAX_FIELDS:,} fields; such a file cannot be meant")
        key, place = _varint(data, place, where)
        number, wire = key >> 3, key & 7
        if not 0 < number < 2**29:
            raise CheckpointError(f"{where}: byte {place} is no field of a protobuf message; is the file damaged?")
        if wire == VARINT:
            value, place = _varint(data, place, where)
            yield number, wire, value
            continue
        if wire == BYTES:
            size, place = _varint(data, place, where)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise CheckpointError(f"{where}: field {number} has the wire type {wire}, which is not supported")
        if size > len(data) - place:
            raise CheckpointError(
                f"{where}: field {number} claims {size:,} bytes, but {len(data) - place:,} are left; the file is cut off"
            )
        yield number, wire, data[place : place + size]
        place += size


def _varint(data: bytes, place: int, where: str) -> tuple[int, int]:
    """The value of a varint (7 bits a byte, the low ones first, at most 10 bytes) and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise CheckpointError(f"{where}: the file ends inside a number; it is cut off")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), place
    raise CheckpointError(f"{where}: a number of more than 10 bytes before byte {place}; is the file damaged?")


def write_field(number: int, wire: int, value: Value) -> bytes:
    """One field as it stands in a file; a negative varint is written as its two's complement."""
    head = _write_varint(number << 3 | wire)
    if isinstance(value, int):
        return head + _write_varint(value & (2**64 - 1))
    return head + (_write_varint(len(value)) if wire == BYTES else b"") + value


def _write_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> int:
    """A varint as a signed 32-bit number: the low half counts, as in the C++ library."""
    low = value & 0xFFFFFFFF
    return low - 2**32 if low >= 2**31 else low


def float_of(data: bytes) -> float:
    """The single-precision number in 4 bytes."""
    return struct.unpack("<f", data)[0]


def bytes_of_float(value: float) -> bytes:
    """4 bytes of a single-precision number."""
    return struct.pack("<f", value)
