"""From GPT-2 to Llama 3, one change a class: what each idea costs and gains can be read, counted and trained.

    GPT2
    WithRMSNorm          LayerNorm -> RMSNorm: no mean, no bias                  (Zhang & Sennrich 2019)
    WithRotary           learned positions -> rotary ones, within attention     (Su et al. 2021)
    WithSwiGLU           GELU of width 4 D -> SwiGLU of width 2/3 * 4 D         (Shazeer 2020)
    Llama2Shaped         no biases, and a head of its own                       (Touvron et al. 2023)
    Llama3Shaped         grouped keys and values, a larger theta                (Grattafiori et al. 2024)

Each is a GPT2 whose factories are overridden, and is built from a GPT2Config. The last two compute what `Llama` does:
`as_llama` hands their weights over, and the logits are equal.
"""

from typing import ClassVar

from torch import nn

from groundup.layers.activations import activation
from groundup.layers.attention import Attention
from groundup.layers.embedding import Embedding
from groundup.layers.feedforward import GatedMLP, gated_width
from groundup.layers.norms import RMSNorm
from groundup.layers.rope import Rope
from groundup.models.configs.llama import LlamaConfig, RopeParameters
from groundup.models.text.causal_lm import CausalLM
from groundup.models.text.gpt2 import GPT2
from groundup.models.text.llama import Llama

EPS = 1e-5


class WithRMSNorm(GPT2):
    """GPT-2 with RMSNorm."""

    def make_norm(self) -> nn.Module:
        return RMSNorm(self.config.hidden_size, EPS)


class WithRotary(WithRMSNorm):
    """And rotary positions: none are added to the token vectors."""

    theta: ClassVar[float] = 10_000.0
    group: ClassVar[int] = 1
    """Query heads that share a head of keys and values."""
    bias: ClassVar[bool] = True

    def make_embed(self) -> Embedding:
        return Embedding(self.config.vocab_size, self.config.hidden_size, self.config.embd_pdrop)

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        rope = Rope(c.hidden_size // c.num_attention_heads, self.theta)
        sizes = (c.hidden_size, c.num_attention_heads, c.num_attention_heads // self.group)
        return Attention(*sizes, bias=self.bias, rope=rope, mask=self.make_mask(i), dropout=c.attn_pdrop)


class WithSwiGLU(WithRotary):
    """And a gated feed-forward network of as many parameters."""

    def make_mlp(self, i: int) -> nn.Module:
        return GatedMLP(self.config.hidden_size, self.width, activation("silu"), bias=self.bias)

    @property
    def width(self) -> int:
        """Hidden width."""
        return gated_width(self.config.hidden_size, multiple_of=32)


class Llama2Shaped(WithSwiGLU):
    """And no biases. The head is the model's own where the config says `tie_word_embeddings: false`."""

    bias = False


class Llama3Shaped(Llama2Shaped):
    """And grouped keys and values, four query heads to one, with wavelengths for longer contexts."""

    theta = 500_000.0
    group = 4


LADDER: tuple[type[CausalLM], ...] = (GPT2, WithRMSNorm, WithRotary, WithSwiGLU, Llama2Shaped, Llama3Shaped)


def as_llama(model: Llama2Shaped) -> Llama:
    """The same weights in a `Llama`, which can be saved and loaded anywhere."""
    c = model.config
    config = LlamaConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.hidden_size,
        intermediate_size=model.width,
        num_hidden_layers=c.num_hidden_layers,
        num_attention_heads=c.num_attention_heads,
        num_key_value_heads=c.num_attention_heads // model.group,
        max_position_embeddings=c.max_position_embeddings,
        rms_norm_eps=EPS,
        rope_parameters=RopeParameters(rope_theta=model.theta),
        tie_word_embeddings=c.tie_word_embeddings,
    )
    llama = Llama(config).to(model.device, model.dtype)
    llama.load_state_dict(model.state_dict())
    return llama.train(model.training)
