"""The shape of a PanGu-alpha."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.gpt2 import GPT2Config

AUTHORS = {"hidden_act": "gelu_new"}
"""What MindSpore's GELU was: by tanh. The files of the PyTorch port say `gelu`."""


class PanguConfig(GPT2Config):
    """PanGu-alpha (Zeng et al. 2021), with the names of the PyTorch port's config.json."""

    architecture: ClassVar[str] = "GPTPanguForCausalLM"
    aliases: ClassVar[dict[str, str]] = {
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "activation_function": "hidden_act",
    }
    harmless: ClassVar[frozenset[str]] = GPT2Config.harmless | {"model_name_or_path", "tokenizer_class"}
    fixed: ClassVar[dict[str, Any]] = {"mlp_pdrop": None}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        # the port's; the paper names it as a tool for its data
        "pangu-350m": {},
        # the paper, table 1
        "pangu-2.6b": {**AUTHORS, "hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32},
        "pangu-13b": {**AUTHORS, "hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40},
        "pangu-200b": {**AUTHORS, "hidden_size": 16_384, "num_hidden_layers": 64, "num_attention_heads": 128},
    }

    model_type: Literal["gpt_pangu"] = "gpt_pangu"  # type: ignore[assignment]
    """The family; some files say `pangu`."""
    vocab_size: int = Field(default=40_000, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=1024, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=24, gt=0)
    """Blocks; the last is asked from positions."""
    num_attention_heads: int = Field(default=16, gt=0)
    """Heads."""
    hidden_act: str = "gelu"
    """Activation of the MLP."""

    @classmethod
    def reads(cls, values: dict[str, Any]) -> bool:
        """Whether a config.json under another name is of this family."""
        return values.get("model_type") == "pangu" and "num_heads" in values

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Read the other name too."""
        return super().translate(values) | {"model_type": cls.family()}
