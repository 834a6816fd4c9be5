"""Memory that was freed stays with the process.

glibc gives large blocks back to the system as soon as they are freed, and gets them again at the next allocation. Every
page is then mapped and zeroed anew: a training step that makes and drops hundreds of megabytes spends a tenth of its
time in page faults. Training allocates the same sizes in every step, so the blocks may as well be kept.
"""

import ctypes
import sys

# malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, from now on in this process; whether that could be done (glibc on Linux).

    The resident size then stays at its highest. Best called before torch allocates.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    # No block is mapped by itself, and the top of the heap is never trimmed (-1: no threshold). Both return 1.
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
