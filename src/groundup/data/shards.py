"""Token shards: files of token ids that are memory-mapped, and the manifest that says what they are.

A folder holds manifest.json and, for each part of the split, pairs of files:

    train-00000.bin    64-byte header, then the ids, little-endian uint16 or uint32
    train-00000.idx    64-byte header, then D + 1 int64 offsets of documents, D + 1 int64 offsets of their names, the
    names (UTF-8)

    header: magic 8 bytes | version uint32 | bytes per item uint32 | items uint64 | vocabulary uint64 | sha256 of what
    follows 32 bytes

A file gets its name when it is complete and on the disk; the manifest is written last. Documents do not cross files.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from groundup.base.errors import DataError, GroundupError
from groundup.base.files import sync_folder
from groundup.data.tokens import Encoder, Tokens, token_dtype

VERSION = 1
_HEADER = struct.Struct("<8sIIQQ32s")
_BIN, _IDX = b"GUTOKENS", b"GUDOCIDX"


class ShardWriter:
    """Writes one .bin and .idx pair; nothing stands under the final names before `close`."""

    def __init__(self, folder: Path, name: str, vocab_size: int):
        self.folder, self.name, self.vocab_size = folder, name, vocab_size
        self.dtype = np.dtype(token_dtype(vocab_size)).newbyteorder("<")
        self.offsets, self.names, self.bytes = [0], [], 0
        self.digest = hashlib.sha256()
        self._temporary = folder / f".{name}.bin.{os.getpid()}.tmp"
        self._file = self._temporary.open("wb")
        self._file.write(b"\0" * _HEADER.size)

    def add(self, name: str, ids: np.ndarray, num_bytes: int) -> None:
        """Append a document's tokens."""
        data = ids.astype(self.dtype).tobytes()
        self._file.write(data)
        self.digest.update(data)
        self.offsets.append(self.offsets[-1] + len(ids))
        self.names.append(name)
        self.bytes += num_bytes

    @property
    def tokens(self) -> int:
        """Tokens written so far."""
        return self.offsets[-1]

    def close(self) -> dict[str, Any]:
        """Complete both files and give them their names; the shard's record for the manifest."""
        index = self._index_bytes()
        index_sum, tokens_sum = hashlib.sha256(index).digest(), self.digest.digest()
        index_header = _HEADER.pack(_IDX, VERSION, 8, len(self.names), self.vocab_size, index_sum)
        write_file(self.folder / f"{self.name}.idx", index_header + index)
        self._file.seek(0)
        self._file.write(_HEADER.pack(_BIN, VERSION, self.dtype.itemsize, self.tokens, self.vocab_size, tokens_sum))
        _finish(self._file, self._temporary, self.folder / f"{self.name}.bin")
        return {
            "name": self.name,
            "documents": len(self.names),
            "tokens": self.tokens,
            "bytes": self.bytes,
            "sha256": tokens_sum.hex(),
            "index_sha256": index_sum.hex(),
        }

    def discard(self) -> None:
        """Remove what was written; nothing to do after `close`."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _index_bytes(self) -> bytes:
        names = [name.encode() for name in self.names]
        name_offsets = np.cumsum([0, *map(len, names)], dtype="<i8")
        return np.asarray(self.offsets, dtype="<i8").tobytes() + name_offsets.tobytes() + b"".join(names)


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file under a temporary name, bring it to the disk, then give it its name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            _finish(file, temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _finish(file: BinaryIO, temporary: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
    os.replace(temporary, path)
    sync_folder(path.parent)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a folder of shards; a `DataError` that says what is wrong with it otherwise."""
    path = Path(folder) / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["version"]
    except FileNotFoundError:
        raise DataError(
            f"{folder} holds no manifest.json: not a folder of shards, or `data prepare` did not finish"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); prepare the data again") from None
    if version != VERSION:
        raise DataError(f"{path} has version {version}, this program reads {VERSION}; prepare the data again")
    return manifest


def open_shards(
    folder: str | Path, part: str = "train", tokenizer: Encoder | None = None, *, verify: bool = False
) -> Tokens:
    """The tokens of one part, memory-mapped.

    Raises a `DataError` if the folder was made with another tokenizer, a file is missing, cut short or not what the
    manifest says; with `verify` every byte is read and compared with its checksum, and every id with the vocabulary.
    """
    folder, manifest = Path(folder), read_manifest(folder)
    if tokenizer is not None:
        check_tokenizer(folder, manifest, tokenizer)
    try:
        records, vocab_size = manifest["parts"].get(part, []), manifest["vocab_size"]
        shards = [_open_shard(folder, record, vocab_size, verify) for record in records]
        num_bytes = sum(record["bytes"] for record in records)
        content = json.dumps([vocab_size, [[r["sha256"], r["index_sha256"]] for r in records]])
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / 'manifest.json'} lacks {error}; prepare the data again") from None
    starts = np.cumsum([0, *(len(tokens) for tokens, _, _ in shards)])
    offsets = [start + index[:-1] for start, (_, index, _) in zip(starts, shards, strict=False)]
    return Tokens(
        [tokens for tokens, _, _ in shards],
        np.concatenate([*offsets, starts[-1:]]).astype(np.int64),
        _Names([names for _, _, names in shards]),
        vocab_size=vocab_size,
        num_bytes=num_bytes,
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
    )


