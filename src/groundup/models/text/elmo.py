"""ELMo (Peters et al. 2018): a language model that reads forwards and one that reads backwards, over token vectors made
from characters; what both know of a token, mixed over the layers, is its contextual vector.

    x_k = CNN(characters of t_k)                    h_0 = [x_k ; x_k]
    forwards   p(t_{k+1} | t_1 .. t_k)              h_i = [forwards_i ; backwards_i], layers after the first residual
    backwards  p(t_{k-1} | t_k .. t_N)
    ELMo_k = γ sum_i softmax(s)_i h_i               s and γ learned by the task that uses the vectors

Both share the token vectors and the softmax. `forward` is the one that reads forwards, which can generate; the
objective `bidirectional_language_modeling` trains both. `layers` gives h_0 to h_L.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.layers.char_cnn import CharacterCNN
from groundup.layers.context import Context
from groundup.layers.embedding import Embedding
from groundup.layers.recurrent import ProjectedLSTM, Recurrent
from groundup.models.configs.elmo import ElmoConfig
from groundup.models.text.causal_lm import CausalLM
from groundup.state import LayerState, RecurrentState
from groundup.weights import WeightMap, rule

if TYPE_CHECKING:
    from groundup.tokenizers.tokenizer import Tokenizer


class ElmoBlock(nn.Module):
    """One layer in both directions. (B, T, 2 D) -> (B, T, 2 D), the first half read forwards; (B, T, D) for the first.

    With a state only the first half is computed: the end of the text is not known yet, and the other half is zeros.
    """

    layout: ClassVar[str] = "( forwards|backwards +"

    def __init__(self, forwards: Recurrent, backwards: Recurrent, dropout: float, residual: bool):
        super().__init__()
        self.forwards, self.backwards, self.residual = forwards, backwards, residual
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        before, after = x.chunk(2, dim=-1) if self.residual else (x, x)
        y = self._one(self.forwards, before, context)
        z = torch.zeros_like(y) if context.state is not None else self._one(self.backwards, after, context)
        return torch.cat((y, z), dim=-1)

    def _one(self, layer: Recurrent, x: Tensor, context: Context) -> Tensor:
        y = self.dropout(layer(x, context))
        return x + y if self.residual else y


class ElmoHead(nn.Module):
    """The softmax that both directions share; called as it is it reads the forward half. (B, T, 2 D) -> (B, T, V)"""

    def __init__(self, dim: int, words: int):
        super().__init__()
        self.linear = nn.Linear(dim, words)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.linear(hidden[..., : self.linear.in_features])


class Elmo(CausalLM):
    """A language model in both directions."""

    Config = ElmoConfig
    config: ElmoConfig

    def make_embed(self) -> Any:
        c = self.config
        if not c.characters:
            return Embedding(c.vocab_size, c.hidden_size, c.dropout)
        return CharacterCNN(
            c.vocab_size,
            c.hidden_size,
            c.filters,
            char_dim=c.char_dim,
            highways=c.highways,
            longest=c.longest_word,
            dropout=c.dropout,
        )

    def make_block(self, i: int) -> nn.Module:
        c = self.config
        cells = [ProjectedLSTM(c.hidden_size, c.cell_size, c.hidden_size, c.clip, input_bias=False) for _ in range(2)]
        return ElmoBlock(Recurrent(cells[0]), Recurrent(cells[1], backwards=True), c.dropout, residual=i > 0)

    def make_norm(self) -> nn.Module:
        return nn.Identity()

    def make_head(self) -> nn.Module:
        return ElmoHead(self.config.hidden_size, self.config.vocab_size)

    def make_layer_state(self, i: int, max_len: int) -> dict[str, LayerState]:
        return {"forwards": RecurrentState()}  # type: ignore[dict-item]

    @torch.no_grad()
    def init_weights(self) -> None:
        bound = self.config.hidden_size**-0.5
        for parameter in self.parameters():
            parameter.uniform_(-bound, bound)
        for cell in self.modules():
            if isinstance(cell, ProjectedLSTM):
                cell.state_proj.bias.chunk(4)[1].fill_(1.0)  # forget gates begin open

    def learn_vocabulary(self, tokenizer: "Tokenizer") -> None:
        """Keep how the tokenizer's tokens are spelt."""
        if isinstance(self.embed, CharacterCNN):
            if tokenizer.vocab_size > self.config.vocab_size:
                raise UsageError(
                    f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model only {self.config.vocab_size:,}"
                )
            self.embed.spell([tokenizer.decode([id]) for id in range(tokenizer.vocab_size)])

    def layers(self, x: Tensor, documents: Tensor | None = None) -> list[Tensor]:
        """h_0 to h_L of ids (B, T), (B, T, 2 D) each; documents as in `forward`."""
        positions = self.positions(x.shape[1], documents, None, x.device)
        context = Context(positions, documents)
        h = self.embed(x, context)  # type: ignore[misc]
        found = [torch.cat((h, h), dim=-1)]
        for block in self.blocks.values():
            h = block(h, context)
            found.append(h)
        return found

    @classmethod
    def weight_map(cls, config: ElmoConfig) -> WeightMap:
        return WeightMap(
            rule("embed", "token_embedder"),
            rule("blocks.{i}.forwards.cell", "forward_layer_{i}"),
            rule("blocks.{i}.backwards.cell", "backward_layer_{i}"),
            rule("lm_head.linear", "softmax"),
            i=config.num_hidden_layers,
        )


class ScalarMix(nn.Module):
    """γ sum_i softmax(s)_i h_i: how a task weighs the layers (Peters et al. 2018, equation 1).

    Args:
        layers: how many, L + 1.
    """

    def __init__(self, layers: int):
        super().__init__()
        self.scalars, self.gamma = nn.Parameter(torch.zeros(layers)), nn.Parameter(torch.ones(()))

    def forward(self, layers: list[Tensor]) -> Tensor:
        weights = self.scalars.softmax(0)
        return self.gamma * sum(w * h for w, h in zip(weights, layers, strict=True))
