"""`groundup bench NAME`: us against our peers, in turn, in one run. Each benchmark is a verb with its own options."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from groundup.base.console import say, table
from groundup.commands.command import Command

if TYPE_CHECKING:
    from groundup.benchmarks.rounds import Comparison


class Bench(Command):
    """What every benchmark shares; a benchmark says what it measures in `measure`."""

    rounds: int = Field(default=7, ge=1)
    """Times that every case is measured, the cases taking turns; medians are shown."""

    out: Path | None = None
    """Write the results to this JSON file too, with the machine they hold for (benchmarks/results/NAME.json)."""

    def measure(self) -> "Sequence[Comparison]":
        """Do the measurements."""
        raise NotImplementedError

    def run(self) -> dict[str, Any]:
        """Measure, show a table, and return {"machine", "results"}."""
        from groundup.base.files import write_atomic

        found = self.measure()
        results = {"machine": machine(), "results": [one.as_json() for one in found]}
        say(results_table(found))
        if self.out:
            write_atomic(self.out, json.dumps(results, indent=2) + "\n")
            say(f"\nwritten to {self.out}")
        return results


class BenchStartup(Bench):
    """Time to `import groundup` and to print `groundup --help`, in fresh interpreters; the target is 0.3 s."""

    def measure(self) -> "Sequence[Comparison]":
        """Beside an empty program, `import torch` and `import transformers`."""
        from groundup.benchmarks.startup import measure

        return measure(self.rounds)


class BenchTrain(Bench):
    """Tokens a second of our training step beside transformers' models (and nanoGPT's) in a plain PyTorch loop."""

    rounds: int = Field(default=5, ge=1)
    """Turns that every variant gets; medians are shown."""
    configs: list[str] = ["A", "B", "C", "D"]
    """What is trained: A 4x128, B 6x384 and C 12x768 as GPT-2, D 6x256 as Llama."""
    seconds: float = Field(default=5.0, ge=0)
    """Length of a turn; it has at least one update."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; None takes all that this process may use."""
    clock: Literal["wall", "processor"] = "wall"
    """What seconds are: those of the wall, or those that the processor gave to the process, which other work on the
    machine changes less; then with one thread."""
    nanogpt: Path | None = None
    """A folder with nanoGPT's model.py, which is imported from there and trained too."""
    losses: int = Field(default=0, ge=0)
    """Also train so many updates from fresh weights with every variant and show the loss at their end (100)."""
    seeds: int = Field(default=3, ge=1)
    """Seeds of these trainings."""
    compile: bool = True
    """Measure compiled variants too; compiling takes minutes."""
    bf16: bool | None = None
    """Measure bf16 variants; None does where the processor multiplies bf16 faster than fp32."""
    variants: list[str] = []
    """Only these, of all (`fp32`, `bf16+compile`); `fp32+plain` is ours without its kernels and allocator setting."""

    def measure(self) -> "Sequence[Comparison]":
        """Everybody in turn, each in a process of its own."""
        from groundup.benchmarks.train import Settings, measure

        settings = Settings(
            cases=[name for text in self.configs for name in text.split(",")],
            rounds=self.rounds,
            seconds=self.seconds,
            threads=1 if self.clock == "processor" else self.threads,
            clock=self.clock,
            nanogpt=self.nanogpt,
            losses=self.losses,
            seeds=self.seeds,
            compile=self.compile,
            bf16=self.bf16,
            variants=[name for text in self.variants for name in text.split(",")],
        )
        return measure(settings)


def results_table(found: "Sequence[Comparison]") -> str:
    """The comparisons as text."""
    rows = [
        [one.case, one.peer, figure(one.ours), figure(one.theirs), f"{one.ratio:.2f}x", one.unit, verdict(one)]
        for one in found
    ]
    return table(rows, ["case", "peer", "ours", "theirs", "ratio", "unit", "target"])


def figure(value: float) -> str:
    """Three significant digits, thousands set apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def verdict(one: "Comparison") -> str:
    """The target, and whether it was met."""
    if one.met is None:
        return one.target
    return f"{one.target}: {'met' if one.met else 'missed'}"


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    import os
    import platform
    from importlib.metadata import version

    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": platform.platform(terse=True),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def processor() -> str:
    """The processor's name, as the system tells it."""
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
