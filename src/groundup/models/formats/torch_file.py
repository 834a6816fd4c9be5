"""Files of torch.save (.pt, .pth, .bin), read without running anything.

    since 2020: a zip archive     NAME/data.pkl   which tensor is what view of which storage
    (PyTorch 1.6)                 NAME/data/KEY   the bytes of a storage, not compressed
    before:                       five pickles (a magic number, a version, the machine, the object, the list of keys),
                                  then for each key its number of elements and its bytes

The pickles are read as data (`pickle_data`), never handed to Python's unpickler; there is no fallback to it. Tensors
are views of the mapped file; every size, offset and stride is held against the file's length before.
"""

import io
import mmap
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.base.errors import CheckpointError
from groundup.base.safetensors_header import TensorMeta
from groundup.models.formats.pickle_data import Unreadable, read_pickle
from groundup.models.formats.reader import Reader
from groundup.models.formats.torch_records import (
    RECORDS,
    StorageRecord,
    TensorRecord,
    is_mark,
    size_of,
    state_dict,
    storage_record,
)

MAX_PICKLE_BYTES = 64 * 1024**2
MAX_ENTRIES = 200_000
ZIP = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x80\x02\x8a\n" + LEGACY_MAGIC.to_bytes(10, "little")


class TorchFile(Reader):
    """The named tensors of one file; see `reader.Weights`.

    Raises:
        CheckpointError: no such file, damaged, or with more in its pickle than tensors; nothing was executed.
    """

    def __init__(self, path: str | Path):
        super().__init__(Path(path))
        self._records: dict[str, TensorRecord] = {}
        self._starts: dict[str, int] = {}  # where each storage begins, in bytes
        self._map: mmap.mmap | None = None
        self._size = _file_size(self.path)
        try:
            value = self._read()
            records = state_dict(value)
            self._check_storages(records)
        except Unreadable as error:
            raise CheckpointError(f"{self.path}: {error}") from None
        self._records = dict(sorted(records.items(), key=lambda item: self._start(item[1])))
        self.metas = {name: self._meta(record) for name, record in self._records.items()}

    def get(self, name: str) -> Tensor:
        """The tensor, on the CPU, as a view of the mapped file: copy what is to be kept or changed."""
        self._known(name)
        record = self._records[name]
        if record.count == 0:
            return torch.empty(record.shape, dtype=record.dtype)
        if self._map is None:
            with open(self.path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        start, storage = self._starts[record.storage.key], record.storage
        if self._size > len(self._map) or start + storage.nbytes > len(self._map):
            raise CheckpointError(f"{self.path} became shorter since it was opened")
        raw = torch.frombuffer(self._map, dtype=torch.uint8, offset=start, count=storage.nbytes)
        if raw.data_ptr() % record.dtype.itemsize:
            raw = raw.clone()
        whole = raw[: storage.nbytes // record.dtype.itemsize * record.dtype.itemsize].view(record.dtype)
        return whole.as_strided(record.shape, record.strides, record.offset)

    def close(self) -> None:
        """Let go of the mapped file; tensors that are still held keep it mapped."""
        self._map = None

    def _start(self, record: TensorRecord) -> int:
        return self._starts[record.storage.key] + record.offset * record.dtype.itemsize

    def _meta(self, record: TensorRecord) -> TensorMeta:
        dtype = str(record.dtype).removeprefix("torch.")
        return TensorMeta(dtype, record.shape, record.count * record.dtype.itemsize, self._start(record))

    def _read(self) -> Any:
        with open(self.path, "rb") as file:
            first = file.read(len(LEGACY_START))
            if first.startswith(ZIP):
                return self._read_zip(file)
            if first == LEGACY_START:
                return self._read_legacy(file)
        raise CheckpointError(f"{self.path} is neither a zip archive nor the older form that torch.save writes")

    # -- the zip archive ----------------------------------------------------------------------------------------------

    def _read_zip(self, file: Any) -> Any:
        try:
            entries = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, EOFError) as error:
            raise CheckpointError(
                f"{self.path} is a damaged zip archive ({error}): copy or download it again"
            ) from None
        if len(entries) > MAX_ENTRIES:
            raise Unreadable(f"it has {len(entries):,} entries; more than {MAX_ENTRIES:,} are refused")
        by_name = {entry.filename: entry for entry in entries}
        if len(by_name) != len(entries):
            raise Unreadable("two of its entries have the same name")
        pickles = [name for name in by_name if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Unreadable("a zip archive with one data.pkl is expected")
        root = pickles[0].removesuffix("data.pkl")
        self._check_byte_order(file, by_name.get(root + "byteorder"))

        def storage(identifier: Any) -> StorageRecord:
            record = storage_record(identifier)
            entry = by_name.get(f"{root}data/{record.key}")
            if entry is None:
                raise Unreadable(f"the storage {record.key!r:.40} is missing: the file was cut short")
            if entry.file_size != record.nbytes:
                raise Unreadable(
                    f"the storage {record.key!r:.40} has {entry.file_size:,} bytes, {record.nbytes:,} are expected"
                )
            if record.key not in self._starts:
                self._starts[record.key] = self._start_of(file, entry)
            return record

        return self._parse(io.BytesIO(self._bytes_of(file, by_name[pickles[0]])), storage)

    def _start_of(self, file: Any, entry: zipfile.ZipInfo) -> int:
        """Where an entry's bytes begin: behind its local header, which must agree that they are stored plainly."""
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise Unreadable(f"{entry.filename!r:.60} is compressed or encrypted, which torch.save never does")
        if not 0 <= entry.header_offset <= self._size - 30:
            raise Unreadable(f"{entry.filename!r:.60} lies outside the file")
        file.seek(entry.header_offset)
        header = file.read(30)
        if not header.startswith(ZIP):
            raise Unreadable(f"{entry.filename!r:.60} has no local header")
        name, extra = struct.unpack("<HH", header[26:30])
        start = entry.header_offset + 30 + name + extra
        if start + entry.file_size > self._size:
            raise Unreadable(f"{entry.filename!r:.60} ends after the file does: it was cut short")
        return start

    def _bytes_of(self, file: Any, entry: zipfile.ZipInfo) -> bytes:
        if entry.file_size > MAX_PICKLE_BYTES:
            raise Unreadable(f"{entry.filename!r:.60} has {entry.file_size:,} bytes, more than it can need")
        file.seek(self._start_of(file, entry))
        return file.read(entry.file_size)

    def _check_byte_order(self, file: Any, entry: zipfile.ZipInfo | None) -> None:
        order = self._bytes_of(file, entry).decode("ascii", "replace") if entry else "little"
        if order != sys.byteorder:
            raise Unreadable(f"its numbers are {order!r:.20}-endian, this machine's {sys.byteorder}-endian")

    # -- the form before PyTorch 1.6 ----------------------------------------------------------------------------------

    def _read_legacy(self, file: Any) -> Any:
        file.seek(0)
        stream = io.BytesIO(file.read(MAX_PICKLE_BYTES))
        declared: dict[str, StorageRecord] = {}

        def storage(identifier: Any) -> StorageRecord:
            record = storage_record(identifier)
            return declared.setdefault(record.key, record)

        magic, version, machine = (self._parse(stream, storage) for _ in range(3))
        if magic != LEGACY_MAGIC or version != 1001 or not isinstance(machine, dict):
            raise Unreadable("its first pickles are not those of torch.save")
        if machine.get("little_endian") is not (sys.byteorder == "little"):
            raise Unreadable("it was written on a machine of the other byte order")
        value = self._parse(stream, storage)
        keys = self._parse(stream, storage)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise Unreadable("its list of storages is no list of texts")
        if set(keys) != declared.keys() or len(keys) != len(declared):
            raise Unreadable("its list of storages is not that of its tensors")
        position = stream.tell()
        for key in keys:
            position = self._legacy_storage(file, declared[key], position)
        return value

    def _legacy_storage(self, file: Any, record: StorageRecord, position: int) -> int:
        """Note where a storage begins; returns where the next one does."""
        file.seek(position)
        count = file.read(8)
        end = position + 8 + record.nbytes
        if len(count) < 8 or end > self._size:
            raise Unreadable(f"the storage {record.key!r:.40} ends after the file does: it was cut short")
        if struct.unpack("<q", count)[0] != record.count:
            raise Unreadable(f"the storage {record.key!r:.40} has another size than its tensors expect")
        self._starts[record.key] = position + 8
        return end

    def _parse(self, stream: io.BytesIO, storage: Any) -> Any:
        return read_pickle(stream, records=RECORDS, names=is_mark, persistent=storage, where=str(self.path))

    def _check_storages(self, records: dict[str, TensorRecord]) -> None:
        for name, record in records.items():
            size_of(self._starts[record.storage.key])
            if record.storage.nbytes + self._starts[record.storage.key] > self._size:
                raise Unreadable(f"the tensor {name!r:.60} lies behind the end of the file")


def _file_size(path: Path) -> int:
    if not path.is_file():
        raise CheckpointError(f"no file at {path}")
    return path.stat().st_size


def is_torch_file(path: Path) -> bool:
    """Whether the file begins as those of torch.save do."""
    with open(path, "rb") as file:
        first = file.read(len(LEGACY_START))
    return first.startswith(ZIP) or first == LEGACY_START
