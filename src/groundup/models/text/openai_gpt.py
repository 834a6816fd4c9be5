"""GPT-1 (Radford et al. 2018), told from its successor GPT-2: the sum of stream and branch is normalised, as in the
first Transformer, in place of the branch's beginning, so that no norm stands before the head. For fine-tuning it has a
second head, which judges a whole text (`training/objectives/joint_fine_tuning.py`).
"""

from torch import nn

from groundup.layers import init
from groundup.layers.block import PostNormBlock
from groundup.layers.heads import TaskHead
from groundup.models.configs.openai_gpt import OpenAIGPTConfig
from groundup.models.text.gpt2 import GPT2
from groundup.weights import Chain, Fused, Transpose, WeightMap, rule


class OpenAIGPT(GPT2):
    """GPT-1."""

    Config = OpenAIGPTConfig
    config: OpenAIGPTConfig  # type: ignore[assignment]

    def make_final_norm(self) -> None:
        return None

    def make_block(self, i: int) -> nn.Module:
        parts = (self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))
        return PostNormBlock(*parts, attn_dropout=self.config.resid_pdrop, mlp_dropout=self.config.resid_pdrop)

    def make_head(self) -> nn.Module:
        c = self.config
        if c.task_outputs is None:
            return super().make_head()
        return TaskHead(c.hidden_size, c.vocab_size, c.task_outputs, c.summary_first_dropout)

    def init_weights(self) -> None:
        init.normal(self, self.config.initializer_range)

    @classmethod
    def weight_map(cls, config: OpenAIGPTConfig) -> WeightMap:  # type: ignore[override]
        ours, theirs, d = "blocks.{i}.", "transformer.h.{i}.", config.hidden_size
        # transformers stores the matrix that embedding and head share under the head's name where there are two heads
        double = config.task_outputs is not None and config.tie_word_embeddings
        return WeightMap(
            rule("embed.tokens", "lm_head" if double else "transformer.tokens_embed"),
            rule("embed.positions", "transformer.positions_embed"),
            rule([ours + f"attn.{p}_proj" for p in "qkv"], theirs + "attn.c_attn", Chain(Transpose(), Fused(d, d, d))),
            rule(ours + "attn.o_proj", theirs + "attn.c_proj", Transpose()),
            rule(ours + "norm1", theirs + "ln_1"),
            rule(ours + "mlp.up_proj", theirs + "mlp.c_fc", Transpose()),
            rule(ours + "mlp.down_proj", theirs + "mlp.c_proj", Transpose()),
            rule(ours + "norm2", theirs + "ln_2"),
            *(() if double else (rule("lm_head", "lm_head"),)),
            rule("lm_head.task", "multiple_choice_head.summary"),
            prefix="transformer.",
            ignore=("*h.*.attn.bias", "*position_ids", *(("*tokens_embed.weight",) if double else ())),
            i=config.num_hidden_layers,
        )
