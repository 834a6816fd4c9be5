"""GLM-130B (Zeng et al. 2022), from GPT-2: a prompt is seen in both directions, and what is written fills a blank in it
(Du et al. 2022, GLM); rotary positions; a heavier stream that is normalised (DeepNorm, Wang et al. 2022); GeGLU.

    prompt   x1 x2 [MASK] x4 [START] y1 y2     y fills the blank; its positions stay at that of [MASK]
    prompt   x1 x2 x3 [gMASK] [START] y1 y2    y goes on at the end; positions run on
    text     y1 y2 y3                          without marks all is seen from left to right

Marks are found in the ids. A prompt comes in one call, with or without a state, since its tokens see each other; a
caller may also give `positions` and `segments` (0 in the prompt), for several blanks in a text.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from groundup.layers import init
from groundup.layers.activations import activation
from groundup.layers.attention import Attention
from groundup.layers.blank_infilling import Marks, find_marks
from groundup.layers.block import HeavyStreamBlock
from groundup.layers.context import Context
from groundup.layers.feedforward import GatedMLP
from groundup.layers.masks import MaskRule, Prefix
from groundup.layers.norms import LayerNorm
from groundup.layers.rope import Rope
from groundup.models.configs.glm_130b import GLM130BConfig
from groundup.models.text.causal_lm import CausalLM
from groundup.state import RowValues, State
from groundup.weights import Fused, FusedHeads, WeightMap, rule


class GLM130B(CausalLM):
    """GLM-130B."""

    Config = GLM130BConfig
    config: GLM130BConfig

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.config.hidden_size // self.config.num_attention_heads

    def make_norm(self) -> nn.Module:
        return LayerNorm(self.config.hidden_size, self.config.layer_norm_epsilon)

    def make_rope(self, i: int) -> Any:
        """Rotary positions of layer i."""
        return Rope(self.head_dim)

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        return Attention(
            c.hidden_size, c.num_attention_heads, bias=True, rope=self.make_rope(i), mask=self.make_mask(i)
        )

    def make_mask(self, i: int) -> MaskRule:
        return Prefix()

    def make_mlp(self, i: int) -> nn.Module:
        return GatedMLP(self.config.hidden_size, self.config.intermediate_size, activation("gelu"), bias=True)

    def make_block(self, i: int) -> nn.Module:
        parts = (self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))
        return HeavyStreamBlock(*parts, alpha=(2 * self.config.num_hidden_layers) ** 0.5)

    def make_state(self, batch: int, max_len: int, spare: int = 0) -> State:
        state = super().make_state(batch, max_len, spare)
        state.layers["marks"] = RowValues()
        return state

    def arrange(self, x: Tensor, context: Context, given: bool) -> Context:
        positions = context.positions
        if given and context.segments is not None:
            return context
        if given and positions.ndim == 3:
            return replace(context, segments=(positions[..., 1] > 0).long())
        marks = self.marks(x, context)
        placed = positions if given else self.placed(marks, positions)
        return replace(context, positions=placed, segments=marks.split(positions))

    def placed(self, marks: Marks, places: Tensor) -> Tensor:
        """Positions of tokens at these places of their documents."""
        return marks.single(places)

    def marks(self, x: Tensor, context: Context) -> Marks:
        """The marks of each document; those of the first call for later ones with a state."""
        places, documents, state = context.positions, context.documents, context.state
        remembered = None if state is None else state.layers["marks"]
        if remembered is not None and remembered.values:
            return Marks(**remembered.values)
        c, real, runs = self.config, None, None
        if documents is not None:
            real = documents != 0
            runs = None if state is not None else (documents.diff(dim=1, prepend=documents[:, :1]) != 0).cumsum(1)
        ids = x if not x.is_floating_point() else torch.full(x.shape[:2], -1, device=x.device)
        marks = find_marks(
            ids, places, runs, start=c.bos_token_id, mask=c.mask_token_id, end_mask=c.gmask_token_id, real=real
        )
        if remembered is not None:
            remembered.values = marks._asdict()
        return marks

    def init_weights(self) -> None:
        super().init_weights()
        init.deepnorm(self, (2 * self.config.num_hidden_layers) ** -0.5)

    @classmethod
    def weight_map(cls, config: GLM130BConfig) -> WeightMap:
        ours, theirs, inner = "blocks.{i}.", "transformer.layers.{i}.", config.intermediate_size
        return WeightMap(
            rule("embed.tokens", "transformer.word_embeddings"),
            rule(ours + "norm1", theirs + "input_layernorm"),
            rule(
                [ours + f"attn.{p}_proj" for p in "qkv"],
                theirs + "attention.query_key_value",
                FusedHeads(config.num_attention_heads),
            ),
            rule(ours + "attn.o_proj", theirs + "attention.dense"),
            rule(ours + "norm2", theirs + "post_attention_layernorm"),
            *cls.mlp_rules(ours + "mlp.", theirs + "mlp.", inner),
            rule("norm", "transformer.final_layernorm"),
            rule("lm_head", "lm_head"),
            ignore=("*rotary_emb.inv_freq",),
            i=config.num_hidden_layers,
        )

    @classmethod
    def mlp_rules(cls, ours: str, theirs: str, inner: int) -> Any:
        """What the MLP's tensors are called."""
        first = [ours + "up_proj", ours + "gate_proj"]
        return (
            rule(first, theirs + "dense_h_to_4h", Fused(inner, inner)),
            rule(ours + "down_proj", theirs + "dense_4h_to_h"),
        )
