"""What becomes of memory that was freed: it stays with the process, or goes back to the system at once.

glibc gives large blocks back to the system as soon as they are freed, and gets them again at the next allocation. Every
page is then mapped and zeroed anew: a training step that makes and drops hundreds of megabytes spends a tenth of its
time in page faults. Training allocates the same sizes in every step, so the blocks may as well be kept. Blocks of
many sizes, kept, leave gaps that no other fits: where memory is what lacks, they had better go back.
"""

import ctypes
import sys

# malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
SMALLEST_MAPPED = 2**20  # bytes


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, from now on in this process; whether that could be done (glibc on Linux).

    The resident size then stays at its highest. Best called before torch allocates.
    """
    # No block is mapped by itself, and the top of the heap is never trimmed (-1: no threshold).
    return _tell({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1})


def give_freed_memory_back() -> bool:
    """Let glibc return every freed block of 1 MiB or more to the system, from now on; whether that could be done.

    Unasked, it keeps blocks of up to 32 MiB once some of that size were freed.
    """
    return _tell({M_MMAP_THRESHOLD: SMALLEST_MAPPED})


def _tell(options: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return all(mallopt(option, value) for option, value in options.items())  # it returns 1
