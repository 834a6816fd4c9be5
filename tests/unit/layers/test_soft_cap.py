"""Soft caps: their parts alone, and a capped head in training."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from groundup.layers.attention import AttentionCore
from groundup.layers.masks import Mask
from groundup.layers.soft_cap import CappedAttentionCore, CappedLinear, soft_cap
from groundup.training.objectives.cross_entropy import chunked_cross_entropy


def test_small_values_pass_and_large_ones_stay_within_the_cap():
    assert_close(soft_cap(torch.tensor([0.01, -0.02]), 30.0), torch.tensor([0.01, -0.02]))
    assert_close(soft_cap(torch.tensor([1e4, -1e4]), 30.0), torch.tensor([30.0, -30.0]))


@pytest.mark.parametrize("kind", ["none", "causal", "allowed", "bias"])
def test_a_core_with_a_cap_beyond_reach_is_the_plain_core(kind):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    seen = torch.ones(5, 5).tril(1).bool()[None, None]
    masks = {"none": Mask(), "causal": Mask(causal=True), "allowed": Mask(allowed=seen)}
    mask = masks.get(kind) or Mask(causal=True).biased(torch.randn(1, 4, 5, 5))
    for scale in (None, 0.7):
        capped, plain = CappedAttentionCore(1e5, scale=scale), AttentionCore(scale=scale)
        assert_close(capped(q, k, v, mask), plain(q, k, v, mask), rtol=1e-4, atol=1e-5)  # tanh(x) = x up to 1e-9 x
        assert_close(capped.weights(q, k, mask), plain.weights(q, k, mask), rtol=1e-4, atol=1e-5)
    tight = CappedAttentionCore(0.5)
    assert not torch.allclose(tight(q, k, v, mask), AttentionCore()(q, k, v, mask), atol=1e-2)


def test_a_training_step_sees_capped_logits():
    """The chunked loss, which reads plain heads by their weights, gives the loss and gradients of capped logits."""
    torch.manual_seed(0)
    head, hidden = CappedLinear(8, 20, cap=1.5), torch.randn(2, 7, 8, requires_grad=True)
    labels = torch.randint(0, 20, (2, 7))
    total, weight, _ = chunked_cross_entropy(hidden, head, labels, chunk=5)
    got = torch.autograd.grad(total, [hidden, head.weight])
    logits = 1.5 * torch.tanh(hidden @ head.weight.T / 1.5)
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    assert_close(total, expected)
    assert weight == 14
    for one, other in zip(got, torch.autograd.grad(expected, [hidden, head.weight]), strict=True):
        assert_close(one, other)
