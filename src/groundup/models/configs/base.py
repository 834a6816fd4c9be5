"""ModelConfig: the shape of a model, under the field names of Hugging Face's config.json."""

from typing import Any, ClassVar, Self

from pydantic import Field, PositiveInt, model_validator

from groundup.base.config import Config
from groundup.base.errors import CheckpointError, did_you_mean
from groundup.base.hf_config import normalise_config

# Keys that any config.json may carry and that change nothing in the forward pass. They are kept and written back.
HARMLESS = frozenset(
    (
        "_commit_hash _name_or_path add_cross_attention architectures attn_implementation attribute_map auto_map "
        "bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward cross_attention_hidden_size "
        "decoder_start_token_id diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size "
        "eos_token_id exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id "
        "gradient_checkpointing id2label is_decoder is_encoder_decoder label2id length_penalty max_length min_length "
        "no_repeat_ngram_size num_beam_groups num_beams num_key_value_groups num_return_sequences output_attentions "
        "output_hidden_states output_scores pad_token_id prefix pretraining_tp problem_type pruned_heads "
        "remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens "
        "task_specific_params temperature tf_legacy_loss tie_encoder_decoder top_k top_p torch_dtype torchscript "
        "transformers_version typical_p unk_token_id unsloth_version use_bfloat16 use_cache "
    ).split()
)


class ModelConfig(Config):
    """The shape of a model.

    A family subclasses it with `model_type: Literal["..."]`, its own fields, and what else differs: `aliases` (other
    spellings of our fields), `harmless` (keys of its config.json that change nothing), `architecture`.
    """

    aliases: ClassVar[dict[str, str]] = {}
    harmless: ClassVar[frozenset[str]] = frozenset()
    architecture: ClassVar[str] = ""
    fixed: ClassVar[dict[str, Any]] = {}
    """Fields of the ancestor that this family's config.json lacks: name -> the one value that they have here."""
    counted: ClassVar[bool] = False
    """Whether the family learns by counting, not by gradients."""
    marks: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Fields that are ids of tokens which the family finds in a text, and how tokenizers spell them."""
    bounded: ClassVar[bool] = True
    """Whether nothing can be read beyond max_position_embeddings."""
    whole: ClassVar[str] = ""
    """model_type of a larger model, for images too, whose config.json has this family's inside it as `text_config`."""
    sizes: ClassVar[dict[str, dict[str, Any]]] = {}
    """Published sizes: name -> the fields that make it."""

    model_type: Any
    """The family: a Literal of its own in every subclass."""
    vocab_size: PositiveInt
    """Token ids."""
    hidden_size: PositiveInt
    """Width of the residual stream."""
    num_hidden_layers: PositiveInt
    """Blocks."""
    num_attention_heads: PositiveInt
    """Query heads."""
    max_position_embeddings: PositiveInt = 2048
    """Longest context the model is meant for, in tokens."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights."""
    tie_word_embeddings: bool = False
    """Whether the output head is the embedding matrix."""
    kept: dict[str, Any] = Field(default={}, repr=False)
    """Keys of the checkpoint's config.json that change nothing here; written back by `to_hf`."""

    @model_validator(mode="after")
    def _fixed_fields_are_untouched(self) -> Self:
        for name, value in self.fixed.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name} is {value} in every {self.family()} model, not {getattr(self, name)}")
        return self

    @classmethod
    def from_hf(cls, values: dict[str, Any]) -> Self:
        """Read a config.json, in today's spelling or an older one.

        Raises:
            CheckpointError: keys that are not known here and might change what the model computes.
        """
        values = cls.translate(normalise_config(values))
        names = {cls.aliases.get(name, name): name for name in values}
        known = {name: values[theirs] for name, theirs in names.items() if name in cls.model_fields}
        rest = {theirs: values[theirs] for name, theirs in names.items() if name not in cls.model_fields}
        unknown = [name for name in rest if name not in HARMLESS and name not in cls.harmless]
        if unknown:
            hint = did_you_mean(unknown[0], [*cls.model_fields, *cls.aliases])
            raise CheckpointError(
                f"config.json of a {cls.family()} model has keys that are not understood here: "
                f"{', '.join(unknown)}.{hint} "
                "They might change what the model computes, so it is not loaded."
            )
        known = {name: value for name, value in known.items() if value is not None or name == "kept"}
        return cls.parse(known | {"kept": rest}, where="config.json")

    @classmethod
    def translate(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A family's chance to read what is spelled in more than another name."""
        return values

    def to_hf(self) -> dict[str, Any]:
        """The config.json of this model, with the keys that came with it."""
        theirs = {ours: name for name, ours in self.aliases.items()}
        own = self.model_dump(mode="json", exclude={"kept", *self.fixed})
        named = {theirs.get(name, name): value for name, value in own.items()}
        return {"architectures": [self.architecture]} | self.kept | named

    @classmethod
    def family(cls) -> str:
        """The model_type."""
        return str(cls.model_fields["model_type"].default)

    @classmethod
    def of_size(cls, name: str, **changes: Any) -> Self:
        """A published size by name."""
        if name not in cls.sizes:
            raise CheckpointError(f"{cls.family()} has no size `{name}`. One of: {', '.join(cls.sizes)}")
        return cls.parse({**cls.sizes[name], **changes}, where=name)
