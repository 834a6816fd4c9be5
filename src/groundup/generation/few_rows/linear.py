"""Linear layers and embeddings whose weights stay as they are stored."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDEST_STEP = 64  # what the kernel takes at once of a row, with the widest vectors
MOST_ROWS = 32  # from here on a general matrix product is as fast
LIKE = {torch.float32: np.empty(0, np.float32), torch.bfloat16: np.empty(0, np.uint16)}
"""The dtypes of weights that can be read, as the compiled functions are told them."""


class FewRowsLinear(nn.Module):
    """x @ weight^T + bias in float32, the weight as it is stored. Made from a linear layer; forward only.

    (..., D) float32 -> (..., N) float32
    """

    def __init__(self, linear: nn.Module):
        super().__init__()
        self.weight: Tensor = linear.weight  # type: ignore[assignment]
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.float(), requires_grad=False)  # type: ignore[operator]
        self.fits = self.weight.shape[1] % WIDEST_STEP == 0

    def forward(self, x: Tensor) -> Tensor:
        n, k = self.weight.shape
        m = x.numel() // k
        if m > MOST_ROWS or not self.fits:
            return F.linear(x, self.weight.float(), self.bias)
        x = x.contiguous()
        y = torch.empty(*x.shape[:-1], n)
        compiled = kernels()
        with compiled.one_at_a_time:
            compiled.multiply(self.weight.data_ptr(), x.data_ptr(), y.data_ptr(), n, m, k, LIKE[self.weight.dtype])
        return y if self.bias is None else y.add_(self.bias)


class WidenedEmbedding(nn.Module):
    """Rows of a stored matrix, as float32."""

    def __init__(self, embedding: nn.Module):
        super().__init__()
        self.weight: Tensor = embedding.weight  # type: ignore[assignment]
        self.num_embeddings, self.embedding_dim = self.weight.shape

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight).float()


def address(tensor: Tensor | None) -> int:
    """Where a tensor's numbers begin; 0 for none."""
    return 0 if tensor is None else tensor.data_ptr()


def same_weights(linears: list[Any]) -> bool:
    """Whether the compiled steps can read the weights of all of these layers, in one type."""
    return all(type(m) is nn.Linear and m.in_features % WIDEST_STEP == 0 for m in linears) and (
        len({m.weight.dtype for m in linears}) == 1
    )


def rows_of(x: Tensor) -> Tensor:
    """One token a row, (B, 1, D) -> (B, D), contiguous."""
    return x[:, 0].contiguous()


def kernels() -> Any:
    """The compiled functions; imported late because numba is optional."""
    from groundup.generation.few_rows.kernels import attention, block, feed_forward, numbers, products

    return SimpleNamespace(
        one_at_a_time=products.one_at_a_time,
        multiply=products.multiply,
        normalise=numbers.normalise,
        attention_step=attention.attention_step,
        mlp_step=feed_forward.mlp_step,
        experts_step=feed_forward.experts_step,
        block_step=block.block_step,
    )
