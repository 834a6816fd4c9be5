"""Models of every family at equal size: the same width and vocabulary, and as many parameters.

A family has its own parts, so at one width families differ in parameters; here the hidden width of the feed-forward
network (of each expert, where there are several) is solved for, so that all have as many as asked for. Where that width
is not free, the number of layers is chosen, as near as it comes.
"""

from dataclasses import dataclass
from typing import Any

from groundup.base.errors import UsageError
from groundup.models.catalogue import FAMILIES, family
from groundup.models.configs.base import ModelConfig

WIDTHS = ("intermediate_size", "moe_intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner", "dim_ffn")
"""What families call the hidden width of their feed-forward network, under our names."""

WIDTH_FOLLOWS = frozenset({"mamba", "mamba2"})
"""Families whose width inside follows from that of the stream."""

STEPS = {"qwen": 128}
"""Families whose hidden width is half of what they call it; the others' grows by 64, as wide as vectors like it."""

# What a family needs beside the common shape to be like itself at a small size.
FOUR = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {
    **{"kv_lora_rank": 64, "q_lora_rank": 128, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32},
    **{"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1},
    **{"n_group": 1, "topk_group": 1, "num_key_value_heads": 8, "head_dim": None},
}
HYBRID = {
    **{"head_dim": 32, "num_key_value_heads": 4, "linear_num_key_heads": 4, "linear_num_value_heads": 8},
    **{"linear_key_head_dim": 32, "linear_value_head_dim": 32},
}
SHARED = {"num_experts": 4, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 192}
OWN: dict[str, dict[str, Any]] = {
    **{key: {"head_dim": 32} for key in ("chatglm", "glm", "glm4", "qwen")},
    **{key: {"head_dim": 32, "query_pre_attn_scalar": 32} for key in ("gemma2", "gemma3_text")},
    "gemma4_text": {"head_dim": 32, "num_key_value_heads": 4},
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "gemma": {"head_dim": 32},
    "gptj": {"rotary_dim": 16},
    "gpt_oss": {**FOUR, "head_dim": 32, "num_key_value_heads": 4},
    "mamba2": {"n_groups": 1},
    "mixtral": FOUR,
    "openelm": {
        **{"head_dim": 32, "num_gqa_groups": 2, "ffn_dim_divisor": 32, "normalize_qk_projections": True},
        **{"qkv_multipliers": (0.5, 1.0), "ffn_multipliers": (0.5, 4.0), "tie_word_embeddings": True},
    },
    "qwen2_moe": SHARED,
    "qwen3": {"head_dim": 32},
    "qwen3_5_moe_text": {**HYBRID, **SHARED},
    "qwen3_5_text": HYBRID,
    "qwen3_next": {**HYBRID, **SHARED},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "head_dim": 32},
}
# Families that count, have one layer, read in both directions, or are another one with dropout.
LEFT_OUT = frozenset({"ngram", "bengio", "elmo", "awd_lstm"})


@dataclass(frozen=True)
class Size:
    """What all have in common."""

    layers: int = 6
    width: int = 256
    heads: int = 8
    context: int = 256
    vocabulary: int = 2048
    parameters: int = 6_000_000


def trainable_families() -> list[str]:
    """The families that can be compared."""
    return [name for name in FAMILIES if name not in LEFT_OUT]


def equal_size(model_type: str, size: Size) -> ModelConfig:
    """The config of a family with about `size.parameters` parameters.

    Raises:
        UsageError: the family cannot be made so small or so large by its feed-forward width alone.
    """
    config = family(model_type).config
    common = {
        "vocab_size": size.vocabulary,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "max_position_embeddings": size.context,
        **{name: 0.0 for name in config.model_fields if name.endswith(("_pdrop", "dropout"))},
    }
    free = config.model_fields.keys() - config.fixed.keys()
    shape = {name: value for name, value in common.items() if name in free} | OWN.get(model_type, {})
    widths = [name for name in WIDTHS if name in free]
    if not widths or model_type in WIDTH_FOLLOWS:
        return _by_layers(model_type, shape, size)

    def made(width: int) -> ModelConfig:
        return config.parse(shape | dict.fromkeys(widths, width), where=model_type)

    # Parameters grow in a straight line with the width: two points give the line.
    low, high = size.width, 2 * size.width
    at_low, at_high = count(made(low)), count(made(high))
    step = STEPS.get(model_type, 64)
    width = round((low + (size.parameters - at_low) * (high - low) / (at_high - at_low)) / step) * step
    if width < step:
        raise UsageError(
            f"{model_type} has {at_low:,} parameters with a feed-forward width of {low}: it cannot have "
            f"{size.parameters:,}. Ask for more, or for a smaller width or vocabulary"
        )
    return made(width)


def _by_layers(model_type: str, shape: dict[str, Any], size: Size) -> ModelConfig:
    """The number of layers that comes nearest."""
    config = family(model_type).config

    def made(layers: int) -> ModelConfig:
        return config.parse(shape | {"num_hidden_layers": layers}, where=model_type)

    def away(layers: int) -> int:
        return abs(count(made(layers)) - size.parameters)

    one, two = count(made(1)), count(made(2))
    layers = max(1, round(1 + (size.parameters - one) / (two - one)))
    while away(layers + 1) < away(layers):  # where widths change with the depth, two points give no line
        layers += 1
    return made(layers)


def count(config: ModelConfig) -> int:
    """All parameters, by building without data."""
    from groundup.models.architecture.counts import parameters_by_part

    return sum(parameters_by_part(config).values())
