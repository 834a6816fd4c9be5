"""What becomes of freed memory, in processes of their own."""

import re
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

for _ in range(3):  # glibc keeps what it saw freed before
    many = [torch.zeros(2_000_000) for _ in range(24)]
    kept, many = many[::2], None
    before = resident()
    del kept
print(resident())
many = [torch.zeros(2_000_000) for _ in range(24)]
print(resident())
del many
print(resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("tell", "given_back"), [("keep_freed_memory", False), ("give_freed_memory_back", True)])
def test_freed_memory_stays_or_goes(tell, given_back):
    code = RUN.format(tell=f"assert allocator.{tell}()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, full, after = map(int, re.findall(r"\d+", done.stdout))
    assert (full - after > 150e6) == given_back  # of 192 MB
