"""The shape of the text model in a Gemma 4."""

from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from groundup.base.errors import CheckpointError
from groundup.models.configs.gemma3 import Gemma3Config
from groundup.models.configs.layer_kinds import FULL, LayerType
from groundup.models.configs.llama import RopeParameters
from groundup.models.configs.mixtral import check_experts


class ProportionalRope(RopeParameters):
    """Rotary settings of layers that see all."""

    rope_type: Literal["proportional"] = "proportional"  # type: ignore[assignment]
    """Waves as if the whole head turned, of which the longest stand still."""
    rope_theta: float = Field(default=1_000_000.0, gt=0)
    """Base of the wavelengths."""
    partial_rotary_factor: float = Field(default=0.25, gt=0, le=1)
    """Share of the pairs that turn."""


LARGE = {
    **{"final_logit_softcapping": 30.0, "global_head_dim": 512, "attention_k_eq_v": True, "sliding_window": 1024},
    "max_position_embeddings": 262_144,
}
SMALL = {
    **{"final_logit_softcapping": 30.0, "global_head_dim": 512, "hidden_size_per_layer_input": 256},
    "sliding_window": 512,
}


class Gemma4Config(Gemma3Config):
    """The text models inside Gemma 4 (Google DeepMind 2026)."""

    architecture: ClassVar[str] = "Gemma4ForCausalLM"
    # images are no part of the text model, and nothing else attends in both directions with "vision"
    harmless: ClassVar[frozenset[str]] = frozenset({"cache_implementation", "use_bidirectional_attention"})
    fixed: ClassVar[dict[str, Any]] = {
        **{"mlp_bias": False, "query_pre_attn_scalar": 1, "attn_logit_softcapping": None},
    }
    partial_rotary: ClassVar[bool] = True
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "gemma-4-e2b-text": {
            **SMALL,
            **{"hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 35, "num_attention_heads": 8},
            **{"num_key_value_heads": 1, "num_kv_shared_layers": 20, "use_double_wide_mlp": True},
            "layer_types": [*["sliding_attention"] * 4, "full_attention"] * 7,
        },
        "gemma-4-e4b-text": {
            **SMALL,
            **{"hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 42, "num_attention_heads": 8},
            **{"num_key_value_heads": 2, "num_kv_shared_layers": 18},
        },
        "gemma-4-12b-text": {
            **LARGE,
            **{"hidden_size": 3840, "intermediate_size": 15_360, "num_hidden_layers": 48, "num_attention_heads": 16},
            **{"num_key_value_heads": 8, "num_global_key_value_heads": 1},
        },
        "gemma-4-26b-a4b-text": {
            **LARGE,
            **{"hidden_size": 2816, "intermediate_size": 2112, "num_hidden_layers": 30, "num_attention_heads": 16},
            **{"num_key_value_heads": 8, "num_global_key_value_heads": 2},
            **{"enable_moe_block": True, "num_experts": 128, "top_k_experts": 8, "moe_intermediate_size": 704},
        },
        "gemma-4-31b-text": {
            **LARGE,
            **{"hidden_size": 5376, "intermediate_size": 21_504, "num_hidden_layers": 60, "num_attention_heads": 32},
            **{"num_key_value_heads": 16, "num_global_key_value_heads": 4},
        },
    }

    model_type: Literal["gemma4_text"] = "gemma4_text"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=262_144, gt=0)
    """Token ids."""
    num_hidden_layers: int = Field(default=30, gt=0)
    """Blocks."""
    query_pre_attn_scalar: int = 1
    """Scores are not divided: queries and keys are normalised."""
    sliding_window: int | None = Field(default=512, gt=0)
    """Tokens that each token sees in layers with a window, itself included."""
    rope_parameters: ProportionalRope = ProportionalRope()  # type: ignore[assignment]
    """Rotary positions of layers that see all."""
    final_logit_softcapping: PositiveFloat | None = None
    """Bound of the logits."""
    global_head_dim: PositiveInt | None = None
    """Width of a head in layers that see all; head_dim when not given."""
    num_global_key_value_heads: PositiveInt | None = None
    """Key-value heads of layers that see all, where keys are values; as elsewhere when not given."""
    attention_k_eq_v: bool = False
    """Whether values are the projected keys in layers that see all."""
    num_kv_shared_layers: int = Field(default=0, ge=0)
    """How many of the last layers read the keys and values of the last layer of their kind before them."""
    use_double_wide_mlp: bool = False
    """Whether those layers have an MLP of twice the width."""
    hidden_size_per_layer_input: int = Field(default=0, ge=0)
    """Width of the second vector that a token has for each layer; 0 for none."""
    vocab_size_per_layer_input: PositiveInt | None = None
    """Rows of the table of second vectors; as many as token ids when not given."""
    enable_moe_block: bool = False
    """Whether a mixture of experts stands beside every MLP."""
    num_experts: PositiveInt | None = None
    """Experts in a layer."""
    top_k_experts: PositiveInt | None = None
    """Experts that a token goes to."""
    moe_intermediate_size: PositiveInt | None = None
    """Width of each expert."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "Gemma4Config":
        for i in range(self.num_hidden_layers):
            if self.num_attention_heads % self.kv_heads(i):
                raise ValueError(
                    f"num_attention_heads ({self.num_attention_heads}) must be a multiple of the key-value heads of "
                    f"layer {i} ({self.kv_heads(i)})"
                )
            if self.borrows(i):
                self.lender(i)
        rows = self.vocab_size_per_layer_input
        if self.hidden_size_per_layer_input and rows is not None and rows < self.vocab_size:
            raise ValueError(
                f"vocab_size_per_layer_input ({rows}) must not be less than vocab_size ({self.vocab_size})"
            )
        return self

    @model_validator(mode="after")
    def _experts_are_told(self) -> "Gemma4Config":
        if not self.enable_moe_block:
            return self
        needed = ("num_experts", "top_k_experts", "moe_intermediate_size")
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"enable_moe_block needs {' and '.join(missing)}")
        check_experts(self.top_k_experts or 0, self.num_experts or 0, "num_experts")
        return self

    def kind(self, i: int) -> LayerType:
        """What layer i sees; the last one sees all, whatever the pattern says."""
        return FULL if i == self.num_hidden_layers - 1 else super().kind(i)

    def head_width(self, i: int) -> int:
        """Width of a head of layer i."""
        width = self.head_dim or self.hidden_size // self.num_attention_heads
        return self.global_head_dim or width if self.kind(i) == FULL else width

    def keys_are_values(self, i: int) -> bool:
        """Whether layer i projects keys and values in one."""
        return self.attention_k_eq_v and self.kind(i) == FULL

    def kv_heads(self, i: int) -> int:
        """Key-value heads of layer i."""
        usual = self.num_key_value_heads or self.num_attention_heads
        return self.num_global_key_value_heads or usual if self.keys_are_values(i) else usual

    def borrows(self, i: int) -> bool:
        """Whether layer i reads the keys and values of an earlier one."""
        return i >= self.num_hidden_layers - self.num_kv_shared_layers

    def lender(self, i: int) -> int:
        """The layer whose keys and values layer i reads: the last of its kind that has its own."""
        own = self.num_hidden_layers - self.num_kv_shared_layers
        found = [j for j in range(own) if self.kind(j) == self.kind(i)]
        if not found:
            raise ValueError(
                f"num_kv_shared_layers is {self.num_kv_shared_layers} of {self.num_hidden_layers}, which leaves no "
                f"layer of {self.kind(i)} with keys for layer {i}"
            )
        return found[-1]

    def lends(self, i: int) -> bool:
        """Whether later layers read the keys and values of layer i."""
        shared = range(self.num_hidden_layers - self.num_kv_shared_layers, self.num_hidden_layers)
        return i in {self.lender(j) for j in shared}

    def mlp_width(self, i: int) -> int:
        """Width of the MLP of layer i."""
        return self.intermediate_size * (2 if self.use_double_wide_mlp and self.borrows(i) else 1)

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A file without these keys means what transformers takes it to mean. Its own files tell the heads of layers
        that see all layer by layer, released ones with two keys.
        """
        values = dict(values)
        both = values.pop("use_bidirectional_attention", None)
        if both not in (None, "vision"):
            raise CheckpointError(
                f"config.json: use_bidirectional_attention {both!r:.80} is not supported for gemma4_text"
            )
        values = {name: value for name, value in super().translate(values).items() if value is not None}
        values = one_for_all_layers(values)
        values |= {} if both is None else {"use_bidirectional_attention": both}
        rope = values["rope_parameters"]
        if (kind := rope.get("rope_type", "proportional")) != "proportional":
            raise CheckpointError(f"config.json: layers that see all have rope_type proportional, not {kind!r:.80}")
        turning = {} if "rope_type" not in rope else {"partial_rotary_factor": 1.0}
        return USUAL | values | {"rope_parameters": turning | rope}

    def to_hf(self) -> dict[str, Any]:
        """config.json, in the spelling of released files."""
        values = super().to_hf()
        values["global_head_dim"] = self.head_width(self.num_hidden_layers - 1)
        values["vocab_size_per_layer_input"] = self.vocab_size_per_layer_input or self.vocab_size
        return values


