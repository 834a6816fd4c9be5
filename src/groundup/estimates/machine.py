"""What this machine can do: measured, once a process."""

import functools
import statistics
import time
from collections.abc import Callable


@functools.cache
def gemm_flops(dtype: str = "fp32", device: str = "cpu", size: int = 1024, rounds: int = 5) -> float:
    """Floating-point operations a second of a square matrix product, the best of `rounds`: what "peak" means here."""
    import torch

    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    a = torch.randn(size, size, device=device).to(names[dtype])
    b = torch.randn(size, size, device=device).to(names[dtype])
    return 2 * size**3 / min(_seconds(lambda: a @ b, rounds, device))


@functools.cache
def copy_bandwidth(device: str = "cpu", megabytes: int = 128, rounds: int = 5) -> float:
    """Bytes a second of a large copy, read and write counted, median of `rounds`."""
    import torch

    source = torch.ones(megabytes * 2**20 // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / statistics.median(_seconds(lambda: target.copy_(source), rounds, device))


def _seconds(work: Callable[[], object], rounds: int, device: str) -> list[float]:
    import torch

    def finish() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    work()
    times = []
    for _ in range(rounds):
        finish()
        start = time.perf_counter()
        work()
        finish()
        times.append(time.perf_counter() - start)
    return times