def check_tokenizer(folder: Path, manifest: dict[str, Any], tokenizer: Encoder) -> None:
    """Raise a `DataError` naming both fingerprints if the shards were made with another tokenizer."""
    theirs, ours = manifest.get("tokenizer"), tokenizer.fingerprint()
    if theirs != ours:
        raise DataError(
            f"the shards in {folder} were made with tokenizer {theirs} (vocabulary "
            f"{manifest.get('vocab_size')}), not with "
            f"{ours} (vocabulary {tokenizer.vocab_size}). Use the tokenizer they were made with, or "
            "prepare the data again"
        )


def _open_shard(
    folder: Path, record: dict[str, Any], vocab_size: int, verify: bool
) -> tuple[np.ndarray, np.ndarray, "_ShardNames"]:
    if Path(record["name"]).name != record["name"]:
        raise DataError(f"{folder / 'manifest.json'} names the shard {record['name']!r}, which leads out of the folder")
    path = folder / f"{record['name']}.bin"
    size = np.dtype(token_dtype(vocab_size)).itemsize
    items = _read_header(path, _BIN, size, vocab_size, record["sha256"], verify)
    if items != record["tokens"] or path.stat().st_size != _HEADER.size + items * size:
        raise DataError(
            f"{path} is cut short or not the file that the manifest describes: {items} tokens in its header, "
            f"{(path.stat().st_size - _HEADER.size) // size} in the file, {record['tokens']} in the "
            "manifest. Prepare the data again"
        )
    tokens = _map(path, f"<u{size}", items, _HEADER.size)
    if verify and items and tokens.max() >= vocab_size:
        raise DataError(
            f"{path} holds token id {tokens.max()}, outside the vocabulary of {vocab_size}; prepare the data again"
        )
    index, names = _open_index(path.with_suffix(".idx"), record, vocab_size, verify)
    if index[0] != 0 or index[-1] != items or (np.diff(index) < 0).any():
        raise DataError(f"{path.with_suffix('.idx')} does not fit {path.name}; prepare the data again")
    return tokens, index, names


def _open_index(path: Path, record: dict[str, Any], vocab_size: int, verify: bool) -> tuple[np.ndarray, "_ShardNames"]:
    count = _read_header(path, _IDX, 8, vocab_size, record["index_sha256"], verify)
    blob_at = _HEADER.size + 16 * (count + 1)
    if count != record["documents"] or path.stat().st_size < blob_at:
        raise DataError(f"{path} is cut short or not the file that the manifest describes; prepare the data again")
    table = _map(path, "<i8", 2 * (count + 1), _HEADER.size)
    blob = _map(path, "u1", path.stat().st_size - blob_at, blob_at)
    return table[: count + 1], _ShardNames(table[count + 1 :], blob)


def _map(path: Path, dtype: str, items: int, offset: int) -> np.ndarray:
    # a mapping of no bytes is an error of the operating system
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(items,)) if items else np.empty(0, dtype)


def _read_header(path: Path, magic: bytes, size: int, vocab_size: int, checksum: str, verify: bool) -> int:
    """The item count, after the header has been compared with what is expected."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
            found = hashlib.file_digest(file, "sha256").hexdigest() if verify else checksum
    except OSError as error:
        raise DataError(f"cannot read the shard {path}: {error.strerror}. Prepare the data again") from None
    if len(head) < _HEADER.size:
        raise DataError(f"{path} is cut short: it ends within its header. Prepare the data again")
    found_magic, version, found_size, items, found_vocab, digest = _HEADER.unpack(head)
    if (found_magic, version) != (magic, VERSION):
        raise DataError(f"{path} is not a shard of version {VERSION}")
    if (found_size, found_vocab, digest.hex()) != (size, vocab_size, checksum):
        raise DataError(f"{path} is not the file that the manifest describes; prepare the data again")
    if found != checksum:
        raise DataError(
            f"{path} is damaged: its sha256 is {found[:16]}, the manifest says {checksum[:16]}. Prepare the data again"
        )
    return items


class _ShardNames:
    """Document ids, read from the mapped file when asked for."""

    def __init__(self, offsets: np.ndarray, blob: np.ndarray):
        self.offsets, self.blob = offsets, blob

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> str:
        return bytes(self.blob[self.offsets[index] : self.offsets[index + 1]]).decode(errors="replace")


class _Names:
    """The document ids of several shards."""

    def __init__(self, shards: Sequence[_ShardNames]):
        self.shards, self.ends = shards, np.cumsum([len(shard) for shard in shards], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self.ends, index, side="right"))
        return self.shards[number][index - (int(self.ends[number]) - len(self.shards[number]))]

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


def disk_error(folder: Path, error: OSError) -> GroundupError:
    """What to tell when the disk is full or not writable."""
    return GroundupError(
        f"cannot write to {folder}: {error.strerror}. Complete shards are kept; free some space or "
        "name another folder, "
        "and run the same command to continue"
    )
