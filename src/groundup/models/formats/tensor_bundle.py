"""TensorFlow's checkpoints ("tensor bundles"): NAME.index says where each tensor lies in NAME.data-00000-of-00001.

The index is a sorted table of keys and values in blocks, as LevelDB writes them:

    block    entries, then where some of them begin (uint32 each) and how many those are (uint32);
             after it a byte of compression (0: none) and a masked CRC-32C of both
    entry    varints: bytes shared with the last key, further bytes of the key, bytes of the value; then those bytes
    footer   the last 48 bytes: handles (offset, size: varints) of a meta block and the index block, and a magic number
    index block   its values are handles of the data blocks

Key "" has a header, every other key a message: 1 dtype, 2 shape (2 dim (1 size)), 3 shard, 4 offset, 5 size, 7 slices.
Source: TensorFlow's tensor_bundle.proto and LevelDB's table_format.md.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.base.errors import CheckpointError
from groundup.base.files import safe_join
from groundup.base.safetensors_header import MAX_DIMENSIONS, MAX_TENSORS, TensorMeta
from groundup.models.formats.reader import Reader

MAGIC = 0xDB4775248B80FB57
FOOTER, TRAILER = 48, 5
MAX_INDEX_BYTES = 16 * 1024**2
MAX_KEY_BYTES = 4096
STRING = 7
DTYPES = {
    **{1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool"},
    **{14: "bfloat16", 17: "uint16", 19: "float16", 22: "uint32", 23: "uint64"},
}


class TensorBundle(Reader):
    """The numeric tensors of a bundle, named by its .index file; texts, which no model needs, are left out."""

    def __init__(self, index: str | Path):
        super().__init__(Path(index))
        if self.path.suffix != ".index" or not self.path.is_file():
            raise CheckpointError(f"no TensorFlow checkpoint at {self.path}: its .index file is expected")
        if self.path.stat().st_size > MAX_INDEX_BYTES:
            raise CheckpointError(f"{self.path} is larger than {MAX_INDEX_BYTES:,} bytes, more than an index can need")
        self._shards: list[Path] = []
        self._shard: dict[str, int] = {}
        self._maps: dict[int, mmap.mmap] = {}
        try:
            self._read(self.path.read_bytes())
        except (ValueError, IndexError, struct.error, OverflowError) as error:
            raise CheckpointError(f"{self.path} is damaged: {error}") from None

    def get(self, name: str) -> Tensor:
        """The tensor, on the CPU, as a view of the mapped file: copy what is to be kept or changed."""
        meta, shard = self.metas[self._known(name)], self._shard[name]
        if meta.nbytes == 0:
            return torch.empty(meta.shape, dtype=getattr(torch, meta.dtype))
        if shard not in self._maps:
            with open(self._shards[shard], "rb") as file:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if meta.start + meta.nbytes > len(self._maps[shard]):
            raise CheckpointError(f"{self._shards[shard]} became shorter since it was opened")
        raw = torch.frombuffer(self._maps[shard], dtype=torch.uint8, offset=meta.start, count=meta.nbytes)
        dtype = getattr(torch, meta.dtype)
        raw = raw.clone() if raw.data_ptr() % dtype.itemsize else raw
        return raw.view(dtype).view(meta.shape)

    @property
    def files(self) -> list[Path]:
        """The data files."""
        return self._shards

    def close(self) -> None:
        """Let go of the mapped files."""
        self._maps = {}

    def _read(self, raw: bytes) -> None:
        entries = dict(table(raw))
        if len(entries) > MAX_TENSORS:
            raise ValueError(f"it holds {len(entries):,} tensors; more than {MAX_TENSORS:,} are refused")
        header = message(entries.pop(b"", b""))
        count = _one(header, 1)
        if not 1 <= count <= 10_000 or _one(header, 2) != 0:
            raise ValueError("its header names no little-endian data files")
        stem = self.path.name.removesuffix(".index")
        self._shards = [safe_join(self.path.parent, f"{stem}.data-{i:05}-of-{count:05}") for i in range(count)]
        sizes = [path.stat().st_size for path in self._shards]
        found = {key.decode("utf-8"): message(value) for key, value in entries.items()}
        metas = {name: _meta(name, fields) for name, fields in found.items() if _one(fields, 1) != STRING}
        for name, meta in metas.items():
            self._shard[name] = shard = _one(found[name], 3)
            if shard >= count or meta.start + meta.nbytes > sizes[shard]:
                raise ValueError(f"tensor {name!r:.80} ends after its data file does: it was cut short")
        self.metas = dict(sorted(metas.items(), key=lambda item: (self._shard[item[0]], item[1].start)))


def _meta(name: str, fields: dict[int, list[Any]]) -> TensorMeta:
    if 7 in fields:
        raise ValueError(f"tensor {name!r:.80} is stored in slices, which is not supported")
    dtype = DTYPES.get(_one(fields, 1))
    if dtype is None:
        raise ValueError(f"tensor {name!r:.80} has the unknown dtype {_one(fields, 1)}")
    shape = message(fields.get(2, [b""])[-1])
    sizes = tuple(_one(message(dimension), 1) for dimension in shape.get(2, []))
    if 3 in shape or len(sizes) > MAX_DIMENSIONS:
        raise ValueError(f"tensor {name!r:.80} has no known shape")
    nbytes = getattr(torch, dtype).itemsize
    for size in sizes:
        nbytes *= size
    if max((*sizes, nbytes), default=0) >= 2**63 or nbytes != _one(fields, 5):
        raise ValueError(f"tensor {name!r:.80} of shape {sizes} does not take the {_one(fields, 5):,} bytes it claims")
    return TensorMeta(dtype, sizes, nbytes, _one(fields, 4))


def table(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of a table, blocks checked by their CRC."""
    if len(raw) < FOOTER or struct.unpack("<Q", raw[-8:])[0] != MAGIC:
        raise ValueError("it does not end as a TensorFlow index does")
    _, position = _handle(raw, len(raw) - FOOTER)  # the meta block, which nothing needs
    index, _ = _handle(raw, position)
    last: bytes | None = None
    end = 0
    for _, value in block(raw, *index):
        (offset, size), _ = _handle(value, 0)
        if offset < end:  # each block is read once, so that time is bounded by the file's length
            raise ValueError("its blocks are not in order")
        end = offset + size + TRAILER
        for key, content in block(raw, offset, size):
            if last is not None and key <= last:
                raise ValueError("its keys are not in order")
            last = key
            yield key, content


