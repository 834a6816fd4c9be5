"""What stands at one place of a model, and the layer that carries it.

An adapted layer is the old layer with a child more: its tensors are the old ones, under their old names, and it is
still of the old layer's class. So quantized layers, gradient checkpointing, observation and file formats meet what
they know, and any number of adapters can stand at one place:

    blocks.0.attn.q_proj.weight                           the base
    blocks.0.attn.q_proj.adapters.legal.lora_A.weight     of the adapter `legal`
"""

import copy
import functools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.layers.moe.experts import GroupedLinear


class Selection:
    """Which adapters act; one object that all adapted layers of a model look at.

    Attributes:
        names: the adapters that act, in this order: each gets what the one before it gave.
        rows: (B,) int64 or None. Where set, row b of the batch goes through adapter names[rows[b]] alone, and through
            none where rows[b] is -1.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.rows: Tensor | None = None

    def __deepcopy__(self, memo: Any) -> "Selection":
        return self  # a copied tree of modules over the same weights follows the same choice


class Part(nn.Module):
    """What an adapter puts on one layer. A kind overrides what it changes: `before`, `after`, or both."""

    can_merge: ClassVar[bool] = False
    """Whether the layer's own weights can take in what the part does: then it gives `merged`."""
    only_trains: ClassVar[bool] = False
    """Whether it does nothing to what the layer gives, only to how others learn: there is nothing to merge then."""

    @property
    def additive(self) -> bool:
        """Whether it adds to what the layer gives and nothing else, so that its place among others does not count."""
        return False

    def merged(self, weight: Tensor, base: Tensor) -> Tensor:
        """The layer's matrix with the part in it.

        Args:
            weight: as it is now, with the parts before this one in it.
            base: as it was without any part.
        """
        raise NotImplementedError

    def merged_bias(self, bias: Tensor) -> Tensor:
        """The layer's bias with the part in it."""
        return bias

    @property
    def changes_input(self) -> bool:
        """Whether it changes what the layer, and all other parts there, are called with."""
        return type(self).before is not Part.before

    def before(self, base: nn.Module, *args: Any) -> tuple[Any, ...]:
        """What the layer is called with in place of `args`."""
        return args

    def after(self, base: nn.Module, args: tuple[Any, ...], y: Any) -> Any:
        """What the layer gives in place of `y`, which it gave for `args`."""
        return y

    @classmethod
    def before_rows(cls, parts: Sequence["Part | None"], rows: Tensor, base: nn.Module, *args: Any) -> tuple[Any, ...]:
        """`before`, where row b belongs to parts[rows[b]]; for -1, and where that is None, nothing changes."""
        if cls.before is Part.before:
            return args
        given = by_rows(base, rows, args[0])
        x = given.clone()
        for part, index in _shares(parts, rows):
            x[index] = part.before(base, given[index], *args[1:])[0]
        return (x, *args[1:])

    @classmethod
    def after_rows(
        cls, parts: Sequence["Part | None"], rows: Tensor, base: nn.Module, args: tuple[Any, ...], y: Any
    ) -> Any:
        """`after`, where row b belongs to parts[rows[b]]."""
        if cls.after is Part.after:
            return y
        x, y = by_rows(base, rows, args[0]), by_rows(base, rows, y)
        changed = y.clone()
        for part, index in _shares(parts, rows):
            changed[index] = part.after(base, (x[index], *args[1:]), y[index])
        return changed


def by_rows(base: nn.Module, rows: Tensor, x: Tensor) -> Tensor:
    """A tensor whose first dimension is that of the batch; what is the same for all rows is repeated.

    Raises:
        UsageError: the layer sees tokens that are not laid out row by row, as experts do.
    """
    if len(x) == 1 and len(rows) > 1:
        x = x.expand(len(rows), *x.shape[1:])
    tokens = x.ndim if isinstance(base, nn.Embedding) else x.ndim - 1
    if tokens < 2 or len(x) != len(rows):
        raise UsageError(
            f"{getattr(base, 'where', type(base).__name__)} sees tokens that are not laid out row by row, shape "
            f"{tuple(x.shape)} for {len(rows)} rows: adapters for single rows cannot stand there, leave it out of "
            "their `targets`"
        )
    return x


def _shares(parts: Sequence[Part | None], rows: Tensor) -> Iterator[tuple[Part, Tensor]]:
    """Each part that some row belongs to, and those rows."""
    for number, part in enumerate(parts):
        index = (rows == number).nonzero()[:, 0]
        if part is not None and len(index):
            yield part, index


