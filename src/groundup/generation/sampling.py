"""From logits to a distribution to a token: pure functions.

Letters: B rows, V vocabulary. Each function takes logits (B, V), float, and returns new ones; a token that may not be
chosen has -inf. All but the count penalties behave as the processor of the same purpose in transformers.
"""

import torch
from torch import Tensor

NEVER = float("-inf")


def temperature(logits: Tensor, t: float) -> Tensor:
    """Anneal each step: p_i^(1/t), normalised (Ackley, Hinton and Sejnowski 1985). t = 0: all mass on the best token.

    Per-step annealing is not annealing of the distribution over whole texts, unless t = 1.
    """
    if t == 0:
        best = logits.argmax(-1, keepdim=True)
        return torch.full_like(logits, NEVER).scatter(-1, best, 0.0)
    # softmax(z / t)_i  ~  exp(z_i)^(1/t)
    return logits / t


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest (Fan, Lewis and Dauphin 2018); exactly k, also where several are equal."""
    values, indices = logits.topk(min(k, logits.shape[-1]))
    return torch.full_like(logits, NEVER).scatter(-1, indices, values)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of most likely tokens whose mass reaches p (nucleus sampling, Holtzman et al. 2020)."""
    values, indices = logits.sort(descending=True)
    return torch.full_like(logits, NEVER).scatter(-1, indices, nucleus(values, p))


def nucleus(ordered: Tensor, p: float) -> Tensor:
    """`top_p` for logits (B, N) in falling order."""
    probabilities = ordered.softmax(-1)
    # a token stays while the mass of those before it is below p; so the first always stays
    before = probabilities.cumsum(-1) - probabilities
    return ordered.masked_fill(before >= p, NEVER)


def min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens with probability at least p times the highest one (Nguyen et al. 2024)."""
    # p_i >= p * max_j p_j   <=>   log p_i >= log p + max_j log p_j
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), NEVER)


def repetition_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make seen tokens less likely (CTRL, Keskar et al. 2019). seen (B, V) bool

    z_i / penalty where z_i > 0, and z_i * penalty below, so that the logit always falls.
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def count_penalties(logits: Tensor, counts: Tensor, frequency: float, presence: float) -> Tensor:
    """z_i - frequency * count_i - presence * [count_i > 0] (OpenAI's API). counts (B, V): times generated."""
    return logits - frequency * counts - presence * (counts > 0)


def replace_invalid(logits: Tensor) -> Tensor:
    """NaN becomes 0, +inf the largest and -inf the smallest number of the dtype."""
    largest = torch.finfo(logits.dtype).max
    return logits.nan_to_num(nan=0.0, posinf=largest, neginf=-largest)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Tokens (B,) by inversion: the first whose cumulative probability exceeds u times the total.

    Args:
        probabilities: (B, V), need not be normalised.
        uniform: (B,) in [0, 1), float64 (float32 where the device has no other).
    """
    cumulative = probabilities.to(uniform.dtype).cumsum(-1)
    return torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)[:, 0]
