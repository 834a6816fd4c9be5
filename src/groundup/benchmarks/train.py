"""`groundup bench train`: tokens a second of our training step and of the peers', taking turns."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.base.console import say, warn
from groundup.base.errors import GroundupError, UsageError, did_you_mean
from groundup.benchmarks.rounds import Comparison, compare, in_turn
from groundup.benchmarks.train_cases import CASES, Case

TARGET = 2.0
BF16 = ("bf16", "bf16+compile")
VARIANTS = {
    "groundup": ("fp32", "fp32+compile", "bf16+copies", "bf16+copies+compile"),
    "transformers": ("fp32", "fp32+compile", *BF16),
    "nanogpt": ("fp32", "fp32+compile", *BF16),
}


@dataclass(frozen=True)
class Settings:
    """What is measured, and for how long."""

    cases: Sequence[str]
    rounds: int
    seconds: float
    threads: int | None = None
    nanogpt: Path | None = None
    losses: int = 0
    seeds: int = 3
    compile: bool = True
    bf16: bool | None = None
    variants: Sequence[str] = ()
    clock: str = "wall"
    device: str = "cpu"
    peak: bool = True  # measure the machine's in every turn


class Trainee:
    """A worker process with one trainer (see `train_worker.py`)."""

    def __init__(self, case: Case, who: str, variant: str, settings: Settings):
        self.who, self.variant, self.results = who, variant, list[dict[str, Any]]()
        self.peak = settings.peak
        nanogpt = str(settings.nanogpt.resolve()) if settings.nanogpt else None
        spec = {
            "case": case.name,
            "who": who,
            "variant": variant,
            "threads": settings.threads,
            "nanogpt": nanogpt,
            "clock": settings.clock,
            "device": settings.device,
        }
        words = [sys.executable, "-m", "groundup.benchmarks.train_worker", json.dumps(spec)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Trainee":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def name(self) -> str:
        """`transformers fp32+compile`."""
        return f"{self.who} {self.variant}"

    def ask(self, **order: Any) -> dict[str, Any]:
        """Send an order and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"the process ended with {self.process.wait()}"}
        if "error" in answer:
            raise GroundupError(f"{self.name}: {answer['error']}")
        return answer

    def round(self, seconds: float) -> float:
        """One turn: tokens a second."""
        self.results.append(self.ask(time=seconds, peak=self.peak))
        return self.results[-1]["tokens_per_second"]


def measure(settings: Settings) -> list[Comparison]:
    """Each case against each peer."""
    for name in settings.cases:
        if name not in CASES:
            raise UsageError(f"no configuration `{name}`.{did_you_mean(name, CASES)} One of: {', '.join(CASES)}")
    bf16 = fast_bf16(settings.device) if settings.bf16 is None else settings.bf16
    return [found for name in settings.cases for found in measure_case(CASES[name], settings, bf16)]


def fast_bf16(device: str = "cpu") -> bool:
    """Whether bf16 products are faster than fp32 products here; says so when they are not."""
    from groundup.base.peak import gemm_flops

    size = 256 if device == "cpu" else 4096  # small where bf16 may be emulated, large enough to fill a GPU
    single, half = gemm_flops(device), gemm_flops(device, dtype="bfloat16", size=size)
    if half > single:
        return True
    say(f"bf16 is left out: {half / 1e9:.0f} GFLOP/s against {single / 1e9:.0f} in fp32, this device emulates it")
    return False


def measure_case(case: Case, settings: Settings, bf16: bool) -> Iterator[Comparison]:
    """All trainers of one case, in turn."""
    say(f"\n{case.title}")
    with ExitStack() as stack:
        trainees = [stack.enter_context(Trainee(case, *one, settings)) for one in variants(case, settings, bf16)]
        working = [trainee for trainee in trainees if starts(trainee)]
        turns = {trainee.name: (lambda one=trainee: one.round(settings.seconds)) for trainee in working}
        measured = in_turn(turns, settings.rounds, warmup=0)
        losses = {trainee.name: loss_of(trainee, settings) for trainee in working} if settings.losses else {}
    ours = [trainee for trainee in working if trainee.who == "groundup"]
    best = max(ours, key=lambda trainee: statistics.median(measured[trainee.name]))
    report(case, working, measured, losses)
    for who in dict.fromkeys(trainee.who for trainee in working if trainee.who != "groundup"):
        theirs = [trainee for trainee in working if trainee.who == who]
        found = {trainee.variant: measured[trainee.name] for trainee in theirs}
        yield against(case, who, best, found, measured, working, losses)


