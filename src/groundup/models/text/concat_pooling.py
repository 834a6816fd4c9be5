"""A classifier over a language model's outputs, as in ULMFiT (Howard & Ruder 2018).

What a text is about may stand in a few of its words, so the last output alone does not do:

    h = [h_T ; max over t of h_t ; mean over t of h_t]        then norm, dropout, Linear, ReLU; norm, dropout, Linear
"""

from typing import Any

import torch
from torch import Tensor, nn

from groundup.layers.context import Context


class ConcatPooling(nn.Module):
    """(B, T, D) and documents (B, T), 0 for padding -> (B, 3 D): last, largest and mean output of each row."""

    def forward(self, hidden: Tensor, documents: Tensor | None = None) -> Tensor:
        if documents is None:
            return torch.cat((hidden[:, -1], hidden.amax(1), hidden.mean(1)), dim=-1)
        real = documents != 0  # (B, T)
        places = torch.arange(hidden.shape[1], device=hidden.device)
        last = hidden[torch.arange(len(hidden), device=hidden.device), torch.where(real, places, 0).amax(1)]
        largest = hidden.masked_fill(~real[..., None], -torch.inf).amax(1)
        mean = (hidden * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
        return torch.cat((last, largest, mean), dim=-1)


class TextClassifier(nn.Module):
    """A language model without its head, pooled, and two layers over it. ids (B, T) -> scores (B, C)

    The parts of the language model keep their names (`embed`, `blocks.{i}`, `norm`), so learning rates by depth and
    gradual unfreezing find them.

    Args:
        model: a language model; its head stays unused.
        classes: C.
        hidden: width of the layer between (50 in the paper).
        dropout: before the two layers.
    """

    def __init__(self, model: Any, classes: int, hidden: int = 50, dropout: tuple[float, float] = (0.4, 0.1)):
        super().__init__()
        self.config = model.config
        self.embed, self.blocks, self.norm = model.embed, model.blocks, model.norm
        self.pooling = ConcatPooling()
        width = 3 * self._width(model)
        self.score = nn.Sequential(
            *(nn.BatchNorm1d(width), nn.Dropout(dropout[0]), nn.Linear(width, hidden), nn.ReLU()),
            *(nn.BatchNorm1d(hidden), nn.Dropout(dropout[1]), nn.Linear(hidden, classes)),
        )
        self._positions = model.positions

    @staticmethod
    @torch.no_grad()
    def _width(model: Any) -> int:
        """Features of the model's outputs."""
        training = model.training
        model.eval()
        hidden = model(torch.zeros(1, 1, dtype=torch.int64, device=model.device), head=lambda hidden, _: hidden)
        model.train(training)
        return hidden.shape[-1]

    def forward(
        self, x: Tensor, *, positions: Tensor | None = None, documents: Tensor | None = None, head: Any = None
    ) -> Tensor:
        if positions is None:
            positions = self._positions(x.shape[1], documents, None, x.device)
        context = Context(positions, documents)  # type: ignore[arg-type]
        hidden = self.embed(x, context)
        for block in self.blocks.values():
            hidden = block(hidden, context)
        if self.norm is not None:
            hidden = self.norm(hidden)
        scores = self.score(self.pooling(hidden, documents))
        return scores if head is None else head(scores, None)
