"""The shape of a GLM of 2021."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.base.errors import CheckpointError
from groundup.models.configs.gpt2 import GPT2Config

MARKS = {
    "mask_token_id": ("[MASK]",),
    "smask_token_id": ("[sMASK]",),
    "gmask_token_id": ("[gMASK]",),
    "bos_token_id": ("<|startofpiece|>", "<sop>"),
    "eop_token_id": ("<|endofpiece|>", "<eop>"),
}
"""How tokenizers spell the marks of blanks."""

BERT = {"mask_token_id": 103, "bos_token_id": 30_522, "eop_token_id": 30_523}
GPT2 = {
    **{"mask_token_id": 50_260, "smask_token_id": 50_264, "gmask_token_id": 50_263},
    **{"bos_token_id": 50_257, "eop_token_id": 50_258},
}
CHINESE = {
    **{"mask_token_id": 50_003, "smask_token_id": 50_008, "gmask_token_id": 50_009},
    **{"bos_token_id": 50_006, "eop_token_id": 50_007},
}
RELEASED = {30_592: BERT, 50_304: GPT2, 50_048: CHINESE}
"""Size of a released vocabulary -> its marks: their config.json leaves them to the tokenizer."""

SWITCHES: dict[str, Any] = {"block_position_encoding": True, "relative_encoding": False, "spell_length": None}
"""Choices that the authors' code offers and that every released model made alike."""


class GLM2021Config(GPT2Config):
    """GLM (Du et al. 2022), of 2021. Its config.json says `glm`, as that of GLM-4 does, and has other keys."""

    architecture: ClassVar[str] = "GLMForConditionalGeneration"
    aliases: ClassVar[dict[str, str]] = {
        "num_layers": "num_hidden_layers",
        "max_sequence_length": "max_position_embeddings",
        "embedding_dropout_prob": "embd_pdrop",
        "attention_dropout_prob": "attn_pdrop",
        "output_dropout_prob": "resid_pdrop",
        "layernorm_epsilon": "layer_norm_epsilon",
    }
    harmless: ClassVar[frozenset[str]] = frozenset(
        {
            *(*SWITCHES, "spell_func", "pool_token", "bad_words_id", "model_name_or_path", "max_memory_length"),
            # how the computation is spread and kept from overflowing, and how weights began; the result is the same
            *("checkpoint_activations", "checkpoint_num_layers", "parallel_output", "output_predict"),
            *("attention_scale", "use_scaled_init_for_output_weights"),
        }
    )
    fixed: ClassVar[dict[str, Any]] = {"intermediate_size": None, "mlp_pdrop": None, "tie_word_embeddings": True}
    marks: ClassVar[dict[str, tuple[str, ...]]] = MARKS
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        "glm-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        "glm-large": {},
        "glm-410m": {"num_hidden_layers": 30},
        "glm-515m": {"hidden_size": 1152, "num_hidden_layers": 30, "num_attention_heads": 18},
        "glm-2b": {
            **{"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 32},
            **{"vocab_size": 50_304, "max_position_embeddings": 1024, **GPT2},
        },
        "glm-10b": {
            **{"hidden_size": 4096, "num_hidden_layers": 48, "num_attention_heads": 64},
            **{"vocab_size": 50_304, "max_position_embeddings": 1024, **GPT2},
        },
        "glm-large-chinese": {"vocab_size": 50_048, "max_position_embeddings": 1024, **CHINESE},
        "glm-10b-chinese": {
            **{"hidden_size": 4096, "num_hidden_layers": 48, "num_attention_heads": 64},
            **{"vocab_size": 50_048, "max_position_embeddings": 1024, **CHINESE},
        },
    }

    model_type: Literal["glm_2021"] = "glm_2021"  # type: ignore[assignment]
    """The family."""
    vocab_size: int = Field(default=30_592, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=1024, gt=0)
    """Width of the residual stream."""
    num_hidden_layers: int = Field(default=24, gt=0)
    """Blocks."""
    num_attention_heads: int = Field(default=16, gt=0)
    """Heads."""
    max_position_embeddings: int = Field(default=512, gt=0)
    """Learned positions of each kind, one less than the tables have rows: the longest context."""
    bos_token_id: int = Field(default=30_522, ge=0)
    """[START] (sop), which ends a prompt and begins what is written."""
    eop_token_id: int = Field(default=30_523, ge=0)
    """[END] (eop), which ends what is written."""
    mask_token_id: int = Field(default=103, ge=0)
    """[MASK], a short blank in the text."""
    smask_token_id: int | None = Field(default=None, ge=0)
    """[sMASK], a blank of whole sentences; [MASK] when not given."""
    gmask_token_id: int | None = Field(default=None, ge=0)
    """[gMASK], a long blank; [MASK] when not given."""

    @property
    def masks(self) -> tuple[int, ...]:
        """The ids that stand for blanks."""
        every = (self.mask_token_id, self.smask_token_id, self.gmask_token_id)
        return tuple(id for id in every if id is not None)

    @classmethod
    def reads(cls, values: dict[str, Any]) -> bool:
        """Whether a config.json that says `glm` is of a GLM of 2021."""
        return values.get("model_type") == "glm" and "max_sequence_length" in values

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Refuse what the authors' code can do besides; ids of marks that a release leaves to its tokenizer."""
        for name, needed in SWITCHES.items():
            if values.get(name, needed) != needed:
                raise CheckpointError(f"config.json: {name} of a GLM can only be {needed}, not {values[name]}")
        size = values.get("vocab_size")
        if "mask_token_id" not in values:
            if size not in RELEASED:
                raise CheckpointError(
                    f"config.json of a GLM with a vocabulary of {size} does not tell the ids of its marks: give "
                    "bos_token_id, eop_token_id and mask_token_id (smask_token_id and gmask_token_id where it has them)"
                )
            values = values | RELEASED[size]
        return values | {"model_type": cls.family()}

    def to_hf(self) -> dict[str, Any]:
        """config.json under the authors' name; the activation only where it is not theirs."""
        values = super().to_hf() | {"model_type": "glm", "block_position_encoding": True, "output_predict": True}
        if self.hidden_act == type(self).model_fields["hidden_act"].default:
            del values["hidden_act"]
        return values
