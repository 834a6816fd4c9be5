"""The shape of an ELMo."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from groundup.models.configs.base import ModelConfig

Probability = Annotated[float, Field(ge=0, lt=1)]

FILTERS = [(1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024)]
"""Width and number of the released model's convolutions over characters."""


class ElmoConfig(ModelConfig):
    """ELMo (Peters et al. 2018): two language models, one from each end of the text."""

    architecture: ClassVar[str] = "Elmo"
    fixed: ClassVar[dict[str, Any]] = {"num_attention_heads": 1, "tie_word_embeddings": False}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        # The released models; without the softmax over 793,471 words they have 93.6M, 28.0M and 13.6M parameters
        "elmo-original": {"vocab_size": 793_471, "clip": 3.0},
        "elmo-medium": {"vocab_size": 793_471, "hidden_size": 256, "cell_size": 2048, "highways": 1, "clip": 3.0},
        "elmo-small": {"vocab_size": 793_471, "hidden_size": 128, "cell_size": 1024, "highways": 1, "clip": 3.0},
    }

    model_type: Literal["elmo"] = "elmo"
    """The family."""
    vocab_size: PositiveInt = 793_471
    """Words of the softmax."""
    hidden_size: PositiveInt = 512
    """Width of the token vectors and of each direction's outputs."""
    cell_size: PositiveInt = 4096
    """Width of the cells, whose outputs are projected to hidden_size."""
    num_hidden_layers: PositiveInt = 2
    """Layers in each direction."""
    num_attention_heads: PositiveInt = 1
    """None here: the field is that of other families."""
    characters: bool = True
    """Token vectors from the tokens' characters; otherwise one row of a table each."""
    filters: list[tuple[int, int]] = FILTERS
    """(width, number) of each convolution over characters."""
    char_dim: PositiveInt = 16
    """Width of a character's vector."""
    longest_word: int = Field(default=50, ge=8)
    """Characters of a token; the rest of a longer one is left out."""
    highways: int = Field(default=2, ge=0)
    """Highway layers over the convolutions."""
    clip: float | None = Field(default=None, gt=0)
    """Largest size of the cells' and outputs' entries (3 in the released models); none when not given."""
    dropout: Probability = 0.0
    """Of the token vectors and of each layer's outputs (0.1 in the paper)."""
    max_position_embeddings: int | None = Field(default=None, gt=0)  # type: ignore[assignment]
    """A longest context, if there shall be one."""
