"""What numba compiled and keeps on disk, and when it is no longer true.

A compiled function has in it what it calls, also from other files; numba compiles it again when its own file changes,
and only then. So a folder of functions that call each other has one fingerprint, and when any of its files changes, all
that was compiled of it is forgotten.
"""

import contextlib
import hashlib
from pathlib import Path

FINGERPRINT = "compiled-from.sha256"


def forget_if_changed(folder: Path) -> bool:
    """Delete what numba keeps of the Python files in a folder if they are not those that it was compiled from.

    To be called before the files are imported. Where the folder cannot be written to nothing is done: such files come
    from an installation, which replaces all of them at once.

    Returns:
        Whether something was deleted.
    """
    kept = folder / "__pycache__"
    contents = (path.name.encode() + path.read_bytes() for path in sorted(folder.glob("*.py")))
    now = hashlib.sha256(b"\0".join(contents)).hexdigest()
    mark = kept / FINGERPRINT
    if mark.is_file() and mark.read_text() == now:
        return False
    stale = [*kept.glob("*.nbi"), *kept.glob("*.nbc")]
    with contextlib.suppress(OSError):
        for path in stale:
            path.unlink(missing_ok=True)
        kept.mkdir(exist_ok=True)
        mark.write_text(now)
    return bool(stale)
