"""AWD-LSTM (Merity, Keskar & Socher 2017), from the recurrent language model: the last layer is as wide as the token
vectors, so that the head is the embedding; entries of the states' matrices are dropped; dropout masks are the same at
all positions; whole words are dropped; large and fast-changing outputs cost.
"""

from torch import Tensor, nn

from groundup.layers.context import Context
from groundup.layers.embedding import Embedding
from groundup.layers.recurrent import LSTM, Cell, Recurrent
from groundup.layers.regularisers import ActivationPenalty, LockedDropout, WordDropEmbedding
from groundup.models.configs.awd_lstm import AWDLSTMConfig
from groundup.models.text.rnn import RecurrentBlock, RecurrentLM


class LastBlock(RecurrentBlock):
    """The last layer: its outputs are kept small after dropout, and slow before it."""

    def __init__(self, rnn: Recurrent, dropout: nn.Module, size: ActivationPenalty, change: ActivationPenalty):
        super().__init__(rnn, dropout)
        self.size, self.change = size, change

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return self.size(self.dropout(self.change(self.rnn(x, context), context)), context)


class AWDLSTM(RecurrentLM):
    """AWD-LSTM."""

    Config = AWDLSTMConfig
    config: AWDLSTMConfig  # type: ignore[assignment]

    def make_embed(self) -> Embedding:
        c = self.config
        return WordDropEmbedding(c.vocab_size, c.input_size, c.word_dropout, c.input_dropout)

    def make_cell(self, i: int) -> Cell:
        c = self.config
        last = i == c.num_hidden_layers - 1
        return LSTM(c.hidden_size if i else c.input_size, c.input_size if last else c.hidden_size)

    def make_block(self, i: int) -> nn.Module:
        c = self.config
        rnn = Recurrent(self.make_cell(i), weight_dropout=c.weight_dropout)
        if i < c.num_hidden_layers - 1:
            return RecurrentBlock(rnn, LockedDropout(c.layer_dropout))
        small, slow = ActivationPenalty(alpha=c.activation_penalty), ActivationPenalty(beta=c.change_penalty)
        return LastBlock(rnn, LockedDropout(c.dropout), small, slow)
