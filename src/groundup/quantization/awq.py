"""AWQ (Lin et al. 2023): inputs that are large on average get finer steps, by factors that change nothing else.

    Q(W diag(s)) diag(s)^-1 x,   s_j = (mean |x_j|)^alpha,   alpha in [0, 1) by search

Then each group's largest number is cut where that lessens the error, and all is rounded to the nearest. Both searches
minimise the error of the layers' outputs, which needs no texts again: with G = sum of x x^T,

    sum over tokens |(W' - W) x|^2 = tr((W' - W) G (W' - W)^T)
"""

import torch
from torch import Tensor, nn

from groundup.quantization.calibration import BlockByBlock, Inputs, gather
from groundup.quantization.changes import Changes
from groundup.quantization.configs.awq import AWQConfig
from groundup.quantization.folding import Fold, folds
from groundup.quantization.grouped_linear import AWQLinear
from groundup.quantization.groups import encode, group_count, round_to_nearest, scale_and_zero

STEPS = 20
"""Values of alpha that are tried."""
CUTS = tuple(1 - i / 20 for i in range(10))
"""Shares of a group's largest number at which it may be cut."""
UNCUT = ("q_proj", "k_proj")
"""Leaves that keep their largest numbers: their errors are multiplied with each other."""


def output_error(difference: Tensor, gram: Tensor) -> float:
    """Sum over tokens of |difference x|^2. (out, in), (in, in)"""
    return float(((difference @ gram) * difference).sum())


def best_factors(fold: Fold, inputs: Inputs, config: AWQConfig, targets: set[str]) -> Tensor:
    """The factors of a place that lead to the least error of its layers' outputs. (width,)"""
    size = fold.per_channel(inputs.mean).clamp(min=1e-4)
    weights = [layer.weight.detach().float() for name, layer in fold.layers.items() if name in targets]
    best, least = torch.ones_like(size), float("inf")
    for step in range(STEPS):
        factors = size ** (step / STEPS)
        factors = factors / (factors.max() * factors.min()).sqrt()
        wide = factors[fold.channel]
        error = 0.0
        for weight in weights:
            rounded = round_to_nearest(weight * wide, config.bits, config.group_size).dequantize() / wide
            error += output_error(rounded - weight, inputs.gram)
        if error < least:
            best, least = factors, error
    return best


def cut(weight: Tensor, gram: Tensor, bits: int, group_size: int) -> Tensor:
    """The matrix with each group's numbers cut where its part of the output then errs least. (out, in)"""
    count = group_count(weight.shape[1], group_size)
    size = weight.shape[1] // count
    parts = weight.unflatten(1, (count, size))  # (out, groups, size)
    within = gram.view(count, size, count, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # (groups, size, size)
    largest = parts.abs().amax(-1, keepdim=True)
    best, least = parts, torch.full_like(parts[..., 0], torch.inf)
    for share in CUTS:
        tried = parts.clamp(-largest * share, largest * share)
        scale, zero = (each[..., None] for each in scale_and_zero(tried, bits, symmetric=False))
        rounded = scale * (encode(tried, scale, zero, bits) - zero)
        difference = rounded - parts
        error = (torch.einsum("ogs,gst->ogt", difference, within) * difference).sum(-1)
        better = error < least
        best, least = torch.where(better[..., None], tried, best), torch.where(better, error, least)
    return best.flatten(1)


def scale(walk: BlockByBlock, block_name: str, config: AWQConfig, targets: set[str], changes: Changes) -> list[str]:
    """Fold the best factors into the block at hand. Returns the targets there that have no place for them."""
    places, without = folds(walk, block_name)
    for fold in places:
        if targets & fold.layers.keys():
            first = next(iter(fold.layers.items()))
            inputs = gather(dict([first]), walk)[first[0]]
            fold.apply(best_factors(fold, inputs, config, targets), changes)
    return [name for name in without if name in targets]


def calibrate(
    model: nn.Module, layers: dict[str, nn.Module], config: AWQConfig, batches: list[Tensor], changes: Changes
) -> list[str]:
    """Put AWQ's layers in the place of `layers`, block by block.

    Returns:
        the names of layers that nothing flowed through, which are left as they are.
    """
    walk, done = BlockByBlock(model, batches), set()
    for block_name, _ in walk:
        here = {name: layer for name, layer in layers.items() if name.startswith(block_name + ".")}
        if config.scale:
            scale(walk, block_name, config, set(here), changes)
        seen = gather(here, walk)
        for name, inputs in seen.items():
            weight: Tensor = here[name].weight.detach().float()  # type: ignore[operator, union-attr]
            if config.clip and name.rpartition(".")[2] not in UNCUT:
                weight = cut(weight, inputs.gram, config.bits, config.group_size)
            numbers = round_to_nearest(weight, config.bits, config.group_size)
            bias: nn.Parameter | None = here[name].bias  # type: ignore[assignment]
            changes.put(name, AWQLinear.from_grouped(numbers, config.bits, config.group_size, bias))
            done.add(name)
    return [name for name in layers if name not in done]
