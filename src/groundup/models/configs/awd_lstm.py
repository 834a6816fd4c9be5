"""The shape of an AWD-LSTM."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from groundup.models.configs.rnn import RNNConfig

Probability = Annotated[float, Field(ge=0, lt=1)]


class AWDLSTMConfig(RNNConfig):
    """AWD-LSTM (Merity, Keskar & Socher 2017), the language model of ULMFiT (Howard & Ruder 2018)."""

    architecture: ClassVar[str] = "AWDLSTM"
    fixed: ClassVar[dict[str, Any]] = {"num_attention_heads": 1, "cell": "lstm", "hidden_act": "tanh"}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        # Merity et al. 2017, table 1 and 2: 24M and 33M parameters
        "awd-lstm-ptb": {"vocab_size": 10_000},
        "awd-lstm-wt2": {"vocab_size": 33_278, "input_dropout": 0.65},
    }

    model_type: Literal["awd_lstm"] = "awd_lstm"  # type: ignore[assignment]
    """The family."""
    hidden_size: int = Field(default=1150, gt=0)
    """Width of the layers between the first and the last."""
    embedding_size: int = Field(default=400, gt=0)  # type: ignore[assignment]
    """Width of the token vectors and of the last layer."""
    num_hidden_layers: int = Field(default=3, gt=0)
    """Recurrent layers."""
    tie_word_embeddings: bool = True
    """Whether the output head is the embedding matrix."""
    dropout: Probability = 0.4
    """Of the last layer's outputs, one mask for all positions."""
    layer_dropout: Probability = 0.25
    """Of the other layers' outputs."""
    input_dropout: Probability = 0.4
    """Of the features of the token vectors."""
    word_dropout: Probability = 0.1
    """Of whole words."""
    weight_dropout: Probability = 0.5
    """Of the entries of the states' matrices."""
    activation_penalty: float = Field(default=2.0, ge=0)
    """alpha: keeps the last layer's outputs small."""
    change_penalty: float = Field(default=1.0, ge=0)
    """beta: keeps them from changing fast."""

    @property
    def output_size(self) -> int:
        """Width of the last layer's outputs: that of the token vectors."""
        return self.input_size
