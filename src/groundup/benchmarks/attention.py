"""How fast multi-head attention is, written in many ways: equal results first, then time in turn."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.base.peak import peak_flops
from groundup.benchmarks.attention_cases import IMPLEMENTATIONS, OURS, PEERS
from groundup.benchmarks.rounds import Comparison, compare, in_turn
from groundup.layers.attention import Attention

ALLOWED = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}
"""How far results may be from ours, as a share of the largest; ten times as far for gradients, sums over all tokens."""


@dataclass(frozen=True)
class Work:
    """What is computed.

    Attributes:
        rows, tokens, width, heads: B, T, D and H.
        backward: the gradients too.
        repeats: calls in a measurement.
        device, dtype: where and in what.
        seed: of weights and input.
    """

    rows: int
    tokens: int
    width: int
    heads: int
    backward: bool
    repeats: int
    device: torch.device
    dtype: torch.dtype
    seed: int = 0

    @property
    def case(self) -> str:
        """Its name."""
        return f"{'training' if self.backward else 'forward'}, {self.rows} x {self.tokens} tokens"

    @property
    def flops(self) -> int:
        """Multiplications and additions of a call that are needed: 8 D^2 a token for the projections and 4 D for each
        pair that is seen; twice as many more for gradients.
        """
        pairs = self.tokens * (self.tokens + 1) // 2
        forward = self.rows * (8 * self.tokens * self.width**2 + 4 * pairs * self.width)
        return 3 * forward if self.backward else forward


def measure(work: Work, names: list[str], rounds: int) -> list[Comparison]:
    """Medians over the rounds, in milliseconds a call: ours beside the best of every kind of peer.

    Raises:
        UsageError: an implementation that is not known, or whose results are not ours.
    """
    modules = build(work, names)
    x = torch.randn(work.rows, work.tokens, work.width, device=work.device, dtype=work.dtype).requires_grad_()
    errors = check(work, modules, x)
    measured = in_turn({name: timer(work, module, x) for name, module in modules.items()}, rounds)
    found = []
    for peer, members in PEERS.items():
        theirs = {name: measured[name] for name in members if name in measured}
        if theirs:
            one = compare(work.case, peer, measured[OURS], theirs, "ms", higher_is_better=False)
            speed = work.flops / one.ours * 1000
            more = {"largest_error": {name: errors[name] for name in theirs}, "flops_per_second": speed}
            more["fraction_of_peak"] = speed / peak_flops(str(work.device), str(work.dtype).removeprefix("torch."))
            found.append(replace(one, more=more))
    return found


def build(work: Work, names: list[str]) -> dict[str, nn.Module]:
    """Every implementation, with the same weights; ours is always among them."""
    unknown = [name for name in names if name not in IMPLEMENTATIONS]
    if unknown:
        raise UsageError(
            f"no implementation of attention is called {unknown[0]!r}; there are: {', '.join(IMPLEMENTATIONS)}"
        )
    if work.width % work.heads:
        raise UsageError(f"{work.heads} heads do not divide a width of {work.width}")
    torch.manual_seed(work.seed)
    attention = Attention(work.width, work.heads)
    chosen = [OURS, *(name for name in names if name != OURS)]
    return {name: IMPLEMENTATIONS[name](attention, work.heads).to(work.device, work.dtype) for name in chosen}


def check(work: Work, modules: dict[str, nn.Module], x: Tensor) -> dict[str, float]:
    """The largest difference of each result to ours; a UsageError where one is not the same attention."""
    results = {name: values(work, module, x) for name, module in modules.items()}
    errors = {}
    for name, found in results.items():
        for what, factor, mine, theirs in zip(("result", "gradient"), (1, 10), results[OURS], found, strict=False):
            difference, size = float((mine - theirs).abs().max()), float(mine.abs().max())
            if not difference <= factor * ALLOWED[work.dtype] * size:
                raise UsageError(
                    f"{name} is not the same attention: its {what} is off by {difference:.2g} of {size:.2g}"
                )
            errors.setdefault(name, difference)
    return errors


def values(work: Work, module: nn.Module, x: Tensor) -> list[Tensor]:
    """The result, and where wanted the gradient of the input for a gradient of ones."""
    if not work.backward:
        with torch.no_grad():
            return [module(x)]
    y = module(x)
    return [y.detach(), *torch.autograd.grad(y.sum(), x)]


def timer(work: Work, module: nn.Module, x: Tensor) -> Callable[[], float]:
    """Milliseconds of a call; on a GPU until it is done."""

    def call() -> None:
        if not work.backward:
            with torch.no_grad():
                module(x)
            return
        module(x).sum().backward()
        module.zero_grad()
        x.grad = None

    def run() -> float:
        synchronize(work.device)
        start = time.perf_counter()
        for _ in range(work.repeats):
            call()
        synchronize(work.device)
        return (time.perf_counter() - start) / work.repeats * 1000

    return run


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
