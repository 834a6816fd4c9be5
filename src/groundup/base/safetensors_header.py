"""The header of a safetensors file, checked before a byte of tensor data is touched.

    8 bytes   N, the header's length (unsigned, little-endian)
    N bytes   JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ..., "__metadata__": {...}}
    the rest  the tensors' bytes; together the offsets cover it without hole or overlap

Everything that the safetensors library (0.8) refuses is refused here, by name of file and tensor. Beyond that we
refuse what no honest writer produces: repeated keys, unknown keys, more than 16 dimensions, more than 100,000 tensors
a file.

Source: the format's description in the safetensors repository (2022).
"""

import itertools
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.base.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000
MAX_TENSORS = 100_000
MAX_DIMENSIONS = 16
# JSON values are at least 20 times larger in memory than on disk, so their number is bounded before they are parsed.
MAX_HEADER_VALUES = 24 * MAX_TENSORS

# Name in the file -> (name in torch, bytes an element), in the order in which the library sorts them.
DTYPES: dict[str, tuple[str, int]] = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 1),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 1),
    "I16": ("int16", 2),
    "U16": ("uint16", 2),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I32": ("int32", 4),
    "U32": ("uint32", 4),
    "F32": ("float32", 4),
    "C64": ("complex64", 8),
    "F64": ("float64", 8),
    "I64": ("int64", 8),
    "U64": ("uint64", 8),
}


@dataclass(frozen=True)
class TensorMeta:
    """What a header tells about a tensor. `dtype` is torch's name ("bfloat16"); `start` and `nbytes` are in bytes."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    start: int


def read_header(path: str | Path) -> dict[str, TensorMeta]:
    """The tensors of a safetensors file, in the order of their bytes; memory stays within a small multiple of the
    header.

    Raises:
        CheckpointError: the file is damaged or no safetensors file.
    """
    path = Path(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        first = file.read(8)
        if len(first) < 8:
            raise CheckpointError(
                f"{path} has {size} bytes: too short for a safetensors file; copy or download it again"
            )
        length = struct.unpack("<Q", first)[0]
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(f"{path}: its header claims {length:,} bytes; more than 100 MB is refused")
        if length > size - 8:
            raise CheckpointError(
                f"{path}: its header claims {length:,} bytes but the file has {size:,}: it was cut short"
            )
        raw = file.read(length)
    return check_header(raw, size - 8 - length, path)


def check_header(raw: bytes, data_bytes: int, path: Path) -> dict[str, TensorMeta]:
    """Read the header's JSON and hold it against the `data_bytes` that follow it."""
    entries = _parse(raw, path)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: `__metadata__` in the header must map texts to texts")
    if len(entries) > MAX_TENSORS:
        raise CheckpointError(f"{path} holds {len(entries):,} tensors; more than {MAX_TENSORS:,} a file is refused")
    metas = {name: _check_tensor(name, entry, path) for name, entry in entries.items()}
    ordered = dict(sorted(metas.items(), key=lambda item: (item[1].start, item[1].start + item[1].nbytes)))
    _check_layout(ordered, data_bytes, path)
    return ordered


def _parse(raw: bytes, path: Path) -> dict[str, Any]:
    """The header's JSON object under serde_json's rules, which are narrower than Python's."""
    if not raw.startswith(b"{"):
        raise CheckpointError(f"{path} is not a safetensors file: its header does not begin with an object")
    if sum(raw.count(mark) for mark in (b",", b"[", b"{")) > MAX_HEADER_VALUES:
        raise CheckpointError(f"{path}: its header holds more than {MAX_TENSORS:,} tensors, which is refused")
    try:
        text = raw.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_unique, parse_int=_natural, parse_float=_no_number, parse_constant=_no_number
        )
    except RecursionError:
        raise CheckpointError(f"{path}: its header is nested too deeply") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: its header is not valid JSON: {error}") from None
    assert isinstance(value, dict)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = sorted(name for name, _ in pairs)
        repeated = next(a for a, b in itertools.pairwise(names) if a == b)
        raise ValueError(f"{repeated!r} appears twice")
    for name, value in pairs:  # a lone surrogate is no text
        name.encode("utf-8")
        if isinstance(value, str):
            value.encode("utf-8")
    return found


def _natural(text: str) -> int:
    if text.startswith("-") or len(text) > 19:
        raise ValueError(f"{text[:40]} is not a size")
    return int(text)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text[:40]} is not a whole number")


def _check_tensor(name: str, entry: Any, path: Path) -> TensorMeta:
    """One entry: known dtype, sound shape, and as many bytes as dtype and shape say."""
    where = f"{path}: tensor {name!r}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where} must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"{where} has the unknown dtype {dtype!r:.40}")
    if not _sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(f"{where} has an impossible shape: a list of at most {MAX_DIMENSIONS} sizes is expected")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(f"{where} has impossible data_offsets: [begin, end] is expected")
    torch_name, itemsize = DTYPES[dtype]
    nbytes = _bytes_of(shape, itemsize, where)
    if nbytes != offsets[1] - offsets[0]:
        raise CheckpointError(
            f"{where} needs {nbytes:,} bytes for {shape} in {dtype}, but its offsets span {offsets[1] - offsets[0]:,}"
        )
    return TensorMeta(torch_name, tuple(shape), nbytes, offsets[0])


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value < 2**63 for value in values)


def _bytes_of(shape: list[int], itemsize: int, where: str) -> int:
    """Itemsize * prod(shape); strides too must fit 63 bits, so sizes of zero do not hide an overflow."""
    product = itemsize
    for size in shape:
        product *= max(size, 1)
        if product >= 2**63:
            raise CheckpointError(f"{where}: the product of its shape overflows")
    return 0 if 0 in shape else product


def _check_layout(metas: dict[str, TensorMeta], data_bytes: int, path: Path) -> None:
    """The tensors, in order of their bytes, must follow each other without hole or overlap up to the file's end."""
    end = 0
    for name, meta in metas.items():
        if meta.start != end:
            fault = "overlaps the one before it" if meta.start < end else "leaves a hole before it"
            raise CheckpointError(f"{path}: tensor {name!r} {fault} (begins at {meta.start:,}, expected {end:,})")
        end = meta.start + meta.nbytes
        if end > data_bytes:
            raise CheckpointError(f"{path}: tensor {name!r} ends after the file does: it was cut short")
    if end != data_bytes:
        raise CheckpointError(f"{path}: {data_bytes - end:,} bytes follow the last tensor; the file is damaged")


def write_header(handle: Any, entries: dict[str, tuple[str, tuple[int, ...], int]]) -> None:
    """Write length and header for `entries` (name -> safetensors dtype, shape, bytes), to be followed by the tensors'
    bytes in this order. Spaces fill the header up so that the data begin at a multiple of 8.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape, nbytes) in entries.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + nbytes]}
        position += nbytes
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    if len(raw) > MAX_HEADER_BYTES:
        raise CheckpointError(f"the header would take {len(raw):,} bytes; write smaller shards")
    handle.write(struct.pack("<Q", len(raw)) + raw)
