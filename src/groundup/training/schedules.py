"""Learning-rate schedules: pure functions of the step. Imports no torch.

`schedule.factor(step, total_steps)` multiplies the optimizer's `lr` for the update after `step` finished updates, so
the first update uses `factor(0, total)`. `apply` writes it into an optimizer's groups.
"""

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from groundup.base.config import Config


class ScheduleConfig(Config):
    """A learning rate as a function of the step."""

    def factor(self, step: int, total_steps: int, tokens: int = 0) -> float:
        """What multiplies the learning rate at `step` (from 0) of `total_steps`, after `tokens` input tokens."""
        raise NotImplementedError

    def values(self, total_steps: int) -> list[float]:
        """The factor at every step: for plots."""
        return [self.factor(step, total_steps) for step in range(total_steps)]

    def apply(self, optimizer: Any, step: int, total_steps: int, tokens: int = 0) -> float:
        """Set every group's `lr` to `initial_lr` x factor; the factor."""
        factor = self.factor(step, total_steps, tokens)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return factor


class Warmup(ScheduleConfig):
    """What schedules with linear warmup share; without a `kind` of its own."""

    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear rise from 0: the factor at step s is s / warmup_steps."""

    def factor(self, step: int, total_steps: int, tokens: int = 0) -> float:
        """Linear rise, then `after_warmup`."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        return self.after_warmup(step, total_steps)

    def after_warmup(self, step: int, total_steps: int) -> float:
        """The factor once warmup is over."""
        raise NotImplementedError

    def _progress(self, step: int, total_steps: int) -> float:
        """Share of the steps after warmup that are done, at most 1."""
        return min(1.0, (step - self.warmup_steps) / max(1, total_steps - self.warmup_steps))


class Constant(Warmup):
    """Warmup, then 1."""

    kind: Literal["constant"] = "constant"

    def after_warmup(self, step: int, total_steps: int) -> float:
        """One."""
        return 1.0


class Linear(Warmup):
    """Warmup, then a straight line down to `minimum`."""

    kind: Literal["linear"] = "linear"
    minimum: float = Field(default=0.0, ge=0, le=1)
    """Factor at the last step."""

    def after_warmup(self, step: int, total_steps: int) -> float:
        """1 - (1 - minimum) p, with p the share of steps done."""
        return 1.0 - (1.0 - self.minimum) * self._progress(step, total_steps)


class Cosine(Warmup):
    """Warmup, then half a cosine down to `minimum` (Loshchilov and Hutter 2017; 0.1 in GPT-3 and Llama)."""

    kind: Literal["cosine"] = "cosine"
    minimum: float = Field(default=0.1, ge=0, le=1)
    """Factor at the end of the decay and after it."""
    decay_steps: int | None = Field(default=None, ge=1)
    """Step at which the minimum is reached; None is the last step."""
    warmup_tokens: int | None = Field(default=None, ge=0)
    """With `decay_tokens`: count in input tokens, which is not the same as steps while a batch ramp lasts. Tokens of
    linear rise (375M in GPT-3)."""
    decay_tokens: int | None = Field(default=None, ge=1)
    """Tokens at which the minimum is reached (260B of GPT-3's 300B)."""

    @model_validator(mode="after")
    def _steps_or_tokens(self) -> "Cosine":
        by_tokens = [self.warmup_tokens is not None, self.decay_tokens is not None]
        if any(by_tokens) and (not all(by_tokens) or self.warmup_steps or self.decay_steps):
            raise ValueError("count in steps or in tokens: warmup_tokens goes with decay_tokens, and no *_steps")
        if all(by_tokens) and (self.warmup_tokens or 0) >= (self.decay_tokens or 0):
            raise ValueError("decay_tokens is where the decay ends: it must be above warmup_tokens")
        return self

    def factor(self, step: int, total_steps: int, tokens: int = 0) -> float:
        """The same curve over steps, or over tokens."""
        if self.decay_tokens is None or self.warmup_tokens is None:
            return super().factor(step, total_steps)
        if tokens < self.warmup_tokens:
            return tokens / self.warmup_tokens
        done = (tokens - self.warmup_tokens) / (self.decay_tokens - self.warmup_tokens)
        return self._curve(min(1.0, done))

    def after_warmup(self, step: int, total_steps: int) -> float:
        """The curve at the share of steps done."""
        end = total_steps if self.decay_steps is None else self.decay_steps
        return self._curve(self._progress(step, end))

    def _curve(self, p: float) -> float:
        """The curve minimum + (1 - minimum) (1 + cos(π p)) / 2."""
        return self.minimum + (1.0 - self.minimum) * 0.5 * (1.0 + math.cos(math.pi * p))


class WSD(Warmup):
    """Warmup, stable, decay (Hu et al. 2024, MiniCPM): constant until the last `decay_steps`."""

    kind: Literal["wsd"] = "wsd"
    decay_steps: int = Field(default=0, ge=0)
    """Steps of decay at the end."""
    minimum: float = Field(default=0.0, ge=0, le=1)
    """Factor at the end."""
    shape: Literal["linear", "cosine", "sqrt"] = "linear"
    """Of the decay; sqrt is 1 - √p (Hägele et al. 2024)."""

    def after_warmup(self, step: int, total_steps: int) -> float:
        """1, then minimum + (1 - minimum) d(p) with d the decay's shape."""
        start = total_steps - self.decay_steps
        if step < start:
            return 1.0
        done = min(1.0, (step - start) / max(1, self.decay_steps))
        shapes = {"linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done)), "sqrt": 1.0 - math.sqrt(done)}
        return self.minimum + (1.0 - self.minimum) * shapes[self.shape]


class Noam(ScheduleConfig):
    """The Transformer's own schedule (Vaswani et al. 2017, equation 3): linear rise, then 1/√s. Use it with lr 1."""

    kind: Literal["noam"] = "noam"
    hidden_size: int = Field(default=512, ge=1)
    """d, the model's width."""
    warmup_steps: int = Field(default=4000, ge=1)
    """w, the steps of linear rise."""

    def factor(self, step: int, total_steps: int, tokens: int = 0) -> float:
        """d^-0.5 min(s^-0.5, s w^-1.5), with s = step + 1 counted from 1."""
        s = step + 1
        return self.hidden_size**-0.5 * min(s**-0.5, s * self.warmup_steps**-1.5)


class SlantedTriangular(ScheduleConfig):
    """A short rise and a long fall, both straight (Howard & Ruder 2018, ULMFiT, equation 3)."""

    kind: Literal["slanted_triangular"] = "slanted_triangular"
    cut_frac: float = Field(default=0.1, gt=0, lt=1)
    """Share of the steps that rise."""
    ratio: float = Field(default=32.0, ge=1)
    """How much smaller the lowest rate is than the highest."""

    def factor(self, step: int, total_steps: int, tokens: int = 0) -> float:
        """(1 + p (ratio - 1)) / ratio, with p from 0 to 1 at the cut and back to 0 at the end."""
        cut = max(1, math.floor(total_steps * self.cut_frac))
        # p = t / cut, then 1 - (t - cut) / (cut (1 / cut_frac - 1))
        p = step / cut if step < cut else 1 - (step - cut) / (cut * (1 / self.cut_frac - 1))
        return (1 + max(0.0, p) * (self.ratio - 1)) / self.ratio


class Milestones(ScheduleConfig):
    """Piecewise constant: the factor falls to `factors[i]` at step `steps[i]`."""

    kind: Literal["milestones"] = "milestones"
    steps: list[int] = []
    """Steps, rising."""
    factors: list[float] = []
    """Factor from each of these steps on; 1 before the first."""

    @model_validator(mode="after")
    def _same_length(self) -> "Milestones":
        if len(self.steps) != len(self.factors) or sorted(self.steps) != self.steps:
            raise ValueError("steps must rise, and factors must be as many")
        return self

    def factor(self, step: int, total_steps: int, tokens: int = 0) -> float:
        """The factor of the last milestone passed."""
        passed = [f for s, f in zip(self.steps, self.factors, strict=True) if s <= step]
        return passed[-1] if passed else 1.0
