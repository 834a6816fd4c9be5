"""Latent attention: its two forms are equal, and what it remembers is small."""

import pytest
import torch
from torch.testing import assert_close

from groundup.layers.attention import Attention
from groundup.layers.context import Context
from groundup.layers.latent_attention import LatentAttention
from groundup.layers.norms import RMSNorm
from groundup.layers.rope import Rope
from groundup.models.configs.deepseek_v3 import DeepseekV3Config
from groundup.models.hub import build_model
from groundup.observe import observe

TINY = dict(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, q_lora_rank=20,
    kv_lora_rank=12, qk_nope_head_dim=10, qk_rope_head_dim=8, v_head_dim=6, n_routed_experts=4, num_experts_per_tok=2,
    n_group=1, topk_group=1, moe_intermediate_size=12, first_k_dense_replace=1,
)  # fmt: skip


def latent(**changes):
    torch.manual_seed(0)
    settings = dict(latent_dim=12, query_latent_dim=20, plain_dim=10, value_dim=6, rope=Rope(8), norm=RMSNorm) | changes
    return LatentAttention(32, 4, **settings).eval()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(DeepseekV3Config(**TINY)).eval()


@pytest.mark.row("LAY-25", reference="the expanded form")
def test_the_absorbed_form_equals_the_expanded_one():
    attn, x = latent(), torch.randn(2, 9, 32)
    plain = attn(x, Context(torch.arange(9)[None]))
    attn.prefers_absorbed = lambda num_tokens, context: True
    assert_close(attn(x, Context(torch.arange(9)[None])), plain)
    documents = torch.tensor([[1] * 4 + [2] * 5, [0] * 3 + [1] * 6])
    packed = attn(x, Context(torch.arange(9)[None], documents))
    del attn.prefers_absorbed
    assert_close(packed, attn(x, Context(torch.arange(9)[None], documents)))


@pytest.mark.row("LAY-25", reference="the expanded form")
def test_steps_use_the_absorbed_form_and_equal_one_pass(model):
    ids, state, used = torch.randint(1, 64, (2, 10)), model.make_state(2, 10), []
    attn = model.blocks["1"].attn
    absorbed, expanded = attn.absorbed, attn.expanded
    attn.absorbed = lambda *a: used.append("absorbed") or absorbed(*a)
    attn.expanded = lambda *a: used.append("expanded") or expanded(*a)
    with torch.no_grad():
        parts = [model(ids[:, :8], state=state), model(ids[:, 8:9], state=state), model(ids[:, 9:], state=state)]
        assert used == ["expanded", "absorbed", "absorbed"]
        assert_close(torch.cat(parts, dim=1), model(ids))


def test_a_long_chunk_is_expanded():
    """rank 12, plain + value 16: below 12 * 16 / (24 - 16) = 24 tokens the absorbed form multiplies less."""
    attn, context = latent(), Context(torch.arange(1)[None])
    assert not attn.prefers_absorbed(1, context)  # nothing is remembered
    context.placement = type("Old", (), {"fresh": False})()
    assert attn.prefers_absorbed(23, context)
    assert not attn.prefers_absorbed(24, context)


@pytest.mark.row("LAY-25", reference="formula")
def test_only_the_latent_and_one_rotary_key_are_remembered(model):
    state = model.make_state(3, 15)
    with torch.no_grad():
        model(torch.randint(1, 64, (3, 5)), state=state)
    assert state.nbytes == 2 * 3 * (15 + 1) * (12 + 8) * 4  # layers, rows, slots (one for padding), r + d_r, bytes
    full = Attention(32, 4, head_dim=18)
    assert 2 * full.k_proj.out_features == 7.2 * (12 + 8)  # what keys and values of all heads would take


@pytest.mark.row("LAY-25", reference="formula")
def test_weights_and_values_written_out():
    """One head by hand: latent, rotary part shared, softmax, values from the latent."""
    attn, x = latent(query_latent_dim=None), torch.randn(1, 5, 32)
    c = attn.kv_norm(attn.kv_down_proj(x))[0]
    shared = attn.rope.rotate(attn.k_rope_proj(x)[:, :, None], attn.rope.tables(torch.arange(5)[None], torch.float32))
    heads = []
    for h in range(4):
        q = attn.q_proj(x)[0, :, 18 * h : 18 * h + 18]
        turned = attn.rope.rotate(q[None, :, None, 10:], attn.rope.tables(torch.arange(5)[None], torch.float32))
        k = c @ attn.k_proj.weight[10 * h : 10 * h + 10].T
        scores = (q[:, :10] @ k.T + turned[0, :, 0] @ shared[0, :, 0].T) / 18**0.5
        p = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf).softmax(-1)
        heads.append(p @ (c @ attn.v_proj.weight[6 * h : 6 * h + 6].T))
    assert_close(attn(x, Context(torch.arange(5)[None]))[0], torch.cat(heads, -1) @ attn.o_proj.weight.T)


def test_attention_weights_can_be_observed_in_both_forms(model):
    ids, state = torch.randint(1, 64, (1, 6)), model.make_state(1, 6)
    with torch.no_grad(), observe(model, ["blocks.*.attn.core", "blocks.*.mlp.gate"]) as seen:
        model(ids)
        model(ids[:, :5], state=state)
        model(ids[:, 5:], state=state)
    whole, step = (seen.attention("blocks.1.attn", call) for call in (0, 2))
    assert_close(step[:, :, 0], whole[:, :, -1])
    assert seen.loads("blocks.1.mlp", call=0).sum() == 6 * 2
    with pytest.raises(KeyError, match=r"blocks\.0\.mlp\.gate"):
        seen.loads("blocks.0.mlp")
    with pytest.raises(KeyError, match=r"blocks\.7\.mlp\.gate"):
        seen.loads("blocks.7.mlp")