def variants(case: Case, settings: Settings, bf16: bool) -> Iterator[tuple[str, str]]:
    """(who, variant) of all that can run here."""
    for who, names in VARIANTS.items():
        if who == "nanogpt" and (settings.nanogpt is None or case.family != "gpt2"):
            continue
        chosen = [*names, *(v for v in settings.variants if "plain" in v and who == "groundup")]
        for variant in chosen:
            if settings.variants and variant not in settings.variants:
                continue
            if (bf16 or "bf16" not in variant) and (settings.compile or "compile" not in variant):
                yield who, variant


def starts(trainee: Trainee) -> bool:
    """A first short turn, in which models are built and compiled; a variant that fails is left out and named."""
    try:
        trainee.ask(time=0.0, peak=False)
    except GroundupError as error:
        warn(f"left out: {error}")
        return False
    return True


def loss_of(trainee: Trainee, settings: Settings) -> list[float]:
    """The loss after so many updates, for each seed."""
    return [trainee.ask(losses=settings.losses, seed=seed)["loss"] for seed in range(settings.seeds)]


def against(
    case: Case,
    who: str,
    best: Trainee,
    theirs: Mapping[str, Sequence[float]],
    measured: Mapping[str, Sequence[float]],
    working: Sequence[Trainee],
    losses: Mapping[str, Sequence[float]],
) -> Comparison:
    """Our best variant and a peer's best, with what else was found."""
    details = {
        "ours_variant": best.variant,
        "rates": {one.name: statistics.median(measured[one.name]) for one in working},
        "gflops": {one.name: statistics.median(measured[one.name]) * operations(case) / 1e9 for one in working},
        "share_of_peak": {one.name: share_of_peak(case, one) for one in working},
        "losses": dict(losses),
        "peak_memory": {one.name: most_memory(one) for one in working},
        "device": working[0].results[-1]["device"],
    }
    found = compare(
        case.title, who, measured[best.name], theirs, "tokens/s", higher_is_better=True, more=details,
        target=f"{TARGET:g}x",
    )  # fmt: skip
    return Comparison(**{**vars(found), "met": found.ratio >= TARGET})


def operations(case: Case) -> float:
    """Floating-point operations of training one token."""
    from groundup.estimates.flops import training_flops_per_token

    return training_flops_per_token(case.config(), case.context)


def share_of_peak(case: Case, trainee: Trainee) -> float:
    """Median over the rounds of the share of that moment's peak."""
    return statistics.median(one["tokens_per_second"] * operations(case) / one["peak"] for one in trainee.results)


def most_memory(trainee: Trainee) -> int:
    """The most bytes it has held: on a CPU the process, on another device its tensors."""
    return max(one["memory"] for one in trainee.results)


def report(
    case: Case,
    trainees: Sequence[Trainee],
    measured: Mapping[str, Sequence[float]],
    losses: Mapping[str, Sequence[float]],
) -> None:
    """A table of everybody's figures."""
    from groundup.base.console import table

    rows = []
    for one in trainees:
        rate = statistics.median(measured[one.name])
        row = [
            one.name,
            f"{rate:,.0f}",
            f"{rate * operations(case) / 1e9:.0f}",
            f"{100 * share_of_peak(case, one):.0f}%",
            f"{most_memory(one) / 1e6:,.0f} MB",
        ]
        row.append("  ".join(f"{loss:.4f}" for loss in losses.get(one.name, [])))
        rows.append(row)
    say(table(rows, ["trainer", "tokens/s", "GFLOP/s", "of GEMM peak", "peak memory", "losses"]))
