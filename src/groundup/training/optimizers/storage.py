"""Where an optimizer's weights and gradients lie.

An element-wise rule (Adam, SGD) on a hundred tensors is a hundred small loops, and each has its own overhead. Laid end
to end in one buffer they are one loop over memory. `FlatStorage` moves the parameters of a group into such a buffer,
each parameter becoming a view of it. Below fp32 there are two buffers: `compute`, which the parameters view, and
the fp32 `master`, which the optimizer updates (Micikevicius et al. 2018). Gradients are gathered into an fp32 buffer,
so the sum over micro-batches is exact to fp32 whatever the parameters' dtype.

`SeparateStorage` has the same interface and leaves each tensor where it is (tensors that are sharded over devices).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

_ALIGNMENT = 16
"""Every tensor starts at a multiple of 16 elements: 64 bytes in fp32, a cache line."""


class SeparateStorage:
    """Each parameter on its own; below fp32 with an fp32 master beside it."""

    flat_weights: Tensor | None = None

    def __init__(self, parameters: Sequence[Parameter]):
        self.parameters = list(parameters)
        self.weights = [p.detach() if _is_full(p) else p.detach().float() for p in self.parameters]
        self.has_master = not all(map(_is_full, self.parameters))

    def present(self) -> list[bool]:
        """Which parameters have a gradient."""
        return [p.grad is not None for p in self.parameters]

    def gather(self) -> None:
        """Gradients stay where autograd puts them."""

    def gradients(self) -> list[Tensor]:
        """The tensors that hold the gradients, to be clipped, unscaled or reduced in place."""
        return [p.grad for p in self.parameters if p.grad is not None]

    def gradient(self, index: int) -> Tensor:
        """One parameter's gradient in fp32."""
        grad = self.parameters[index].grad
        assert grad is not None
        return grad.float()

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def publish(self) -> None:
        """Round the masters into the parameters."""
        for parameter, weight in zip(self.parameters, self.weights, strict=True):
            if not _is_full(parameter):
                parameter.detach().copy_(weight)

    def adopt(self) -> None:
        """Take the parameters' present values as the masters."""
        for parameter, weight in zip(self.parameters, self.weights, strict=True):
            if not _is_full(parameter):
                weight.copy_(parameter.detach())


class FlatStorage:
    """The parameters of one dtype and device laid end to end.

    Attributes:
        flat_weights: (N,) fp32, the master weights; padding between tensors is zero.
        flat_gradients: (N,) fp32; valid where `present`.
        weights: views of `flat_weights`, one a parameter, in its shape.
    """

    def __init__(self, parameters: Sequence[Parameter]):
        self.parameters = list(parameters)
        first = self.parameters[0]
        self.spans: list[tuple[int, int]] = []
        size = 0
        for parameter in self.parameters:
            self.spans.append((size, parameter.numel()))
            size += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
        self.compute = torch.zeros(size, dtype=first.dtype, device=first.device)
        self.has_master = not _is_full(first)
        self.flat_weights = torch.zeros(size, device=first.device) if self.has_master else self.compute
        self.flat_gradients = torch.zeros_like(self.flat_weights)
        self.homes = self.views(self.compute)
        self.weights = self.views(self.flat_weights)
        self._gradients = self.views(self.flat_gradients)
        self._present = [False] * len(self.parameters)
        self.adopt()

    def views(self, flat: Tensor) -> list[Tensor]:
        """`flat` (N,) cut into the parameters' shapes."""
        pairs = zip(self.spans, self.parameters, strict=True)
        return [flat[start : start + size].view(parameter.shape) for (start, size), parameter in pairs]

    @torch.no_grad()
    def _move_in(self) -> None:
        """Make each parameter a view of `compute`; one whose storage was replaced meanwhile brings its new value."""
        for parameter, home, weight in zip(self.parameters, self.homes, self.weights, strict=True):
            if parameter.data_ptr() != home.data_ptr() or parameter.is_meta:
                home.copy_(parameter)
                weight.copy_(parameter)
                parameter.data = home

    def present(self) -> list[bool]:
        """Which parameters have a gradient, gathered or not."""
        return [held or p.grad is not None for held, p in zip(self._present, self.parameters, strict=True)]

    @torch.no_grad()
    def gather(self) -> None:
        """Add the parameters' `.grad` to the fp32 buffer and set them to None."""
        self._move_in()
        for index, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            if self._present[index]:
                self._gradients[index].add_(parameter.grad)
            else:
                self._gradients[index].copy_(parameter.grad)
            self._present[index] = True
            parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """The tensors that hold the gathered gradients: one buffer, or those views that have one."""
        if all(self._present):
            return [self.flat_gradients]
        return [g for g, held in zip(self._gradients, self._present, strict=True) if held]

    def gradient(self, index: int) -> Tensor:
        """One parameter's gathered gradient, fp32."""
        return self._gradients[index]

    def clear(self) -> None:
        """Forget the gradients."""
        self._present = [False] * len(self.parameters)
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the parameters."""
        if self.has_master:
            self.compute.copy_(self.flat_weights)

    @torch.no_grad()
    def adopt(self) -> None:
        """Take the parameters' present values as the masters."""
        self._move_in()
        if self.has_master:
            self.flat_weights.copy_(self.compute)


Storage = FlatStorage | SeparateStorage


def lay_out(parameters: Sequence[Parameter], *, flat: bool) -> list[Storage]:
    """Storage for a group: one flat buffer for each pair of dtype and device, or every tensor on its own."""
    if not flat:
        return [SeparateStorage(parameters)]
    alike: dict[tuple[torch.dtype, torch.device], list[Parameter]] = {}
    for parameter in parameters:
        alike.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    return [FlatStorage(same) for same in alike.values()]


def _is_full(parameter: Tensor) -> bool:
    return parameter.dtype in (torch.float32, torch.float64)
