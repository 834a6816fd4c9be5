"""Linear layers and embeddings whose weights stay as they are stored."""

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.adapters.part import Adapted, weight_of
from groundup.base.console import note
from groundup.generation.few_rows.blocks import blocks_of
from groundup.quantization.linear import QuantizedLinear

WIDEST_STEP = 64  # what the kernel takes at once of a row, with the widest vectors
MOST_ROWS = 32  # from here on a general matrix product is as fast
LIKE = {torch.float32: np.empty(0, np.float32), torch.bfloat16: np.empty(0, np.uint16)}
"""The dtypes of weights that can be read, as the compiled functions are told them."""


class Stored:
    """How a linear layer's matrix lies in memory.

    Attributes:
        kept: the tensor that holds it; must outlive whoever has the address.
        address: where it begins; 0 for no layer.
        like: tells the compiled functions how its numbers are stored.
        shape: (out, in).
    """

    def __init__(self, layer: Any):
        blocks = None if layer is None or type(layer) is nn.Linear else blocks_of(layer)
        self.kept: Any = None if layer is None else layer.weight if blocks is None else blocks.data
        self.address = address(self.kept)
        self.like = None if layer is None else LIKE[self.kept.dtype] if blocks is None else blocks.like
        self.shape = (0, 0) if layer is None else (layer.out_features, layer.in_features)


class FewRowsLinear(nn.Module):
    """x @ weight^T + bias in float32, the weight as it is stored. Made from a linear layer; forward only.

    (..., D) float32 -> (..., N) float32
    """

    def __init__(self, linear: nn.Module):
        super().__init__()
        self.stored = Stored(linear)
        self.weight = getattr(linear, "weight", None)  # recurrent layers read it
        self.dense: Callable[[], Tensor] = functools.partial(weight_of, linear)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.float(), requires_grad=False)  # type: ignore[operator]
        self.fits = self.stored.shape[1] % WIDEST_STEP == 0

    def forward(self, x: Tensor) -> Tensor:
        n, k = self.stored.shape
        m = x.numel() // k
        if m > MOST_ROWS or not self.fits:
            return F.linear(x, self.dense().float(), self.bias)
        x = x.contiguous()
        y = torch.empty(*x.shape[:-1], n)
        compiled = kernels()
        with compiled.one_at_a_time:
            compiled.multiply(self.stored.address, x.data_ptr(), y.data_ptr(), n, m, k, self.stored.like)
        return y if self.bias is None else y.add_(self.bias)


class WidenedEmbedding(nn.Module):
    """Rows of a stored matrix, as float32."""

    def __init__(self, embedding: nn.Module):
        super().__init__()
        self.weight: Tensor = embedding.weight  # type: ignore[assignment]
        self.num_embeddings, self.embedding_dim = self.weight.shape

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight).float()


def stored_of(layer: nn.Module | None) -> Stored:
    """How the matrix of a layer lies in memory, exchanged already or not."""
    return layer.stored if isinstance(layer, FewRowsLinear) else Stored(layer)


def address(tensor: Tensor | None) -> int:
    """Where a tensor's numbers begin; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def same_weights(linears: list[Any]) -> bool:
    """Whether the compiled steps can read the weights of all of these layers, in one type."""
    if not all(readable(m) and m.in_features % WIDEST_STEP == 0 for m in linears):
        return False
    return len({str(Stored(m).like.dtype) for m in linears}) == 1  # type: ignore[union-attr]


def readable(layer: nn.Module) -> bool:
    """Whether the compiled functions can read a layer's matrix as it is stored."""
    if isinstance(layer, QuantizedLinear) and not isinstance(layer, Adapted):
        return blocks_of(layer) is not None
    return type(layer) is nn.Linear


def rows_of(x: Tensor) -> Tensor:
    """One token a row, (B, 1, D) -> (B, D), contiguous."""
    return x[:, 0].contiguous()


@functools.cache
def kernels() -> Any:
    """The compiled functions; imported late because numba is optional."""
    from groundup.generation.few_rows.kernels import attention, block, feed_forward, numbers, products

    step: Any = block.block_step
    kept = Path(step._cache.cache_path)  # where numba keeps what it compiled
    if not any(kept.glob("block.block_step-*.nbi")):
        note("Compiling the functions for decoding: once on this machine, some 10 seconds.")
    return SimpleNamespace(
        one_at_a_time=products.one_at_a_time,
        multiply=products.multiply,
        normalise=numbers.normalise,
        attention_step=attention.attention_step,
        mlp_step=feed_forward.mlp_step,
        experts_step=feed_forward.experts_step,
        block_step=block.block_step,
    )
