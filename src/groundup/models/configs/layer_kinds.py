"""Layers of two kinds in one model: those that see a window of tokens, and those that see all.

config.json tells the kind of each layer in `layer_types`, older files by a number: every layer of that number sees all.
Rotary positions may differ by kind; then `rope_parameters` holds an object for each.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.base.errors import CheckpointError
from groundup.base.hf_config import per_layer_type
from groundup.models.configs.base import ModelConfig

LayerType = Literal["full_attention", "sliding_attention"]
FULL: LayerType = "full_attention"
SLIDING: LayerType = "sliding_attention"


class LayerKinds(ModelConfig):
    """What configs of such families share; a family takes it as its second base."""

    period: ClassVar[int]
    """Every layer of this number, counted from 1, sees all; the others see a window."""

    sliding_window: int | None = Field(default=4096, gt=0)
    """Tokens that each token sees in layers with a window, itself included."""
    layer_types: list[LayerType] | None = None
    """What each layer sees; by turns when not given."""

    @model_validator(mode="after")
    def _every_layer_has_a_type(self) -> "LayerKinds":
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(
                f"layer_types tells of {len(self.layer_types)} layers, num_hidden_layers of {self.num_hidden_layers}"
            )
        return self

    def kind(self, i: int) -> LayerType:
        """What layer i sees."""
        if self.layer_types is not None:
            return self.layer_types[i]
        return SLIDING if (i + 1) % self.period else FULL

    def window(self, i: int) -> int | None:
        """How many tokens layer i sees; None for all."""
        return self.sliding_window if self.kind(i) == SLIDING else None

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Older files tell the kinds by a number."""
        return cls.kinds_from_number(super().translate(values))

    @classmethod
    def kinds_from_number(cls, values: dict[str, Any]) -> dict[str, Any]:
        """config.json without `sliding_window_pattern`, and with `layer_types` where the number is not the family's."""
        values = dict(values)
        names = ("sliding_window_pattern", "_sliding_window_pattern")
        found = [values.pop(name) for name in names if name in values]
        period = next((number for number in found if number is not None), cls.period)
        if type(period) is not int or period < 1:
            raise CheckpointError(
                f"config.json: sliding_window_pattern must be a whole number above 0, not {period!r:.80}"
            )
        if period != cls.period and "layer_types" not in values:
            layers = int(values.get("num_hidden_layers", cls.model_fields["num_hidden_layers"].default))
            values["layer_types"] = [SLIDING if (i + 1) % period else FULL for i in range(layers)]
        return values

    def to_hf(self) -> dict[str, Any]:
        """config.json, with a type for each layer."""
        return super().to_hf() | {"layer_types": [self.kind(i) for i in range(self.num_hidden_layers)]}


def one_rope(values: dict[str, Any], name: str, theta: float) -> dict[str, Any]:
    """config.json with the rotary settings of layers that see all, and the theta of windows beside them.

    Args:
        values: config.json; `rope_parameters` may hold one object, or one for each kind.
        name: the field for the theta of windows.
        theta: what it is where the file has an object for each kind and tells none.

    Raises:
        CheckpointError: rotary positions of windows that are more than a theta.
    """
    rope = dict(values.get("rope_parameters") or {})
    if not per_layer_type(rope):
        return values
    local = dict(rope.get(SLIDING) or {})
    kind = local.get("rope_type", local.get("type", "default"))
    if kind != "default":
        raise CheckpointError(
            f"config.json: rotary positions of layers with a window are not scaled, but rope_type is {kind!r:.80}"
        )
    return values | {"rope_parameters": dict(rope.get(FULL) or {}), name: local.get("rope_theta", theta)}


def rope_of_each_kind(values: dict[str, Any], name: str) -> dict[str, Any]:
    """The inverse of `one_rope`: rotary settings for each kind of layer."""
    theta = values[name]
    rest = {key: value for key, value in values.items() if key != name}
    return rest | {
        "rope_parameters": {FULL: values["rope_parameters"], SLIDING: {"rope_type": "default", "rope_theta": theta}}
    }
