"""Reading vocabulary files that cannot be trusted: never more than a tokenizer can need."""

from pathlib import Path

from groundup.base.errors import CheckpointError
from groundup.base.files import no_file

MAX_TEXT_BYTES = 64 * 1024**2
HEAD = 4096


def read_bounded(path: str | Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The file's bytes.

    Raises:
        CheckpointError: no such file, or a larger one.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(no_file(path))
    if path.stat().st_size > limit:
        raise CheckpointError(f"{path} is larger than {limit:,} bytes, which is more than such a file can need")
    return path.read_bytes()


def read_bounded_text(path: str | Path) -> str:
    """The file's text.

    Raises:
        CheckpointError: no such file, a larger one than 64 MiB, or not UTF-8; the message names line and byte.
    """
    data = read_bounded(path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CheckpointError(f"{path}, line {line}: byte {error.start} is not UTF-8") from None


def head(path: str | Path, size: int = HEAD) -> bytes:
    """The first bytes of a file; none where there is no file to read. For looking at what it may be."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            return file.read(size) if path.is_file() else b""
    except OSError:
        return b""
