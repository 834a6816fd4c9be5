"""Log-likelihood of texts under a model: of continuations, and of whole documents in overlapping windows.

Rows of a batch are padded on the left, so what is scored stands at the right end of every row, and logits are computed
only there, in slices: memory stays bounded and a row's result does not depend on its batch.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from groundup.base.console import progress
from groundup.base.errors import UsageError
from groundup.generation.generate import context_limit, evaluating, pad_left, start_id

if TYPE_CHECKING:
    from groundup.tokenizers.tokenizer import Tokenizer

LOGITS_AT_ONCE = 2**24
DEFAULT_WINDOW = 2048


@dataclass(frozen=True)
class Likelihood:
    """How likely a text is.

    Attributes:
        logprob: natural logarithm of its probability.
        greedy: each of its tokens is the most likely one.
        tokens: how many there are.
        text_bytes: length of the text in UTF-8.
        token_logprobs: of each token.
    """

    logprob: float
    greedy: bool
    tokens: int
    text_bytes: int
    token_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Span:
    """ids (n,): the last `scored` of them are to be scored given those before."""

    ids: Sequence[int]
    scored: int


def loglikelihood(
    model: Any, tokenizer: "Tokenizer", pairs: Sequence[tuple[str, str]], *, batch_size: int = 16
) -> list[Likelihood]:
    """Log p(continuation | context) for each (context, continuation).

    An empty context stands for the begin of a text. See `encode_pair` for where the tokens are cut.

    Raises:
        UsageError: a pair that is longer than the model's context, with both numbers.
    """
    spans = [encode_pair(tokenizer, context, continuation) for context, continuation in pairs]
    limit = context_limit(model)
    for span, (context, continuation) in zip(spans, pairs, strict=True):
        if limit is not None and len(span.ids) - 1 > limit:
            raise UsageError(
                f"context and continuation have {len(span.ids) - 1} tokens to read, but the model's context holds "
                f"{limit}: shorten ...{(context + continuation)[-60:]!r}"
            )
    scored = score_spans(model, spans, batch_size)
    return [
        Likelihood(sum(logprobs), greedy, len(logprobs), utf8_length(text), tuple(logprobs))
        for (logprobs, greedy), (_, text) in zip(scored, pairs, strict=True)
    ]


def rolling_loglikelihood(
    model: Any,
    tokenizer: "Tokenizer",
    texts: Sequence[str],
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
) -> list[Likelihood]:
    """Log p(text) of whole documents of any length, each token scored exactly once.

    A document begins after the tokenizer's begin (or end-of-text) token; where there is neither, its first token is
    charged log V, so that the sum stays the length of a complete code. A long one is cut into windows that overlap: all
    but the first score their last `stride` tokens only, with the tokens before as context.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        texts: the documents.
        window: most tokens the model reads at once; its context (2048 where nothing bounds it) when None.
        stride: new tokens a window; half the window when None. 1 gives every token the longest context.
        batch_size: windows at once.
    """
    limit = context_limit(model)
    window = window or limit or DEFAULT_WINDOW
    stride = stride or max(1, window // 2)
    if limit is not None and window > limit:
        raise UsageError(f"a window of {window} tokens does not fit the model's context of {limit}")
    if not 1 <= stride <= window:
        raise UsageError(f"stride must be between 1 and the window, {window}; got {stride}")

    begin = [token for token in (tokenizer.bos_id, tokenizer.eos_id) if token is not None][:1]
    spans: list[Span] = []
    owners: list[int] = []
    parts: list[list[float]] = []
    for i, ids in enumerate(tokenizer.encode_batch(list(texts))):
        uncharged = bool(ids) and not begin
        parts.append([-math.log(model.config.vocab_size)] if uncharged else [])
        for first, start, end in windows(len(begin) + len(ids), window, stride):
            spans.append(Span([*begin, *ids][first:end], end - start))
            owners.append(i)
    greedy = [True] * len(parts)
    for i, (logprobs, best) in zip(owners, score_spans(model, spans, batch_size), strict=True):
        parts[i] += logprobs
        greedy[i] &= best
    return [
        Likelihood(sum(part), best, len(part), utf8_length(text), tuple(part))
        for part, best, text in zip(parts, greedy, texts, strict=True)
    ]


def windows(length: int, window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(first, start, end): read tokens [first, end), score [start, end); all of 1..length - 1 are scored once.

    A window reads at most `window` tokens to predict from, so it spans one more than that.
    """
    start = 1
    while start < length:
        end = min(length, 1 + window if start == 1 else start + stride)
        yield max(0, end - 1 - window), start, end
        start = end


