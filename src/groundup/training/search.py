"""Hyper-parameter search: grid, random (Bergstra and Bengio 2012) and successive halving (Jamieson and Talwalkar 2016).

    space = {"optimizer.lr": [1e-4, 3e-4, 1e-3], "schedule.warmup_steps": [0, 100]}
    best = search(base_config, GridSearch(space=space), evaluate, "search.jsonl")

`evaluate(config, budget)` returns a score; lower is better. The driver trains nothing itself. Every trial is a line of
the JSONL table, written before the next begins; started again with the same table it skips what is there.
"""

import itertools
import json
import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from groundup.base.config import Config
from groundup.base.errors import DataError

C = TypeVar("C", bound=Config)


class Range(Config):
    """An interval to draw from."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""
    log: bool = False
    """Draw the logarithm evenly: for learning rates."""
    integer: bool = False
    """Round to whole numbers."""

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("needs low < high, and low > 0 with log")
        return self

    def draw(self, rng: random.Random) -> float | int:
        """One value."""
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = rng.uniform(self.low, self.high)
        return round(value) if self.integer else value


class SearchConfig(Config):
    """Which settings to try: dotted keys of a Config, each with a list of values or a range."""

    space: dict[str, list[Any] | Range]
    """Dotted key -> values to choose from, or a Range."""

    def rounds(self) -> "Iterator[Round]":
        """Rounds of trials; each round sees the scores of the last."""
        raise NotImplementedError


class GridSearch(SearchConfig):
    """Every combination of the listed values, in order."""

    kind: Literal["grid"] = "grid"
    space: dict[str, list[Any]]  # pyright: ignore[reportIncompatibleVariableOverride]
    """Dotted key -> values to choose from."""

    def rounds(self) -> "Iterator[Round]":
        """One round."""
        yield Round([dict(zip(self.space, values, strict=True)) for values in itertools.product(*self.space.values())])


class RandomSearch(SearchConfig):
    """Independent draws."""

    kind: Literal["random"] = "random"
    trials: int = Field(default=20, ge=1)
    """How many."""
    seed: int = 0
    """Of the draws: the same seed gives the same trials."""

    def draws(self) -> list[dict[str, Any]]:
        """The settings of all trials."""
        rng = random.Random(self.seed)
        return [
            {
                key: values.draw(rng) if isinstance(values, Range) else rng.choice(values)
                for key, values in self.space.items()
            }
            for _ in range(self.trials)
        ]

    def rounds(self) -> "Iterator[Round]":
        """One round."""
        yield Round(self.draws())


class SuccessiveHalving(RandomSearch):
    """Many trials with a small budget; the best 1/eta go on with eta times the budget."""

    kind: Literal["halving"] = "halving"  # pyright: ignore[reportIncompatibleVariableOverride]
    budget: float = Field(default=1.0, gt=0)
    """Budget of the first round, in the unit that `evaluate` takes (steps, say)."""
    eta: int = Field(default=3, ge=2)
    """Reduction of trials, and growth of budget, from round to round."""

    def rounds(self) -> "Iterator[Round]":
        """Rounds until one trial is left; each yields and expects its scores in `Round.scores`."""
        settings, budget = self.draws(), self.budget
        while True:
            this = Round(settings, budget)
            yield this
            if len(settings) == 1:
                return
            order = sorted(range(len(settings)), key=lambda i: (this.scores[i], i))
            settings = [settings[i] for i in order[: max(1, len(settings) // self.eta)]]
            budget *= self.eta


@dataclass
class Round:
    """Trials that run with one budget; the driver fills in the scores, with inf for NaN."""

    settings: list[dict[str, Any]]
    budget: float = 1.0

    def __post_init__(self) -> None:
        self.scores: list[float] = []


@dataclass(frozen=True)
class Trial:
    """One line of the table."""

    settings: dict[str, Any]
    budget: float
    score: float


def search(
    base: C,
    how: SearchConfig,
    evaluate: Callable[[C, float], float],
    table: str | Path,
) -> Trial:
    """Run the trials that `table` does not hold yet; the best trial of the last round.

    A score that is not finite counts as worst. Raises `UsageError` for keys that `base` does not have, before any trial
    runs, and `DataError` for a table that is not this search's.
    """
    done = _read(table)
    best = None
    for trials in how.rounds():
        configs = [with_settings(base, settings) for settings in trials.settings]
        for settings, config in zip(trials.settings, configs, strict=True):
            key = _key(settings, trials.budget)
            if key not in done:
                done[key] = _finite(evaluate(config, trials.budget))
                _append(table, Trial(settings, trials.budget, done[key]))
            trials.scores.append(done[key])
        at = min(range(len(trials.scores)), key=trials.scores.__getitem__)
        best = Trial(trials.settings[at], trials.budget, trials.scores[at])
    assert best is not None
    return best


def with_settings(base: C, settings: dict[str, Any]) -> C:
    """`base` with dotted keys replaced; validated, so a wrong key or value is a `UsageError`."""
    values = base.model_dump()
    for key, value in settings.items():
        *path, leaf = key.split(".")
        place = values
        for name in path:
            place = place.setdefault(name, {})
        place[leaf] = value
    return type(base).parse(values, where="search")


def _finite(score: float) -> float:
    return float(score) if math.isfinite(score) else math.inf


def _key(settings: dict[str, Any], budget: float) -> str:
    return json.dumps([settings, budget], sort_keys=True)


def _read(table: str | Path) -> dict[str, float]:
    path = Path(table)
    if not path.is_file():
        return {}
    done = {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):  # a line cut off by a crash: its trial runs again
            path.write_text("".join(lines[:-1]), encoding="utf-8")
            break
        try:
            row = json.loads(line)
            score = math.inf if row["score"] is None else float(row["score"])
            done[_key(row["settings"], row["budget"])] = score
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path}:{number} is not a trial of a search: name another table") from None
    return done


def _append(table: str | Path, trial: Trial) -> None:
    row = asdict(trial) | {"score": trial.score if math.isfinite(trial.score) else None}
    Path(table).parent.mkdir(parents=True, exist_ok=True)
    with open(table, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
