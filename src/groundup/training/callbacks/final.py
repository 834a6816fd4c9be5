"""The trained model as a Hugging Face folder, final/."""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup.training.callbacks.callback import Callback

if TYPE_CHECKING:
    from groundup.training.session import Training


class SaveFinal(Callback):
    """Writes model (with the moving average of its weights, if there is one) and tokenizer when the training is
    complete.
    """

    def on_end(self, training: Training) -> None:
        if training.signal:
            return
        with training.evaluating() as model:
            model.save_pretrained(training.run.final)
        if training.tokenizer is not None:
            training.tokenizer.save_pretrained(training.run.final)
