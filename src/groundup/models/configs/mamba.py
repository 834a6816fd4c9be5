"""The shape of a Mamba, and what its successors share with it."""

import math
from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.base import ModelConfig


class StateSpaceConfig(ModelConfig):
    """What the generations of Mamba have in common."""

    harmless: ClassVar[frozenset[str]] = frozenset(
        {
            *("residual_in_fp32", "rescale_prenorm_residual", "fused_add_norm", "rms_norm"),
            *("time_step_scale", "time_step_init_scheme", "use_mambapy", "use_associative_scan", "ssm_cfg", "d_inner"),
            *("d_model", "n_layer", "pad_vocab_size_multiple", "conv_kernel_size"),
        }
    )

    expand: float = Field(default=2.0, gt=0)
    """Channels over hidden_size."""
    conv_kernel: int = Field(default=4, gt=1)
    """Tokens that the convolution sees."""
    time_step_min: float = Field(default=0.001, gt=0)
    """Smallest time step in the beginning."""
    time_step_max: float = Field(default=0.1, gt=0)
    """Largest time step in the beginning."""
    time_step_floor: float = Field(default=1e-4, gt=0)
    """None is smaller in the beginning."""
    hidden_act: Literal["silu"] = "silu"
    """After the convolution, and of the gate."""
    use_bias: bool = False
    """Biases on the projections in and out."""
    use_conv_bias: bool = True
    """Bias on the convolution."""
    layer_norm_epsilon: float = 1e-5
    """Added to the mean square in RMSNorm."""
    initializer_range: float = 0.1
    """Standard deviation of the initial weights."""
    max_position_embeddings: int | None = Field(default=None, gt=0)  # type: ignore[assignment]
    """A longest context, if there shall be one: the state is of one size, however long the text."""

    def to_hf(self) -> dict[str, Any]:
        """config.json; a whole number of `expand` is written as one."""
        values = super().to_hf()
        if self.max_position_embeddings is None:
            del values["max_position_embeddings"]
        return values | {"expand": int(self.expand) if self.expand == int(self.expand) else self.expand}


class MambaConfig(StateSpaceConfig):
    """Mamba (Gu & Dao 2023)."""

    architecture: ClassVar[str] = "MambaForCausalLM"
    fixed: ClassVar[dict[str, Any]] = {"num_attention_heads": 1}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "mamba-130m": {"hidden_size": 768, "num_hidden_layers": 24},
        "mamba-370m": {"hidden_size": 1024, "num_hidden_layers": 48},
        "mamba-790m": {"hidden_size": 1536, "num_hidden_layers": 48},
        "mamba-1.4b": {"hidden_size": 2048, "num_hidden_layers": 48},
        "mamba-2.8b": {"hidden_size": 2560, "num_hidden_layers": 64},
    }

    model_type: Literal["mamba"] = "mamba"
    """The family."""
    vocab_size: int = Field(default=50_280, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=768, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=32, gt=0)
    """Blocks."""
    num_attention_heads: int = 1
    """None here: the field is that of other families."""
    intermediate_size: int | None = Field(default=None, gt=0)
    """Channels of a block; expand times hidden_size when not given."""
    state_size: int = Field(default=16, gt=0)
    """Numbers of state in a channel."""
    time_step_rank: int | Literal["auto"] = "auto"
    """Width of the bottleneck of the time step; hidden_size / 16, rounded up, when auto."""
    tie_word_embeddings: bool = True
    """Whether the output head is the embedding matrix."""

    @property
    def channels(self) -> int:
        """Channels of a block, E."""
        return self.intermediate_size or int(self.expand * self.hidden_size)

    @property
    def rank(self) -> int:
        """Width of the time step's bottleneck."""
        return math.ceil(self.hidden_size / 16) if self.time_step_rank == "auto" else self.time_step_rank

    def to_hf(self) -> dict[str, Any]:
        """config.json, with the sizes that follow from others written out."""
        return super().to_hf() | {"intermediate_size": self.channels, "time_step_rank": self.rank}
