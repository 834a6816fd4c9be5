"""Files as bytes and lines: decompression, encodings and the limits that keep memory bounded."""

import codecs
import contextlib
import gzip
import io
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from groundup.base.errors import DataError, MissingDependency
from groundup.data.problems import Problems

MAX_LINE = 100 * 2**20
"""Bytes (UTF-8) in one line."""
MAX_RATIO = 200
"""Decompressed bytes per compressed byte; prose reaches 3 to 10, logs 50, a bomb 1000."""
RATIO_GRACE = 16 * 2**20
"""Decompressed bytes before the ratio is looked at."""

# UTF-32 before UTF-16: the little-endian mark of one begins with that of the other.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a regular file, decompressed when it ends in .gz or .zst.

    Errors while reading (truncated or damaged compression, a compression bomb, an unreadable file) are `DataError`s
    that name the file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is not a regular file; give a file or a folder of text")
        with path.open("rb") as raw:
            plain = _decompress(path, raw)
            yield raw if plain is None else io.BufferedReader(_RatioLimited(plain, raw, path), 1 << 16)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut short: {error}. Copy or download it again") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def _decompress(path: Path, raw: BinaryIO) -> BinaryIO | None:
    if path.suffix == ".gz":
        return gzip.GzipFile(fileobj=raw)  # pyright: ignore[reportReturnType]
    if path.suffix == ".zst":
        return _CheckedZstd(raw, path)  # pyright: ignore[reportReturnType]
    return None


class _CheckedZstd:
    """Zstandard frames one after the other; a frame that stops before its end raises EOFError.

    The library's own stream reader cannot tell a truncated file from a complete one.
    """

    def __init__(self, raw: BinaryIO, path: Path):
        try:
            import zstandard
        except ImportError:
            raise MissingDependency("zstandard", "data", f"Reading {path.name}") from None
        self.raw, self.library = raw, zstandard
        self.frame = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()
        self.started, self.rest, self.plain = False, b"", memoryview(b"")

    def read(self, size: int) -> bytes:
        while not self.plain:
            # A small bite at a time: what one bite can grow to stays bounded.
            data = self.rest[:1024] or self.raw.read(1024)
            self.rest = self.rest[1024:]
            if not data:
                if self.started:
                    raise EOFError("compressed data ended before the end-of-stream marker")
                return b""
            self._feed(data)
        taken, self.plain = self.plain[:size], self.plain[size:]
        return bytes(taken)

    def _feed(self, data: bytes) -> None:
        try:
            self.plain = memoryview(self.frame.decompress(data))
        except self.library.ZstdError as error:
            raise zlib.error(str(error)) from None
        self.started = not self.frame.eof
        if self.frame.eof:
            self.rest = self.frame.unused_data + self.rest
            self.frame = self.library.ZstdDecompressor(max_window_size=2**27).decompressobj()


class _RatioLimited(io.RawIOBase):
    """Decompressed bytes; a `DataError` when they are more than `MAX_RATIO` times what was read from disk."""

    def __init__(self, plain: BinaryIO, raw: BinaryIO, path: Path):
        self.plain, self.raw, self.path, self.size = plain, raw, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        data = self.plain.read(len(buffer))
        buffer[: len(data)] = data
        self.size += len(data)
        if self.size > RATIO_GRACE and self.size > MAX_RATIO * self.raw.tell():
            raise DataError(
                f"{self.path} grows more than {MAX_RATIO} times when decompressed, as a compression bomb does. "
                "If you trust it, decompress it yourself and give that file"
            )
        return len(data)


def encoding_of(start: bytes) -> str:
    """The encoding that a byte order mark announces; UTF-8 without one."""
    return next((name for mark, name in _BYTE_ORDER_MARKS if start.startswith(mark)), "utf-8")


def looks_binary(start: bytes) -> bool:
    """Whether a file that begins with these bytes is no text: NUL bytes, or bytes that are not UTF-8 (nor announced
    as UTF-16/32).
    """
    encoding = encoding_of(start)
    if encoding.startswith(("utf-16", "utf-32")):
        return False
    if b"\0" in start:
        return True
    try:
        codecs.getincrementaldecoder(encoding)().decode(start)  # a character cut off at the end is no error
    except UnicodeDecodeError:
        return True
    return False


def read_lines(path: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of a text file; line ends become plain newlines, a byte order mark is taken away.

    A line longer than `MAX_LINE`, one that is not valid in its encoding, and one with a NUL byte is a problem; so
    memory is bounded whatever the file holds.
    """
    with open_bytes(path) as stream:
        start = stream.read(4)
        encoding = encoding_of(start)
        stream = io.BufferedReader(_Rejoined(start, stream), 1 << 16)
        if encoding.startswith("utf-8"):
            yield from _utf8_lines(stream, path, problems)
        else:
            yield from _wide_lines(stream, path, encoding, problems)


class _Rejoined(io.RawIOBase):
    """A stream with the bytes already taken from it put back in front."""

    def __init__(self, start: bytes, rest: BinaryIO):
        self.start, self.rest = start, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        data = self.start[: len(buffer)] or self.rest.read(len(buffer))
        self.start = self.start[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def _utf8_lines(stream: BinaryIO, path: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line) > MAX_LINE:
            _skip_line(stream, line)
            problems.add(f"{path}:{number}", f"the line is longer than {MAX_LINE / 2**20:g} MB")
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            problems.add(f"{path}:{number}", f"not valid UTF-8 (byte {error.start + 1} of the line: {error.reason})")
            continue
        if "\0" in text:
            problems.add(f"{path}:{number}", "holds a NUL character; is this a binary file?")
            continue
        yield number, _plain_end(text)


def _skip_line(stream: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = stream.readline(1 << 20)


def _wide_lines(stream: BinaryIO, path: Path, encoding: str, problems: Problems) -> Iterator[tuple[int, str]]:
    """Lines of UTF-16 and UTF-32; an undecodable place ends the file, since what follows cannot be aligned."""
    text = io.TextIOWrapper(stream, encoding, newline="\n")
    number = 0
    while True:
        try:
            line = text.readline(MAX_LINE // 4)
        except UnicodeDecodeError as error:
            problems.add(f"{path}:{number + 1}", f"not valid {encoding.upper()} ({error.reason})")
            return
        if not line:
            return
        number += 1
        if len(line) == MAX_LINE // 4 and not line.endswith("\n"):
            problems.add(f"{path}:{number}", f"the line is longer than {MAX_LINE // 4} characters")
            while line and not line.endswith("\n"):
                line = text.readline(1 << 20)
        elif "\0" in line:
            problems.add(f"{path}:{number}", "holds a NUL character; is this a binary file?")
        else:
            yield number, _plain_end(line)


def _plain_end(line: str) -> str:
    return line[:-2] + "\n" if line.endswith("\r\n") else line
