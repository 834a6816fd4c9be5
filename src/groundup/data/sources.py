"""Documents from files, folders and built-in corpora, streamed."""

import hashlib
import itertools
import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from groundup.base.errors import DataError, did_you_mean
from groundup.data.document import Document
from groundup.data.formats import guess_format, nearest_format, render_record
from groundup.data.problems import ColumnError, Problems
from groundup.data.reading import looks_binary, open_bytes, read_lines
from groundup.data.records import READERS, Record

BUILTIN = ("stories", "pydocs", "pystdlib")
MAX_DOCUMENT = 2**30
"""Characters in one document; a larger file needs a separator."""
PARAGRAPHS = "paragraphs"
"""The separator that means: blocks of lines between blank lines."""
_COMPRESSED = (".gz", ".zst")


def open_source(
    spec: str | Path,
    *,
    separator: str | None = None,
    column: str = "text",
    render: bool = False,
    limit: int | None = None,
    seed: int = 0,
    problems: Problems | None = None,
) -> Iterator[Document]:
    """The documents of `spec`, one after the other, always in the same order; memory holds one document at a time.

    - spec: a text file (any ending), a record file (.jsonl .json .csv .tsv .parquet), either also as .gz or .zst
      (Parquet excepted), a folder of such files (recursive, sorted, hidden files left out), or a built-in corpus:
      stories, pydocs, pystdlib.
    - separator: cuts text files into documents at this string, or at blank lines if it is "paragraphs";
      without it a text file is one document.
    - column: the column of record files that holds the text.
    - render: records in a conversation or instruction format become plain text instead of an error.
    - limit: at most so many documents.
    - seed: of the generated corpus (stories).
    - problems: what to do with unusable input; default: raise `DataError` naming file and line.
    """
    problems = problems or Problems()
    path = Path(spec)
    if path.exists():
        documents = _read_path(path, separator, column, render, problems)
    elif str(spec) in BUILTIN:
        documents = _open_builtin(str(spec), seed)
    else:
        raise DataError(
            f"no file or folder at {spec}, and no built-in corpus of that name ({', '.join(BUILTIN)})."
            + did_you_mean(str(spec), [*BUILTIN, *_neighbours(path)])
        )
    return itertools.islice(documents, limit)


def _neighbours(path: Path) -> list[str]:
    return [str(p) for p in itertools.islice(path.parent.iterdir(), 1000)] if path.parent.is_dir() else []


def _open_builtin(name: str, seed: int) -> Iterator[Document]:
    from groundup.data.builtin import open_corpus  # generators of text that most uses do not need

    return open_corpus(name, seed=seed)


def _read_path(path: Path, separator: str | None, column: str, render: bool, problems: Problems) -> Iterator[Document]:
    root = path if path.is_dir() else path.parent
    for file in source_files(path, problems):
        name = file.relative_to(root).as_posix()
        reader = READERS.get(kind_of(file))
        if reader is None:
            yield from _text_documents(file, name, separator, problems)
        else:
            yield from _record_documents(reader(file, problems), file, name, column, render, problems)


def kind_of(file: Path) -> str:
    """A file's ending in lower case, .gz and .zst put aside: ".jsonl" for "x.jsonl.gz"."""
    plain = file.with_suffix("") if file.suffix in _COMPRESSED else file
    return plain.suffix.lower()


def source_files(path: str | Path, problems: Problems | None = None) -> list[Path]:
    """The readable files of a file or folder, sorted; hidden, binary, linked-out and special files of a folder are
    left out and told.
    """
    path, problems = Path(path), problems or Problems()
    if not path.is_dir():
        return [path]
    root = path.resolve()
    files = [file for file in _walk(path) if _usable(file, root, problems)]
    if not files:
        raise DataError(
            f"the folder {path} holds no text files" + "".join(f"; {f}" for f in problems.skipped_files[:3])
        )
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Files below `folder`, sorted; folders behind symbolic links are not entered, so there are no loops."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name)
        elif not os.path.isdir(entry.path):  # `entry.is_dir()` raises for a link that leads to itself
            yield folder / entry.name


def _usable(file: Path, root: Path, problems: Problems) -> bool:
    why = _why_not(file, root)
    if why:
        problems.skip_file(str(file), why)
    return not why


def _why_not(file: Path, root: Path) -> str:
    try:
        if file.is_symlink() and not file.resolve().is_relative_to(root):
            return "a link that leads out of the folder"
        if not stat.S_ISREG(file.stat().st_mode):
            return "not a regular file"
        if kind_of(file) == ".parquet":
            return ""
        with open_bytes(file) as stream:
            return "binary" if looks_binary(stream.read(8192)) else ""
    except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        return f"cannot be read ({error})"
    except DataError:
        return ""  # damaged: reading it will say so, with the policy that holds there


