"""Qwen3.5 (Qwen team 2026), dense, from Qwen3-Next: one MLP for all tokens, and the projections of a DeltaNet lie apart
in the files.

This is the text model. The published files hold it beside one for images, as `model.language_model`: that one is left
out, and where all of a token's three positions are one and the same, as in text, its rotary positions are plain ones.
"""

from typing import ClassVar

from groundup.models.configs.qwen3_5 import Qwen3_5Config
from groundup.models.configs.qwen3_next import Qwen3NextConfig
from groundup.models.text.qwen3_next import Qwen3Next, plain_memory_rules
from groundup.weights import Fused, Rule, rule

LEFT_OUT = Qwen3Next.left_out | {"model.visual.*": "the model for images"}
WITHIN = {"model.language_model.": "model."}
"""How the text model is called within the whole one."""


class Qwen3_5(Qwen3Next):
    """Qwen3.5, 0.8B to 27B."""

    Config = Qwen3_5Config
    config: Qwen3_5Config  # type: ignore[assignment]
    within: ClassVar[dict[str, str]] = WITHIN
    left_out: ClassVar[dict[str, str]] = LEFT_OUT

    @classmethod
    def expert_rules(cls, config: Qwen3NextConfig) -> list[Rule]:
        return []

    @classmethod
    def memory_rules(cls, ours: str, theirs: str, config: Qwen3NextConfig) -> list[Rule]:
        return separate_memory_rules(ours, theirs, config)


def separate_memory_rules(ours: str, theirs: str, config: Qwen3NextConfig) -> list[Rule]:
    """Queries, keys and values one after another, the other projections under their own names."""
    theirs += "linear_attn."
    keys = config.linear_num_key_heads * config.linear_key_head_dim
    values = config.linear_num_value_heads * config.linear_value_head_dim
    names = {"gate_proj": "in_proj_z", "beta_proj": "in_proj_b", "decay_proj": "in_proj_a"}
    return [
        rule([f"{ours}{x}_proj" for x in "qkv"], theirs + "in_proj_qkv", Fused(keys, keys, values)),
        *(rule(ours + own, theirs + name) for own, name in names.items()),
        *plain_memory_rules(ours, theirs),
    ]
