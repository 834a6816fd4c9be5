"""pystdlib: the Python source of the standard library, one document a file."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from groundup.data.builtin.stories.items import Document

# Tests, what is installed beside the library, and generated tables are not the library's prose.
SKIPPED = frozenset(
    (
        "test",
        "tests",
        "idle_test",
        "site-packages",
        "dist-packages",
        "lib2to3",
        "__pycache__",
        "pydoc_data",
        "ensurepip",
    )
)


def documents() -> Iterator[Document]:
    """The files in order of their path, which is also their id; files that are not UTF-8 are left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    for name in names:
        if SKIPPED.isdisjoint(name.split("/")):
            try:
                text = (root / name).read_text(encoding="utf-8")
            except (UnicodeDecodeError, OSError):
                continue
            if text.strip():
                yield Document(f"pystdlib-{name}", text, kind="code")
