"""Switch, GLaM and FacebookMoE: published counts, and tiny sizes against a second implementation, written from the
papers with plain loops; in training with full experts and the losses that even them.
"""

import math
import re

import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from torch.testing import assert_close
from transformers.models.t5.modeling_t5 import T5Attention

from groundup.base.errors import UsageError
from groundup.estimates.params import active_parameters, count_parameters
from groundup.layers.moe.gates.gate import Gate
from groundup.models.cards import cards
from groundup.models.catalogue import config_of_size, model_class
from groundup.models.configs.parts import PartsConfig
from groundup.models.hub import load_model
from moe_by_hand import within_capacity

TINY = dict(
    vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=2, num_experts=4
)
KINDS = {"glam": ("glam-64b-64e", 12), "facebook": ("facebook-moe-15b", None), "switch": ("switch-base", 12)}
KINDS["switch-xxl"] = ("switch-xxl", 12)
NAMES = [name for name in PartsConfig.sizes if name.startswith(("glam", "facebook", "switch"))]


# -- published counts --------------------------------------------------------------------------------------------------

UNITS = {"M": 1e6, "B": 1e9, "T": 1e12}
CONTRADICTED = {
    ("glam-0.1b-64e", "active"): "152M",  # 145M are printed, which fits no vocabulary that the total fits
    ("glam-1.7b-256e", "parameters"): "104B",  # 105B are printed
    ("glam-1.7b-256e", "active"): "1.884B",  # 1.886B: 128 more rows of gates in 12 layers are 3M, not 5M
}
"""What the shape in the paper's own table gives, where that prints another number."""


def rounded(number, printed):
    """A number with the digits and the unit of the printed one: 1161.8e9 by `1.2T` is `1.2T`."""
    digits, unit = re.fullmatch(r"([\d.]+)([MBT])", printed).groups()
    return f"{number / UNITS[unit]:.{len(digits.partition('.')[2])}f}{unit}"


def cross_attention(config):
    """What a decoder's half of the layers has besides: four projections."""
    return config.num_hidden_layers // 2 * 4 * config.hidden_size * config.num_attention_heads * config.head_dim


@pytest.mark.row("LM-43", reference="published: Fedus et al. 2021, Du et al. 2021, Artetxe et al. 2021")
@pytest.mark.parametrize("name", NAMES)
def test_published_sizes_have_their_published_parameters(name):
    config = config_of_size(name)
    (size,) = (size for card in cards().values() for size in card.sizes if size.name == name)
    with torch.device("meta"):
        model = model_class(config)(config)
    experts = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    counted = {
        "parameters": model.num_parameters() + (cross_attention(config) if name.startswith("switch") else 0),
        "active": model.num_parameters() - experts + experts * config.num_experts_per_tok // config.num_experts,
    }
    assert (count_parameters(config), active_parameters(config)) == (model.num_parameters(), counted["active"])
    for what in ("parameters", "active"):
        printed = getattr(size, what)
        if printed is None:
            continue
        own = CONTRADICTED.get((name, what), printed)
        assert rounded(counted[what], own) == own
        assert own == printed or rounded(counted[what], printed) != printed


@pytest.mark.row("LM-43", reference="transformers")
def test_the_switch_decoder_is_the_encoder_decoder_without_cross_attention():
    """switch-base as transformers builds its checkpoint: the same layers, and what joins the halves."""
    halves = {
        "num_layers": 12,
        "num_decoder_layers": 12,
        "num_sparse_encoder_layers": 6,
        "num_sparse_decoder_layers": 6,
    }
    sizes = {"d_model": 768, "d_ff": 3072, "d_kv": 64, "num_heads": 12, "num_experts": 128, "vocab_size": 32_128}
    with torch.device("meta"):
        theirs = tf.SwitchTransformersForConditionalGeneration(tf.SwitchTransformersConfig(**sizes, **halves))
    config = config_of_size("switch-base")
    norms, tables = (12 + 1) * 768, (24 - 2) * 32 * 12  # before cross-attention and after the encoder; one table a half
    joined = count_parameters(config) + cross_attention(config) + norms - tables
    assert sum(p.numel() for p in theirs.parameters()) == joined