def _text_documents(file: Path, name: str, separator: str | None, problems: Problems) -> Iterator[Document]:
    lines = read_lines(file, problems)
    if separator is None:
        pieces: Iterable[tuple[int, str]] = [(1, _bounded(file, lines))]
    elif separator == PARAGRAPHS:
        pieces = _paragraphs(lines)
    else:
        pieces = _split(lines, separator)
    for line, text in pieces:
        if text.strip():
            id = name if separator is None else f"{name}:{line}"
            yield Document(id, text, {"source": name, "line": line})


def _bounded(file: Path, lines: Iterable[tuple[int, str]]) -> str:
    pieces, size = [], 0
    for _, line in lines:
        pieces.append(line)
        size += len(line)
        if size > MAX_DOCUMENT:
            raise DataError(
                f"{file} holds more than {MAX_DOCUMENT // 2**20} million characters without a document boundary; "
                "name the separator of its documents (for example --separator '<|endoftext|>' or paragraphs)"
            )
    return "".join(pieces)


def _paragraphs(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for blank, group in itertools.groupby(lines, key=lambda item: not item[1].strip()):
        if not blank:
            block = list(group)
            yield block[0][0], "".join(line for _, line in block)


def _split(lines: Iterable[tuple[int, str]], separator: str) -> Iterator[tuple[int, str]]:
    """(first line, text) between separators; the separator itself is dropped, and one line end after it."""
    if not separator:
        raise DataError("the separator of documents is empty")
    text, first = "", 1
    for block in _blocks(lines):
        searched = max(0, len(text) - len(separator) + 1)
        text += block
        while (at := text.find(separator, searched)) >= 0:
            yield first, text[:at]
            end = at + len(separator)
            end += text.startswith("\n", end)
            first += text.count("\n", 0, end)
            text, searched = text[end:], 0
    yield first, text


def _blocks(lines: Iterable[tuple[int, str]], size: int = 1 << 18) -> Iterator[str]:
    """Lines joined into blocks of about `size` characters."""
    pieces, held = [], 0
    for _, line in lines:
        pieces.append(line)
        held += len(line)
        if held >= size:
            yield "".join(pieces)
            pieces, held = [], 0
    yield "".join(pieces)


def _record_documents(
    records: Iterable[Record], file: Path, name: str, column: str, render: bool, problems: Problems
) -> Iterator[Document]:
    for line, record in records:
        text = record.get(column)
        if text is None and render:
            text = render_record(record)
        if text is None and column not in record:
            error = partial(ColumnError, columns=_text_columns(record))
            problems.add(f"{file}:{line}", _column_problem(record, column, render), error)
            continue
        what = _text_problem(text, column)
        if what:
            problems.add(f"{file}:{line}", what)
        elif str(text).strip():
            yield Document(f"{name}:{line}", str(text), {"source": name, "line": line})


def _text_problem(text: Any, column: str) -> str:
    """What is wrong with a record's text, or nothing."""
    if not isinstance(text, str):
        return f"the column `{column}` holds {type(text).__name__}, not text"
    if "\0" in text:
        return f"the column `{column}` holds a NUL character"
    if not _encodable(text):
        return f"the column `{column}` holds half of a surrogate pair, which no text file can hold"
    return ""


def _text_columns(record: Mapping[str, Any]) -> list[str]:
    return [name for name, value in record.items() if isinstance(value, str)]


def _column_problem(record: dict[str, Any], column: str, render: bool) -> str:
    """That the column is not there; which are, and what to write instead."""
    found, able = guess_format(record), _text_columns(record)
    known = found is not None and found != "text"
    what = f"no column `{column}`; found: {', '.join(record) or 'none'}"
    form = f", the {found} format" if known else f". The nearest known format is {nearest_format(record)}"
    ways = [f"Choose a column: `--column {shlex.quote(name)}` (in a recipe `data.column`)" for name in able[:1]]
    if known and not render:
        ways.append("Read records as plain text: `--render` (`data.render`)")
    return f"{what}{form}. {'. '.join(ways) or 'None of them holds text'}"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def source_hashes(spec: str | Path, seed: int = 0) -> dict[str, str]:
    """sha256 of every file of a source, by its name inside the source; for a built-in corpus its name and seed."""
    path = Path(spec)
    if not path.exists():
        return {str(spec): f"built-in, seed {seed}"}
    root = path if path.is_dir() else path.parent
    return {file.relative_to(root).as_posix(): hash_file(file) for file in source_files(path)}


def hash_file(file: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
