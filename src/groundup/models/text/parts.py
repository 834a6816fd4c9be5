"""A decoder put together from parts by their names: exchange one, train, compare (`recipes/parts.yaml`).

The tables of this file say what each name makes. To try a part of your own, add it under a new name:

    POSITIONS["mine"] = Positions(settings=lambda config, i: {"position_bias": MyBias(config.num_attention_heads)})
    Parts.build(PartsConfig(positions="mine"))
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

from torch import nn

from groundup.base.errors import UsageError, did_you_mean
from groundup.layers import init
from groundup.layers.activations import activation
from groundup.layers.attention import Attention
from groundup.layers.block import (
    Block,
    DeepNormBlock,
    PostBranchNormBlock,
    PostNormBlock,
    SandwichBlock,
    deepnorm_constants,
)
from groundup.layers.embedding import Embedding, PositionalEmbedding
from groundup.layers.feedforward import MLP, GatedMLP
from groundup.layers.masks import BlankInfilling, Causal, MaskRule, Prefix, UniLM
from groundup.layers.norms import LayerNorm, RMSNorm, StdLayerNorm
from groundup.layers.position_bias import ALiBi, KerpleLogarithmic, KerplePower, T5Bias
from groundup.layers.positions import SinusoidalEmbedding
from groundup.layers.relative_attention import ShawAttention, TransformerXLAttention
from groundup.layers.rope import Rope
from groundup.models.configs.parts import PartsConfig
from groundup.models.text.causal_lm import CausalLM
from groundup.models.text.llama import rope_scaling
from groundup.state import KVCache, LayerState, SegmentMemory
from groundup.weights import WeightMap, rule

Part = TypeVar("Part")


class Parts(CausalLM):
    """A model of named parts; its checkpoints have the names of this package."""

    Config = PartsConfig
    config: PartsConfig

    def make_embed(self) -> Embedding:
        return pick("positions", POSITIONS, self.config.positions).embed(self.config)

    def make_norm(self) -> nn.Module:
        return pick("norm", NORMS, self.config.norm)(self.config.hidden_size, self.config.norm_eps)

    def make_final_norm(self) -> nn.Module | None:
        return self.make_norm() if pick("residual", RESIDUALS, self.config.residual).final_norm else None

    def make_mask(self, i: int) -> MaskRule:
        return pick("mask", MASKS, self.config.mask)(self.config)

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        positions = pick("positions", POSITIONS, c.positions)
        settings = {"bias": c.bias, "dropout": c.dropout, "mask": self.make_mask(i), **positions.settings(c, i)}
        return pick("attention", ATTENTIONS, c.attention)(c, i, positions.attention, settings)

    def make_mlp(self, i: int) -> nn.Module:
        return pick("mlp", MLPS, self.config.mlp)(self.config, i)

    def make_block(self, i: int) -> nn.Module:
        parts = (self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))
        dropouts = {"attn_dropout": self.config.dropout, "mlp_dropout": self.config.dropout}
        return pick("residual", RESIDUALS, self.config.residual).block(self, *parts, **dropouts)

    def make_layer_state(self, i: int, max_len: int) -> dict[str, LayerState]:
        memory = self.config.memory_length
        return {"attn": KVCache(max_len) if memory is None else SegmentMemory(memory)}

    def init_weights(self) -> None:
        super().init_weights()
        default = "deepnorm" if self.config.residual == "deepnorm" else "normal"
        pick("initializer", INITIALIZERS, self.config.initializer or default)(self)

    @classmethod
    def weight_map(cls, config: PartsConfig) -> WeightMap:
        names = ("embed", "blocks.{i}", "norm", "lm_head")
        return WeightMap(*(rule(name, name) for name in names), i=config.num_hidden_layers)


def pick(what: str, table: Mapping[str, Part], name: str) -> Part:
    """The entry of a table, or an error that says what there is."""
    if name not in table:
        raise UsageError(f"no {what} `{name}`.{did_you_mean(name, table)} One of: {', '.join(table)}")
    return table[name]


class Positions(NamedTuple):
    """One way to tell positions.

    Attributes:
        embed: the embedding, from the config.
        settings: keywords of the attention layer, from the config and the number of the layer.
        attention: the class of that layer.
    """

    embed: Callable[[PartsConfig], Embedding] = lambda c: Embedding(c.vocab_size, c.hidden_size, c.dropout)
    settings: Callable[[PartsConfig, int], dict[str, Any]] = lambda c, i: {}
    attention: type[Attention] = Attention


class Residual(NamedTuple):
    """One way to join the parts of a block.

    Attributes:
        block: from the model and the four parts of a block.
        final_norm: whether a norm follows the last block.
    """

    block: Callable[..., nn.Module]
    final_norm: bool = True


def plain_block(kind: type[Block], model: Parts, *parts: nn.Module, **dropouts: float) -> nn.Module:
    """A block of the four parts."""
    return kind(*parts, **dropouts)


def sandwich(
    model: Parts, norm1: nn.Module, attn: nn.Module, norm2: nn.Module, mlp: nn.Module, **dropouts: float
) -> nn.Module:
    """Two more norms."""
    return SandwichBlock(norm1, attn, norm2, mlp, model.make_norm(), model.make_norm(), **dropouts)


def deepnorm(model: Parts, *parts: nn.Module, **dropouts: float) -> nn.Module:
    """With the constant of a decoder of this depth."""
    constants = deepnorm_constants("decoder", decoder_layers=model.config.num_hidden_layers)
    return DeepNormBlock(*parts, alpha=constants.alpha, **dropouts)


def rotary(interleaved: bool, config: PartsConfig, i: int) -> dict[str, Any]:
    """Rotary positions."""
    rope, width = config.rope_parameters, config.hidden_size // config.num_attention_heads
    scaling = rope_scaling(rope, config.max_position_embeddings)
    return {"rope": Rope(int(width * rope.partial_rotary_factor), rope.rope_theta, interleaved, scaling)}


def biased(kind: Callable[[int], nn.Module], config: PartsConfig, i: int) -> dict[str, Any]:
    """A bias of the scores."""
    return {"position_bias": kind(config.num_attention_heads)}


def t5_bias(config: PartsConfig, i: int) -> dict[str, Any]:
    """T5's buckets, a table for each layer."""
    return {"position_bias": T5Bias(config.num_attention_heads, config.position_buckets, config.max_distance)}


