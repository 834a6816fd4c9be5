"""Who sees whom: each rule against a loop over its paper's words."""

import pytest
import torch
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.layers.attention import Attention
from groundup.layers.context import Context
from groundup.layers.masks import (
    UNILM_MODES,
    Bidirectional,
    BlankInfilling,
    Causal,
    Prefix,
    RightToLeft,
    UniLM,
    prefix_segments,
    unilm_segments,
)
from groundup.state import State

LENGTH = 7


def context(rows=1, documents=None, segments=None, positions=None):
    positions = torch.arange(LENGTH).expand(rows, -1) if positions is None else positions
    return Context(positions, documents, segments=segments)


def seen(rule, ctx):
    """(B, T, T) bool."""
    return ctx.mask(rule).dense(LENGTH, LENGTH, torch.device("cpu"))[:, 0].expand(len(ctx.positions), -1, -1)


def table(rows, sees):
    return torch.tensor([[[sees(b, i, j) for j in range(LENGTH)] for i in range(LENGTH)] for b in range(rows)])


@pytest.mark.row("LAY-21", reference="hand calculation")
def test_causal_and_padding():
    documents = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 2, 2, 0, 0]])
    same = lambda b, i, j: documents[b, i] == documents[b, j]  # noqa: E731
    assert torch.equal(seen(Causal(), context()), table(1, lambda b, i, j: j <= i))
    assert torch.equal(seen(Bidirectional(), context()), table(1, lambda b, i, j: True))
    padded = context(2, documents)
    assert torch.equal(seen(Causal(), padded), table(2, lambda b, i, j: bool(j <= i and same(b, i, j))))
    assert torch.equal(seen(Bidirectional(), padded), table(2, lambda b, i, j: bool(same(b, i, j))))
    assert torch.equal(seen(RightToLeft(), padded), table(2, lambda b, i, j: bool(j >= i and same(b, i, j))))


@pytest.mark.row("LAY-21", reference="hand calculation: Raffel et al. 2020, figure 4")
def test_prefix_of_each_rows_own_length():
    lengths = torch.tensor([3, 0, 7, 5])
    segments = prefix_segments(lengths, LENGTH)
    expected = table(4, lambda b, i, j: bool(j <= i or j < lengths[b]))
    assert torch.equal(seen(Prefix(), context(4, segments=segments)), expected)
    assert context().mask(Prefix()).causal  # without segments: plain causal, by the kernels' own mask
    documents = torch.tensor([[0, 1, 1, 1, 1, 2, 2]])
    packed = torch.tensor([[0, 0, 0, 1, 1, 0, 1]])  # each document with a prefix of its own
    expected = table(1, lambda b, i, j: bool((j <= i or packed[0, j] == 0) and documents[0, i] == documents[0, j]))
    assert torch.equal(seen(Prefix(), context(1, documents, packed)), expected)


@pytest.mark.row("LAY-21", reference="hand calculation: Dong et al. 2019, figure 1")
def test_unilms_objectives_in_one_batch():
    source = 3
    sees = {
        "bidirectional": lambda i, j: True,
        "left_to_right": lambda i, j: j <= i,
        "right_to_left": lambda i, j: j >= i,
        "seq2seq": lambda i, j: j < source if i < source else j < source or j <= i,
    }
    segments = unilm_segments(list(UNILM_MODES), torch.full((4,), source), LENGTH)
    expected = table(4, lambda b, i, j: sees[UNILM_MODES[b]](i, j))
    assert torch.equal(seen(UniLM(), context(4, segments=segments)), expected)
    assert torch.equal(seen(UniLM(), context(1)), table(1, lambda b, i, j: True))
    documents = torch.tensor([[0, 1, 1, 1, 1, 1, 1]]).expand(4, -1)
    padded = expected & (documents[:, :, None] == documents[:, None])
    assert torch.equal(seen(UniLM(), context(4, documents, segments)), padded)
    with pytest.raises(UsageError, match="no UniLM objective `causal`"):
        unilm_segments(["causal"], torch.tensor([1]), LENGTH)


@pytest.mark.row("LAY-21", reference="hand calculation: Du et al. 2022, figure 2d")
def test_glms_two_parts():
    """Part A sees part A, part B sees part A and what came before in part B, earlier spans included."""
    blank = torch.tensor([[0, 0, 0, 1, 2, 1, 2], [0, 0, 0, 0, 0, 1, 2]])
    positions = torch.stack((torch.zeros_like(blank), blank), -1)
    expected = table(2, lambda b, i, j: bool(blank[b, j] == 0 or (blank[b, i] > 0 and j <= i)))
    assert torch.equal(seen(BlankInfilling(), context(2, positions=positions)), expected)
    assert torch.equal(seen(BlankInfilling(), context()), table(1, lambda b, i, j: True))
    left_padded = torch.tensor([[0, 1, 1, 1, 1, 1, 1], [1] * 7])
    same = left_padded[:, :, None] == left_padded[:, None]
    assert torch.equal(seen(BlankInfilling(), context(2, left_padded, positions=positions)), expected & same)


@pytest.mark.row("LAY-21", reference="second way: weights computed by hand from the table")
@pytest.mark.parametrize("rule", [Prefix(), UniLM(), RightToLeft()])
def test_attention_uses_the_rule(rule):
    torch.manual_seed(0)
    layer, x = Attention(8, 2, mask=rule), torch.randn(2, LENGTH, 8)
    ctx = context(2, segments=prefix_segments(torch.tensor([2, 4]), LENGTH))
    q, k, v = (p(x).unflatten(-1, (2, 4)).transpose(1, 2) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    scores = (q @ k.mT / 2).masked_fill(~seen(rule, ctx)[:, None], -torch.inf)
    assert_close(layer(x, ctx), layer.o_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)))


@pytest.mark.row("LAY-21", reference="property: steps after a prefix see what one pass sees")
@pytest.mark.parametrize("rule", [Prefix(), UniLM()])
def test_steps_after_a_prefix(rule):
    """Through a whole model: a prefix of 3 in one call, then its continuation token by token."""
    from groundup.models.configs.llama import LlamaConfig
    from groundup.models.text.llama import Llama

    class Model(Llama):
        def make_mask(self, i):
            return rule

    torch.manual_seed(0)
    shape = dict(vocab_size=48, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    model = Model.build(LlamaConfig(**shape, max_position_embeddings=32, initializer_range=0.2)).eval()
    ids, segments = torch.randint(0, 48, (2, LENGTH)), prefix_segments(torch.tensor([3, 3]), LENGTH)
    state = model.make_state(2, 10)
    with torch.no_grad():
        whole = model(ids, segments=segments)
        parts = [model(ids[:, :3], segments=segments[:, :3], state=state)]
        parts += [model(ids[:, t : t + 1], state=state) for t in range(3, LENGTH)]
        assert_close(torch.cat(parts, 1), whole)
        assert not torch.allclose(model(ids, segments=torch.ones_like(segments))[:, 0], whole[:, 0], atol=1e-4)


def test_right_to_left_has_no_cache():
    state = State({}, 1, 20)
    state.advance(state.place(4, None), 4)
    stepping = Context(torch.tensor([[4]]), None, state, state.place(1, None))
    with pytest.raises(UsageError, match="not there yet"):
        stepping.mask(RightToLeft())
