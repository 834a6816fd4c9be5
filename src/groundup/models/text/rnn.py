"""The recurrent language model (Mikolov et al. 2010), with LSTM cells and dropout as in Zaremba et al. 2014.

    ids -> vectors -> dropout -> [cell over time -> dropout] x layers -> Linear -> logits

What it knows of the text is a state of fixed size, so a step costs the same after ten tokens and after a million.
Tensors are named as in PyTorch's word-language-model example: `encoder`, `rnn.weight_ih_l0`, ..., `decoder`.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from groundup.layers.context import Context
from groundup.layers.embedding import Embedding
from groundup.layers.recurrent import CELLS, LSTM, Cell, Recurrent, SimpleRNN
from groundup.models.configs.rnn import RNNConfig
from groundup.models.text.causal_lm import CausalLM
from groundup.state import LayerState, RecurrentState
from groundup.weights import Rule, WeightMap, rule


class RecurrentBlock(nn.Module):
    """A recurrent layer and dropout of what it gives. (B, T, D) -> (B, T, H)"""

    layout: ClassVar[str] = "rnn dropout"

    def __init__(self, rnn: Recurrent, dropout: nn.Module):
        super().__init__()
        self.rnn, self.dropout = rnn, dropout

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return self.dropout(self.rnn(x, context))


class RecurrentLM(CausalLM):
    """Recurrent layers between an embedding and a head."""

    Config = RNNConfig
    config: RNNConfig

    def make_embed(self) -> Embedding:
        c = self.config
        return Embedding(c.vocab_size, c.input_size, c.dropout)

    def make_norm(self) -> nn.Module:
        return nn.Identity()

    def make_cell(self, i: int) -> Cell:
        """Layer i's cell."""
        c = self.config
        width = c.hidden_size if i else c.input_size
        if c.cell == "simple":
            return SimpleRNN(width, c.hidden_size, act=c.hidden_act)
        return CELLS[c.cell](width, c.hidden_size)

    def make_block(self, i: int) -> nn.Module:
        return RecurrentBlock(Recurrent(self.make_cell(i)), nn.Dropout(self.config.dropout))

    def make_head(self) -> nn.Module:
        return nn.Linear(self.config.output_size, self.config.vocab_size)

    def make_layer_state(self, i: int, max_len: int) -> dict[str, LayerState]:
        return {"rnn": RecurrentState()}  # type: ignore[dict-item]

    @torch.no_grad()
    def init_weights(self) -> None:
        c = self.config
        bound = c.initializer_range or c.hidden_size**-0.5
        for parameter in self.parameters():
            parameter.uniform_(-bound, bound)
        if self.lm_head is not None:
            self.lm_head.bias.zero_()  # type: ignore[union-attr, operator]
        for cell in self.modules():
            if isinstance(cell, LSTM):  # one of the two biases of the forget gate, the second quarter
                cell.input_proj.bias.chunk(4)[1].fill_(c.forget_bias)

    @classmethod
    def weight_map(cls, config: RNNConfig) -> WeightMap:
        return WeightMap(
            rule("embed.tokens", "encoder"),
            *recurrent_rules("blocks.{i}.rnn", "rnn"),
            rule("lm_head", "decoder"),
            i=config.num_hidden_layers,
        )


def recurrent_rules(ours: str, theirs: str) -> list[Rule]:
    """Torch's names of a recurrent layer's tensors, `weight_ih_l0` for layer 0; the published GRU has two more."""
    parts = {"input_proj": "ih", "state_proj": "hh", "candidate_proj": "candidate"}
    return [
        rule(f"{ours}.cell.{part}.{leaf}", f"{theirs}.{leaf}_{sign}_l{{i}}")
        for part, sign in parts.items()
        for leaf in ("weight", "bias")
    ]