def _handle(raw: bytes, position: int) -> tuple[tuple[int, int], int]:
    offset, position = varint(raw, position)
    size, position = varint(raw, position)
    return (offset, size), position


def block(raw: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The entries of one block."""
    end = offset + size
    if end + TRAILER > len(raw) or size < 4:
        raise ValueError("a block lies outside the file")
    if raw[end] != 0:
        raise ValueError("its blocks are compressed, which TensorFlow does not do")
    if masked_crc(raw[offset : end + 1]) != struct.unpack("<I", raw[end + 1 : end + TRAILER])[0]:
        raise ValueError("the checksum of a block does not fit: copy or download the file again")
    restarts = struct.unpack("<I", raw[end - 4 : end])[0]
    limit = end - 4 - 4 * restarts
    if limit < offset:
        raise ValueError("a block has more restart points than bytes")
    key, position = b"", offset
    while position < limit:
        shared, position = varint(raw, position)
        added, position = varint(raw, position)
        length, position = varint(raw, position)
        if shared > len(key) or shared + added > MAX_KEY_BYTES or position + added + length > limit:
            raise ValueError("an entry reaches beyond its block")
        key = key[:shared] + raw[position : position + added]
        position += added + length
        yield key, raw[position - length : position]


def varint(raw: bytes, position: int) -> tuple[int, int]:
    """A number in groups of 7 bits, lowest first, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = raw[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), position
    raise ValueError("a number has more than 10 bytes")


def message(raw: Any) -> dict[int, list[Any]]:
    """The fields of a protocol buffer message: numbers as int, texts and messages as bytes."""
    if not isinstance(raw, bytes):
        raise ValueError("a message is expected where a number stands")
    fields: dict[int, list[Any]] = {}
    position = 0
    while position < len(raw):
        tag, position = varint(raw, position)
        kind = tag & 7
        if kind == 0:
            value, position = varint(raw, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, position = int.from_bytes(raw[position : position + size], "little"), position + size
        elif kind == 2:
            size, position = varint(raw, position)
            value, position = raw[position : position + size], position + size
        else:
            raise ValueError(f"a field has the unknown kind {kind}")
        if position > len(raw):
            raise ValueError("a field reaches beyond its message")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _one(fields: dict[int, list[Any]], number: int) -> int:
    """A number's last value; 0 where it was left out."""
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {number} should be a number")
    return value


def _crc_table() -> list[int]:
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return found


CRC_TABLE = _crc_table()


def crc32c(raw: bytes) -> int:
    """The CRC-32C (Castagnoli) of bytes."""
    value = 0xFFFFFFFF
    for byte in raw:
        value = value >> 8 ^ CRC_TABLE[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF


def masked_crc(raw: bytes) -> int:
    """A CRC as it is stored: turned right by 15 bits, plus a constant."""
    crc = crc32c(raw)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