def test_the_first_layer_with_experts_must_be_one():
    with pytest.raises(UsageError, match=r"layer 4 would be the first with experts .* there are 4, from 0 on"):
        PartsConfig.parse({"gate": "top_k", "num_hidden_layers": 4, "decoder_sparse_first": 4})
    config = PartsConfig(gate="top_k", num_hidden_layers=8, decoder_sparse_step=3, decoder_sparse_first=1)
    assert [i for i in range(8) if config.has_experts(i)] == [1, 4, 7]


# -- by hand -----------------------------------------------------------------------------------------------------------


def tiny(kind, **changes):
    name, head = KINDS[kind]
    config = type(config_of_size(name)).of_size(name, **TINY | {"head_dim": head} | changes)
    torch.manual_seed(0)
    model = model_class(config).build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def chosen_by_hand(kind, g, training):
    """A token's experts and weights, and what their loads cost: as each paper says. (T, E) -> lists, (T, k), ()"""
    tokens, num_experts = g.shape
    k = 1 if kind.startswith("switch") else 2
    choices = [row.argsort(descending=True)[:k].tolist() for row in g]
    room = {"switch": 1.25, "switch-xxl": 1.25}.get(kind, 2.0) * tokens / num_experts
    served = within_capacity(choices, num_experts, room) if training else [[True] * k] * tokens
    counted = choices if kind == "glam" else [row[:1] for row in choices]
    load = torch.tensor([sum(row.count(e) for row in counted) for e in range(num_experts)]) / tokens
    loss = 0.01 * (load * g.mean(dim=0)).sum() * (1 if kind == "glam" else num_experts)
    weights = []
    for t, row in enumerate(choices):
        found = torch.stack([g[t, e] for e in row])
        had_room = torch.tensor([float(s) for s in served[t]])
        if kind == "glam":
            found = found / found.sum() * had_room
        elif kind == "facebook":
            found = found * had_room / (found * had_room).sum().clamp(min=torch.finfo(torch.float32).eps)
        else:
            found = found * had_room
        weights.append(found)
    return choices, weights, loss * tokens if training else 0.0


def by_hand(w, ids, kind, training):
    """Logits of one text from the tensors of a checkpoint, and the losses of its gates. (T,) -> (T, V), ()"""
    facebook, act = kind == "facebook", F.relu if kind == "switch" else F.gelu
    heads, eps, losses = 2, 1e-5 if facebook else 1e-6, []

    def linear(name, x):
        bias = w.get(f"{name}.bias")
        return x @ w[f"{name}.weight"].T + (0 if bias is None else bias)

    def norm(name, x):
        if not facebook:
            return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"]
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attention(name, x):
        q, k, v = (linear(f"{name}.{p}_proj", x).view(len(x), heads, -1) for p in "qkv")
        out = torch.zeros_like(q)
        for h in range(heads):
            scores = q[:, h] @ k[:, h].T / math.sqrt(q.shape[-1])
            if not facebook:
                behind = torch.arange(len(x))[None, :] - torch.arange(len(x))[:, None]
                buckets = T5Attention._relative_position_bucket(behind, bidirectional=False)
                scores = scores + w[f"{name}.position_bias.weight"][buckets, h]
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
            out[:, h] = scores.softmax(-1) @ v[:, h]
        return linear(f"{name}.o_proj", out.flatten(1))

    def network(name, x, e=None):
        def layer(leaf, v):
            weight, bias = w[f"{name}.{leaf}.weight"], w.get(f"{name}.{leaf}.bias")
            y = (weight if e is None else weight[e]) @ v
            return y if bias is None else y + (bias if e is None else bias[e])

        if f"{name}.gate_proj.weight" in w:
            return layer("down_proj", act(layer("gate_proj", x)) * layer("up_proj", x))
        return layer("down_proj", act(layer("up_proj", x)))

    def experts(name, x):
        g = (x @ w[f"{name}.gate.weight"].T).softmax(-1)
        choices, weights, loss = chosen_by_hand(kind, g, training)
        losses.append(loss)
        return torch.stack(
            [
                sum(weight * network(f"{name}.experts", token, e) for weight, e in zip(weights[t], row, strict=True))
                for t, (token, row) in enumerate(zip(x, choices, strict=True))
            ]
        )

    x = w["embed.tokens.weight"][ids]
    if facebook:
        x = x * math.sqrt(x.shape[1])  # as in Vaswani et al. 2017, whose positions these are
        angles = torch.arange(len(ids))[:, None] / 10_000 ** (torch.arange(0, x.shape[1], 2) / x.shape[1])
        x = x + torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
    for i in range(4):
        block = f"blocks.{i}"
        x = x + attention(f"{block}.attn", norm(f"{block}.norm1", x))
        h = norm(f"{block}.norm2", x)
        sparse = i % 2 == (0 if kind == "glam" else 1)
        x = x + (experts(f"{block}.mlp", h) if sparse else torch.stack([network(f"{block}.mlp", t) for t in h]))
    return norm("norm", x) @ w.get("lm_head.weight", w["embed.tokens.weight"]).T, sum(losses)


