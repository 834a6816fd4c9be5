"""What a command says: people's text on stdout, or on stderr when a program reads stdout (`--json`)."""

import contextlib
import contextvars
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm.auto import tqdm

_json_mode: contextvars.ContextVar[bool] = contextvars.ContextVar("json_mode", default=False)


@contextlib.contextmanager
def json_output(active: bool = True) -> Iterator[None]:
    """While this is active `say` writes to stderr, so that stdout holds JSON alone."""
    token = _json_mode.set(active)
    try:
        yield
    finally:
        _json_mode.reset(token)


def say(*parts: object) -> None:
    """Print a line for people."""
    tqdm.write(" ".join(map(str, parts)), file=sys.stderr if _json_mode.get() else sys.stdout)


def note(*parts: object) -> None:
    """Print a line on stderr that is neither a result nor a warning: why something takes a moment."""
    tqdm.write(" ".join(map(str, parts)), file=sys.stderr)


def warn(*parts: object) -> None:
    """Print a line of warning on stderr."""
    tqdm.write("warning: " + " ".join(map(str, parts)), file=sys.stderr)


def visible(text: str, keep: str = "\n") -> str:
    r"""Text for people's eyes: whatever is not printable, but for `keep`, is spelled as Python does (`\x1b`).

    So a text can neither move the cursor nor write over what stands there, and what cannot be seen is seen.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def in_colour() -> bool:
    """Whether to write colours: to a terminal, unless NO_COLOR is set (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def progress(items: Iterable | None = None, *, total: int | None = None, label: str = "", unit: str = "it") -> Any:
    """A progress bar on stderr; silent where stderr is not a terminal."""
    return tqdm(
        items, total=total, desc=label, unit=unit, file=sys.stderr, disable=not sys.stderr.isatty(), mininterval=0.1
    )


def table(rows: Iterable[Iterable[object]], header: Iterable[object]) -> str:
    """Rows as aligned text; numbers are set flush right, and characters that are not printable are spelled."""
    body = [[visible(str(cell), keep="") for cell in row] for row in rows]
    head = [visible(str(cell), keep="") for cell in header]
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    right = [all(_is_number(row[i]) for row in body) and bool(body) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        aligned = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
        return "  ".join(aligned).rstrip()

    return "\n".join([line(head), "  ".join("-" * w for w in widths), *map(line, body)])


def as_size(count: float) -> str:
    """Bytes as people write them: 1.5 MB is 1.5 million."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"


def _is_number(text: str) -> bool:
    return text in ("", "-") or text.replace(",", "").strip("x%+-").replace(".", "", 1).replace("e-", "").isdigit()
