"""From documents to token shards, with any number of worker processes and the same result."""

import hashlib
import json
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from groundup.base.console import progress
from groundup.base.errors import DataError, GroundupError
from groundup.data.document import Document
from groundup.data.shards import VERSION, ShardWriter, disk_error, write_file
from groundup.data.split import PARTS, Part, Split, split_documents
from groundup.data.tokens import Encoder, encode_documents, in_groups

_Item = tuple[Part, Document, bool]
_Encoded = tuple[list[_Item], list[np.ndarray]]


def prepare(
    documents: Iterable[Document],
    tokenizer: Encoder,
    out_dir: str | Path,
    *,
    split: Split | None = None,
    sources: dict[str, str] | None = None,
    settings: dict[str, Any] | None = None,
    shard_tokens: int = 2**27,
    workers: int = 1,
) -> dict[str, Any]:
    """Tokenize `documents` into shards in `out_dir` and return the manifest.

    - split: how documents are divided; sources: sha256 by file name; settings: what else decides the documents. All
      are written to the manifest.
    - shard_tokens: a shard is closed at the first document end beyond this many tokens.
    - workers: processes that encode; the files are the same bytes for any number.

    Interrupted, it leaves complete shards and goes on after them when it is called again with the same arguments;
    with others it starts over. A finished folder with other settings is an error, never overwritten.
    """
    split, folder = split or Split(), Path(out_dir)
    head = {
        "version": VERSION,
        "tokenizer": tokenizer.fingerprint(),
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "sources": sources or {},
        "split": split.model_dump(),
        "settings": (settings or {}) | {"shard_tokens": shard_tokens},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        finished = _finished(folder, head)
        return finished if finished is not None else _write_all(documents, tokenizer, folder, split, head, workers)
    except OSError as error:
        raise disk_error(folder, error) from None


def _finished(folder: Path, head: dict[str, Any]) -> dict[str, Any] | None:
    path = folder / "manifest.json"
    if not path.exists():
        return None
    manifest = json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key, value in head.items() if manifest.get(key) != value]
    if changed:
        raise DataError(
            f"{folder} already holds shards made with another {', '.join(changed)}. Name another "
            "folder, or delete this one first"
        )
    return manifest


def _write_all(
    documents: Iterable[Document], tokenizer: Encoder, folder: Path, split: Split, head: dict[str, Any], workers: int
) -> dict[str, Any]:
    with _Writers(folder, head) as writers:
        fresh = writers.not_yet_written(split_documents(documents, split))
        with progress(label="tokenizing", unit=" tokens") as bar:
            for group, arrays in encode_groups(in_groups(fresh), tokenizer, workers):
                for (part, document, _), ids in zip(group, arrays, strict=True):
                    writers.add(part, document, ids)
                    bar.update(len(ids))
    manifest = head | {"parts": writers.records, "totals": totals(writers.records)}
    if not any(writers.records.values()):
        raise DataError("the source holds no documents with text")
    write_file(folder / "manifest.json", json.dumps(manifest, indent=1).encode())
    writers.partial.unlink(missing_ok=True)
    return manifest


def totals(records: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, int]]:
    """Documents, tokens and bytes of each part."""
    keys = ("documents", "tokens", "bytes")
    return {part: {key: sum(shard[key] for shard in shards) for key in keys} for part, shards in records.items()}


class _Writers:
    """One open shard for each part; remembers completed ones in partial.json, so that an interrupted run can go on."""

    def __init__(self, folder: Path, head: dict[str, Any]):
        self.folder, self.head = folder, head
        self.partial = folder / "partial.json"
        self.open: dict[str, ShardWriter] = {}
        self.records = self._completed()

    def __enter__(self) -> "_Writers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            for part in PARTS:
                if kind is None and part in self.open:
                    self._close(part)
        finally:
            for writer in self.open.values():
                writer.discard()

    def _completed(self) -> dict[str, list[dict[str, Any]]]:
        nothing: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
        try:
            partial = json.loads(self.partial.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return nothing
        same = partial.get("head") == json.loads(json.dumps(self.head))
        return partial["records"] if same else nothing

    def not_yet_written(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """The documents that follow those in completed shards."""
        done = {part: sum(shard["documents"] for shard in shards) for part, shards in self.records.items()}
        for part, document, ended in items:
            if done[part]:
                done[part] -= 1
            else:
                yield part, document, ended

    def add(self, part: str, document: Document, ids: np.ndarray) -> None:
        if part not in self.open:
            name = f"{part}-{len(self.records[part]):05d}"
            self.open[part] = ShardWriter(self.folder, name, self.head["vocab_size"])
        writer = self.open[part]
        writer.add(document.id, ids, len(document.text.encode()))
        if writer.tokens >= self.head["settings"]["shard_tokens"]:
            self._close(part)

    def _close(self, part: str) -> None:
        record = self.open[part].close()
        del self.open[part]
        self.records[part].append(record)
        write_file(self.partial, json.dumps({"head": self.head, "records": self.records}).encode())


def encode_groups(groups: Iterable[list[_Item]], tokenizer: Encoder, workers: int = 1) -> Iterator[_Encoded]:
    """Each group with its token ids, in order; a bounded number of groups is held at a time."""
    if workers <= 1:
        for group in groups:
            yield group, encode_documents([(document, ended) for _, document, ended in group], tokenizer)
        return
    # "spawn": a fork of a process that runs threads (torch, pyarrow) can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _set_tokenizer, (tokenizer,)) as pool:
        waiting: deque[tuple[list[_Item], Future[list[np.ndarray]]]] = deque()
        try:
            for group in groups:
                waiting.append((group, pool.submit(_encode, [(document, ended) for _, document, ended in group])))
                if len(waiting) >= 2 * workers:
                    yield _next(waiting)
            while waiting:
                yield _next(waiting)
        except BrokenProcessPool:
            raise GroundupError("a tokenizing process died (out of memory?); try fewer workers") from None


def _next(waiting: deque[tuple[list[_Item], "Future[list[np.ndarray]]"]]) -> _Encoded:
    group, encoding = waiting.popleft()
    return group, encoding.result()


_worker: dict[str, Encoder] = {}


def _set_tokenizer(tokenizer: Encoder) -> None:
    _worker["tokenizer"] = tokenizer  # sent once to each process, not with each group


def _encode(documents: list[tuple[Document, bool]]) -> list[np.ndarray]:
    return encode_documents(documents, _worker["tokenizer"])


def settings_key(*parts: Any) -> str:
    """A short name for a combination of settings, for cache folders."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
