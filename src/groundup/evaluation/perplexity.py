"""Perplexity and bits per byte.

Perplexity is exp of the mean negative log-likelihood a token: the inverse geometric mean of the tokens' probabilities,
and the number of equally likely choices that would be as hard. Three fair coins have 2^3 = 8 outcomes and perplexity 8.
It judges recall, not precision: one impossible token makes it infinite, while mixing in a share e of noise costs at
most a factor 1 / (1 - e).

Bits per byte divides the same sum by the bytes of the text, so models with different tokenizers can be compared.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundup.base.errors import DataError
from groundup.evaluation.likelihood import Likelihood, rolling_loglikelihood
from groundup.evaluation.metrics.statistics import ratio_stderr

if TYPE_CHECKING:
    from groundup.tokenizers.tokenizer import Tokenizer


def perplexity(logprobs: Iterable[float]) -> float:
    """exp(1/L sum_i -log p_i) of natural log-probabilities; infinity where one is -inf. DataError without any."""
    values = list(logprobs)
    if not values:
        raise DataError("perplexity of no tokens is not defined: the text is empty")
    return exp(-math.fsum(values) / len(values) if -math.inf not in values else math.inf)


def mix(logprobs: Sequence[float], noise: Sequence[float], share: float) -> list[float]:
    """Log-probabilities of the mixture (1 - share) p + share r, token by token.

    As r >= 0, each is at least log p + log(1 - share): so ppl(mixture) <= ppl(p) / (1 - share).
    """
    return [_log((1 - share) * math.exp(p) + share * math.exp(r)) for p, r in zip(logprobs, noise, strict=True)]


@dataclass(frozen=True)
class Measurement:
    """The likelihood of a set of documents.

    Attributes:
        logprob: sum over all tokens, natural logarithm.
        tokens: tokens scored.
        text_bytes: UTF-8 bytes of the texts.
        documents: how many.
        bits_per_byte_stderr: standard error over documents; nan for a single one.
    """

    logprob: float
    tokens: int
    text_bytes: int
    documents: int
    bits_per_byte_stderr: float

    @property
    def perplexity(self) -> float:
        """exp(-logprob / tokens)."""
        return exp(-self.logprob / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """-logprob / (bytes ln 2)."""
        return -self.logprob / self.text_bytes / math.log(2)

    @property
    def loss(self) -> float:
        """-logprob / tokens, in nats."""
        return -self.logprob / self.tokens


def measure(
    model: Any,
    tokenizer: "Tokenizer",
    texts: Sequence[str],
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
) -> Measurement:
    """Perplexity and bits per byte of documents under any model; see `rolling_loglikelihood` for the arguments."""
    return summarize(
        rolling_loglikelihood(model, tokenizer, texts, window=window, stride=stride, batch_size=batch_size)
    )


def summarize(likelihoods: Sequence[Likelihood]) -> Measurement:
    """Add up documents; DataError when there is no text."""
    tokens, size = sum(item.tokens for item in likelihoods), sum(item.text_bytes for item in likelihoods)
    if tokens == 0:
        raise DataError("there is no text to measure: every document is empty")
    bits = [-item.logprob / math.log(2) for item in likelihoods]
    stderr = ratio_stderr(bits, [item.text_bytes for item in likelihoods])
    return Measurement(math.fsum(item.logprob for item in likelihoods), tokens, size, len(likelihoods), stderr)


def exp(x: float) -> float:
    """exp, infinite where it would overflow."""
    return math.exp(x) if x < 709 else math.inf


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf
