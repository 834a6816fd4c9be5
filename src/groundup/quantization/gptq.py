"""GPTQ (Frantar et al. 2022): columns are rounded one after another, and those still to come make up for the error.

What counts is the layer's output on the texts: minimise |(W - Q) X|^2, whose Hessian is H = 2 X X^T for every row.
For column j, with the inverse Hessian of the columns that are not rounded yet,

    q_j = round(w_j),   e = (w_j - q_j) / [H^-1]_jj,   W_{:,k} -= e [H^-1]_jk  for all k > j

The rows of H^-1 that this needs, each divided by the root of its first element, are the rows of the upper Cholesky
factor U of the whole H^-1: so [H^-1]_jk / [H^-1]_jj = U_jk / U_jj, and nothing has to be inverted again. Columns go in
blocks: within a block the changes are made at once, to the rest by one product at the block's end.
"""

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.quantization.calibration import BlockByBlock, gather, sharing
from groundup.quantization.changes import Changes
from groundup.quantization.configs.gptq import GPTQConfig
from groundup.quantization.grouped_linear import GPTQLinear
from groundup.quantization.groups import Grouped, encode, group_count, scale_and_zero

BLOCK = 128
"""Columns of a block."""


def gptq(
    weight: Tensor,
    hessian: Tensor,
    bits: int = 4,
    group_size: int = 128,
    *,
    symmetric: bool = True,
    desc_act: bool = False,
    damping: float = 0.01,
    block: int = BLOCK,
) -> Grouped:
    """Round a matrix so that its products with the inputs change least.

    Args:
        weight: (out, in), floating; the work is done in its dtype.
        hessian: (in, in), sum of x x^T over the inputs; any factor.
        bits: of a number.
        group_size: inputs that share a scale; -1 is one group a row.
        symmetric: whether the zero stands in the middle, see `groups`.
        desc_act: columns with large inputs go first; groups are then of columns that follow in that order.
        damping: this share of the mean of the diagonal is added to it.
        block: columns of a block; the result is the same for all.

    Raises:
        UsageError: the Hessian has no inverse with that damping.
    """
    out, inner = weight.shape
    size = inner // group_count(inner, group_size)
    weight, hessian = weight.clone(), hessian.to(weight.dtype).clone()
    silent = hessian.diagonal() == 0
    hessian.diagonal()[silent] = 1
    weight[:, silent] = 0  # nothing is ever multiplied by them
    order = torch.arange(inner, device=weight.device)
    if desc_act:
        order = hessian.diagonal().argsort(descending=True, stable=True)
        weight, hessian = weight[:, order], hessian[order][:, order]
    hessian.diagonal().add_(damping * hessian.diagonal().mean())
    upper = inverse_factor(hessian)

    codes = torch.empty_like(weight)
    scales, zeros = (weight.new_empty(out, inner // size) for _ in range(2))
    for start in range(0, inner, block):
        end = min(start + block, inner)
        errors = weight.new_empty(out, end - start)
        for j in range(start, end):
            group = j // size
            if j % size == 0:
                members = weight[:, j : j + size].clone()
                # those behind the block's end have not made up for this block's errors yet
                members[:, end - j :] -= errors[:, : j - start] @ upper[start:j, end : j + size]
                scales[:, group], zeros[:, group] = scale_and_zero(members, bits, symmetric)
            scale, zero = scales[:, group], zeros[:, group]
            codes[:, j] = encode(weight[:, j], scale, zero, bits)
            error = (weight[:, j] - scale * (codes[:, j] - zero)) / upper[j, j]
            weight[:, j:end] -= error[:, None] * upper[j, j:end]
            errors[:, j - start] = error
        weight[:, end:] -= errors @ upper[start:end, end:]
    places = torch.empty_like(order)
    places[order] = torch.arange(inner, device=weight.device)  # of each input in the order of work
    groups = places.div(size, rounding_mode="floor").int()
    return Grouped(codes[:, places].byte(), scales.half(), zeros.byte(), groups)


def inverse_factor(hessian: Tensor) -> Tensor:
    """U, upper triangular, with U^T U = H^-1. (in, in) -> (in, in)"""
    lower, problem = torch.linalg.cholesky_ex(hessian)
    if problem:
        raise UsageError("the inputs' second moments have no inverse: give more texts, or a larger `damping`")
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)


def calibrate(
    model: nn.Module, layers: dict[str, nn.Module], config: GPTQConfig, batches: list[Tensor], changes: Changes
) -> list[str]:
    """Put GPTQ's layers in the place of `layers`, block by block; later blocks see what the earlier ones give then.

    Within a block too, layers go in the order in which they are called, those that share an input together.

    Returns:
        the names of layers that nothing flowed through, which are left as they are.
    """
    walk, done = BlockByBlock(model, batches), set()
    for block_name, _ in walk:
        here = {name: layer for name, layer in layers.items() if name.startswith(block_name + ".")}
        for together in sharing(here, walk):
            inputs = gather({together[0]: here[together[0]]}, walk)[together[0]]
            for name in together:
                changes.put(name, quantized(name, here[name], inputs.gram, config))
                done.add(name)
    return [name for name in layers if name not in done]


def quantized(name: str, layer: nn.Module, gram: Tensor, config: GPTQConfig) -> GPTQLinear:
    """The layer rounded by GPTQ."""
    weight: Tensor = layer.weight.detach().float()  # type: ignore[operator, union-attr]
    settings = {"symmetric": config.symmetric, "desc_act": config.desc_act, "damping": config.damping}
    try:
        numbers = gptq(weight, gram, config.bits, config.group_size, **settings)  # type: ignore[arg-type]
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
    return GPTQLinear.from_grouped(numbers, config.bits, config.group_size, layer.bias)  # type: ignore[arg-type]
