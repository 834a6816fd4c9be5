"""What becomes of freed memory, in processes of their own."""

import subprocess
import sys

import pytest

RUN = """
import re
from pathlib import Path
from groundup.base import allocator

{tell}
import torch

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) * 1024

for _ in range(3):  # glibc keeps blocks of sizes that it saw freed, up to 32 MiB
    many = [torch.ones({size}) for _ in range(8)]
    kept, many = many[::2], None
    del kept
many = [torch.ones({size}) for _ in range(8)]
full = resident()
del many
print(full - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("tell", "size", "given_back"),
    [("keep_freed_memory", 10_000_000, False), ("give_freed_memory_back", 2_000_000, True)],
    ids=["keep", "give back"],
)
def test_freed_memory_stays_or_goes(tell, size, given_back):
    """Sizes of float32 for which glibc by itself does the opposite."""
    code = RUN.format(tell=f"assert allocator.{tell}()", size=size)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) > 6 * 4 * size) == given_back  # of 8 blocks
