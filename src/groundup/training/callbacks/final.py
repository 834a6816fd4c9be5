"""The trained model as a Hugging Face folder, or the trained adapter as peft's, final/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.adapters.attach import adapters_of
from groundup.training.callbacks.callback import Callback

if TYPE_CHECKING:
    from groundup.training.session import Training


class SaveFinal(Callback):
    """Writes model or adapter, with the moving average of the weights if there is one, and tokenizer at the end."""

    def on_end(self, training: Training) -> None:
        if training.signal:
            return
        with training.evaluating() as model:
            if adapters_of(model).configs:
                save_trained(model, training.run.final)
            else:
                model.save_pretrained(training.run.final)
        if training.tokenizer is not None:
            training.tokenizer.save_pretrained(training.run.final)


def save_trained(model: Any, folder: Path) -> None:
    """The adapters that learn: one into the folder itself, several into folders of their names inside it."""
    from groundup.adapters.files import save_adapter

    adapters = adapters_of(model)
    learning = [n for n in adapters.configs if any(p.requires_grad for p in adapters.parameters(n).values())]
    for name in learning:
        save_adapter(model, folder if len(learning) == 1 else folder / name, name)
