"""P-tuning (Liu et al. 2021): the vectors of a soft prompt come from a small network, so that they learn together;
tokens of real text, anchors, may stand between them.

LSTM    P = MLP([LSTM forwards(H) ; LSTM backwards(H)])       H (n, D) learned; two layers with ReLU
MLP     P = MLP(H)                                            three layers with ReLU
"""

from typing import Any

import torch
from torch import Tensor, nn

from groundup.adapters.ahead import Ahead, embedding_of
from groundup.adapters.configs.p_tuning import PTuningConfig
from groundup.adapters.part import placed_like
from groundup.adapters.plan import Plan
from groundup.adapters.prompt import SoftPrompt, vectors_of
from groundup.base.errors import UsageError


class PromptEncoder(Ahead):
    """Pseudo tokens through a network, anchors as they are; the network can be thrown away after training.

    Args:
        dim: D.
        config: length, network, its width, layers and dropout.
        anchors: (a, D), the vectors of the anchor tokens in the order of their places.
        where: device and dtype.
    """

    anchors: Tensor
    order: Tensor

    def __init__(self, dim: int, config: PTuningConfig, anchors: Tensor, where: dict[str, Any]):
        super().__init__()
        self.inserted, width = config.length, config.hidden
        places = sorted(config.anchors)
        pseudo = [place for place in range(config.length) if place not in config.anchors]
        self.register_buffer("anchors", anchors, persistent=False)
        self.register_buffer("order", torch.tensor([*pseudo, *places], device=where["device"]).argsort(), False)
        self.embedding = nn.Embedding(len(pseudo), dim, **where)
        if config.encoder == "lstm":
            self.lstm_head: Any = nn.LSTM(
                dim, width, config.layers, dropout=config.dropout, bidirectional=True, batch_first=True, **where
            )
            shapes = [(2 * width, 2 * width), (2 * width, dim)]
        else:
            self.lstm_head = None
            shapes = [(dim, width), (width, width), (width, dim)]
        layers = [layer for shape in shapes for layer in (nn.Linear(*shape, **where), nn.ReLU())]
        self.mlp_head = nn.Sequential(*layers[:-1])

    def vectors(self) -> Tensor:
        x = self.embedding.weight
        if self.lstm_head is not None:
            x = self.lstm_head(x[None])[0][0]
        return torch.cat((self.mlp_head(x), self.anchors))[self.order]

    @torch.no_grad()
    def baked(self) -> SoftPrompt:
        """The vectors alone, without the network."""
        training = self.training
        prompt = SoftPrompt(self.eval().vectors().clone())
        self.train(training)
        return prompt


def plan(model: Any, config: PTuningConfig) -> Plan:
    """New pseudo tokens and a new network."""
    embed, where = embedding_of(model, "P-tuning"), placed_like(model.embed)
    places = sorted(config.anchors)
    if places and not 0 <= places[0] <= places[-1] < config.length:
        raise UsageError(f"anchors stand at places 0 to {config.length - 1} of the prompt, not at {places}")
    if len(places) == config.length:
        raise UsageError("all places of the prompt hold anchors: nothing is left to learn")
    dim = vectors_of(embed, torch.zeros(1, dtype=torch.int64)).shape[-1]
    anchors = vectors_of(embed, torch.tensor([config.anchors[place] for place in places], dtype=torch.int64))
    return Plan(prompt=PromptEncoder(dim, config, anchors.to(**where), where))
