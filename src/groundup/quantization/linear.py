"""A linear layer whose matrix is stored in fewer bits."""

from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Levels(NamedTuple):
    """A matrix w = scale q + offset, or w = scale table[q], with a scale for each group of in / groups inputs.

    Attributes:
        q: (out, in) integers.
        scale: (out, groups) float32.
        offset: (out, groups) float32; None where it is 0.
        table: the name of one of `tables.TABLES`; empty for none.
    """

    q: Tensor
    scale: Tensor
    offset: Tensor | None = None
    table: str = ""


class QuantizedLinear(nn.Module):
    """y = x W^T + b, where W is made from what is stored whenever it is needed.

    What is stored are buffers: they take no gradient, and `.to(dtype)` leaves them alone, as their dtypes are part of
    the format. The bias stays a parameter. Gradients reach x: an adapter above a quantized layer learns, and between
    forward and backward no matrix is kept (QLoRA, Dettmers et al. 2023).

    Args:
        in_features, out_features: of the matrix.
        bias: whether there is one.

    A method gives `of`, `dequantize`, and where it has one a faster `product`.
    """

    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, bias: bool = False, device: Any = None):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bias = nn.Parameter(torch.zeros(out_features, device=device)) if bias else None

    @classmethod
    def of(cls, layer: nn.Module) -> Self:
        """The layer in fewer bits. `layer.weight` (out, in) floating."""
        raise NotImplementedError

    def dequantize(self) -> Tensor:
        """The matrix that the stored numbers stand for, (out, in) float32."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            y = _Product.apply(x, self)
        else:
            y = self.product(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def product(self, x: Tensor) -> Tensor:
        """The product x W^T in the dtype of x, without gradient. (..., in) -> (..., out)"""
        return F.linear(x, self.for_a_product().to(x.dtype))

    def for_a_product(self) -> Tensor:
        """As `dequantize`; what is returned may be overwritten by the next call on any layer."""
        return self.dequantize()

    def levels(self) -> Levels | None:
        """The matrix as integers with a scale for each group of inputs; None where it is not stored so."""
        return None

    @property
    def packed_numbers(self) -> int:
        """Numbers of the matrix, 0 where it is a parameter."""
        return 0 if "weight" in self._parameters else self.in_features * self.out_features

    @property
    def stored_bytes(self) -> int:
        """Bytes of the matrix as it is stored, with its scales."""
        return sum(buffer.nbytes for buffer in self.buffers())

    @property
    def bits_per_weight(self) -> float:
        """Bits a number of the matrix, with its scales."""
        return 8 * self.stored_bytes / (self.in_features * self.out_features)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """What `.to`, `.cuda`, `.half` call: the stored numbers move, and keep their dtypes."""
        kept = {name: None if buffer is None else buffer.dtype for name, buffer in self._buffers.items()}
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in self._buffers.items():
            old = before[name]
            if buffer is not None and old is not None and buffer.dtype != kept[name]:
                self._buffers[name] = old.to(buffer.device)
        return self

    def extra_repr(self) -> str:
        """in, out, bits."""
        return f"{self.in_features} -> {self.out_features}, {self.bits_per_weight:.2f} bits a weight"


class _Product(torch.autograd.Function):
    """x W^T, where W is made anew for the backward pass: dx = dy W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (dy,) = grads
        return dy @ ctx.layer.for_a_product().to(dy.dtype), None
