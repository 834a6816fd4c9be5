"""Many feed-forward networks of one shape, for tokens that are sorted by expert.

The weights of all experts lie in one tensor. So that no loop runs over tokens, each token is copied once for each of
its experts, the copies are sorted by expert, and every expert multiplies its own run of rows:

    tokens      a b c          copies sorted     [a c | b c | . | a b]      sizes 2 2 0 2
    experts     0 3, 1 3, 0 1   by expert          0     1    2   3
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available
from torch.utils.flop_counter import register_flop_formula

from groundup.layers.activations import Activation
from groundup.layers.moe.routing import Routing, count


class GroupedLinear(nn.Module):
    """E linear layers; each multiplies its own run of rows.

    Args:
        num_experts: E.
        in_features, out_features: of each.
        bias: whether each has a bias.

    Attributes:
        weight: (E, out, in); bias: (E, out) or None.
    """

    def __init__(self, num_experts: int, in_features: int, out_features: int, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(num_experts, out_features)) if bias else None
        bound = in_features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor, sizes: Tensor) -> Tensor:
        """X (M, in), the rows of expert 0 first; sizes (E,) int64, how many each has -> (M, out)"""
        weight, bias = self.weight, self.bias
        kind = x.device.type
        if is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        y = grouped_product(x, weight, sizes)
        return y if bias is None else y + bias.repeat_interleave(sizes, dim=0, output_size=len(x))

    def extra_repr(self) -> str:
        """E, in, out."""
        experts, out, inner = self.weight.shape
        return f"{experts} x ({inner} -> {out})"


def grouped_product(x: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    """Rows x_m times the matrix of their expert: y = x_m W_e^T. (M, in), (E, out, in), (E,) -> (M, out)

    The sizes add up to M.
    """
    if x.is_cuda and x.dtype == torch.bfloat16 and not (x.shape[1] % 8 or weight.shape[1] % 8):
        return F.grouped_mm(x, weight.mT, offs=sizes.cumsum(0).int())
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.is_meta or not len(x):
        return _product(x, weight, sizes)
    # for the few rows of a step an operator of its own costs more than the products
    runs = [(e, size) for e, size in enumerate(sizes.tolist()) if size]
    rows = x.split([size for _, size in runs])
    # and weights may be stored in fewer bits than what is computed with (`generation.few_rows`)
    return torch.cat([part @ weight[e].T.to(part.dtype) for part, (e, _) in zip(rows, runs, strict=True)])


@torch.library.custom_op("groundup::grouped_product", mutates_args=())
def _product(x: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    y = x.new_empty(len(x), weight.shape[1])
    start = 0
    for e, size in enumerate(sizes.tolist()):
        if size:
            torch.mm(x[start : start + size], weight[e].T, out=y[start : start + size])
        start += size
    return y


@_product.register_fake
def _(x: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    return x.new_empty(len(x), weight.shape[1])


@torch.library.custom_op("groundup::grouped_product_backward", mutates_args=())
def _product_backward(x: Tensor, weight: Tensor, sizes: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    dx, dweight = torch.empty_like(x), torch.empty_like(weight)
    start = 0
    for e, size in enumerate(sizes.tolist()):
        if not size:
            dweight[e] = 0
            continue
        rows = slice(start, start + size)
        torch.mm(dy[rows], weight[e], out=dx[rows])  # dx = dy W
        torch.mm(dy[rows].T, x[rows], out=dweight[e])  # dW = dy^T x
        start += size
    return dx, dweight


@_product_backward.register_fake
def _(x: Tensor, weight: Tensor, sizes: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
    return *_product_backward(*ctx.saved_tensors, dy.contiguous()), None


_product.register_autograd(_gradients, setup_context=_remember)


@register_flop_formula(torch.ops.groundup.grouped_product)
def _operations(x: Any, weight: Any, sizes: Any, *_: Any, **__: Any) -> int:
    return 2 * x[0] * weight[1] * weight[2]


@register_flop_formula(torch.ops.groundup.grouped_product_backward)
def _operations_backward(x: Any, weight: Any, sizes: Any, dy: Any, *_: Any, **__: Any) -> int:
    return 4 * x[0] * weight[1] * weight[2]


class Experts(nn.Module):
    """E networks down(act(up(x))). What a token gets is the weighted sum of its experts' results.

    Args:
        num_experts: E.
        dim: D.
        hidden: F, of each expert.
        act: activation.
        bias: whether each layer of each expert has a bias.
        dropout: of the inner activations, in training: Switch drops more inside experts than elsewhere when it is
            fine-tuned, because each expert saw few tokens (Fedus et al. 2021, expert dropout).
    """

    def __init__(
        self,
        num_experts: int,
        dim: int,
        hidden: int,
        act: Activation = F.relu,
        *,
        bias: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.up_proj = GroupedLinear(num_experts, dim, hidden, bias)
        self.down_proj = GroupedLinear(num_experts, hidden, dim, bias)
        self.act, self.dropout = act, nn.Dropout(dropout)

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """(N, D) -> (N, D)"""
        k = routing.experts.shape[1]
        by_expert = routing.experts.flatten()  # (N k,)
        order = by_expert.argsort(stable=True)
        sizes = count(by_expert, routing.num_experts)
        if not routing.complete:
            order = order[: int(sizes.sum())]  # empty places are last
        y = self.down_proj(self.dropout(self.inner(x[order // k], sizes)), sizes)  # (M, D)
        y = y.new_zeros(len(by_expert), y.shape[1]).index_copy(0, order, y)  # back in the order of tokens
        weights = routing.weights.to(y.dtype)
        return torch.bmm(weights[:, None], y.unflatten(0, (-1, k))).squeeze(1)

    def inner(self, x: Tensor, sizes: Tensor) -> Tensor:
        """What goes into the last projection. (M, D) -> (M, F)"""
        return self.act(self.up_proj(x, sizes))


class GatedExperts(Experts):
    """E networks down(act(gate(x)) * up(x)), as Mixtral's (Jiang et al. 2024): SwiGLU with SiLU. Arguments as for
    `Experts`.
    """

    def __init__(self, num_experts: int, dim: int, hidden: int, act: Activation = F.silu, **settings: Any):
        super().__init__(num_experts, dim, hidden, act, **settings)
        self.gate_proj = GroupedLinear(num_experts, dim, hidden, settings.get("bias", False))

    def inner(self, x: Tensor, sizes: Tensor) -> Tensor:
        return self.act(self.gate_proj(x, sizes)) * self.up_proj(x, sizes)


class ClampedExperts(GatedExperts):
    """E networks down(g sigmoid(alpha g) (u + 1)) with g and u clamped: gpt-oss (OpenAI 2025).

    g = min(gate(x), limit), u = clamp(up(x), -limit, limit). Arguments as for `Experts`, and

    Args:
        alpha: slope of the sigmoid; 1.702 makes g sigmoid(alpha g) close to GELU.
        limit: where gate and up are cut.
    """

    def __init__(
        self, num_experts: int, dim: int, hidden: int, *, alpha: float = 1.702, limit: float = 7.0, bias: bool = True
    ):
        super().__init__(num_experts, dim, hidden, bias=bias)
        self.alpha, self.limit = alpha, limit

    def inner(self, x: Tensor, sizes: Tensor) -> Tensor:
        g = self.gate_proj(x, sizes).clamp(max=self.limit)
        u = self.up_proj(x, sizes).clamp(-self.limit, self.limit)
        return g * torch.sigmoid(self.alpha * g) * (u + 1)
