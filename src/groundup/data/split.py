"""Train, validation and test parts: by document, or the tail of one long text."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import model_validator

from groundup.base.config import Config
from groundup.base.errors import DataError
from groundup.data.document import Document

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


class Split(Config):
    """How documents are divided into train, validation and test."""

    method: Literal["auto", "documents", "tail"] = "auto"
    """documents: each document goes to one part by a hash of its text, so equal texts never stand in two parts. tail:
    the end of each document is held out. auto: documents, but tail for a single document and for so few that a wanted
    part would get none."""
    validation: float = 0.1
    """Share of the data for validation."""
    test: float = 0.0
    """Share of the data for the test."""
    seed: int = 0
    """Of the hash."""

    @model_validator(mode="after")
    def _shares(self) -> "Split":
        if not (0 <= self.validation < 1 and 0 <= self.test < 1 and self.validation + self.test < 1):
            raise ValueError("the shares of validation and test must be at least 0 and leave something for training")
        return self

    @property
    def train(self) -> float:
        """What is left for training."""
        return round(1 - self.validation - self.test, 12)


def split_documents(documents: Iterable[Document], split: Split) -> Iterator[tuple[Part, Document, bool]]:
    """(part, document, whether an end-of-text token follows it), in the order of `documents`.

    The part is a function of the text and the seed alone: adding or reordering documents moves none (with `auto`, once
    there are enough for every part). A document with `meta["split"]` goes where it says. The pieces of a single cut
    document are not ended: the text goes on.
    """
    pending = iter(documents)
    head = list(itertools.islice(pending, 2))
    single = len(head) < 2
    tail = split.method == "tail" or (split.method == "auto" and single)
    if split.method == "auto" and not single:
        tail = not _every_part_gets_one(head, pending, split)
    for document in itertools.chain(head, pending):
        assigned = assigned_part(document)
        if assigned:
            yield assigned, document, True
        elif tail and split.train < 1:
            for part, piece in cut_document(document, split):
                yield part, piece, not single
        else:
            yield part_of(document.text, split), document, not (tail and single)


def _every_part_gets_one(head: list[Document], pending: Iterator[Document], split: Split) -> bool:
    """Whether whole documents fill every wanted part; those that were read to find out are added to `head`."""
    shares = zip(PARTS, (split.train, split.validation, split.test), strict=True)
    empty = {part for part, share in shares if share > 0}
    for document in head:
        empty.discard(assigned_part(document) or part_of(document.text, split))
    while empty and (document := next(pending, None)) is not None:
        head.append(document)
        empty.discard(assigned_part(document) or part_of(document.text, split))
    return not empty


def assigned_part(document: Document) -> Part | None:
    """Where the document itself says it belongs, if it does."""
    return next((part for part in PARTS if document.meta.get("split") == part), None)


def part_of(text: str, split: Split) -> Part:
    """The part of a whole document: u = hash(seed, text) in [0, 1); train below `split.train`, then validation, then
    test.
    """
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(split.seed).encode()).digest()
    u = int.from_bytes(digest, "little") / 2**64
    if u < split.train:
        return "train"
    return "validation" if u < split.train + split.validation else "test"


def cut_document(document: Document, split: Split) -> Iterator[tuple[Part, Document]]:
    """The first int(n * train) characters, then the validation piece, then the test piece, as nanoGPT cuts its texts;
    empty ones are left out.
    """
    n = len(document.text)
    first, second = int(n * split.train), int(n * round(1 - split.test, 12))
    for part, start, end in zip(PARTS, (0, first, second), (first, second, n), strict=True):
        if end > start:
            yield part, Document(document.id, document.text[start:end], dict(document.meta))


def require_tokens(part: str, tokens: int, context_length: int, share: float | None = None) -> None:
    """Raise a `DataError` that says how many tokens are needed if `part` cannot fill one row of `context_length` and
    its labels.
    """
    needed = context_length + 1
    if tokens >= needed:
        return
    advice = [f"a context length of at most {tokens - 1}"] if tokens > 2 else []
    if share and tokens:
        advice.append(f"a text about {needed / tokens:.1f} times as long")
        if share < 0.5:
            advice.append(f"a {part} share larger than {share:g}")
    advice = advice or ["more text"]
    raise DataError(
        f"the {part} part has {tokens} tokens, but one row of context length {context_length} needs "
        f"{needed}. Use {' or '.join(advice)}"
    )
