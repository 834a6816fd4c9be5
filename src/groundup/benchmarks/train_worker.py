"""The process of one trainer: it waits for a line of JSON, does what it says, and answers with a line of JSON.

    {"time": seconds, "peak": bool}    updates for so long    {"tokens_per_second", "peak", "loss", "memory", "device"}
    {"losses": updates, "seed": s}     a fresh model          {"loss": mean of the last ten updates' losses}

`peak`: FLOP/s of this machine in the moment before, null where it is not asked for.

Every trainer has a process of its own, so that memory, compiled code and allocator settings of one do not touch
another. Only one works at a time; the others wait for their line.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LAST = 10
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def main() -> None:
    """Serve until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes to stderr
    os.dup2(2, 1)
    spec = json.loads(sys.argv[1])
    from groundup.base.allocator import keep_freed_memory
    from groundup.base.threads import set_threads

    if spec["who"] == "groundup" and "plain" not in spec["variant"]:
        keep_freed_memory()  # as `groundup train` does
    set_threads(spec["threads"])
    worker = Worker(spec)
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # the parent decides what a variant's failure means
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Worker:
    """A trainer, made when it is first needed."""

    def __init__(self, spec: dict[str, Any]):
        from groundup.benchmarks.train_cases import find_case

        self.spec, self.case = spec, find_case(spec["case"])
        self.device = spec.get("device", "cpu")
        self.trainer: Any = None

    def make(self, seed: int) -> Any:
        """A fresh trainer."""
        from groundup.benchmarks.trainers import make_trainer

        nanogpt = Path(self.spec["nanogpt"]) if self.spec["nanogpt"] else None
        return make_trainer(self.case, self.spec["who"], self.spec["variant"], seed, nanogpt, self.device)

    def answer(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do what the parent asks for."""
        if "losses" in order:
            return self.losses(order["losses"], order["seed"])
        return self.time(order["time"], order["peak"])

    def time(self, seconds: float, with_peak: bool) -> dict[str, Any]:
        """Updates for so many seconds, at least one."""
        from groundup.benchmarks.train_cases import Tokens

        if self.trainer is None:
            self.trainer, self.tokens = self.make(seed=0), Tokens(self.case, seed=0)
        clock = self.clock
        dtype = "bfloat16" if "bf16" in self.spec["variant"] else "float32"
        peak = gemm_peak(dtype, clock, self.device) if with_peak else None
        times: list[float] = []
        loss = 0.0
        while not times or sum(times) < seconds:
            batch = self.tokens.batch()
            begin = clock()
            loss = self.trainer.update(batch)
            times.append(clock() - begin)
        speed = self.case.tokens / statistics.median(times)
        return {"tokens_per_second": speed, "peak": peak, "loss": loss, **self.memory()}

    def clock(self) -> float:
        """The time, once the device has done what it was asked."""
        from groundup.base.device import synchronize

        synchronize(self.device)
        return CLOCKS[self.spec["clock"]]()

    def memory(self) -> dict[str, Any]:
        """The most bytes held so far, and the device's name."""
        from groundup.base.device import memory

        return {"memory": memory(self.device).peak, "device": device_name(self.device)}

    def losses(self, updates: int, seed: int) -> dict[str, Any]:
        """Train a fresh model and give the mean loss of the last updates."""
        from groundup.benchmarks.train_cases import Tokens

        self.trainer = None
        trainer, tokens = self.make(seed), Tokens(self.case, seed)
        found = [trainer.update(tokens.batch()) for _ in range(updates)]
        last = found[-LAST:]
        return {"loss": sum(last) / len(last)}


def device_name(device: str) -> str:
    """`cpu`, or the name of the GPU."""
    import torch

    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device


def gemm_peak(dtype: str, clock: Callable[[], float], device: str = "cpu", repeats: int = 8) -> float:
    """FLOP/s of the fastest of some products of square matrices."""
    import torch

    size = 1024 if device == "cpu" else 8192  # large enough to fill a GPU
    a = torch.randn(size, size, device=device).to(getattr(torch, dtype))
    out, best = torch.mm(a, a), float("inf")
    for _ in range(repeats):
        begin = clock()
        torch.mm(a, a, out=out)
        best = min(best, clock() - begin)
    return 2 * size**3 / best


if __name__ == "__main__":
    main()
