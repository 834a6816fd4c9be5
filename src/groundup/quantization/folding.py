"""Factors of a layer's inputs that change nothing: divided out before the layer, multiplied into its matrix.

    y = W x = (W diag(s)) (diag(s)^-1 x),   diag(s)^-1 is taken in by what makes x

What can take it in: the gain of a norm whose result the layers read; the rows of v_proj, for o_proj; the rows of
up_proj, for down_proj of a gated MLP. Whether it really is so is not guessed from names: a place is used only if the
block gives the same with it as without, tried with powers of two, which round nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from groundup.layers.norms import OffsetRMSNorm
from groundup.quantization.calibration import BlockByBlock
from groundup.quantization.changes import Changes

TOLERANCE = 1e-3
"""Of what the block adds to the stream: a wrong place changes it by about its size."""


@dataclass
class Fold:
    """A place for factors.

    Attributes:
        name: of what takes the division in; source: that module.
        layers: dotted name -> linear layer, all that read the factors' inputs.
        channel: (in,) int64, which output of the source each input is.
        offset: the gain is offset + weight.
    """

    name: str
    source: nn.Module
    layers: dict[str, nn.Linear]
    channel: Tensor
    offset: float = 0.0

    @property
    def width(self) -> int:
        """Outputs of the source."""
        return self.source.weight.shape[0]  # type: ignore[union-attr, return-value]

    def per_channel(self, values: Tensor) -> Tensor:
        """Numbers of the inputs (in,) as numbers of the source's outputs: the mean of those that an output becomes."""
        counts = torch.zeros(self.width, device=values.device).index_add_(0, self.channel, torch.ones_like(values))
        return torch.zeros(self.width, device=values.device).index_add_(0, self.channel, values) / counts

    def apply(self, factors: Tensor, changes: Changes) -> None:
        """Fold factors (width,) > 0 in."""
        gain = self.source.weight.detach().float()  # type: ignore[union-attr, operator]
        shape = (-1,) + (1,) * (gain.ndim - 1)
        divided = (gain + self.offset) / factors.view(shape) - self.offset
        changes.set(self.source, "weight", divided)
        if getattr(self.source, "bias", None) is not None:
            changes.set(self.source, "bias", self.source.bias.detach().float() / factors)  # type: ignore[union-attr, operator]
        for layer in self.layers.values():
            changes.set(layer, "weight", layer.weight.detach().float() * factors[self.channel])


def folds(walk: BlockByBlock, prefix: str) -> tuple[list[Fold], list[str]]:
    """The places in the block at hand, in the order of its computation, and the linear layers that have none."""
    linear = {name: module for name, module in walk.block.named_modules() if type(module) is nn.Linear}
    once = _used_once(walk.model)
    possible = [*_norms(walk, linear), *_between(walk.block, linear)]
    good = []
    for fold in possible:
        alone = all(id(module) in once for module in (fold.source, *fold.layers.values()))
        if alone and changes_nothing(fold, walk):
            fold.name = f"{prefix}.{fold.name}"
            fold.layers = {f"{prefix}.{name}": layer for name, layer in fold.layers.items()}
            good.append(fold)
    placed = {name for fold in good for name in fold.layers}
    return good, [name for name in (f"{prefix}.{leaf}" for leaf in linear) if name not in placed]


def changes_nothing(fold: Fold, walk: BlockByBlock) -> bool:
    """Whether the block gives the same with factors folded in here."""
    factors = 2.0 ** (torch.arange(fold.width, device=fold.channel.device) % 3 - 1)
    x = walk.calls[0][0]
    before = walk.run(1)[0].float()
    changes = Changes(walk.model)
    fold.apply(factors, changes)
    after = walk.run(1)[0].float()
    changes.take_back()
    if before.shape == x.shape:
        size = (before - x.float()).norm()
    else:
        size = before.norm()
    return bool((after - before).norm() <= TOLERANCE * size)


def _used_once(model: nn.Module) -> set[int]:
    """Modules that stand in one place, with weights that no other module has."""
    owners: dict[int, int] = {}
    places: dict[int, int] = {}
    for _, module in model.named_modules(remove_duplicate=False):
        places[id(module)] = places.get(id(module), 0) + 1
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    return {
        id(module)
        for module in model.modules()
        if places[id(module)] == 1 and all(p is None or owners[id(p)] == 1 for p in module._parameters.values())
    }


def _norms(walk: BlockByBlock, linear: dict[str, nn.Linear]) -> Iterator[Fold]:
    """Modules with a gain whose result linear layers read."""
    gained = {
        name: module
        for name, module in walk.block.named_modules()
        if getattr(module, "weight", None) is not None and module.weight.ndim == 1  # type: ignore[union-attr, operator]
    }
    made: dict[str, Any] = {}
    read: dict[str, Any] = {}
    handles = [
        *(module.register_forward_hook(_keeping(made, name, result=True)) for name, module in gained.items()),
        *(module.register_forward_hook(_keeping(read, name, result=False)) for name, module in linear.items()),
    ]
    try:
        walk.run(1)
    finally:
        for handle in handles:
            handle.remove()
    for name, norm in gained.items():
        layers = {leaf: linear[leaf] for leaf, x in read.items() if x is made.get(name)}
        if layers:
            width = norm.weight.shape[0]  # type: ignore[union-attr, index]
            channel = torch.arange(width, device=norm.weight.device)  # type: ignore[union-attr, arg-type]
            yield Fold(name, norm, layers, channel, offset=float(isinstance(norm, OffsetRMSNorm)))


def _keeping(seen: dict[str, Any], name: str, result: bool) -> Callable[..., None]:
    """A hook that keeps what a module gave, or was given, in its first call."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen.setdefault(name, output if result else args[0])

    return hook


PAIRS = (("v_proj", "o_proj"), ("up_proj", "down_proj"))
"""Leaves of a module whose results the second reads channel by channel: values through the attention's weights, a gated
MLP's inner activations through the product with the gate."""


def _between(block: nn.Module, linear: dict[str, nn.Linear]) -> Iterator[Fold]:
    for parent, module in block.named_modules():
        for first, second in PAIRS:
            names = [f"{parent}.{leaf}" if parent else leaf for leaf in (first, second)]
            if not all(name in linear for name in names):
                continue
            source, layer = (linear[name] for name in names)
            channel = _channels(source.out_features, layer.in_features, getattr(module, "head_dim", 0))
            if channel is not None:
                yield Fold(names[0], source, {names[1]: layer}, channel.to(source.weight.device))


def _channels(outputs: int, inputs: int, head_dim: int) -> Tensor | None:
    """Which output each input is: itself, or, where query heads share a value head, that head's."""
    index = torch.arange(inputs)
    if outputs == inputs:
        return index
    if not head_dim or inputs % outputs or outputs % head_dim:
        return None
    sharing = inputs // outputs
    return index.div(head_dim * sharing, rounding_mode="floor") * head_dim + index % head_dim
