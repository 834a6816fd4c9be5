"""SamplingConfig: how the next token is chosen and when a text ends. No torch here: the command line starts fast."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from groundup.base.config import Config, FromText


class SamplingConfig(Config):
    """How the next token is chosen and when a text ends.

    The settings act in the order in which transformers applies them: logit_bias, repetition_penalty, (frequency and
    presence penalty), min_new_tokens, the guard of invalid scores, temperature, top_k, top_p, min_p.
    """

    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Logits are divided by it: 0 takes the most likely token, 1 samples the model as it is, more is more varied."""
    top_k: int = Field(default=0, ge=0)
    """Sample among the k most likely tokens; 0: all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample among the fewest tokens whose probabilities reach p; 1: all."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Drop tokens less likely than min_p times the most likely one; 0: none."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Above 1: tokens of the prompt and the text so far become less likely (Keskar et al. 2019)."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit for each time it was generated."""
    presence_penalty: float = 0.0
    """Subtracted from the logit of every token that was generated at least once."""
    logit_bias: dict[int, float] = Field(default_factory=dict)
    """Token id -> number added to its logit; -inf forbids it. On the command line: --logit-bias 13=-5"""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Most tokens to generate. None: 256, or what the context leaves; a number that does not fit is an error."""
    min_new_tokens: int = Field(default=0, ge=0)
    """No end-of-text and no stop id before this many tokens."""
    stop: list[str] = Field(default_factory=list)
    """Texts that end the generation; they are not part of the result."""
    stop_ids: list[int] = Field(default_factory=list)
    """Token ids that end the generation, besides the end-of-text of tokenizer and model."""
    ignore_eos: bool = False
    """Go on after end-of-text."""
    seed: int | None = Field(default=0, ge=0)
    """Same seed, prompt and settings: same text, whatever else is in the batch. None: a new seed each time."""
    invalid_scores: Literal["raise", "replace"] = "raise"
    """NaN or +inf among the logits: stop with an error, or replace them by 0 and by the largest number."""
    cache_bits: Annotated[Literal[4, 8] | None, FromText] = None
    """Keep keys and values in so many bits: longer texts fit, and logits change a little. None: as they are."""


def with_overrides(
    config: SamplingConfig | None, stop: str | Sequence[str] | None, values: dict[str, Any]
) -> SamplingConfig:
    """`config` (default: SamplingConfig()) with other stop texts and other values; UsageError for unknown names."""
    if stop is not None:
        values = {**values, "stop": [stop] if isinstance(stop, str) else list(stop)}
    base = config or SamplingConfig()
    return SamplingConfig.parse({**base.model_dump(), **values}, where="sampling settings") if values else base


def sources(config: Config) -> dict[str, str]:
    """Sampling setting -> "given" or "default": where each number in force came from."""
    return {name: "given" if name in config.model_fields_set else "default" for name in SamplingConfig.model_fields}
