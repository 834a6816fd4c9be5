"""What a source holds: its format and why it is taken for that, and how long its documents are."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from groundup.base.errors import DataError
from groundup.data.document import Document
from groundup.data.formats import guess_format, nearest_format
from groundup.data.problems import Problems
from groundup.data.records import READERS
from groundup.data.sources import kind_of, source_files
from groundup.data.tokens import Encoder

QUANTILES = {"shortest": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "longest": 1.0}


def describe_source(source: str, column: str = "text", separator: str | None = None) -> dict[str, str]:
    """{"format", "why"} of a source, from its files' endings and the columns of its first record."""
    path = Path(source)
    if not path.exists():
        return {"format": "built-in corpus", "why": "there is no such file, and the name is that of a built-in corpus"}
    files = source_files(path)
    kinds = Counter(kind_of(file) for file in files)
    records = next((file for file in files if kind_of(file) in READERS), None)
    if records is None:
        unit = f"cut at {separator!r}" if separator else "each file is one document"
        return {"format": "text", "why": f"{_counted(kinds)}; {unit}"}
    columns = _first_columns(records)
    if columns is None:
        return {"format": "unknown", "why": f"{records.name} has no readable first record"}
    found = "text" if column in columns else guess_format(columns)
    why = f"{_counted(kinds)}; the first record of {records.name} has the columns {', '.join(columns)}"
    return {"format": found or "unknown", "why": why if found else f"{why}; nearest format: {nearest_format(columns)}"}


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind or 'without ending'}" for kind, count in kinds.most_common(5))


def _first_columns(file: Path) -> list[str] | None:
    try:
        first = next(islice(READERS[kind_of(file)](file, Problems("skip")), 1), None)
    except DataError:
        return None
    return None if first is None else list(first[1])


def inspect_documents(
    documents: Iterable[Document], problems: Problems, tokenizer: Encoder | None = None
) -> dict[str, Any]:
    """Counts, quantiles of lengths, and the beginning of the first document; a `DataError` if there are none.

    Memory: eight bytes a document and measure.
    """
    lengths: dict[str, list[int]] = {"characters": [], "bytes": []} | ({"tokens": []} if tokenizer else {})
    first: Document | None = None
    for document in documents:
        first = first or document
        lengths["characters"].append(len(document.text))
        lengths["bytes"].append(len(document.text.encode()))
        if tokenizer:
            lengths["tokens"].append(len(tokenizer.encode_batch([document.text])[0]))
    if first is None:
        said = problems.messages or problems.skipped_files or ["every text is empty"]
        raise DataError(f"no usable documents: {said[0]}")
    report: dict[str, Any] = {"documents": len(lengths["bytes"])} | {key: sum(v) for key, v in lengths.items()}
    if tokenizer:
        report["bytes_per_token"] = round(report["bytes"] / max(1, report["tokens"]), 3)
    report["lengths"] = {key: _quantiles(values) for key, values in lengths.items()}
    report["first"] = {"id": first.id, "text": first.text[:500]}
    return report


def _quantiles(values: list[int]) -> dict[str, int]:
    found = np.quantile(values, list(QUANTILES.values()), method="nearest")
    return dict(zip(QUANTILES, map(int, found), strict=True))
