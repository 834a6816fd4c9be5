"""Qwen3.5 (Qwen team 2026) with experts, from Qwen3-Next: every layer has them, 8 of 256 or 10 of 512, and the
projections of a DeltaNet lie apart in the files, as in the dense `qwen3_5`; so does the model for images.

The published files hold all experts of a layer in one tensor; those that transformers writes hold each by itself. Both
are read, the second is written.
"""

from typing import ClassVar

from groundup.models.configs.qwen3_5_moe import Qwen3_5MoeConfig
from groundup.models.configs.qwen3_next import Qwen3NextConfig
from groundup.models.text.mixtral import stacked_experts
from groundup.models.text.qwen3_5 import LEFT_OUT, WITHIN, separate_memory_rules
from groundup.models.text.qwen3_next import Qwen3Next
from groundup.weights import Fused, Rule, rule


class Qwen3_5Moe(Qwen3Next):
    """Qwen3.5-35B-A3B, 122B-A10B and 397B-A17B."""

    Config = Qwen3_5MoeConfig
    config: Qwen3_5MoeConfig  # type: ignore[assignment]
    within: ClassVar[dict[str, str]] = WITHIN
    left_out: ClassVar[dict[str, str]] = LEFT_OUT

    @classmethod
    def expert_rules(cls, config: Qwen3NextConfig) -> list[Rule]:
        ours, theirs, width = "blocks.{i}.mlp.experts.", "model.layers.{i}.mlp.experts", config.moe_intermediate_size
        first = [f"{ours}{name}_proj.weight" for name in ("gate", "up")]
        return [
            *super().expert_rules(config),
            # of the two forms of a tensor the last one is written
            rule(first, theirs + ".gate_up_proj", Fused(width, width, dim=1)),
            rule(ours + "down_proj.weight", theirs + ".down_proj"),
            *stacked_experts(theirs, config.num_experts, suffix=".weight"),
        ]

    @classmethod
    def memory_rules(cls, ours: str, theirs: str, config: Qwen3NextConfig) -> list[Rule]:
        return separate_memory_rules(ours, theirs, config)
