"""The shape of a GPT-1."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.models.configs.gpt2 import GPT2Config, Probability

ACTIVATIONS = {"gelu": "gelu_new", "relu": "relu", "silu": "silu", "swish": "silu"}
"""What the names in config.json stand for: `gelu` was the tanh form."""
DOUBLE = "OpenAIGPTDoubleHeadsModel"
"""What transformers calls the model with a head for choices."""


class OpenAIGPTConfig(GPT2Config):
    """GPT-1 (Radford et al. 2018)."""

    architecture: ClassVar[str] = "OpenAIGPTLMHeadModel"
    aliases: ClassVar[dict[str, str]] = {
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings",
        "afn": "hidden_act",
    }
    harmless: ClassVar[frozenset[str]] = GPT2Config.harmless | {"n_special", "predict_special_tokens"}
    fixed: ClassVar[dict[str, Any]] = {"intermediate_size": None, "mlp_pdrop": None}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {"openai-gpt": {}}

    model_type: Literal["openai-gpt"] = "openai-gpt"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=40_478, gt=0)
    """Token ids."""
    max_position_embeddings: int = Field(default=512, gt=0)
    """Learned positions: the longest context."""

    task_outputs: int | None = Field(default=None, gt=0)
    """Numbers that a second head gives for a whole text: classes, or 1 for the score of a choice; no head when not
    given.
    """
    summary_first_dropout: Probability = 0.1
    """Dropout before the second head."""

    @model_validator(mode="after")
    def _activation_has_a_name(self) -> "OpenAIGPTConfig":
        if self.hidden_act not in ACTIVATIONS.values():
            raise ValueError(f"hidden_act is one of {', '.join(ACTIVATIONS.values())} here, not {self.hidden_act}")
        return self

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The activation under today's name; a model with two heads, as transformers has it, scores choices."""
        values = dict(super().translate(values))
        if values.get("architectures") == [DOUBLE]:
            values.setdefault("task_outputs", 1)
        if "afn" in values:
            values["afn"] = ACTIVATIONS.get(values["afn"], values["afn"])
        return values

    def to_hf(self) -> dict[str, Any]:
        """config.json, with the activation under its name of then."""
        name = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == self.hidden_act)
        values = super().to_hf() | {"afn": name}
        if self.task_outputs is None:
            del values["task_outputs"]
            return values
        return values | {"architectures": [DOUBLE]}