def with_heads(config: PartsConfig, i: int, kind: type[Attention], settings: dict[str, Any]) -> nn.Module:
    """Attention with as many key-value heads as the config says."""
    return kind(config.hidden_size, config.num_attention_heads, config.num_key_value_heads, **settings)


def mlp(kind: Callable[..., nn.Module], config: PartsConfig, i: int) -> nn.Module:
    """One of the two feed-forward networks."""
    return kind(config.hidden_size, config.intermediate_size, activation(config.activation), bias=config.bias)


def scaled(model: Parts) -> None:
    """As GPT-2: the projections that end a branch are smaller."""
    init.scale_residual(branch_ends(model), num_branches=2 * model.config.num_hidden_layers)


def branch_ends(model: nn.Module) -> list[nn.Module]:
    """The projections that end the branches."""
    return [m for name, m in model.named_modules() if name.endswith(("attn.o_proj", "mlp.down_proj"))]


def matrices(fill: Callable[..., Any], model: Parts) -> None:
    """One initialiser for all matrices inside the blocks."""
    for module in model.blocks.modules():
        if isinstance(module, nn.Linear):
            fill(module.weight)


NORMS: dict[str, Callable[[int, float], nn.Module]] = {
    "rmsnorm": RMSNorm,
    "layernorm": LayerNorm,
    "std_layernorm": StdLayerNorm,
}
RESIDUALS: dict[str, Residual] = {
    "pre": Residual(partial(plain_block, Block)),
    "post": Residual(partial(plain_block, PostNormBlock), final_norm=False),
    "sandwich": Residual(sandwich),
    "end": Residual(partial(plain_block, PostBranchNormBlock)),
    "deepnorm": Residual(deepnorm, final_norm=False),
}
POSITIONS: dict[str, Positions] = {
    "none": Positions(),
    "learned": Positions(
        lambda c: PositionalEmbedding(c.vocab_size, c.hidden_size, c.max_position_embeddings, c.dropout)
    ),
    "sinusoidal": Positions(lambda c: SinusoidalEmbedding(c.vocab_size, c.hidden_size, c.dropout)),
    "rope": Positions(settings=partial(rotary, False)),
    "rope_interleaved": Positions(settings=partial(rotary, True)),
    "alibi": Positions(settings=partial(biased, ALiBi)),
    "kerple_power": Positions(settings=partial(biased, KerplePower)),
    "kerple_log": Positions(settings=partial(biased, KerpleLogarithmic)),
    "t5": Positions(settings=t5_bias),
    "shaw": Positions(settings=lambda c, i: {"max_distance": c.max_distance}, attention=ShawAttention),
    "transformer_xl": Positions(attention=TransformerXLAttention),
}
ATTENTIONS: dict[str, Callable[[PartsConfig, int, type[Attention], dict[str, Any]], nn.Module]] = {
    "mha": with_heads,
    "gqa": with_heads,
    "mqa": with_heads,
}
MASKS: dict[str, Callable[[PartsConfig], MaskRule]] = {
    "causal": lambda c: Causal(c.sliding_window),
    "prefix": lambda c: Prefix(),
    "unilm": lambda c: UniLM(),
    "blank_infilling": lambda c: BlankInfilling(),
}
MLPS: dict[str, Callable[[PartsConfig, int], nn.Module]] = {
    "gated": partial(mlp, GatedMLP),
    "dense": partial(mlp, MLP),
}
INITIALIZERS: dict[str, Callable[[Parts], None]] = {
    "normal": lambda model: None,  # what every model begins with
    "gpt2": scaled,
    "xavier": partial(matrices, init.xavier_uniform),
    "orthogonal": partial(matrices, init.orthogonal),
    "deepnorm": lambda model: init.deepnorm(
        model, deepnorm_constants("decoder", decoder_layers=model.config.num_hidden_layers).beta
    ),
}
