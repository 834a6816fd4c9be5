"""The shape of a GPT-NeoX."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.gpt2 import GPT2Config, Probability
from groundup.models.configs.llama import RopeParameters


def pythia(hidden: int, layers: int, heads: int, **changes: Any) -> dict[str, Any]:
    """A size of Pythia (Biderman et al. 2023, table 1)."""
    shape = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {**shape, "intermediate_size": 4 * hidden, "vocab_size": 50_304} | changes


class GPTNeoXConfig(GPT2Config):
    """GPT-NeoX (Black et al. 2022) and Pythia (Biderman et al. 2023)."""

    architecture: ClassVar[str] = "GPTNeoXForCausalLM"
    aliases: ClassVar[dict[str, str]] = {
        "layer_norm_eps": "layer_norm_epsilon",
        "attention_dropout": "attn_pdrop",
        "hidden_dropout": "resid_pdrop",
    }
    harmless: ClassVar[frozenset[str]] = frozenset({"classifier_dropout"})
    fixed: ClassVar[dict[str, Any]] = {"embd_pdrop": 0.0, "mlp_pdrop": None}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "gpt-neox-20b": {"hidden_act": "gelu_fast"},
        "pythia-14m": pythia(128, 6, 4),
        "pythia-70m": pythia(512, 6, 8),
        "pythia-160m": pythia(768, 12, 12),
        "pythia-410m": pythia(1024, 24, 16),
        "pythia-1b": pythia(2048, 16, 8),
        "pythia-1.4b": pythia(2048, 24, 16),
        "pythia-2.8b": pythia(2560, 32, 32),
        "pythia-6.9b": pythia(4096, 32, 32, vocab_size=50_432),
        "pythia-12b": pythia(5120, 36, 40, vocab_size=50_688),
    }

    model_type: Literal["gpt_neox"] = "gpt_neox"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=50_432, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=6144, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=44, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=64, gt=0)
    """Heads."""
    intermediate_size: int | None = Field(default=24_576, gt=0)
    """Width of the MLP; 4 times hidden_size when not given."""
    max_position_embeddings: int = Field(default=2048, gt=0)
    """Longest context the model is meant for, in tokens."""
    hidden_act: str = "gelu"
    """Activation of the MLP."""
    embd_pdrop: Probability = 0.0
    """Not of this family: resid_pdrop serves the embeddings too."""
    attn_pdrop: Probability = 0.0
    """Dropout of the attention weights."""
    resid_pdrop: Probability = 0.0
    """Dropout of the embeddings, the attention branch and the MLP branch."""
    rope_parameters: RopeParameters = RopeParameters(partial_rotary_factor=0.25)
    """Rotary positions."""
    use_parallel_residual: bool = True
    """Whether attention and MLP read the same stream; one after the other where not."""
    attention_bias: bool = True
    """Biases on the projections of attention."""
    tie_word_embeddings: bool = False
    """Whether the output head is the embedding matrix."""

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Older files have `rotary_pct` and `rotary_emb_base` on top."""
        return rotary_part(super().translate(values), 0.25, share="rotary_pct", theta="rotary_emb_base")

    def to_hf(self) -> dict[str, Any]:
        """config.json, with the names of older files beside today's."""
        values, rope = super().to_hf(), self.rope_parameters
        values["rope_parameters"] = rope.used() | {"partial_rotary_factor": rope.partial_rotary_factor}
        return values | {"rotary_pct": rope.partial_rotary_factor, "rotary_emb_base": rope.rope_theta}


def rotary_part(
    values: dict[str, Any], default: float, *, share: str = "partial_rotary_factor", theta: str = "rope_theta"
) -> dict[str, Any]:
    """A config.json with the share of a head that is turned inside rope_parameters, whatever older files call it.

    Args:
        values: config.json in today's spelling of rope_parameters.
        default: the share where nothing is said.
        share: what older files call the share.
        theta: what they call the base of the wavelengths.
    """
    rope, values = dict(values.get("rope_parameters") or {}), dict(values)
    old = {name: values.pop(key, None) for name, key in (("partial_rotary_factor", share), ("rope_theta", theta))}
    rope = {"partial_rotary_factor": default} | {k: v for k, v in old.items() if v is not None} | rope
    return values | {"rope_parameters": rope}
