"""What benchmarks share: taking turns, medians, and the ratio to the best variant of a peer."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from groundup.base.console import progress


@dataclass(frozen=True)
class Comparison:
    """One case: our figure, the best variant of a peer, and how many times better ours is.

    `ratio` above 1: ours is better. It is the median over the rounds of that round's ratio, because a machine that is
    shared has slow minutes that a round's turns have in common; `ratios` are the quartiles around it.
    `theirs_variants`: the median of every variant that ran. `spread`: (max - min) / median of our rounds. `target`: a
    ratio or a bound in `unit`, and `met` tells whether it was reached.
    """

    case: str
    peer: str
    ours: float
    theirs: float
    ratio: float
    unit: str
    variant: str
    theirs_variants: Mapping[str, float]
    spread: float
    ratios: Sequence[float] = ()
    target: str = ""
    met: bool | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints; `more` is laid into it."""
        values = asdict(self)
        return values | values.pop("more")


def in_turn(cases: Mapping[str, Callable[[], float]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Call every case once a round and gather what each returns, so that a slow moment of the machine meets all alike.

    The order turns around every other round. Warm-up rounds are not kept.
    """
    measured: dict[str, list[float]] = {name: [] for name in cases}
    for number in progress(range(warmup + rounds), label="rounds", unit="round"):
        names: Iterable[str] = cases if number % 2 == 0 else reversed(list(cases))
        for name in names:
            value = cases[name]()
            if number >= warmup:
                measured[name].append(value)
    return measured


def compare(
    case: str,
    peer: str,
    ours: Sequence[float],
    theirs: Mapping[str, Sequence[float]],
    unit: str,
    *,
    higher_is_better: bool,
    **details: Any,
) -> Comparison:
    """Ours against the variant of the peer with the best median, round by round."""
    medians = {name: statistics.median(values) for name, values in theirs.items()}
    variant = (max if higher_is_better else min)(medians, key=medians.__getitem__)
    mine, best = statistics.median(ours), medians[variant]
    of_rounds = [a / b if higher_is_better else b / a for a, b in zip(ours, theirs[variant], strict=True)]
    return Comparison(
        case=case,
        peer=peer,
        ours=mine,
        theirs=best,
        ratio=statistics.median(of_rounds),
        ratios=quartiles(of_rounds),
        unit=unit,
        variant=variant,
        theirs_variants=medians,
        spread=(max(ours) - min(ours)) / mine,
        **details,
    )


def quartiles(values: Sequence[float]) -> list[float]:
    """The two values below which a quarter and three quarters lie."""
    if len(values) < 2:
        return [values[0], values[0]]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [low, high]
