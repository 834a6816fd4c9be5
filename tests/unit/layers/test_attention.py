"""Attention from its simplest form to the one in use, and rotary positions."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from groundup.layers.attention import Attention, AttentionCore, group_heads
from groundup.layers.attention_steps import (
    CausalAttention,
    HeadByHead,
    MatrixSelfAttention,
    MultiHeadAttention,
    SelfAttention,
    SimpleSelfAttention,
    mask_scores,
    mask_weights,
)
from groundup.layers.context import Context
from groundup.layers.masks import Bidirectional, Causal, Mask
from groundup.layers.rope import Llama3Scaling, Rope, half_split_to_interleaved, interleaved_to_half_split

# "Your journey starts with one step", three numbers a word (Raschka 2024, chapter 3)
JOURNEY = torch.tensor(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ]
)


@pytest.mark.row("LAY-15", reference="published: Raschka 2024, chapter 3")
def test_attention_without_weights_gives_the_published_numbers():
    attention = SimpleSelfAttention()
    scores = JOURNEY @ JOURNEY.T
    assert_close(scores[1], torch.tensor([0.9544, 1.4950, 1.4754, 0.8434, 0.7070, 1.0865]), atol=1e-4, rtol=0)
    weights = torch.tensor([0.1385, 0.2379, 0.2333, 0.1240, 0.1082, 0.1581])
    assert_close(attention.weights(JOURNEY)[1], weights, atol=1e-4, rtol=0)
    assert_close(attention(JOURNEY)[1], torch.tensor([0.4419, 0.6515, 0.5683]), atol=1e-4, rtol=0)


@pytest.mark.row("LAY-16", reference="published: Raschka 2024, chapter 3")
def test_version_1_with_matrices_drawn_from_0_to_1():
    torch.manual_seed(123)
    matrices = MatrixSelfAttention(3, 2)
    expected = torch.tensor(
        [[0.2996, 0.8053], [0.3061, 0.8210], [0.3058, 0.8203], [0.2948, 0.7939], [0.2927, 0.7891], [0.2990, 0.8040]]
    )
    assert_close(matrices(JOURNEY), expected, atol=1e-4, rtol=0)  # printed with four digits
    assert sorted(name for name, _ in matrices.named_parameters()) == ["wk", "wq", "wv"]


@pytest.mark.row("LAY-16", reference="published: Raschka 2024, chapter 3")
def test_version_2_with_linear_layers():
    torch.manual_seed(789)
    expected = torch.tensor([[-0.0739, 0.0713], [-0.0748, 0.0703], [-0.0749, 0.0702]])
    assert_close(SelfAttention(3, 2)(JOURNEY)[:3], expected, atol=1e-4, rtol=0)  # printed with four digits


@pytest.mark.row("LAY-16", reference="property: equal outputs and gradients after the transfer")
@pytest.mark.parametrize("towards", ["matrices", "layers"])
def test_weights_go_from_one_version_to_the_other(towards):
    torch.manual_seed(0)
    matrices, layers = MatrixSelfAttention(3, 2), SelfAttention(3, 2)
    assert not torch.allclose(matrices(JOURNEY), layers(JOURNEY))
    matrices.take(layers) if towards == "matrices" else matrices.give(layers)
    for module in (matrices, layers):
        module(JOURNEY).square().sum().backward()
    assert_close(matrices(JOURNEY), layers(JOURNEY))
    for matrix, linear in zip(matrices.parameters(), layers.children(), strict=True):
        assert_close(matrix.grad, linear.weight.grad.T)


@pytest.mark.row("LAY-17", reference="published: Raschka 2024, chapter 3")
def test_causal_attention_gives_the_published_numbers():
    torch.manual_seed(123)
    attention = CausalAttention(3, 2)
    expected = torch.tensor(
        [
            [-0.4519, 0.2216],
            [-0.5874, 0.0058],
            [-0.6300, -0.0632],
            [-0.5675, -0.0843],
            [-0.5526, -0.0981],
            [-0.5299, -0.1081],
        ]
    )
    assert_close(attention(torch.stack((JOURNEY, JOURNEY)))[1], expected, atol=1e-4, rtol=0)


@pytest.mark.row("LAY-17", reference="torch")
def test_two_ways_to_mask_are_one():
    scores = torch.randn(2, 7, 7)
    assert_close(mask_scores(scores), mask_weights(scores))
    assert (mask_scores(scores).triu(1) == 0).all()
    torch.manual_seed(0)
    attention, x = CausalAttention(8, 8), torch.randn(2, 7, 8)
    q, k, v = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    expected = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert_close(attention(x), expected)
    changed = x.clone()
    changed[:, 4:] += 1
    assert_close(attention(changed)[:, :4], attention(x)[:, :4])


@pytest.mark.row("LAY-18", reference="published: Raschka 2024, chapter 3")
@pytest.mark.row("LAY-19", reference="torch")
def test_heads_side_by_side_equal_heads_cut_from_one_projection():
    torch.manual_seed(123)
    x = torch.stack((JOURNEY, JOURNEY))
    wrapper = HeadByHead(3, 2, num_heads=2)
    first = torch.tensor([-0.4519, 0.2216, 0.4772, 0.1063])
    assert_close(wrapper(x)[0, 0], first, atol=1e-4, rtol=0)

    one, many = MultiHeadAttention(8, num_heads=4), HeadByHead(8, 2, num_heads=4)
    for h, head in enumerate(many.heads):
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(head, name).weight.data = getattr(one, name).weight.data[2 * h : 2 * h + 2].clone()
    x = torch.randn(2, 5, 8)
    assert_close(one.heads(x).transpose(1, 2).flatten(2), many(x))

    theirs = nn.MultiheadAttention(8, 4, batch_first=True)
    theirs.in_proj_weight.data = torch.cat([p.weight for p in (one.q_proj, one.k_proj, one.v_proj)]).detach()
    theirs.out_proj.load_state_dict(one.o_proj.state_dict())
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    assert_close(one(x), theirs(x, x, x, attn_mask=later, need_weights=False)[0])


@pytest.mark.row("LAY-19", reference="published: Raschka 2024, chapter 3")
def test_the_attention_in_use_equals_the_last_step():
    step, used, x = MultiHeadAttention(8, 4), Attention(8, 4, out_bias=True), torch.randn(2, 5, 8)
    used.load_state_dict(step.state_dict())
    assert_close(used(x, Context(torch.arange(5)[None])), step(x))
    gpt2_size = MultiHeadAttention(768, 12)
    assert sum(p.numel() for p in gpt2_size.parameters()) == 2_360_064


@pytest.mark.row("LAY-24", reference="torch")
def test_grouped_heads_equal_repeated_ones_and_the_mean_of_heads():
    torch.manual_seed(0)
    x, context = torch.randn(2, 5, 16), Context(torch.arange(5)[None])
    full, grouped = Attention(16, 4), Attention(16, 4, num_kv_heads=2)
    grouped.q_proj.load_state_dict(full.q_proj.state_dict())
    grouped.o_proj.load_state_dict(full.o_proj.state_dict())
    for name in ("k_proj", "v_proj"):
        pooled = group_heads(getattr(full, name).weight.data, num_heads=4, num_kv_heads=2)  # (2 * 4, 16)
        getattr(grouped, name).weight.data = pooled
        # every head of a full attention gets its group's mean
        getattr(full, name).weight.data = pooled.unflatten(0, (2, 4)).repeat_interleave(2, 0).flatten(0, 1)
    assert_close(grouped(x, context), full(x, context))
    heads = torch.arange(4.0).repeat_interleave(4)[:, None].expand(16, 16)
    assert_close(group_heads(heads, 4, 2)[:, 0], torch.tensor([0.5] * 4 + [2.5] * 4))
    assert sum(p.numel() for p in grouped.k_proj.parameters()) == 8 * 16


def test_core_weights_reproduce_its_output():
    core, q, k, v = AttentionCore(), torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    for mask in (Mask(causal=True), Mask(), Mask(allowed=torch.rand(2, 1, 5, 5).argsort(-1) < 3)):
        weights = core.weights(q, k, mask)
        assert_close(weights.sum(-1), torch.ones(2, 4, 5))
        assert_close(weights @ v.repeat_interleave(2, 1), core(q, k, v, mask))


def test_masks_are_dense_only_where_they_must_be():
    plain = Context(torch.arange(6)[None])
    assert plain.mask(Causal()).causal
    assert plain.mask(Causal()).allowed is None
    assert plain.mask(Causal(window=6)).causal
    assert plain.mask(Causal(window=2)).allowed[0, 0].sum(-1).tolist() == [1, 2, 2, 2, 2, 2]
    assert plain.mask(Bidirectional()) == plain.mask(Bidirectional())
    packed = Context(torch.zeros(1, 4, dtype=torch.int64), documents=torch.tensor([[1, 1, 2, 0]]))
    assert packed.mask(Causal()).allowed[0, 0].int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]
    both = packed.mask(Bidirectional()).allowed[0, 0].int().tolist()
    assert both == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.row("LAY-43", reference="hand calculation")
def test_rotation_is_a_complex_product_and_depends_on_distance_alone():
    """In the plane:  <R(m) q, R(n) k> = Re(q k* e^{i (m - n) theta})  (Su et al. 2021, section 3.2)."""
    rope = Rope(2, theta=10_000.0)
    q, k = torch.randn(1, 1, 1, 2, dtype=torch.float64), torch.randn(1, 1, 1, 2, dtype=torch.float64)

    def turned(x, position):
        tables = rope.tables(torch.tensor([[position]]), torch.float64)
        return rope.rotate(x, tables).flatten()

    as_complex = lambda x: torch.complex(*x.flatten())  # noqa: E731
    for m, n in ((3, 1), (10, 8), (102, 100)):
        product = turned(q, m) @ turned(k, n)
        angle = torch.tensor(m - n, dtype=torch.float64)
        expected = (as_complex(q) * as_complex(k).conj() * torch.exp(1j * angle)).real
        assert_close(product, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.row("LAY-43", reference="hand calculation")
def test_both_layouts_are_equal_under_the_permutation():
    torch.manual_seed(0)
    x, num_heads, d = torch.randn(2, 7, 12), 3, 8
    weight = torch.randn(num_heads * d, 12)
    positions = torch.arange(7)[None]
    half, inter = Rope(d), Rope(d, interleaved=True)
    permuted = interleaved_to_half_split(weight, num_heads)
    assert_close(half_split_to_interleaved(permuted, num_heads), weight)
    cut = lambda w: (x @ w.T).unflatten(-1, (num_heads, d))  # noqa: E731
    a = inter.rotate(cut(weight), inter.tables(positions, torch.float32))
    b = half.rotate(cut(permuted), half.tables(positions, torch.float32))
    assert_close(b, a.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2))
    assert_close(a @ a.transpose(-1, -2), b @ b.transpose(-1, -2))


@pytest.mark.row("LAY-43", reference="transformers")
def test_layouts_against_transformers():
    from transformers.models.glm.modeling_glm import apply_rotary_pos_emb as interleaved_reference
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as half_reference

    x, positions = torch.randn(2, 5, 3, 8), torch.arange(5)[None]
    for rope, reference in ((Rope(8), half_reference), (Rope(8, interleaved=True), interleaved_reference)):
        cos, sin = rope.tables(positions, torch.float32)
        full_cos, full_sin = (torch.cat((t, t), -1)[:, :, 0] for t in (cos, sin))
        expected, _ = reference(x.transpose(1, 2), x.transpose(1, 2), full_cos, full_sin)
        assert_close(rope.rotate(x, (cos, sin)), expected.transpose(1, 2))


def test_partial_rotation_leaves_the_rest():
    x, rope = torch.randn(1, 4, 2, 8), Rope(4)
    out = rope.rotate(x, rope.tables(torch.arange(4)[None], torch.float32))
    assert torch.equal(out[..., 4:], x[..., 4:])
    assert not torch.equal(out[:, 1:, :, :4], x[:, 1:, :, :4])


def test_llama3_scaling_keeps_short_waves_and_divides_long_ones():
    plain, stretched = Rope(64, 500_000.0), Rope(64, 500_000.0, scaling=Llama3Scaling())
    ratio = plain.frequencies() / stretched.frequencies()
    assert ratio[0] == 1
    assert ratio[-1] == pytest.approx(8)
    assert (ratio.diff() >= -1e-5).all()
