"""The form of a family's reference."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reference:
    """What one family is held against.

    Attributes:
        rows: the rows of the catalogue that the whole conformance proves for this family.
        cases: a name -> a function that makes a tiny transformers config. Empty where transformers lacks the family.
        own: a name -> a function that makes a tiny config of ours, where transformers lacks the family: behaviour is
            tested on it (steps, padding, packing, saving), and numbers elsewhere (`test_reference_numbers.py`).
        released: a published size -> its config.json in the spelling of its time. A comment beside it says what it was
            held against, or that it is from knowledge of the file.
        unused: fields of a released config.json that change nothing there, and that our size may leave out.
        parameters: a published size -> its parameters, as published or as the released files are known to hold.
        same_parameters: published sizes whose shape is that of another one in `parameters`.
        make: what makes the model of an own config, where new weights say nothing: a family that counts. Such a family
            does not learn by gradients.
        theirs_count: whether transformers builds the published sizes too.
        model_type: the family, where the file cannot be called by its name.
        older: keys inside rope_parameters -> how older config.json call them, where not by the same name.
        local_theta: how older config.json call the theta of layers with a window; None where they say no such thing.
        takes_positions: whether transformers takes position_ids; else it counts along the attention mask.
        trims: whether a state of this family can be trimmed.
        packs: whether a row may hold several documents.
        masks: whether transformers' model of this family heeds `attention_mask`.
        rtol, atol: allowed difference of logits and gradients; None for torch.testing's. Say why in the file.
    """

    rows: tuple[str, ...] = ()
    cases: dict[str, Callable[[], Any]] = field(default_factory=dict)
    own: dict[str, Callable[[], Any]] = field(default_factory=dict)
    released: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    parameters: dict[str, int] = field(default_factory=dict)
    same_parameters: tuple[str, ...] = ()
    make: Callable[[Any], Any] | None = None
    theirs_count: bool = True
    model_type: str | None = None
    older: dict[str, str] = field(default_factory=dict)
    local_theta: str | None = "rope_local_base_freq"
    takes_positions: bool = True
    trims: bool = True
    packs: bool = True
    masks: bool = True
    rtol: float | None = None
    atol: float | None = None

    @property
    def tolerance(self) -> dict[str, Any]:
        """Arguments for `assert_close`."""
        return {"rtol": self.rtol, "atol": self.atol}
