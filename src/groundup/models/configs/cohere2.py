"""The shape of a Cohere 2."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.base.errors import CheckpointError
from groundup.models.configs.layer_kinds import LayerKinds
from groundup.models.configs.llama import LlamaConfig, RopeParameters

ONLY = {
    "layer_switch": None,  # what `sliding_window_pattern` says too
    "order_of_interleaved_layers": "local_attn_first",
    "position_embedding_type": "rope_gptj",
    "rotary_pct": 1.0,
    "use_embedding_sharing": True,
    "use_gated_activation": True,
    "use_parallel_block": True,
    "use_parallel_embedding": None,  # how the authors spread the embedding over devices
    "use_qk_norm": False,
}
"""What released files say besides, and the one value that it may have here; None for any."""


class Cohere2Config(LlamaConfig, LayerKinds):
    """Command R7B (Cohere 2024), Command A (2025) and Tiny Aya (2026)."""

    architecture: ClassVar[str] = "Cohere2ForCausalLM"
    harmless: ClassVar[frozenset[str]] = frozenset({"cache_implementation", *ONLY})
    fixed: ClassVar[dict[str, Any]] = {"head_dim": None, "mlp_bias": False, "rms_norm_eps": 1e-6}
    period: ClassVar[int] = 4
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "command-r7b": {"num_key_value_heads": 8},
        "tiny-aya": {
            **{"vocab_size": 262_144, "hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 36},
            **{"num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 500_000},
            "logit_scale": 1.0,
        },
    }

    model_type: Literal["cohere2"] = "cohere2"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=256_000, gt=0)
    """Token ids."""
    intermediate_size: int = Field(default=14_336, gt=0)
    """Width of the gated MLP."""
    max_position_embeddings: int = Field(default=8192, gt=0)
    """Longest context the model is meant for, in tokens; the files of Command R7B understate it."""
    layer_norm_eps: float = 1e-5
    """Added to the variance in LayerNorm."""
    rope_parameters: RopeParameters = RopeParameters(rope_theta=50_000.0)
    """Rotary positions of layers with a window; the others have none."""
    logit_scale: float = Field(default=0.25, gt=0)
    """Factor of the logits."""
    tie_word_embeddings: bool = True
    """Whether the output head is the embedding matrix."""

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A file without these keys means what the first files of the kind had; a width of heads follows from others.

        Raises:
            CheckpointError: a setting that no released model has, and that nothing here computes.
        """
        for name, value in ONLY.items():
            if value is not None and values.get(name, value) != value:
                raise CheckpointError(f"config.json: {name} is {value!r} in cohere2 models, not {values[name]!r:.80}")
        values = USUAL | super().translate(values)
        follows = values["hidden_size"] // values["num_attention_heads"]
        if (width := values.pop("head_dim", None)) not in (None, follows):
            raise CheckpointError(
                f"config.json: head_dim is hidden_size / num_attention_heads in cohere2 models, {follows}, not {width}"
            )
        return values | {"rope_parameters": {"rope_theta": 10_000.0} | dict(values.get("rope_parameters") or {})}

    def to_hf(self) -> dict[str, Any]:
        """config.json, which leaves the width of a head to follow from the others."""
        return {name: value for name, value in super().to_hf().items() if name != "head_dim"}


USUAL = {
    **{"hidden_size": 8192, "intermediate_size": 22_528, "num_hidden_layers": 40, "num_attention_heads": 64},
    "logit_scale": 0.0625,
}
"""What transformers takes a file to mean that does not say it."""
