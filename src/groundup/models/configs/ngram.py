"""The shape of an n-gram model, and the ways to smooth it. No torch here, and no numpy."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PositiveInt

from groundup.base.config import Config, one_of
from groundup.models.configs.base import ModelConfig


class SmoothingConfig(Config):
    """How counts become probabilities."""


class MaximumLikelihood(SmoothingConfig):
    """c(h w) / c(h): nothing that was not seen is possible."""

    kind: Literal["maximum_likelihood"] = "maximum_likelihood"


class Additive(SmoothingConfig):
    """(c(h w) + k) / (c(h) + k V) (Lidstone 1920; k = 1 is Laplace's rule)."""

    kind: Literal["additive"] = "additive"
    k: float = Field(default=1.0, gt=0)
    """What is added to every count."""


class JelinekMercer(SmoothingConfig):
    """λ c(h w) / c(h) + (1 - λ) p(w|h') (Jelinek & Mercer 1980)."""

    kind: Literal["jelinek_mercer"] = "jelinek_mercer"
    weight: float | None = Field(default=None, ge=0, le=1)
    """λ of all orders; None learns one for each order and size of c(h), by expectation maximisation on held-out
    documents."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training symbols that the weights are learned on, at its end; all are counted afterwards."""


class WittenBell(SmoothingConfig):
    """(c(h w) + T p(w|h')) / (c(h) + T), with T the number of different w after h (Witten & Bell 1991)."""

    kind: Literal["witten_bell"] = "witten_bell"


class AbsoluteDiscounting(SmoothingConfig):
    """max(c(h w) - D, 0) / c(h) + g(h) p(w|h') (Ney, Essen & Kneser 1994)."""

    kind: Literal["absolute_discounting"] = "absolute_discounting"
    discount: float | None = Field(default=None, gt=0, lt=1)
    """D; None takes n1 / (n1 + 2 n2) of each order."""


class Katz(SmoothingConfig):
    """Seen n-grams are discounted after Good and Turing, unseen ones back off (Katz 1987)."""

    kind: Literal["katz"] = "katz"
    cutoff: int | None = Field(default=5, ge=1)
    """Counts above it are trusted as they are; None discounts all counts, smoothed as by Gale & Sampson 1995."""


class KneserNey(SmoothingConfig):
    """Absolute discounting whose lower orders count in how many contexts a symbol stands (Kneser & Ney 1995)."""

    kind: Literal["kneser_ney"] = "kneser_ney"
    discount: float | None = Field(default=None, gt=0, lt=1)
    """D; None takes n1 / (n1 + 2 n2) of each order."""


class ModifiedKneserNey(SmoothingConfig):
    """Kneser-Ney with three discounts an order, for counts of 1, 2 and more (Chen & Goodman 1999)."""

    kind: Literal["modified_kneser_ney"] = "modified_kneser_ney"


class StupidBackoff(SmoothingConfig):
    """c(h w) / c(h), or alpha times the shorter one; a score that does not sum to 1 (Brants et al. 2007)."""

    kind: Literal["stupid_backoff"] = "stupid_backoff"
    alpha: float = Field(default=0.4, gt=0, le=1)
    """What the score of the shorter n-gram is multiplied by."""


if TYPE_CHECKING:  # for a type checker the members are their base
    AnySmoothing = SmoothingConfig
else:
    AnySmoothing = one_of(SmoothingConfig)


class NGramConfig(ModelConfig):
    """An n-gram language model: the next token given the n - 1 before it, by counting."""

    architecture: ClassVar[str] = "NGramLM"
    counted: ClassVar[bool] = True
    fixed: ClassVar[dict[str, Any]] = {"hidden_size": 1, "num_hidden_layers": 1, "num_attention_heads": 1}
    sizes: ClassVar[dict[str, dict[str, Any]]] = {
        # T. Brants, A. Franz, "Web 1T 5-gram version 1", LDC2006T13: what a trillion words of the web hold
        "web-1t-5gram": {
            "vocab_size": 13_588_391,
            "order": 5,
            "smoothing": {"kind": "stupid_backoff"},
            "grams": [13_588_391, 314_843_401, 977_069_902, 1_313_818_354, 1_176_470_663],
        },
    }

    model_type: Literal["ngram"] = "ngram"
    """The family."""
    vocab_size: PositiveInt = 256
    """Token ids."""
    order: PositiveInt = 5
    """n: tokens of an n-gram, the predicted one included."""
    smoothing: AnySmoothing = ModifiedKneserNey()
    """From counts to probabilities."""
    grams: list[int] = []
    """How many different k-grams were seen, k = 1 to n; empty before anything was counted."""
    hidden_size: PositiveInt = 1
    """None here: the field is that of other families."""
    num_hidden_layers: PositiveInt = 1
    """None here."""
    num_attention_heads: PositiveInt = 1
    """None here."""
    max_position_embeddings: int | None = Field(default=None, gt=0)  # type: ignore[assignment]
    """A longest context, if there shall be one; only the last n - 1 tokens count in any case."""
