"""Rotary position embedding (Su et al. 2021, RoFormer).

Pair j of a head's features is rotated by the angle  position * theta^(-2j / dim),  so that the product of a rotated
query and a rotated key depends on their distance alone. Two layouts of the pairs are in use:

    half-split   (GPT-NeoX, Hugging Face Llama)   feature j is paired with feature j + dim/2
    interleaved  (RoFormer, Meta's Llama, GLM)    feature 2j is paired with feature 2j + 1

They are equal up to a fixed permutation of the features, `interleaved_to_half_split`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's stretch of the long wavelengths (Grattafiori et al. 2024): short ones are kept, long ones divided by
    `factor`, those between are blended.
    """

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __call__(self, frequencies: Tensor) -> Tensor:
        wavelengths = 2 * math.pi / frequencies
        turns = self.original_max_position_embeddings / wavelengths
        # blend = 1 keeps a frequency, 0 divides it by the factor
        blend = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        blend = blend.clamp(0, 1)
        return (1 - blend) * frequencies / self.factor + blend * frequencies


@dataclass(frozen=True)
class LinearScaling:
    """Position interpolation (Chen et al. 2023): all positions are divided by `factor`."""

    factor: float = 1.0

    def __call__(self, frequencies: Tensor) -> Tensor:
        return frequencies / self.factor


@dataclass(frozen=True)
class Rope:
    """Rotates the first `dim` features of each head. It holds no tensors: tables are computed once per forward call.

    Attributes:
        dim: rotated features of a head, even; the rest pass unchanged (partial RoPE).
        theta: base of the wavelengths.
        interleaved: pair neighbours instead of halves.
        scaling: changes the frequencies, for contexts longer than those seen in training.
    """

    dim: int
    theta: float = 10_000.0
    interleaved: bool = False
    scaling: Llama3Scaling | LinearScaling | None = None

    def frequencies(self, device: torch.device | None = None) -> Tensor:
        """theta^(-2j / dim) for j = 0 .. dim/2 - 1, float32, (dim / 2,)"""
        exponents = torch.arange(0, self.dim, 2, dtype=torch.int64, device=device).float() / self.dim
        frequencies = 1.0 / self.theta**exponents
        return frequencies if self.scaling is None else self.scaling(frequencies)

    def tables(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines, computed in float32. (B, T) -> twice (B, T, 1, dim / 2)"""
        angles = positions[..., None].float() * self.frequencies(positions.device)
        return angles.cos()[:, :, None].to(dtype), angles.sin()[:, :, None].to(dtype)

    def rotate(self, x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """(B, T, H, d) -> (B, T, H, d)"""
        cos, sin = tables
        if self.dim == x.shape[-1]:
            return self._rotate(x, cos, sin)
        turned = self._rotate(x[..., : self.dim], cos, sin)
        return torch.cat((turned, x[..., self.dim :]), dim=-1)

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        # (a, b) -> (a cos - b sin, b cos + a sin)
        if self.interleaved:
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def interleaved_to_half_split(weight: Tensor, num_heads: int) -> Tensor:
    """Reorder the output features of a query or key projection so that half-split rotation equals interleaved rotation
    of the original. Its inverse is `half_split_to_interleaved`. (H * d, ...) -> (H * d, ...)
    """
    heads = weight.unflatten(0, (num_heads, -1, 2))  # (H, d/2, 2, ...)
    return heads.transpose(1, 2).flatten(0, 2)


def half_split_to_interleaved(weight: Tensor, num_heads: int) -> Tensor:
    """The inverse of `interleaved_to_half_split`."""
    heads = weight.unflatten(0, (num_heads, 2, -1))  # (H, 2, d/2, ...)
    return heads.transpose(1, 2).flatten(0, 2)
