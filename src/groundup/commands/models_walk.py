"""`groundup models walk`: a text through a Llama, tensor by tensor."""

from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import say, table
from groundup.base.errors import UsageError
from groundup.commands.command import Command

ALL_LAYERS = -1


class ModelsWalk(Command):
    """A text through a Llama, tensor by tensor: every intermediate with its name, shape and spread."""

    model: CliPositionalArg[str]
    """A folder or name of a Llama with its tokenizer: `tiny`, or Llama 3 itself."""
    prompt: str = "Once upon a time"
    """The text."""
    bos: bool = True
    """Begin with the token that begins texts, where there is one."""
    layer: int = Field(default=0, ge=ALL_LAYERS)
    """The layer to show; -1 for all."""
    top: int = Field(default=5, ge=1, le=100)
    """How many of the likeliest next tokens to name."""

    def run(self) -> dict[str, Any]:
        """Print the tensors, then what comes next."""
        import torch

        from groundup.models.hub import load_model
        from groundup.models.text.llama3_by_hand import forward_by_hand, summary
        from groundup.tokenizers.hub import load_tokenizer

        model, tokenizer = load_model(self.model, dtype="float32"), load_tokenizer(self.model)
        layers = model.config.num_hidden_layers
        if self.layer >= layers:
            raise UsageError(f"there is no layer {self.layer}: {self.model} has {layers}, from 0 to {layers - 1}")
        ids = tokenizer.encode(self.prompt, bos=self.bos and tokenizer.bos_id is not None)
        found = forward_by_hand(model, ids)  # type: ignore[arg-type]
        with torch.no_grad():
            difference = (model(torch.tensor([ids]))[0] - found["logits"]).abs().max().item()
        shown = {name: summary(tensor) for name, tensor in found.items() if self._shows(name)}
        say(f"{len(ids)} tokens: " + " ".join(repr(tokenizer.decode([i])) for i in ids) + "\n")
        rows = [[name, *(_cell(value) for value in facts.values())] for name, facts in shown.items()]
        say(table(rows, ["tensor", "shape", "mean", "std", "min", "max"]))
        best = found["probabilities"].topk(min(self.top, len(found["probabilities"])))
        following = [
            {"id": i, "token": tokenizer.decode([i]), "probability": p}
            for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        say("\nnext: " + ", ".join(f"{f['token']!r} {f['probability']:.1%}" for f in following))
        say(f"largest difference from the model's own logits: {difference:.2g}")
        return {"ids": ids, "tensors": shown, "next": following, "difference": difference}

    def _shows(self, name: str) -> bool:
        return self.layer == ALL_LAYERS or not name.startswith("layers.") or name.startswith(f"layers.{self.layer}.")


def _cell(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else f"{value:.3g}"
