"""Attention sinks: a score without a value."""

import pytest
import torch
from torch.testing import assert_close

from groundup.layers.attention import AttentionCore
from groundup.layers.attention_sinks import SinkCore
from groundup.layers.masks import Mask

MASKS = {
    "causal": Mask(causal=True),
    "everything": Mask(),
    "allowed": Mask(allowed=torch.ones(2, 1, 5, 5).tril().triu(-1).bool()),
    "biased": Mask(causal=True).biased(torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(3))),
}


@pytest.fixture
def qkv():
    torch.manual_seed(0)
    return torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)


@pytest.mark.parametrize("name", MASKS)
def test_results_and_gradients_are_those_of_weights_times_values(name, qkv):
    core, (q, k, v) = SinkCore(4), (x.requires_grad_() for x in qkv)
    torch.nn.init.normal_(core.sinks)
    wanted = core.weights(q, k, MASKS[name]) @ v.repeat_interleave(2, dim=1)
    mine = core(q, k, v, MASKS[name])
    assert_close(mine, wanted)
    gradients = [
        torch.autograd.grad(y.square().sum(), [q, k, v, core.sinks], retain_graph=True) for y in (mine, wanted)
    ]
    assert_close(*gradients)


def test_what_the_sink_takes_is_missing_from_the_rows(qkv):
    core, (q, k, _) = SinkCore(4), qkv
    plain = AttentionCore().weights(q, k, MASKS["causal"])
    with torch.no_grad():
        core.sinks.fill_(-1e4)
        assert_close(core.weights(q, k, MASKS["causal"]), plain)
        core.sinks.copy_(torch.tensor([0.0, 1.0, 2.0, 1e4]))
        rows = core.weights(q, k, MASKS["causal"]).sum(-1)
    scores = (q @ k.repeat_interleave(2, dim=1).mT / 8**0.5).masked_fill(~torch.ones(5, 5).tril().bool(), -torch.inf)
    total = scores.exp().sum(-1)
    assert_close(rows, total / (total + core.sinks.detach()[None, :, None].exp()))
    assert (rows[:, 3] == 0).all()
