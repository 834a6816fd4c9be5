"""The shape of a GPT-Neo, and how layers take turns."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.models.configs.gpt2 import GPT2Config, Probability

LayerKind = Literal["global", "local"]
Pattern = tuple[list[LayerKind], int]
"""Kinds of layers, one after another, and how often they come."""


class AlternatingConfig(GPT2Config):
    """Layers that see everything take turns with layers that see a window (Child et al. 2019; Brown et al. 2020)."""

    attention_types: list[Pattern] | None = None
    """What each layer sees: kinds and how often they come; `global`, `local` in turn when not given."""
    window_size: int = Field(default=256, gt=0)
    """Tokens that a token sees in a local layer, itself included."""

    @model_validator(mode="after")
    def _every_layer_has_a_kind(self) -> "AlternatingConfig":
        if len(self.kinds()) != self.num_hidden_layers:
            raise ValueError(
                f"attention_types tells of {len(self.kinds())} layers, but there are {self.num_hidden_layers}"
            )
        return self

    def kinds(self) -> list[LayerKind]:
        """The kind of every layer."""
        if self.attention_types is None:
            return ["local" if i % 2 else "global" for i in range(self.num_hidden_layers)]
        return [kind for kinds, times in self.attention_types for kind in kinds * times]

    def window(self, i: int) -> int | None:
        """How many tokens layer i sees; None for all."""
        return self.window_size if self.kinds()[i] == "local" else None


class GPTNeoConfig(AlternatingConfig):
    """GPT-Neo (Black et al. 2021)."""

    architecture: ClassVar[str] = "GPTNeoForCausalLM"
    aliases: ClassVar[dict[str, str]] = {
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "activation_function": "hidden_act",
        "resid_dropout": "resid_pdrop",
        "embed_dropout": "embd_pdrop",
        "attention_dropout": "attn_pdrop",
    }
    harmless: ClassVar[frozenset[str]] = GPT2Config.harmless | {"classifier_dropout", "tokenizer_class"}
    fixed: ClassVar[dict[str, Any]] = {"mlp_pdrop": None}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "gpt-neo-125m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        "gpt-neo-1.3b": {},
        "gpt-neo-2.7b": {"hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 20},
    }

    model_type: Literal["gpt_neo"] = "gpt_neo"  # type: ignore[assignment]
    """The family."""
    hidden_size: int = Field(default=2048, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=24, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=16, gt=0)
    """Heads."""
    max_position_embeddings: int = Field(default=2048, gt=0)
    """Learned positions: the longest context."""
    embd_pdrop: Probability = 0.0
    """Dropout after the embeddings."""
    attn_pdrop: Probability = 0.0
    """Dropout of the attention weights."""
    resid_pdrop: Probability = 0.0
    """Dropout of the attention and MLP branches."""

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The list of all layers' kinds, which files carry beside the pattern, follows from it."""
        return {name: value for name, value in super().translate(values).items() if name != "attention_layers"}

    def to_hf(self) -> dict[str, Any]:
        """config.json, with the pattern and the list of kinds written out."""
        types = self.attention_types or [(["global", "local"], self.num_hidden_layers // 2)]
        if self.attention_types is None and self.num_hidden_layers % 2:
            types = [*types, (["global"], 1)]
        return super().to_hf() | {
            "attention_types": [[list(kinds), times] for kinds, times in types],
            "attention_layers": self.kinds(),
        }
