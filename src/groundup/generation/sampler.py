"""Sampler: a SamplingConfig applied to the rows of a batch, step by step.

Randomness is one uniform number a row and step, from a counter-based generator whose key is (seed, prompt, how many
equal prompts stand before it). So a row's text depends on nothing else in the batch, and no device needs a generator.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from groundup.generation import sampling
from groundup.generation.config import SamplingConfig


class Sampler:
    """Chooses the next token of each row.

    Args:
        config: the settings.
        prompts: ids of each row; the repetition penalty counts them as seen.
        copies: for each row, how many rows with the same prompt come before it.
        end_ids: ids that may not come before `min_new_tokens`.
        vocab_size: V.
        steps: most steps to come.
        device: of the logits.
    """

    def __init__(
        self,
        config: SamplingConfig,
        prompts: Sequence[Sequence[int]],
        copies: Sequence[int],
        end_ids: Sequence[int],
        vocab_size: int,
        steps: int,
        device: torch.device,
    ):
        self.config, self.step = config, 0
        shape = (len(prompts), vocab_size)
        self.bias: Tensor | None = None
        self.seen: Tensor | None = None
        self.counts: Tensor | None = None
        self.ends: Tensor | None = None
        self.uniform: Tensor | None = None
        if config.logit_bias:
            self.bias = torch.zeros(vocab_size, device=device)
            self.bias[list(config.logit_bias)] = torch.tensor(list(config.logit_bias.values()), device=device)
        if config.repetition_penalty != 1:
            self.seen = seen_tokens(prompts, vocab_size).to(device)
        if config.frequency_penalty or config.presence_penalty:
            self.counts = torch.zeros(shape, device=device)
        if config.min_new_tokens and end_ids:
            self.ends = torch.tensor(list(end_ids), device=device)
        if config.temperature > 0:
            numbers = np.stack(
                [uniforms(config.seed, ids, copy, steps) for ids, copy in zip(prompts, copies, strict=True)]
            )
            dtype = torch.float32 if device.type == "mps" else torch.float64
            self.uniform = torch.from_numpy(numbers).to(device, dtype)

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits (B, V) -> tokens (B,) int64; -1 where a NaN or +inf (or nothing allowed at all) leaves no choice."""
        scores = self.process(logits)
        indices = None
        if self.uniform is None:
            best, tokens = scores.max(-1)
        else:
            scores, indices = shortlist(scores / self.config.temperature, self.config)
            best = scores.amax(-1)
            tokens = sampling.draw(scores.softmax(-1), self.uniform[:, self.step])
            if indices is not None:
                tokens = indices.gather(-1, tokens.clamp(max=indices.shape[-1] - 1)[:, None])[:, 0]
        tokens = torch.where(best.isfinite(), tokens, -1)
        self._count(tokens)
        return tokens

    def process(self, logits: Tensor) -> Tensor:
        """What comes before the temperature; the same tensor where nothing is to do."""
        config = self.config
        if self.uniform is not None or config.invalid_scores == "replace":
            logits = logits.float()
        if self.bias is not None:
            logits = logits + self.bias
        if self.seen is not None:
            logits = sampling.repetition_penalty(logits, self.seen, config.repetition_penalty)
        if self.counts is not None:
            logits = sampling.count_penalties(logits, self.counts, config.frequency_penalty, config.presence_penalty)
        if self.ends is not None and self.step < config.min_new_tokens:
            logits = logits.index_fill(-1, self.ends, sampling.NEVER)
        return sampling.replace_invalid(logits) if config.invalid_scores == "replace" else logits

    def select(self, rows: Tensor) -> None:
        """Keep these rows. rows (N,) int64"""
        for name in ("seen", "counts", "uniform"):
            tensor = getattr(self, name)
            if tensor is not None:
                setattr(self, name, tensor[rows])

    def _count(self, tokens: Tensor) -> None:
        self.step += 1
        column = tokens.clamp(min=0)[:, None]
        if self.seen is not None:
            self.seen.scatter_(-1, column, True)
        if self.counts is not None:
            self.counts.scatter_add_(-1, column, self.counts.new_ones(column.shape))


def shortlist(logits: Tensor, config: SamplingConfig) -> tuple[Tensor, Tensor | None]:
    """top_k, top_p and min_p, in this order; sorts only what it must.

    Returns:
        scores (B, N), and the ids (B, N) that they belong to, or None where they are all ids in order.
    """
    indices = None
    if 0 < config.top_k < logits.shape[-1]:
        logits, indices = logits.topk(config.top_k)
    elif config.top_p < 1:
        logits, indices = logits.sort(descending=True)
    if config.top_p < 1:
        logits = sampling.nucleus(logits, config.top_p)
    if config.min_p > 0:
        logits = sampling.min_p(logits, config.min_p)
    return logits, indices


def seen_tokens(prompts: Sequence[Sequence[int]], vocab_size: int) -> Tensor:
    """(B, V) bool: which tokens each prompt holds."""
    seen = torch.zeros(len(prompts), vocab_size, dtype=torch.bool)
    for row, ids in enumerate(prompts):
        seen[row, torch.tensor(ids, dtype=torch.int64)] = True
    return seen


def uniforms(seed: int | None, prompt: Sequence[int], copy: int, steps: int) -> np.ndarray:
    """`steps` numbers in [0, 1) that depend on seed, prompt and copy alone (Philox, Salmon et al. 2011)."""
    key = hashlib.sha256(repr((seed, copy, list(prompt))).encode()).digest()[:16]
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    # a hair below 1, so that u * total stays below the total in floating point
    return np.minimum(generator.random(steps), 1 - 2.0**-24)
