"""LLM.int8(): integer products, and floating point for outliers (Dettmers et al. 2022).

In models of some billions of parameters a few columns of the hidden vectors are up to twenty times larger than all
others. One scale for a whole row then leaves the others few steps; so these columns are taken out:

    O = {j : max_i |x_ij| >= threshold}
    y = s_x s_w (q_x q_w^T over j not in O)  +  x_O W_O^T

with a scale for each row of x and each row of W (vector-wise), q = round(x / s), s = max |x| / 127 over the numbers
below the threshold.
"""

import torch
from torch import Tensor

from groundup.quantization.integers import Int8Linear


class LLMInt8Linear(Int8Linear):
    """Int8Linear that rounds its inputs too, but for columns with outliers.

    Attributes:
        threshold: the magnitude from which a number makes its column an outlier.
    """

    threshold: float = 6.0

    def product(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        q, scale, columns = split(rows, self.threshold)
        y = integer_product(q, self.q).float() * (scale[:, None] * self.scale)
        if len(columns):
            y = y + rows[:, columns].float() @ (self.q[:, columns].float() * self.scale[:, None]).T
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def levels(self) -> None:  # type: ignore[override]
        """None: a product of the integers alone would leave the inputs as they are."""


def split(x: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (N, D) -> q (N, D) int8, 0 in columns with outliers; the rows' scales (N,) float32; these columns, int64."""
    large = x.abs() >= threshold
    small, outlier = x.float().masked_fill(large, 0), large.any(dim=0)
    scale = small.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    q = (small / scale[:, None]).round().masked_fill(outlier, 0)
    return q.to(torch.int8), scale, outlier.nonzero().squeeze(1)


def integer_product(a: Tensor, b: Tensor) -> Tensor:
    """The product a b^T of int8 (N, D) and (M, D), summed in int32 -> (N, M) int32"""
    if a.device.type == "cpu":
        return torch._int_mm(a, b.T)
    # other devices' integer products ask for certain shapes; float64 holds these sums exactly
    return (a.double() @ b.double().T).to(torch.int32)
