"""What a recipe says of its own end, so that whoever repeats it learns whether all went as it should."""

from typing import Literal

from pydantic import Field, model_validator

from groundup.base.config import Config

Verdict = Literal["within", "below", "above"]


class Expected(Config):
    """The band in which the last validation loss lies, whatever the seed: measured, not hoped for."""

    steps: int = Field(ge=1)
    """The length of training for which that holds; another length is not judged."""
    validation_loss: tuple[float, float]
    """Lowest and highest loss on the held-out part, in nats a token."""

    @model_validator(mode="after")
    def _in_order(self) -> "Expected":
        low, high = self.validation_loss
        if not low <= high:  # so that NaN is refused too
            raise ValueError(f"validation_loss goes from the lowest to the highest loss, not from {low} to {high}")
        return self

    def verdict(self, step: int, loss: float | str | None) -> Verdict | None:
        """Where a loss lies; None for a run that did not end at `steps` or measured nothing."""
        if step != self.steps or loss is None:
            return None
        (low, high), loss = self.validation_loss, float(loss)  # metrics.jsonl writes one that is not finite as text
        return "within" if low <= loss <= high else "below" if loss < low else "above"

    def told(self) -> str:
        """The band as text."""
        low, high = self.validation_loss
        return f"{low:g} to {high:g}"
