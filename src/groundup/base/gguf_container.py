"""GGUF files, version 3: metadata and tensors in one file, as llama.cpp reads and writes them.

    4 bytes   "GGUF"
    u32       version; then u64 number of tensors, u64 number of metadata entries
    entries   text key, u32 type, value; an array is u32 type of items, u64 count, items; a text is u64 length, UTF-8
    tensors   text name, u32 number of dimensions, u64 sizes (the innermost first), u32 type, u64 offset
    padding   to a multiple of `general.alignment` (32)
    data      each tensor at its offset, which is such a multiple too

All numbers are little-endian. Every length, count, size, type and offset is held against the length of the file before
it is used: a file that lies about itself is refused by name, and costs no more memory than its own size. Version 2,
which has the same layout, is read too.

Source: the format's description in the ggml repository (2023).
"""

import contextlib
import math
import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np

from groundup.base.errors import CheckpointError, UsageError

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
MAX_TENSORS = 100_000
MAX_ENTRIES = 65_536
MAX_KEY = 2**16 - 1
MAX_NAME = 63  # llama.cpp keeps names in 64 bytes
MAX_DIMENSIONS = 4
MAX_TEXTS = 2**24
MAX_NESTING = 4


class Kind(IntEnum):
    """Types of metadata values."""

    U8 = 0
    I8 = 1
    U16 = 2
    I16 = 3
    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    TEXT = 8
    ARRAY = 9
    U64 = 10
    I64 = 11
    F64 = 12


NUMBERS: dict[int, str] = {
    **{Kind.U8: "<u1", Kind.I8: "<i1", Kind.U16: "<u2", Kind.I16: "<i2", Kind.U32: "<u4", Kind.I32: "<i4"},
    **{Kind.F32: "<f4", Kind.BOOL: "|b1", Kind.U64: "<u8", Kind.I64: "<i8", Kind.F64: "<f8"},
}
"""Kind -> numpy's name of the type."""


class TensorType(NamedTuple):
    """How a tensor's numbers are stored: `block` of them take `nbytes`."""

    name: str
    number: int
    block: int
    nbytes: int

    @property
    def bits_per_weight(self) -> float:
        """Bits a number, scales included."""
        return 8 * self.nbytes / self.block


TENSOR_TYPES: dict[str, TensorType] = {
    each.name: each
    for each in (
        TensorType("f32", 0, 1, 4),
        TensorType("f16", 1, 1, 2),
        TensorType("q4_0", 2, 32, 18),
        TensorType("q8_0", 8, 32, 34),
        TensorType("q4_k", 12, 256, 144),
        TensorType("q6_k", 14, 256, 210),
        TensorType("bf16", 30, 1, 2),
    )
}
_BY_NUMBER = {each.number: each for each in TENSOR_TYPES.values()}
_OTHERS = {3: "q4_1", 6: "q5_0", 7: "q5_1", 9: "q8_1", 10: "q2_k", 11: "q3_k", 13: "q5_k", 15: "q8_k"}


@dataclass(frozen=True)
class TensorInfo:
    """What the file tells about a tensor; `shape` has the innermost dimension last, `offset` is from its start."""

    type: TensorType
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) // self.type.block * self.type.nbytes


