"""Files that are whole or absent, and reading what cannot be trusted.

Writing goes to a hidden temporary name beside the target, is flushed to the disk, and is renamed at the end: a
reader sees the old content or the new one, never a part (rename is atomic on POSIX file systems).
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup.base.errors import CheckpointError, GroundupError

MAX_JSON_BYTES = 256 * 1024**2
MAX_JSON_DEPTH = 64

_REASONS = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the limit for files (`ulimit -f`)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.ENOENT: "there is no such folder, and none can be made there",
    errno.EISDIR: "a folder of that name is there",
    errno.ENOTEMPTY: "a folder of that name is there, and it is not empty",
    errno.ENAMETOOLONG: "the name is longer than the file system allows",
    errno.ELOOP: "symbolic links on the way lead in a circle",
    errno.EINVAL: "the file system does not allow this name",
    errno.EILSEQ: "the file system does not allow this name",
    errno.EBUSY: "something else uses it",
    errno.ENXIO: "it is no place for files",
    errno.ENODEV: "it is no place for files",
    errno.ENOTSUP: "the file system does not support it",
    errno.EIO: "the disk reports an error",
    errno.ESTALE: "the network disk is gone",
    errno.EMFILE: "too many files are open (`ulimit -n`)",
    errno.ENFILE: "too many files are open",
}


@contextlib.contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn what the system says about a failed write to `path` into a `GroundupError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS or _concerns_another_file(error, path):
            raise
        raise GroundupError(
            f"cannot write {path}: {_REASONS[error.errno]}. Nothing was left under that name. "
            "Make room, or choose another folder to write to."
        ) from error


def _concerns_another_file(error: OSError, path: Path) -> bool:
    """Whether the error names a file that is neither beside or below `path` nor a folder above it."""
    if error.filename is None:
        return False
    named, target = Path(os.path.abspath(os.fsdecode(error.filename))), Path(os.path.abspath(path))
    above = target.is_relative_to(named)
    if error.errno == errno.ENOENT and not above:
        # What lacks is a file that was to be read, unless it is the one written to.
        return named.parent != target.parent or not named.name.startswith(f".{target.name}.")
    return not (above or named.is_relative_to(target.parent))


def check_writable(folder: str | Path) -> None:
    """Refuse a folder that cannot be written, before work is spent on what it should hold.

    A file is made in it and removed; folders that were lacking are made for that, and removed again.

    Raises:
        GroundupError: the folder cannot be made or written; the message says why.
    """
    folder, made = Path(folder), []
    with explain_write_errors(folder):
        try:
            for path in reversed([folder, *folder.parents]):
                if not path.exists():
                    path.mkdir()
                    made.append(path)
            probe = folder / f".{secrets.token_hex(4)}.partial"
            probe.touch(exist_ok=False)
            probe.unlink()
        finally:
            for path in reversed(made):
                with contextlib.suppress(OSError):  # somebody else has begun to use it
                    path.rmdir()


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, whole or not at all; folders above it are made.

    Raises:
        GroundupError: the disk is full, read-only, or the path may not be written; the old file is untouched.
    """
    path = Path(path)
    content = data.encode("utf-8") if isinstance(data, str) else data
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to; it becomes `path` when the block ends well, and is removed otherwise."""
    path = Path(path)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            sync_file(temporary)
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """An empty temporary folder; when the block ends well it is flushed to the disk and becomes `path`.

    The temporary name is fixed (`.NAME.partial`), so what a killed process left is cleared by the next attempt. With
    `replace` an existing folder is moved aside to `.NAME.old` first and removed last: a kill between the two renames
    leaves the old one there. Only one process may write a given folder.

    Raises:
        GroundupError: `path` exists and `replace` is False, or the disk is full or may not be written.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise GroundupError(f"{path} exists already: choose another folder, or remove it first")
    temporary, aside = (path.with_name(f".{path.name}.{what}") for what in ("partial", "old"))
    with explain_write_errors(path):
        if aside.exists() and not path.exists():  # killed between the two renames: the old one is the good one
            os.replace(aside, path)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            sync_tree(temporary)
            shutil.rmtree(aside, ignore_errors=True)
            if path.exists():
                os.replace(path, aside)
            os.replace(temporary, path)
            sync_folder(path.parent)
            shutil.rmtree(aside, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def sync_file(path: Path) -> None:
    """Wait until the file's content is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Wait until the folder's names are on the disk; nothing to do where folders cannot be opened."""
    if os.name == "posix":
        sync_file(path)


def sync_tree(folder: Path) -> None:
    """Wait until every file and folder below `folder` is on the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            sync_file(Path(root, name))
        sync_folder(Path(root))


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_join(folder: str | Path, name: str, also: Path | None = None) -> Path:
    """The regular file `name` inside `folder`, for names that come from a file.

    `also` is one more folder into which a symbolic link may lead.

    Raises:
        CheckpointError: the name is absolute, climbs with `..`, leads out through a symbolic link, or is no regular
        file.
    """
    folder = Path(folder)
    parts = Path(name.replace("\\", "/")).parts
    if not parts or "\0" in name or ".." in parts or Path(name).is_absolute() or parts[0].endswith(":"):
        raise CheckpointError(
            f"{folder}: the file name {name!r} would leave the folder; the folder is not to be trusted"
        )
    target = (folder / name).resolve()
    allowed = [folder.resolve()] + ([also.resolve()] if also else [])
    if not any(target.is_relative_to(root) for root in allowed):
        raise CheckpointError(f"{folder / name} is a link to {target}, outside the folder: put the file itself there")
    if not target.exists():
        raise CheckpointError(f"{folder} lacks the file {name}: copy or download it again")
    if not stat.S_ISREG(target.stat().st_mode):
        raise CheckpointError(f"{folder / name} is not a regular file")
    return target


def no_file(path: Path) -> str:
    """What to say where `path` is no file that can be read: there is none, or something else."""
    if path.is_dir():
        return f"{path} is a folder: name a file"
    return f"{path} is not a regular file" if path.exists() else f"no file at {path}"


def read_json(
    path: str | Path, max_bytes: int = MAX_JSON_BYTES, max_depth: int = MAX_JSON_DEPTH, infinity: Any = None
) -> Any:
    """The value in a JSON file (UTF-8; a byte order mark is skipped).

    Stricter than `json.load`: NaN, Infinity, numbers too large for a float, repeated keys, values nested deeper than
    `max_depth` and files over `max_bytes` are refused. With `infinity` given, it stands for a bare Infinity.

    Raises:
        CheckpointError: naming the file, and the line and column where they are known.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(no_file(path))
    with open(path, "rb") as file:
        raw = file.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise CheckpointError(f"{path} is larger than {max_bytes:,} bytes, which is more than such a file can need")
    return parse_json(raw, str(path), max_depth, infinity)


def parse_json(raw: bytes, where: str, max_depth: int = MAX_JSON_DEPTH, infinity: Any = None) -> Any:
    """The value in `raw`, under the rules of `read_json`; `where` begins the error messages."""

    def constant(text: str) -> Any:
        return infinity if text == "Infinity" and infinity is not None else _refuse_constant(text)

    try:
        value = json.loads(
            raw.decode("utf-8-sig"),
            object_pairs_hook=_object,
            parse_constant=constant,
            parse_float=_finite,
        )
    except json.JSONDecodeError as error:
        place = f"{where}, line {error.lineno}, column {error.colno}"
        raise CheckpointError(f"{place}: not valid JSON ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{where}: byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise CheckpointError(f"{where}: values are nested deeper than {max_depth}") from None
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from None
    if depth(value) > max_depth:
        raise CheckpointError(f"{where}: values are nested deeper than {max_depth}")
    return value


def depth(value: Any) -> int:
    """How deep lists and objects are nested in a JSON value; 0 for a number or a text."""
    level, current = 0, [value]
    while current := [item for item in current if isinstance(item, (dict, list))]:
        level += 1
        current = [child for item in current for child in (item.values() if isinstance(item, dict) else item)]
    return level


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the key {repeated!r} appears twice in one object")
    return found


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:40]} is too large")
    return number
