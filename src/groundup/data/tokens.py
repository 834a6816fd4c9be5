"""A long line of tokens with its document boundaries, in memory or memory-mapped."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

from groundup.base.errors import DataError
from groundup.data.document import Document
from groundup.data.split import Part


class Encoder(Protocol):
    """What this chapter needs of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    @property
    def eos_id(self) -> int | None:
        """The id that ends a document."""
        ...

    @property
    def pad_id(self) -> int | None:
        """The id that fills up rows."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        ...

    def fingerprint(self) -> str:
        """sha256 of what determines encoding."""
        ...


class Names(Protocol):
    """Document ids by number: a list, or a table on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> str: ...


class Tokens:
    """Documents as one line of N tokens.

    - segments: arrays (n_i,) of uint16 or uint32, one after the other; memory-mapped files or plain arrays.
    - offsets: (D + 1,) int64; document d is tokens offsets[d] to offsets[d + 1].
    - names: the D document ids.
    - num_bytes: UTF-8 bytes of the text, for bits per byte.
    - fingerprint: changes when any of the content does; made from the content if it is not given.
    """

    def __init__(
        self,
        segments: Sequence[np.ndarray],
        offsets: np.ndarray,
        names: Names,
        *,
        vocab_size: int,
        num_bytes: int = 0,
        fingerprint: str | None = None,
    ):
        self.segments = [segment for segment in segments if len(segment)]
        self.ends = np.cumsum([len(segment) for segment in self.segments], dtype=np.int64)
        self.offsets, self.names = offsets, names
        self.vocab_size, self.num_bytes = vocab_size, num_bytes
        if fingerprint is not None:
            self.fingerprint = fingerprint
        assert len(offsets) == len(names) + 1
        assert offsets[-1] == len(self)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def num_documents(self) -> int:
        """D."""
        return len(self.names)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of token ids and document boundaries."""
        digest = hashlib.sha256(np.ascontiguousarray(self.offsets, dtype=np.int64).tobytes())
        for segment in self.segments:
            digest.update(np.asarray(segment, dtype=np.uint32).tobytes())
        return digest.hexdigest()

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Tokens starts[i] to starts[i] + length of each i, (n, length) int64; 0 beyond the end.

        Raises a `DataError` if an id is not in the vocabulary (a damaged shard, or the wrong tokenizer).
        """
        wanted = starts[:, None] + np.arange(length)  # (n, length)
        inside = np.minimum(wanted, len(self) - 1)
        if len(self.segments) == 1:
            found = self.segments[0][inside].astype(np.int64)
        else:
            found = self._gather_across(inside)
        found[wanted > inside] = 0
        if found.size and found.max() >= self.vocab_size:
            row, column = np.argwhere(found >= self.vocab_size)[0]
            where = self.names[int(self.document_at(wanted[row, column]))]
            raise DataError(
                f"token id {found[row, column]} in document {where} is outside the vocabulary of {self.vocab_size}; "
                "prepare the data again with this tokenizer"
            )
        return found

    def _gather_across(self, wanted: np.ndarray) -> np.ndarray:
        found = np.empty(wanted.shape, dtype=np.int64)
        segment_of = np.searchsorted(self.ends, wanted, side="right")
        for index in np.unique(segment_of):
            segment, here = self.segments[index], segment_of == index
            found[here] = segment[wanted[here] - (self.ends[index] - len(segment))]
        return found

    def document_at(self, positions: np.ndarray) -> np.ndarray:
        """The index of the document that holds each position; same shape, int64."""
        return np.searchsorted(self.offsets, positions, side="right") - 1

    def document(self, index: int) -> np.ndarray:
        """The tokens of one document, (n,) int64."""
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        return self.gather(np.array([start]), end - start)[0]


def token_dtype(vocab_size: int) -> type[np.unsignedinteger]:
    """The smallest type of the two that holds every id."""
    return np.uint16 if vocab_size <= 2**16 else np.uint32


def tokens_in_memory(
    documents: Iterable[Sequence[int] | np.ndarray],
    *,
    vocab_size: int,
    names: Sequence[str] | None = None,
    num_bytes: int = 0,
) -> Tokens:
    """`Tokens` from the ids of each document; `names` defaults to their numbers from 0."""
    arrays = [np.asarray(document, dtype=np.int64) for document in documents]
    joined = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)
    if joined.size and (joined.min() < 0 or joined.max() >= vocab_size):
        raise DataError(f"token ids run from {joined.min()} to {joined.max()}, outside the vocabulary of {vocab_size}")
    offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays], dtype=np.int64)]).astype(np.int64)
    names = [str(i) for i in range(len(arrays))] if names is None else names
    segment = joined.astype(token_dtype(vocab_size))
    return Tokens([segment], offsets, names, vocab_size=vocab_size, num_bytes=num_bytes)


def encode_documents(documents: Sequence[tuple[Document, bool]], tokenizer: Encoder) -> list[np.ndarray]:
    """Token ids of each document; those marked True end with the end-of-text token, if the tokenizer has one."""
    encoded = tokenizer.encode_batch([document.text for document, _ in documents])
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    dtype = token_dtype(tokenizer.vocab_size)
    arrays = []
    for (document, ended), ids in zip(documents, encoded, strict=True):
        ids = np.asarray([*ids, *end] if ended else ids, dtype=np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= tokenizer.vocab_size):
            raise DataError(
                f"the tokenizer gave ids from {ids.min()} to {ids.max()} for document {document.id}, "
                f"outside its vocabulary of {tokenizer.vocab_size}"
            )
        arrays.append(ids.astype(dtype))
    return arrays


def in_groups(
    documents: Iterable[tuple[Part, Document, bool]], characters: int = 1 << 20, count: int = 1024
) -> Iterator[list[tuple[Part, Document, bool]]]:
    """Documents in groups that are worth one call of the tokenizer."""
    group, size = [], 0
    for item in documents:
        group.append(item)
        size += len(item[1].text)
        if size >= characters or len(group) >= count:
            yield group
            group, size = [], 0
    if group:
        yield group
