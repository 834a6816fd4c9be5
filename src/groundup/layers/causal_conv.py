"""A short convolution over each channel's last tokens, for layers that read a text from left to right (Mamba, Gu & Dao
2023), and the order in which such layers see the tokens of a padded row.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.layers.context import Context

Memory = dict[str, Tensor]
"""What a layer remembers of each row between calls."""


class CausalConv(nn.Conv1d):
    """Each channel's weighted sum over a token and those before it in its document: (B, T, E) -> (B, T, E)

    Args:
        channels: E.
        kernel: tokens that it sees, the present one included.
        bias: whether a bias is added.
    """

    def __init__(self, channels: int, kernel: int = 4, *, bias: bool = True):
        super().__init__(channels, channels, kernel, groups=channels, bias=bias)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tensor, documents: Tensor | None = None, memory: Memory | None = None
    ) -> Tensor:
        """X (B, T, E); documents (B, T) or None.

        With a memory each row is one document, padded on the left, which goes on from its entry `inputs`, (B,
        kernel - 1, E); that is replaced.
        """
        kernel, length = self.kernel_size[0], x.shape[1]
        before = None if memory is None else memory.get("inputs")
        whole = F.pad(x, (0, 0, kernel - 1, 0)) if before is None else torch.cat((before, x), dim=1)
        if memory is not None:
            if documents is not None:  # padding goes before what is remembered, so that tokens follow it
                seen = F.pad((documents != 0).int(), (kernel - 1, 0), value=1)
                order = seen.sort(dim=1, stable=True).indices
                whole = whole.gather(1, order[:, :, None].expand_as(whole))
            last = whole[:, length:]
            memory["inputs"] = last.clone() if length > 1 else last  # a view would keep the whole text alive
        if documents is None or memory is not None:
            return self._slide(whole)
        return self._within_documents(whole, documents)

    def _slide(self, whole: Tensor) -> Tensor:
        """(B, kernel - 1 + T, E) -> (B, T, E)"""
        if whole.shape[1] == self.kernel_size[0]:  # one token: a product costs less than calling a convolution
            y = (whole * self.weight[:, 0].T).sum(1, keepdim=True)
            return y if self.bias is None else y + self.bias
        # As an image of one row whose channels lie side by side: kernels take this layout as it is, without a copy.
        image = whole.mT[:, :, None]
        return F.conv2d(image, self.weight[:, :, None], self.bias, groups=self.groups)[:, :, 0].mT

    def _within_documents(self, whole: Tensor, documents: Tensor) -> Tensor:
        """The same, where tokens of other documents count as zeros."""
        kernel, length = self.kernel_size[0], documents.shape[1]
        y = torch.zeros_like(whole[:, :length]) if self.bias is None else self.bias.expand_as(whole[:, :length])
        ids = F.pad(documents, (kernel - 1, 0))
        for tap in range(kernel):
            same = ids[:, tap : tap + length] == documents
            y = y + torch.where(same[:, :, None], whole[:, tap : tap + length], 0) * self.weight[:, 0, tap]
        return y


def in_reading_order(x: Tensor, context: Context, memory: Memory | None, mix: Callable[..., Tensor]) -> Tensor:
    """mix(x, documents, memory), with a memory and padding on rows whose padding stands on the left, whatever side it
    stood on: so a row's tokens follow each other. (B, T, D) -> (B, T, D)
    """
    if memory is None or context.documents is None:
        return mix(x, context.documents, memory)
    order = (context.documents != 0).int().sort(dim=1, stable=True).indices
    index = order[:, :, None].expand_as(x)
    mixed = mix(x.gather(1, index), context.documents.gather(1, order), memory)
    return torch.empty_like(mixed).scatter(1, index, mixed)
