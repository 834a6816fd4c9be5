"""(IA)3, infused adapter by inhibiting and amplifying inner activations (Liu et al. 2022).

keys      l_k * (W_k x)             values     l_v * (W_v x)             feed-forward   W_down (l_ff * act(W_up x))

The vectors begin at one, so the model begins as it was. A vector at an output scales the rows of the weight (and the
bias), one at an input its columns: merged, it costs nothing.
"""

from typing import Any

import torch
from torch import Tensor, nn

from groundup.adapters.configs.ia3 import IA3Config
from groundup.adapters.part import Part, placed_like
from groundup.adapters.plan import Plan, targets
from groundup.base.errors import UsageError
from groundup.layers.moe.experts import GroupedLinear


class IA3(Part):
    """A vector at one linear layer; one for each expert at the layers of a mixture.

    Args:
        layer: what it stands on.
        side: whether the layer's output or its input is multiplied.

    Attributes:
        ia3_l: (out, 1) or (1, in), with the experts before it: as the weight, but for the side that it leaves alone.
    """

    can_merge = True

    def __init__(self, layer: Any, side: str):
        super().__init__()
        experts, out_features, in_features = sizes(layer)
        shape = (out_features, 1) if side == "output" else (1, in_features)
        self.side = side
        self.ia3_l = nn.Parameter(torch.ones(*experts, *shape, **placed_like(layer)))

    def vector(self, args: tuple[Any, ...]) -> Tensor:
        """What stands for each row: (features,), or for sorted rows of experts (M, features)."""
        if self.ia3_l.ndim == 2:
            return self.ia3_l.flatten()
        return self.ia3_l.flatten(1).repeat_interleave(args[1], dim=0, output_size=len(args[0]))

    def before(self, base: nn.Module, *args: Any) -> tuple[Any, ...]:
        if self.side == "output":
            return args
        return ((args[0] * self.vector(args)).to(args[0].dtype), *args[1:])

    def after(self, base: nn.Module, args: tuple[Any, ...], y: Tensor) -> Tensor:
        return y if self.side == "input" else (y * self.vector(args)).to(y.dtype)

    @property
    def changes_input(self) -> bool:
        return self.side == "input"

    def merged(self, weight: Tensor, base: Tensor) -> Tensor:
        return weight * self.ia3_l

    def merged_bias(self, bias: Tensor) -> Tensor:
        return bias if self.side == "input" else bias * self.ia3_l.squeeze(-1)


def sizes(layer: Any) -> tuple[tuple[int, ...], int, int]:
    """((E,) or (), out, in) of a linear layer, or of the linear layers of experts."""
    if isinstance(layer, GroupedLinear):
        experts, out_features, in_features = layer.weight.shape
        return (experts,), out_features, in_features
    return (), layer.out_features, layer.in_features


def plan(model: nn.Module, config: IA3Config) -> Plan:
    """A vector at each of the named layers."""
    outputs, inputs = targets(model, config.outputs), targets(model, config.inputs)
    both = sorted({*outputs} & {*inputs})
    if both:
        raise UsageError(f"{both[0]} is named for its output and for its input: one vector stands at a layer")
    parts = {name: IA3(layer, "output") for name, layer in outputs.items()}
    parts |= {name: IA3(layer, "input") for name, layer in inputs.items()}
    return Plan({name: parts[name] for name, _ in model.named_modules() if name in parts})