class GGUFFile:
    """A GGUF file, mapped into memory; use it as a context manager.

    Attributes:
        path: the file.
        version: 2 or 3.
        metadata: key -> number, text, bool, numpy array of numbers, or list (of texts or arrays).
        tensors: name -> TensorInfo, in the order of the file.

    Raises:
        CheckpointError: damaged, cut short, or not to be trusted; the message names the key or tensor.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise CheckpointError(f"no file at {self.path}")
        if self.path.stat().st_size < 24:
            raise CheckpointError(f"{self.path} is too short for a GGUF file: copy or download it again")
        with open(self.path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def raw(self, name: str) -> np.ndarray:
        """The bytes of a tensor, uint8 (..., rows, bytes a row): a view of the file, which cannot be written to."""
        if name not in self.tensors:
            raise CheckpointError(f"{self.path} holds no tensor {name!r}")
        info = self.tensors[name]
        flat = np.frombuffer(self._map, np.uint8, info.nbytes, info.offset)
        return flat.reshape(*info.shape[:-1], info.shape[-1] // info.type.block * info.type.nbytes)

    def close(self) -> None:
        """Let go of the mapping, unless views of it are still alive: then it goes with them."""
        with contextlib.suppress(BufferError):
            self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read(self) -> None:
        cursor = _Cursor(self._map, self.path)
        if cursor.take(4) != MAGIC:
            raise CheckpointError(f"{self.path} is not a GGUF file: it does not begin with GGUF")
        self.version = cursor.number("<I")
        if self.version not in (2, VERSION):
            more = " (a file for big-endian machines)" if self.version & 0xFFFF == 0 else ""
            raise CheckpointError(f"{self.path}: GGUF version {self.version}{more}; 2 and 3 are read here")
        num_tensors, num_entries = cursor.number("<Q"), cursor.number("<Q")
        # A tensor takes at least 25 bytes, an entry 13.
        cursor.count(num_tensors, 25, MAX_TENSORS, "tensors")
        cursor.count(num_entries, 13, MAX_ENTRIES, "metadata entries")
        self.metadata: dict[str, Any] = {}
        for _ in range(num_entries):
            key = cursor.text("a metadata key", MAX_KEY)
            if key in self.metadata:
                raise CheckpointError(f"{self.path}: the metadata key {key!r:.80} appears twice")
            self.metadata[key] = cursor.value(cursor.number("<I"), key)
        alignment = self.metadata.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1) or alignment > 2**20:
            raise CheckpointError(f"{self.path}: general.alignment is {alignment!r:.40}: a power of two is expected")
        entries = [self._tensor(cursor, alignment) for _ in range(num_tensors)]
        start = -(-cursor.position // alignment) * alignment
        self.tensors: dict[str, TensorInfo] = {}
        for name, kind, shape, offset in entries:
            if name in self.tensors:
                raise CheckpointError(f"{self.path}: tensor {name!r} appears twice")
            self.tensors[name] = TensorInfo(kind, shape, start + offset)
        self._check_places(len(self._map))

    def _tensor(self, cursor: "_Cursor", alignment: int) -> tuple[str, TensorType, tuple[int, ...], int]:
        """One entry of the list of tensors; the offset is within the data."""
        name = cursor.text("a tensor's name", MAX_NAME)
        where = f"{self.path}: tensor {name!r}"
        dimensions = cursor.number("<I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise CheckpointError(f"{where} has {dimensions} dimensions: 1 to {MAX_DIMENSIONS} are possible")
        shape = tuple(cursor.number("<Q") for _ in range(dimensions))[::-1]
        number, offset = cursor.number("<I"), cursor.number("<Q")
        if number not in _BY_NUMBER:
            what = f"{number} ({_OTHERS[number]})" if number in _OTHERS else str(number)
            raise CheckpointError(f"{where} has the type {what}; known are {', '.join(TENSOR_TYPES)}")
        kind = _BY_NUMBER[number]
        if 0 in shape or math.prod(shape) * kind.nbytes >= 2**63:
            raise CheckpointError(f"{where} has the impossible shape {shape}")
        if shape[-1] % kind.block:
            raise CheckpointError(f"{where}: rows of {shape[-1]} numbers cannot be {kind.name}, {kind.block} a block")
        if offset % alignment:
            raise CheckpointError(f"{where} begins at {offset}, which is no multiple of the alignment {alignment}")
        return name, kind, shape, offset

    def _check_places(self, size: int) -> None:
        """Every tensor must end within the file, and none may lie over another."""
        end, before = 0, ""
        for name, info in sorted(self.tensors.items(), key=lambda item: item[1].offset):
            if info.offset + info.nbytes > size:
                raise CheckpointError(
                    f"{self.path}: tensor {name!r} ends at {info.offset + info.nbytes:,}, but the file has {size:,} "
                    "bytes: it was cut short; copy or download it again"
                )
            if info.offset < end:
                raise CheckpointError(f"{self.path}: tensor {name!r} lies over {before!r}")
            end, before = info.offset + info.nbytes, name


class _Cursor:
    """Reads on from a position, and never beyond the end."""

    def __init__(self, data: mmap.mmap, path: Path):
        self.data, self.path, self.position, self.size = data, path, 0, len(data)

    def take(self, count: int) -> bytes:
        self.need(count)
        self.position += count
        return self.data[self.position - count : self.position]

    def need(self, count: int) -> None:
        if count > self.size - self.position:
            raise CheckpointError(
                f"{self.path}: byte {self.position:,} tells of {count:,} bytes more, but the file ends after "
                f"{self.size - self.position:,}: it is damaged or was cut short"
            )

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def count(self, count: int, least: int, most: int, what: str) -> int:
        """`count` items of at least `least` bytes must be possible."""
        if count > most or count * least > self.size - self.position:
            raise CheckpointError(f"{self.path} claims {count:,} {what}, which its {self.size:,} bytes cannot hold")
        return count

    def text(self, what: str, most: int | None = None) -> str:
        length = self.number("<Q")
        if most is not None and length > most:
            raise CheckpointError(f"{self.path}: {what} claims {length:,} bytes; at most {most} are possible")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self.path}: {what} is not UTF-8 (byte {error.start} of it)") from None

    def value(self, kind: int, key: str, depth: int = 0) -> Any:
        if kind == Kind.TEXT:
            return self.text(f"the value of {key!r}")
        if kind == Kind.ARRAY:
            return self.array(key, depth)
        return self.numbers(kind, 1, key)[0].item()

    def numbers(self, kind: int, count: int, key: str) -> np.ndarray:
        if kind not in NUMBERS:
            raise CheckpointError(f"{self.path}: the value of {key!r} has the unknown type {kind}")
        dtype = np.dtype(NUMBERS[kind])
        self.count(count, dtype.itemsize, 2**62, f"numbers in {key!r}")
        found = np.frombuffer(self.take(count * dtype.itemsize), "|u1" if kind == Kind.BOOL else dtype)
        if kind == Kind.BOOL and (found > 1).any():
            raise CheckpointError(f"{self.path}: the value of {key!r} is neither true nor false")
        return found.astype(bool) if kind == Kind.BOOL else found

    def array(self, key: str, depth: int) -> Any:
        if depth >= MAX_NESTING:
            raise CheckpointError(f"{self.path}: the arrays of {key!r} are nested too deeply")
        kind, count = self.number("<I"), self.number("<Q")
        if kind not in (Kind.TEXT, Kind.ARRAY):
            return self.numbers(kind, count, key)
        self.count(count, 8 if kind == Kind.TEXT else 12, MAX_TEXTS, f"items in {key!r}")
        return [self.value(kind, key, depth + 1) for _ in range(count)]


class NewTensor(NamedTuple):
    """A tensor to be written: its bytes, (..., bytes a row), are asked for when their turn comes."""

    type: TensorType
    shape: tuple[int, ...]
    data: Callable[[], np.ndarray]


def write_gguf(path: str | Path, metadata: Mapping[str, Any], tensors: Mapping[str, NewTensor]) -> None:
    """Write a GGUF file; tensors are made one at a time.

    Args:
        path: the file, which is overwritten (see `base.files.atomic_file`).
        metadata: values: bool, int (u32, or what is wide enough), float (f32), text, lists of one of these (integers as
            i32), numpy scalars and arrays (as what they are).
        tensors: in the order in which they are to stand.

    Raises:
        UsageError: a name, shape or value for which the format has no place.
    """
    alignment = int(metadata.get("general.alignment", ALIGNMENT))
    head = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    head += [_text(key) + _value(value, key) for key, value in metadata.items()]
    offset = 0
    for name, tensor in tensors.items():
        head.append(_tensor_entry(name, tensor, offset))
        offset += -(-_nbytes(tensor) // alignment) * alignment
    with open(path, "wb") as file:
        file.write(b"".join(head))
        _pad(file, alignment)
        for name, tensor in tensors.items():
            data = np.ascontiguousarray(tensor.data()).view(np.uint8)
            if data.nbytes != _nbytes(tensor):
                raise UsageError(f"tensor {name!r} has {data.nbytes} bytes, not the {_nbytes(tensor)} of its shape")
            file.write(data.data)
            _pad(file, alignment)


def _nbytes(tensor: NewTensor) -> int:
    return TensorInfo(tensor.type, tensor.shape, 0).nbytes


def _pad(file: BinaryIO, alignment: int) -> None:
    file.write(bytes(-file.tell() % alignment))


def _tensor_entry(name: str, tensor: NewTensor, offset: int) -> bytes:
    if len(name.encode("utf-8")) > MAX_NAME:
        raise UsageError(f"the tensor name {name!r} is longer than {MAX_NAME} bytes")
    if not 1 <= len(tensor.shape) <= MAX_DIMENSIONS or 0 in tensor.shape or tensor.shape[-1] % tensor.type.block:
        raise UsageError(f"tensor {name!r} of shape {tensor.shape} cannot be stored as {tensor.type.name}")
    sizes = struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape[::-1])
    return _text(name) + struct.pack("<I", len(tensor.shape)) + sizes + struct.pack("<IQ", tensor.type.number, offset)


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


_KIND_OF = {np.dtype(name): Kind(kind) for kind, name in NUMBERS.items()}


def _value(value: Any, key: str) -> bytes:
    """Type and value."""
    if isinstance(value, str):
        return struct.pack("<I", Kind.TEXT) + _text(value)
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", Kind.ARRAY, Kind.TEXT, len(value)) + b"".join(map(_text, value))
    found = _as_array(value, key)
    if found.ndim:
        return struct.pack("<IIQ", Kind.ARRAY, _KIND_OF[found.dtype], len(found)) + found.tobytes()
    return struct.pack("<I", _KIND_OF[found.dtype]) + found.tobytes()


def _as_array(value: Any, key: str) -> np.ndarray:
    if isinstance(value, int) and not isinstance(value, bool):
        fitting = (kind for kind in ("<u4", "<i4", "<u8", "<i8") if _fits(value, np.dtype(kind)))
        kind = next(fitting, None)
        if kind is None:
            raise UsageError(f"metadata {key!r}: {value} is beyond 64 bits")
        return np.array(value, kind)
    if isinstance(value, float):
        return np.array(value, "<f4")
    found = np.asarray(value)
    if isinstance(value, (list, tuple)):
        found = found.astype({"i": "<i4", "f": "<f4"}.get(found.dtype.kind, found.dtype))
    if found.ndim > 1 or found.dtype not in _KIND_OF:
        raise UsageError(f"metadata {key!r}: {type(value).__name__} has no place in a GGUF file")
    return found


def _fits(value: int, dtype: np.dtype) -> bool:
    return np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