@pytest.mark.row("LM-43", reference="a second implementation, with loops")
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_those_of_the_second_implementation(kind, training, tmp_path, monkeypatch):
    model = tiny(kind)
    model.save_pretrained(tmp_path / "saved")
    model = load_model(tmp_path / "saved").train(training)
    for module in model.modules():
        if isinstance(module, Gate):
            module.jitter = 0.0
            module.weight.data *= 3  # experts are wanted by too many
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)  # GShard always draws the second expert
    ids = torch.randint(0, 40, (19,), generator=torch.Generator().manual_seed(2))
    weights = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    mine, (theirs, losses) = model(ids[None])[0], by_hand(weights, ids, kind, training)
    assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    F.cross_entropy(mine[:-1], ids[1:], reduction="sum").backward()
    (F.cross_entropy(theirs[:-1], ids[1:], reduction="sum") + losses).backward()
    for n, parameter in model.named_parameters():
        # sums over 18 tokens, some of which nearly cancel
        assert_close(parameter.grad, weights[n].grad, rtol=1e-4, atol=1e-4, msg=lambda m, n=n: f"{n}: {m}")


def test_in_training_experts_have_room_for_twice_an_even_share():
    gate = tiny("glam").train().blocks["0"].mlp.gate
    with torch.no_grad():
        gate.weight[1:] = gate.weight[0] * 0.9  # nearly all want expert 0 first, or last
    x = torch.randn(64, 16) + gate.weight[0].detach() * 4
    loads = gate(x).loads
    assert loads.max() == 2 * 64 // 4
    assert gate(x, decoding=True).loads.max() == 64


@pytest.mark.row("LM-43", reference="behaviour: with the loss and without it")
@pytest.mark.parametrize(("kind", "room"), [("glam", 2.0), ("facebook", 2.0), ("switch", 1.25)])
def test_training_learns_within_the_capacity_and_the_loss_evens_what_gates_want(kind, room):
    """From a gate that sends nearly all tokens to one expert, by a direction that all tokens share."""
    x = torch.randint(0, 40, (4, 16), generator=torch.Generator().manual_seed(3))

    def train(coefficient):
        """The objective at each step, and the share of the most wanted expert at the end."""
        model = tiny(kind, num_hidden_layers=2, router_aux_loss_coef=coefficient).train()
        (gate,) = (module for module in model.modules() if isinstance(module, Gate))
        shared = torch.ones(16)
        shared[::2] = -1
        with torch.no_grad():
            model.embed.tokens.weight.add_(3 * shared)
            gate.weight.mul_(0.1)
            gate.weight[0].add_(0.2 * shared)
        optimizer, losses, seen = torch.optim.AdamW(model.parameters(), lr=1e-2), [], []
        gate.register_forward_hook(lambda module, args, routing: seen.append(routing))
        for _ in range(25):
            loss = F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten(), reduction="sum")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert all(routing.loads.max() <= room * x.numel() / 4 for routing in seen)
        assert any(not routing.complete for routing in seen)
        return losses, seen[-1].scores.mean(dim=0).max().item()

    (losses, share), (_, share_without) = train(8.0 if kind == "glam" else 2.0), train(0.0)
    assert losses[-1] < 0.9 * losses[0]
    assert share < 0.35  # of 4 experts
    assert share_without > 0.8