class Adapted(nn.Module):
    """What is added to the class of a layer that carries parts; see `adapted`.

    Attributes:
        adapters: name -> its part here.
        selection: which of them act.
        where: dotted name in the model.
        merged: the adapters that the weights have taken in.
        kept: the layer's own tensors while some are merged (`merge`), or None.
    """

    adapters: nn.ModuleDict
    selection: Selection
    where: str
    merged: tuple[str, ...]
    kept: dict[str, Tensor | None] | None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.selection.rows is not None:
            return self._forward_rows(self.selection.rows, *args, **kwargs)
        parts = self.acting()
        for part in parts:
            args = part.before(self, *args)
        y = self._own(super().forward, *args, **kwargs)
        for part in parts:
            y = part.after(self, args, y)
        return self._bent(y)

    def _own(self, forward: Any, *args: Any, **kwargs: Any) -> Any:
        """What the layer itself gives; of a linear layer whose results are bent after the product, the product."""
        return nn.Linear.forward(self, *args) if hasattr(self, "bend") else forward(*args, **kwargs)  # type: ignore[arg-type]

    def _bent(self, y: Any) -> Any:
        return self.bend(y) if hasattr(self, "bend") else y  # type: ignore[operator]

    def acting(self) -> list[Part]:
        """The parts that act here and are not merged."""
        names = [n for n in self.selection.names if n in self.adapters and n not in self.merged]
        return [self.adapters[name] for name in names]  # type: ignore[misc]

    def _forward_rows(self, rows: Tensor, *args: Any, **kwargs: Any) -> Any:
        parts: list[Any] = [dict(self.adapters.items()).get(name) for name in self.selection.names]
        kinds = list(dict.fromkeys(type(part) for part in parts if part is not None))
        alike = {kind: [part if type(part) is kind else None for part in parts] for kind in kinds}
        for kind in kinds:
            args = kind.before_rows(alike[kind], rows, self, *args)
        y = self._own(super().forward, *args, **kwargs)
        for kind in kinds:
            y = kind.after_rows(alike[kind], rows, self, args, y)
        return self._bent(y)


@functools.cache
def adapted_class(base: type[nn.Module]) -> type[nn.Module]:
    """The class of an adapted layer: the base's, with `Adapted` before it."""
    return type(f"Adapted{base.__name__}", (Adapted, base), {"__module__": __name__})


def adapted(layer: nn.Module, selection: Selection, where: str) -> nn.Module:
    """The layer with a place for adapters. The old one stays as it was; its tensors are shared."""
    new = copy.copy(layer)
    new._modules = dict(layer._modules)
    new._parameters, new._buffers = dict(layer._parameters), dict(layer._buffers)
    new.__class__ = adapted_class(type(layer))
    new.adapters = nn.ModuleDict()
    new.selection, new.where, new.merged, new.kept = selection, where, (), None  # type: ignore[assignment]
    return new


def plain(layer: nn.Module) -> nn.Module:
    """The layer without a place for adapters; the inverse of `adapted`."""
    new = copy.copy(layer)
    new._modules = {name: child for name, child in layer._modules.items() if name != "adapters"}
    new.__class__ = type(layer).__mro__[2]
    for name in ("selection", "where", "merged", "kept"):
        del new.__dict__[name]
    return new


def weight_of(layer: nn.Module) -> Tensor:
    """The matrix that a linear layer multiplies by, (out, in), whatever it is stored as."""
    dequantize = getattr(layer, "dequantize", None)
    return dequantize() if dequantize is not None else layer.weight  # type: ignore[return-value]


def base_weight(layer: nn.Module) -> Tensor:
    """As `weight_of`, without what is merged into it; that of an embedding is (D, V)."""
    kept = getattr(layer, "kept", None)
    if kept is not None:
        layer = unmerged(layer)
    weight = weight_of(layer)
    return weight.T if isinstance(layer, nn.Embedding) else weight


def base_shape(layer: nn.Module) -> tuple[int, ...]:
    """The shape of `base_weight`; a matrix in fewer bits is not made for it."""
    if isinstance(layer, nn.Embedding):
        return layer.embedding_dim, layer.num_embeddings
    if isinstance(layer, GroupedLinear):
        return tuple(layer.weight.shape)
    return layer.out_features, layer.in_features  # type: ignore[return-value]


def unmerged(layer: Any) -> nn.Module:
    """A view of a layer with its own tensors in place of the merged ones."""
    view = copy.copy(layer)
    view._parameters = {name: layer.kept.get(name, p) for name, p in layer._parameters.items()}
    view._buffers = {name: layer.kept.get(name, b) for name, b in layer._buffers.items()}
    return view


def placed_like(layer: nn.Module) -> dict[str, Any]:
    """Where new weights for a layer go, and their dtype: its device, and float32 where it computes in fewer bits."""
    tensor = next(iter([*layer.parameters(), *layer.buffers()]), torch.empty(0))
    return {"device": tensor.device, "dtype": torch.float64 if tensor.dtype == torch.float64 else torch.float32}
