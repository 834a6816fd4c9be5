"""The shape of a feed-forward language model."""

from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from groundup.models.configs.base import ModelConfig


class BengioConfig(ModelConfig):
    """The feed-forward neural language model of Bengio et al. 2003."""

    architecture: ClassVar[str] = "FeedForwardLM"
    fixed: ClassVar[dict[str, Any]] = {
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "tie_word_embeddings": False,
    }
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        # Bengio et al. 2003, section 4: MLP1 on the Brown corpus and MLP10 on AP News
        "bengio-brown": {"vocab_size": 16_383, "order": 5, "embedding_size": 60, "hidden_size": 50},
        "bengio-ap": {"vocab_size": 17_964, "order": 6, "embedding_size": 100, "hidden_size": 60},
    }

    model_type: Literal["bengio"] = "bengio"
    """The family."""
    vocab_size: PositiveInt = 16_383
    """Token ids."""
    order: int = Field(default=5, ge=2)
    """n: the word and the n - 1 before it, which are all that the model sees."""
    embedding_size: PositiveInt = 60
    """m: features of a word."""
    hidden_size: PositiveInt = 50
    """h: hidden units."""
    direct: bool = True
    """Connections from the words' features straight to the output, beside the hidden layer."""
    num_hidden_layers: PositiveInt = 1
    """One."""
    num_attention_heads: PositiveInt = 1
    """None here: the field is that of other families."""
    max_position_embeddings: int | None = Field(default=None, gt=0)  # type: ignore[assignment]
    """A longest context, if there shall be one; only the last n - 1 tokens count in any case."""
