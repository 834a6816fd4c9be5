"""GLaM and FacebookMoE at tiny sizes against a second implementation, written from the papers with plain loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from transformers.models.t5.modeling_t5 import T5Attention

from groundup.models.catalogue import config_of_size, model_class
from groundup.models.hub import load_model

TINY = dict(
    vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=2, num_experts=4
)


def tiny(name, **changes):
    config = type(config_of_size(name)).of_size(name, **TINY | changes)
    torch.manual_seed(0)
    model = model_class(config).build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def by_hand(w, ids, *, glam, heads=2, width):
    """Logits of one text from the tensors of a checkpoint. (T,) -> (T, V)"""

    def linear(name, x):
        bias = w.get(f"{name}.bias")
        return x @ w[f"{name}.weight"].T + (0 if bias is None else bias)

    def norm(name, x):
        if glam:
            return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attention(name, x):
        q, k, v = (linear(f"{name}.{p}_proj", x).view(len(x), heads, width) for p in "qkv")
        out = torch.zeros_like(q)
        for h in range(heads):
            scores = q[:, h] @ k[:, h].T / math.sqrt(width)
            if glam:
                behind = torch.arange(len(x))[None, :] - torch.arange(len(x))[:, None]
                buckets = T5Attention._relative_position_bucket(behind, bidirectional=False)
                scores = scores + w[f"{name}.position_bias.weight"][buckets, h]
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
            out[:, h] = scores.softmax(-1) @ v[:, h]
        return linear(f"{name}.o_proj", out.flatten(1))

    def experts(name, x):
        y = torch.zeros_like(x)
        for t, token in enumerate(x):
            g = (w[f"{name}.gate.weight"] @ token).softmax(-1)
            first, second = g.argsort(descending=True)[:2].tolist()
            for e in (first, second):
                up = w[f"{name}.experts.up_proj.weight"][e] @ token
                if not glam:
                    up = up + w[f"{name}.experts.up_proj.bias"][e]
                down = w[f"{name}.experts.down_proj.weight"][e] @ F.gelu(up)
                if not glam:
                    down = down + w[f"{name}.experts.down_proj.bias"][e]
                y[t] += g[e] / (g[first] + g[second]) * down
        return y

    x = w["embed.tokens.weight"][ids]
    if not glam:
        x = x * math.sqrt(x.shape[1])  # as in Vaswani et al. 2017, whose positions these are
        angles = torch.arange(len(ids))[:, None] / 10_000 ** (torch.arange(0, x.shape[1], 2) / x.shape[1])
        x = x + torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    for i in range(4):
        block = f"blocks.{i}"
        x = x + attention(f"{block}.attn", norm(f"{block}.norm1", x))
        h = norm(f"{block}.norm2", x)
        if i % 2:
            x = x + experts(f"{block}.mlp", h)
        elif glam:
            gated = F.gelu(linear(f"{block}.mlp.gate_proj", h)) * linear(f"{block}.mlp.up_proj", h)
            x = x + linear(f"{block}.mlp.down_proj", gated)
        else:
            x = x + linear(f"{block}.mlp.down_proj", F.gelu(linear(f"{block}.mlp.up_proj", h)))
    return norm("norm", x) @ w["embed.tokens.weight"].T


@pytest.mark.parametrize(("name", "head"), [("glam-64b-64e", 12), ("facebook-moe-15b", None)])
def test_logits_and_gradients_are_those_of_the_second_implementation(name, head, tmp_path):
    model = tiny(name, head_dim=head)
    model.save_pretrained(tmp_path / "saved")
    model = load_model(tmp_path / "saved")
    ids = torch.randint(0, 40, (9,), generator=torch.Generator().manual_seed(2))
    weights = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    mine, theirs = model(ids[None])[0], by_hand(weights, ids, glam=name.startswith("glam"), width=head or 8)
    assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    for logits in (mine, theirs):
        F.cross_entropy(logits[:-1], ids[1:]).backward()
    for n, parameter in model.named_parameters():
        assert_close(parameter.grad, weights[n].grad, rtol=1e-4, atol=1e-5, msg=lambda m, n=n: f"{n}: {m}")


def test_in_training_experts_have_room_for_twice_an_even_share():
    gate = tiny("glam-64b-64e").train().blocks["1"].mlp.gate
    with torch.no_grad():
        gate.weight[1:] = gate.weight[0] * 0.9  # nearly all want expert 0 first, or last
    x = torch.randn(64, 16) + gate.weight[0].detach() * 4
    loads = gate(x).loads
    assert loads.max() == 2 * 64 // 4
    assert gate(x, decoding=True).loads.max() == 64
