"""What this machine reaches in matrix products and memory traffic: measured, to hold other speeds against."""

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from groundup.base.device import choose_device, choose_dtype, synchronize

if TYPE_CHECKING:
    import torch


def best_time(run: Callable[[], object], device: "torch.device", seconds: float) -> float:
    """The shortest of the times that `run` takes, repeated for `seconds` (at least 3 times) after one warm-up."""
    run()
    synchronize(device)
    best, count, end = float("inf"), 0, time.perf_counter() + seconds
    while count < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        synchronize(device)
        best, count = min(best, time.perf_counter() - start), count + 1
    return best


def gemm_flops(device: str = "cpu", dtype: str = "float32", size: int = 1024, seconds: float = 0.5) -> float:
    """FLOP/s of a product of two (size, size) matrices; the fastest repetition counts."""
    import torch

    place = choose_device(device)
    a = torch.randn(size, size, device=place).to(choose_dtype(dtype))
    out = torch.empty_like(a)
    # C = A A: n^3 multiplications and as many additions
    return 2 * size**3 / best_time(lambda: torch.mm(a, a, out=out), place, seconds)


@functools.cache
def peak_flops(device: str = "cpu", dtype: str = "float32") -> float:
    """`gemm_flops`, measured once a process: what utilisation is a fraction of."""
    return gemm_flops(device, dtype)


def copy_bandwidth(device: str = "cpu", megabytes: int = 256, seconds: float = 0.5) -> float:
    """Bytes a second that a copy moves, counting what it reads and what it writes."""
    import torch

    place = choose_device(device)
    source = torch.ones(megabytes << 18, device=place)  # float32: 4 bytes each
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_time(lambda: target.copy_(source), place, seconds)


def read_bandwidth(device: str = "cpu", dtype: str = "float32", size: int = 8192, seconds: float = 0.5) -> float:
    """Bytes of weights a second that a matrix-vector product reads: the bound on decoding one row."""
    import torch

    place = choose_device(device)
    weight = torch.ones(size, size, device=place, dtype=choose_dtype(dtype))
    x = torch.ones(size, device=place, dtype=weight.dtype)
    return weight.nbytes / best_time(lambda: weight @ x, place, seconds)
