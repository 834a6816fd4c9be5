"""Records of JSONL, JSON, CSV and Parquet files, one at a time, each with its line."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from groundup.base.errors import DataError, MissingDependency
from groundup.data.problems import Problems
from groundup.data.reading import MAX_LINE, read_lines

MAX_JSON = 2**30
"""Characters in a .json file, which is one value and has to be held whole (JSONL has no such limit)."""

Record = tuple[int, dict[str, Any]]


def read_jsonl(path: Path, problems: Problems) -> Iterator[Record]:
    """One object a line; blank lines are passed over."""
    for number, line in read_lines(path, problems):
        if line.strip():
            yield from _object(line, f"{path}:{number}", number, problems)


def read_json(path: Path, problems: Problems) -> Iterator[Record]:
    """A list of objects, one object, or (as many tools write it) JSONL under the name .json."""
    lines = read_lines(path, problems)
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        return
    if first[1].lstrip().startswith("{") and _parses(first[1]):
        lines.close()  # type: ignore[attr-defined]
        yield from read_jsonl(path, problems)
        return
    text = "\n" * (first[0] - 1) + first[1]
    pieces, size = [text], len(text)
    for _, line in lines:
        pieces.append(line)
        size += len(line)
        if size > MAX_JSON:
            raise DataError(
                f"{path} is larger than {MAX_JSON // 2**20} million characters; write it as JSONL, one object a line"
            )
    yield from _list_items(path, "".join(pieces), problems)


def _list_items(path: Path, text: str, problems: Problems) -> Iterator[Record]:
    at = _skip_space(text, 0)
    if not text.startswith("[", at):
        yield from _object(text, f"{path}:1", 1, problems)
        return
    line, counted = 1, 0
    at = _skip_space(text, at + 1)
    while not text.startswith("]", at):
        line += text.count("\n", counted, at)
        counted, where = at, f"{path}:{line}"
        try:
            value, at = _decoder.raw_decode(text, at)
            if at == len(text):
                raise ValueError("the list has no end")
        except (ValueError, RecursionError) as error:
            problems.add(where, _json_message(error))
            return  # where the next item begins is not known
        if isinstance(value, dict):
            yield line, value
        else:
            problems.add(where, f"expected an object, found {type(value).__name__}")
        at = _skip_space(text, at)
        at = _skip_space(text, at + 1) if text.startswith(",", at) else at
        if not text.startswith(("]", "{", "[", '"'), at) and at >= len(text):
            problems.add(where, "the list has no end: the file is cut short")
            return


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _object(text: str, where: str, line: int, problems: Problems) -> Iterator[Record]:
    try:
        value = _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        problems.add(where, _json_message(error))
        return
    if isinstance(value, dict):
        yield line, value
    else:
        problems.add(where, f'expected an object such as {{"text": ...}}, found {type(value).__name__}')


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _json_message(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg} (column {error.colno})"
    return f"not valid JSON: {error}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} stands twice in one object")
    return record


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def read_csv(path: Path, problems: Problems) -> Iterator[Record]:
    """Comma- or (for .tsv) tab-separated values with a header line; quoted fields may hold line ends."""
    if csv.field_size_limit() < MAX_LINE:
        csv.field_size_limit(
            MAX_LINE
        )  # the library's limit of 128 kB, one for the whole process, is too small for texts
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    rows = csv.reader((line for _, line in read_lines(path, problems)), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            problems.add(f"{path}:{line}", f"not valid CSV: {error}")
            continue
        if row is None:
            return
        if header is None:
            header = row
            if len(set(header)) < len(header):
                raise DataError(f"{path}:1: a column name stands twice in the header: {', '.join(header)}")
        elif len(row) == len(header):
            yield line, dict(zip(header, row, strict=True))
        elif row:
            problems.add(f"{path}:{line}", f"{len(row)} fields where the header names {len(header)}")


def read_parquet(path: Path, problems: Problems) -> Iterator[Record]:
    """Rows of a Parquet file, a batch at a time; "line" is the row from 1."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingDependency("pyarrow", "data", f"Reading {path.name}") from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        problems.add(f"{path}:{number + 1}", f"damaged or cut short Parquet file: {str(error).splitlines()[0]}")


READERS: dict[str, Callable[[Path, Problems], Iterator[Record]]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
}
"""Readers of record files by the file's ending (without .gz or .zst)."""
