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
from groundup.layers.attentions.dual_chunk import DualChunkAttention
from groundup.layers.attentions.gated import GatedAttention
from groundup.layers.attentions.gated_delta import GatedDeltaNet
from groundup.layers.attentions.performer import Performer
from groundup.layers.attentions.sparse import Fixed, Strided, alternating
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
from groundup.layers.moe.experts import Experts, GatedExperts
from groundup.layers.moe.gates.base import BaseGate
from groundup.layers.moe.gates.dense import DenseGate
from groundup.layers.moe.gates.expert_choice import ExpertChoiceGate
from groundup.layers.moe.gates.gate import Gate
from groundup.layers.moe.gates.group_limited import GroupLimitedGate
from groundup.layers.moe.gates.gshard import GShardGate
from groundup.layers.moe.gates.loss_free import LossFreeGate
from groundup.layers.moe.gates.switch import SwitchGate
from groundup.layers.moe.gates.top2 import Top2Gate
from groundup.layers.moe.gates.top_k import TopKGate
from groundup.layers.moe.mixture import MixtureOfExperts
from groundup.layers.norms import LayerNorm, RMSNorm, StdLayerNorm
from groundup.layers.position_bias import ALiBi, KerpleLogarithmic, KerplePower, T5Bias
from groundup.layers.positions import SinusoidalEmbedding
from groundup.layers.relative_attention import ShawAttention, TransformerXLAttention
from groundup.layers.rope import Rope
from groundup.models.configs.parts import PartsConfig
from groundup.models.text.causal_lm import CausalLM
from groundup.models.text.llama import rope_scaling
from groundup.state import LayerState, SegmentMemory
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
        return pick("mask", MASKS, self.config.mask)(self.config, i)

    def make_attention(self, i: int) -> nn.Module:
        c = self.config
        positions = pick("positions", POSITIONS, c.positions)
        settings = {"bias": c.bias, "dropout": c.dropout, "mask": self.make_mask(i), **positions.settings(c, i)}
        return pick("attention", ATTENTIONS, c.attention)(c, i, positions.attention, settings)

    def make_mlp(self, i: int) -> nn.Module:
        c = self.config
        network = pick("mlp", MLPS, c.mlp)(c, i)
        return mixture(pick("gate", GATES, c.gate)(c), c) if c.gate is not None and c.has_experts(i) else network

    def make_block(self, i: int) -> nn.Module:
        parts = (self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))
        dropouts = {"attn_dropout": self.config.dropout, "mlp_dropout": self.config.dropout}
        return pick("residual", RESIDUALS, self.config.residual).block(self, *parts, **dropouts)

    def make_layer_state(self, i: int, max_len: int) -> dict[str, LayerState]:
        memory = self.config.memory_length
        return super().make_layer_state(i, max_len) if memory is None else {"attn": SegmentMemory(memory)}

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
    rope, width = config.rope_parameters, config.head_dim or config.hidden_size // config.num_attention_heads
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
    sizes = (config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim)
    return kind(*sizes, **settings)


def in_place_of_attention(
    other: type[Attention], config: PartsConfig, i: int, kind: type[Attention], settings: dict[str, Any], **more: Any
) -> nn.Module:
    """Another kind of attention, where the positions do not ask for one of their own."""
    if kind is not Attention or "position_bias" in settings:
        raise UsageError(f"attention {config.attention} does not go with positions {config.positions}")
    return with_heads(config, i, other, settings | more)


def dual_chunk(config: PartsConfig, i: int, kind: type[Attention], settings: dict[str, Any]) -> nn.Module:
    """Distances up to `max_distance`, half of them exact across the borders of chunks."""
    sizes = {"chunk_size": config.max_distance, "local_size": config.max_distance // 2}
    return in_place_of_attention(DualChunkAttention, config, i, kind, settings, **sizes)


def gated_delta(config: PartsConfig, i: int, kind: type[Attention], settings: dict[str, Any]) -> nn.Module:
    """A memory of fixed size; it takes the order of tokens from itself, so `positions` are of the embedding alone."""
    return GatedDeltaNet(config.hidden_size, config.num_attention_heads, config.num_key_value_heads)


def mlp(kind: Callable[..., nn.Module], config: PartsConfig, i: int) -> nn.Module:
    """One of the two feed-forward networks."""
    return kind(config.hidden_size, config.intermediate_size, activation(config.activation), bias=config.bias)


def mixture(gate: Gate, config: PartsConfig) -> nn.Module:
    """Experts in place of the MLP."""
    width, act, bias = config.hidden_size, activation(config.activation), config.bias
    gated = config.mlp == "gated" if config.gated_experts is None else config.gated_experts
    hidden = config.moe_intermediate_size or config.intermediate_size
    assert hidden is not None, "the config has filled it in"
    kind = GatedExperts if gated else Experts
    experts = kind(config.num_experts, width, hidden, act, bias=bias, dropout=config.expert_dropout)
    if config.shared_expert_intermediate_size is None:
        return MixtureOfExperts(gate, experts)
    one = GatedMLP if config.mlp == "gated" else MLP
    return MixtureOfExperts(gate, experts, one(width, config.shared_expert_intermediate_size, act, bias=bias))


def gate(kind: Callable[..., Gate], config: PartsConfig, *counts: int) -> Gate:
    """A gate with the settings that were given."""
    balance, capacity = config.router_aux_loss_coef, config.expert_capacity
    settings = {"z": config.router_z_loss_coef, "balance": balance, "capacity": capacity}
    given = {name: value for name, value in settings.items() if value is not None}
    return kind(config.hidden_size, config.num_experts, *counts, **given)


def gate_of_k(kind: Callable[..., Gate], config: PartsConfig) -> Gate:
    """One that sends a token to as many experts as the config says."""
    return gate(kind, config, config.num_experts_per_tok)


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
    "gated": partial(in_place_of_attention, GatedAttention),
    "performer": partial(in_place_of_attention, Performer),
    "dual_chunk": dual_chunk,
    "gated_delta": gated_delta,
}
MASKS: dict[str, Callable[[PartsConfig, int], MaskRule]] = {
    "causal": lambda c, i: Causal(c.sliding_window),
    "alternating": lambda c, i: alternating(i, c.sliding_window or c.stride),
    "strided": lambda c, i: Strided(c.stride, "column" if i % 2 else "local"),
    "fixed": lambda c, i: Fixed(c.stride, "column" if i % 2 else "local"),
    "prefix": lambda c, i: Prefix(),
    "unilm": lambda c, i: UniLM(),
    "blank_infilling": lambda c, i: BlankInfilling(),
}
MLPS: dict[str, Callable[[PartsConfig, int], nn.Module]] = {
    "gated": partial(mlp, GatedMLP),
    "dense": partial(mlp, MLP),
}
GATES: dict[str, Callable[[PartsConfig], Gate]] = {
    "dense": partial(gate, DenseGate),
    "top_k": partial(gate_of_k, TopKGate),
    "gshard": partial(gate, GShardGate),
    "switch": partial(gate, SwitchGate),
    "top2": partial(gate, Top2Gate),
    "base": partial(gate, BaseGate),
    "expert_choice": partial(gate_of_k, ExpertChoiceGate),
    "group_limited": partial(gate_of_k, partial(GroupLimitedGate, num_groups=4, kept_groups=2)),
    "loss_free": partial(gate_of_k, LossFreeGate),
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
