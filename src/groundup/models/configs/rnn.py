"""The shape of a recurrent language model."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from groundup.models.configs.base import ModelConfig

Probability = Annotated[float, Field(ge=0, lt=1)]


class RNNConfig(ModelConfig):
    """A recurrent language model (Mikolov et al. 2010; Zaremba et al. 2014)."""

    architecture: ClassVar[str] = "RecurrentLM"
    fixed: ClassVar[dict[str, Any]] = {"num_attention_heads": 1}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        # Zaremba et al. 2014, section 4.1, on the Penn Treebank
        "zaremba-medium": {"vocab_size": 10_000, "hidden_size": 650, "dropout": 0.5, "initializer_range": 0.05},
        "zaremba-large": {"vocab_size": 10_000, "hidden_size": 1500, "dropout": 0.65, "initializer_range": 0.04},
    }

    model_type: Literal["rnn"] = "rnn"
    """The family."""
    vocab_size: int = Field(default=10_000, gt=0)
    """Token ids."""
    hidden_size: int = Field(default=650, gt=0)
    """Width of the state, and of the layers' outputs."""
    embedding_size: int | None = Field(default=None, gt=0)
    """Width of the token vectors; hidden_size when not given."""
    num_hidden_layers: int = Field(default=2, gt=0)
    """Recurrent layers."""
    num_attention_heads: int = 1
    """None here: the field is that of other families."""
    cell: Literal["simple", "lstm", "gru", "gru_reset_first"] = "lstm"
    """What a layer computes at each step. gru_reset_first is the GRU as published; gru that of torch and cuDNN."""
    hidden_act: Literal["tanh", "relu", "sigmoid"] = "tanh"
    """Of the simple cell."""
    forget_bias: float = 1.0
    """Where the forget gates of an LSTM begin: 1 lets the cell remember from the start (Jozefowicz et al. 2015)."""
    dropout: Probability = 0.0
    """Of the token vectors and of each layer's outputs, never of the state (Zaremba et al. 2014)."""
    initializer_range: float | None = Field(default=None, gt=0)  # type: ignore[assignment]
    """Weights begin uniform in ± this; ± 1/√hidden_size when not given."""
    max_position_embeddings: int | None = Field(default=None, gt=0)  # type: ignore[assignment]
    """A longest context, if there shall be one: the state is of one size, however long the text."""

    @model_validator(mode="after")
    def _tied_widths_agree(self) -> "RNNConfig":
        if self.tie_word_embeddings and self.input_size != self.output_size:
            raise ValueError(
                f"a tied head needs embedding_size ({self.embedding_size}) to be hidden_size ({self.hidden_size})"
            )
        return self

    @property
    def output_size(self) -> int:
        """Width of the last layer's outputs."""
        return self.hidden_size

    @property
    def input_size(self) -> int:
        """Width of the token vectors."""
        return self.embedding_size or self.hidden_size