def encode_pair(tokenizer: "Tokenizer", context: str, continuation: str) -> Span:
    """Tokens of context + continuation; those of the continuation are scored.

    Spaces at the end of the context move to the continuation, since tokenizers put them before a word. Where the text
    as a whole is cut such that a token straddles the border, context and continuation are encoded apart.
    """
    stripped = context.rstrip(" ")
    context, continuation = stripped, context[len(stripped) :] + continuation
    before = tokenizer.encode(context) if context else []
    whole = tokenizer.encode(context + continuation)
    after = whole[len(before) :] if whole[: len(before)] == before else tokenizer.encode(continuation)
    if not after:
        raise UsageError(f"there is nothing to score: the continuation of ...{context[-40:]!r} is empty")
    return Span([*(before or [start_id(tokenizer)]), *after], len(after))


def score_spans(model: Any, spans: Sequence[Span], batch_size: int) -> list[tuple[list[float], bool]]:
    """For each span, in order: the log-probabilities of its scored tokens, and whether each was the most likely one."""
    results: list[tuple[list[float], bool]] = [([], True)] * len(spans)
    order = sorted(range(len(spans)), key=lambda i: -len(spans[i].ids))  # the largest batch first: memory fails early
    starts = range(0, len(order), batch_size)
    with evaluating(model):
        for start in progress(starts, label="scoring", unit="batch"):
            batch = order[start : start + batch_size]
            for i, result in zip(batch, _score_batch(model, [spans[i] for i in batch]), strict=True):
                results[i] = result
    return results


@torch.inference_mode()
def _score_batch(model: Any, spans: list[Span]) -> list[tuple[list[float], bool]]:
    device = next(model.parameters()).device
    ids, documents = pad_left([span.ids for span in spans], device)  # (B, T + 1)
    width = max(span.scored for span in spans)
    head = target_scores(ids[:, -width:])
    logprobs, best = model(ids[:, :-1], documents=None if documents is None else documents[:, :-1], head=head)
    logprobs, best = logprobs.tolist(), best.tolist()
    return [
        (row[width - span.scored :], all(hits[width - span.scored :]))
        for span, row, hits in zip(spans, logprobs, best, strict=True)
    ]


def target_scores(targets: Tensor) -> Callable[[Tensor, Any], tuple[Tensor, Tensor]]:
    """A head: log-probabilities (B, W) float32 of targets (B, W) at the last W columns, and whether each is the best.

    Logits are computed for some columns at a time, in float32 from the softmax on.
    """

    def head(hidden: Tensor, lm_head: Any) -> tuple[Tensor, Tensor]:
        batch, width = targets.shape
        hidden = hidden[:, -width:]
        logprobs, best = [], []
        start, columns = 0, 1  # one column tells the size of the vocabulary
        while start < width:
            part = slice(start, start + columns)
            logits = lm_head(hidden[:, part]).float()  # (B, columns, V)
            chosen = logits.gather(-1, targets[:, part, None])[..., 0]
            logprobs.append(chosen - logits.logsumexp(-1))
            best.append(chosen >= logits.amax(-1))
            start, columns = start + columns, max(1, LOGITS_AT_ONCE // (batch * logits.shape[-1]))
        return torch.cat(logprobs, 1), torch.cat(best, 1)

    return head


def utf8_length(text: str) -> int:
    """Bytes of a text in UTF-8; a lone surrogate counts three, as the U+FFFD that tokenizers read instead."""
    return len(text.encode("utf-8", errors="surrogatepass"))
