"""What the user sees: a bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from groundup.base.console import progress, say
from groundup.training.callbacks.callback import Callback

if TYPE_CHECKING:
    from groundup.training.session import Training
    from groundup.training.step import StepResult

SECONDS_BETWEEN_LINES = 10.0


class Log(Callback):
    """Loss, tokens per second, utilisation and remaining time; evaluations in full. The loop adds it."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._last_line = 0.0
        self._terminal = sys.stderr.isatty()

    def on_start(self, training: Training) -> None:
        if training.step:
            say(f"resumed at step {training.step} of {training.total_steps}")
        if self._terminal:
            self._bar = progress(total=training.total_steps, label="train", unit="step")
            self._bar.update(training.step)

    def on_step(self, training: Training, result: StepResult) -> None:
        if self._bar is not None:
            self._bar.update(training.step - self._bar.n)

    def on_log(self, training: Training, record: dict[str, Any]) -> None:
        if record["event"] == "evaluate":
            say(f"step {record['step']}: validation " + ", ".join(_numbers(record)))
        if record["event"] != "train":
            return
        if self._bar is not None:
            self._bar.set_postfix_str(_speed(record), refresh=False)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES or record["step"] == training.total_steps:
            self._last_line = time.monotonic()
            say(f"step {record['step']}/{training.total_steps}: {_speed(record)}{_remaining(training, record)}")

    def on_close(self, training: Training) -> None:
        self.on_error(training)

    def on_error(self, training: Training) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _speed(record: dict[str, Any]) -> str:
    parts = [f"loss {record['loss']:.4f}", f"{record['tokens_per_second']:,.0f} tokens/s"]
    if "utilisation" in record:
        parts.append(f"{record['utilisation']:.0%} of peak")
    return ", ".join(parts)


def _remaining(training: Training, record: dict[str, Any]) -> str:
    if not training.updates_here:
        return ""
    seconds = training.seconds_here / training.updates_here * max(0, training.total_steps - record["step"])
    return f", {int(seconds) // 60}:{int(seconds) % 60:02d} left"


def _numbers(record: dict[str, Any]) -> list[str]:
    skipped = ("step", "event", "time")
    return [f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in record.items() if k not in skipped]