USUAL = {
    **{"hidden_size": 2304, "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 512},
    **{"global_head_dim": 512, "hidden_size_per_layer_input": 256, "vocab_size_per_layer_input": 262_144},
}
"""What transformers takes a file to mean that does not say it, where it is not the default here."""


def one_for_all_layers(values: dict[str, Any]) -> dict[str, Any]:
    """config.json with `global_head_dim` and `num_global_key_value_heads` for `per_layer_config`.

    Raises:
        CheckpointError: layers that see all differ from each other, or others have heads of their own.
    """
    layers = values.get("per_layer_config")
    if layers is None:
        return values
    told = list(layers.values())
    names = {"head_dim", "num_key_value_heads"}
    if any(one != told[0] or not one.keys() <= names for one in told):
        raise CheckpointError("config.json: per_layer_config may tell head_dim and num_key_value_heads, alike for all")
    kinds = values.get("layer_types") or []
    if kinds and {i for i, kind in enumerate(kinds) if kind == FULL} != {int(i) for i in layers}:
        raise CheckpointError(
            "config.json: per_layer_config must tell of the layers with full_attention, and no others"
        )
    renamed = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}
    said = {renamed[name]: value for name, value in (told[0] if told else {}).items()}
    if "global_head_dim" not in said:
        said["global_head_dim"] = values.get("head_dim", 256)
    return {name: value for name, value in values.items() if name != "per_layer_config"} | said
