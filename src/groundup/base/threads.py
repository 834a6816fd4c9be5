"""How many threads to compute with.

In a container the machine may have 64 processors while the quota grants two; one thread a processor is then many
times slower than two threads. So the quota of control groups (versions 2 and 1) counts as well.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from groundup.base.errors import UsageError

# A few microseconds: about a pause between two operations, far shorter than a scheduler's time slice.
SPIN_COUNT = "1000"


def share_the_processors() -> None:
    """Let waiting OpenMP threads sleep instead of spin, unless the environment already says how they wait.

    GNU OpenMP spins for seconds by default, on the assumption that it has the processors to itself. Where another
    program wants one of two cores, small training steps become ten times slower. It reads the variable when torch is
    loaded, so this comes first in a program; later it does nothing.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


def set_threads(count: int | None = None) -> int:
    """Let torch compute with `count` threads, by default `default_threads()`; returns the number.

    Raises:
        UsageError: `count` is below one.
    """
    import torch

    chosen = default_threads() if count is None else count
    if chosen < 1:
        raise UsageError(f"the number of threads must be at least 1, found {chosen}")
    torch.set_num_threads(chosen)
    return chosen


def default_threads() -> int:
    """OMP_NUM_THREADS where it is set to a number, else the processors this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return available_processors()


def available_processors(root: Path = Path("/")) -> int:
    """Processors that this process may run on, within the quota of its container. `root` stands for / in tests."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in cpu_quotas(root)]
    return max(1, min([allowed, *quotas]))


def cpu_quotas(root: Path = Path("/")) -> Iterator[float]:
    """Every quota, in processors, that holds for this process: of its control group and of those above it."""
    base = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        group = name.strip("/")
        if not controllers:
            folders = _upwards(base, group)
        elif "cpu" in controllers.split(","):
            folders = [*_upwards(base / controllers, group), *_upwards(base / "cpu", group)]
        else:
            continue
        for folder in folders:
            yield from _quota(folder)


def _upwards(base: Path, group: str) -> list[Path]:
    """The group's folder and those above it; inside a container the group's own path may not exist, its root does."""
    parts = Path(group).parts if group and ".." not in Path(group).parts else ()
    return [base.joinpath(*parts[:size]) for size in range(len(parts), -1, -1)]


def _quota(folder: Path) -> Iterator[float]:
    # Version 2: "QUOTA PERIOD" or "max PERIOD", in microseconds. Version 1: two files, a quota of -1 means none.
    words = _read(folder / "cpu.max").split()
    if not words:
        words = [_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()]
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]) > 0:
        yield int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
