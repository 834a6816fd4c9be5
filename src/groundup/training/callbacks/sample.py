"""What the model writes, at several moments of its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from groundup.base.console import say
from groundup.training.callbacks.callback import Callback, due

if TYPE_CHECKING:
    from groundup.training.session import Training
    from groundup.training.step import StepResult


class Sample(Callback):
    """Continues prompts every `sample_every` steps, before the first and after the last one; into samples.jsonl.

    Args:
        function: (model, prompts) -> one continuation for each.
        prompts: what to continue.
        show: also print the first one.
    """

    def __init__(
        self, function: Callable[[Any, Sequence[str]], Sequence[str]], prompts: Sequence[str], show: bool = True
    ):
        self.function, self.prompts, self.show = function, list(prompts), show
        self.sampled_step = -1

    def on_start(self, training: Training) -> None:
        if training.step == 0:
            self._sample(training)

    def on_step(self, training: Training, result: StepResult) -> None:
        if due(training, training.config.sample_every):
            self._sample(training)

    def on_end(self, training: Training) -> None:
        if self.sampled_step != training.step and not training.signal:
            self._sample(training)

    def _sample(self, training: Training) -> None:
        with training.evaluating() as model, torch.no_grad():
            texts = self.function(model, self.prompts)
        self.sampled_step = training.step
        for prompt, text in zip(self.prompts, texts, strict=True):
            training.run.append_sample({"step": training.step, "prompt": prompt, "text": text})
        training.log("sample", {"count": len(texts)})
        if self.show and texts:
            say(f"step {training.step}: {self.prompts[0]}|{texts[0]}")

    def state_dict(self) -> dict[str, Any]:
        """The last step sampled at."""
        return {"step": self.sampled_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back `state_dict()`."""
        self.sampled_step = state["step"]
