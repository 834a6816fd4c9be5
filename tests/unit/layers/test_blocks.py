"""How blocks join their parts, how DeepNorm's begin, and the norm of each head."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.layers import init
from groundup.layers.activations import activation
from groundup.layers.attention import Attention
from groundup.layers.block import Block, DeepNormBlock, PostNormBlock, SandwichBlock, deepnorm_constants
from groundup.layers.context import Context
from groundup.layers.feedforward import MLP, GatedMLP
from groundup.layers.masks import Bidirectional
from groundup.layers.norms import HeadGroupNorm, LayerNorm


def plain(length: int) -> Context:
    return Context(torch.arange(length)[None])


def parts(dim=12, num_heads=3, hidden=20, norms=2):
    """Attention, MLP and norms whose gains and biases are not their start."""
    torch.manual_seed(0)
    attn = Attention(dim, num_heads, bias=True, mask=Bidirectional())
    found = [attn, MLP(dim, hidden, F.gelu), *(LayerNorm(dim) for _ in range(norms))]
    with torch.no_grad():
        for part in found:
            for parameter in part.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return found


def as_torch(block, norm_first):
    """The same weights in torch's own encoder layer."""
    layer = nn.TransformerEncoderLayer(12, 3, 20, 0.0, "gelu", batch_first=True, norm_first=norm_first)
    attn = block.attn
    with torch.no_grad():
        for kind in ("weight", "bias"):
            fused = torch.cat([getattr(p, kind) for p in (attn.q_proj, attn.k_proj, attn.v_proj)])
            getattr(layer.self_attn, f"in_proj_{kind}").copy_(fused)
    pairs = (
        (layer.self_attn.out_proj, attn.o_proj), (layer.linear1, block.mlp.up_proj),
        (layer.linear2, block.mlp.down_proj), (layer.norm1, block.norm1), (layer.norm2, block.norm2),
    )  # fmt: skip
    for theirs, ours in pairs:
        theirs.load_state_dict(ours.state_dict())
    return layer.train()  # in eval torch takes a fused path


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(PostNormBlock, marks=pytest.mark.row("LAY-06", reference="torch")),
        pytest.param(Block, marks=pytest.mark.row("LAY-07", reference="torch")),
    ],
)
def test_post_and_pre_norm_are_torchs_encoder_layer(kind):
    attn, mlp, norm1, norm2 = parts()
    block, x = kind(norm1, attn, norm2, mlp), torch.randn(2, 5, 12)
    theirs = as_torch(block, norm_first=kind is Block)
    assert_close(block(x, plain(5)), theirs(x))
    for module in (block, theirs):
        module_x = x.clone().requires_grad_()
        (block(module_x, plain(5)) if module is block else theirs(module_x)).sin().sum().backward()
        module.input_gradient = module_x.grad
    assert_close(block.input_gradient, theirs.input_gradient)
    assert_close(block.mlp.up_proj.weight.grad, theirs.linear1.weight.grad)
    assert_close(block.norm2.weight.grad, theirs.norm2.weight.grad)


def normalise(norm, x):
    return F.layer_norm(x, (12,), norm.weight, norm.bias)


@pytest.mark.row("LAY-08", reference="second way: torch's own functions, Ding et al. 2021, equation 1")
def test_sandwich_normalises_both_ends_of_each_branch():
    attn, mlp, *norms = parts(norms=4)
    x, context = torch.randn(2, 5, 12), plain(5)
    block = SandwichBlock(norms[0], attn, norms[1], mlp, norms[2], norms[3])
    h = x + normalise(norms[2], attn(normalise(norms[0], x), context))
    assert_close(block(x, context), h + normalise(norms[3], mlp(normalise(norms[1], h))))
    with torch.no_grad():  # whatever the branch returns, what is added has the size of the last norm's gain
        mlp.down_proj.weight.mul_(1000)
        norms[3].weight.fill_(1)
        norms[3].bias.zero_()
    assert (block(x, context) - h).pow(2).mean(-1).max() <= 1 + 1e-4


@pytest.mark.row("LAY-08", reference="transformers: Gemma 2")
def test_sandwich_is_the_block_of_gemma_2():
    """Gemma 2's layer with its parts exchanged for ours: what remains is the joining."""
    import transformers as tf
    from transformers.models.gemma2.modeling_gemma2 import Gemma2DecoderLayer

    attn, mlp, *norms = parts(norms=4)
    config = tf.Gemma2Config(hidden_size=12, num_attention_heads=3, num_key_value_heads=3, head_dim=4, vocab_size=8)
    theirs, x = Gemma2DecoderLayer(config, 0), torch.randn(2, 5, 12)

    class Attend(nn.Module):
        def forward(self, hidden_states, **_):
            return attn(hidden_states, plain(5)), None

    theirs.self_attn, theirs.mlp = Attend(), mlp
    theirs.input_layernorm, theirs.pre_feedforward_layernorm = norms[0], norms[1]
    theirs.post_attention_layernorm, theirs.post_feedforward_layernorm = norms[2], norms[3]
    expected = theirs(x, position_embeddings=None)
    expected = expected[0] if isinstance(expected, tuple) else expected
    assert_close(SandwichBlock(norms[0], attn, norms[1], mlp, norms[2], norms[3])(x, plain(5)), expected)


@pytest.mark.row("LAY-09", reference="second way: torch's own functions, Wang et al. 2022, figure 2")
def test_deepnorm_weighs_the_stream():
    attn, mlp, norm1, norm2 = parts()
    x, context = torch.randn(2, 5, 12), plain(5)
    h = normalise(norm1, x * 2.5 + attn(x, context))
    assert_close(DeepNormBlock(norm1, attn, norm2, mlp, alpha=2.5)(x, context), normalise(norm2, 2.5 * h + mlp(h)))
    assert_close(
        DeepNormBlock(norm1, attn, norm2, mlp, alpha=1)(x, context), PostNormBlock(norm1, attn, norm2, mlp)(x, context)
    )


@pytest.mark.row("LAY-09", reference="published: Wang et al. 2022, figure 2")
def test_deepnorms_constants():
    table = {
        ("encoder", 18, 0): (36**0.25, 144**-0.25),
        ("decoder", 0, 18): (36**0.25, 144**-0.25),
        ("encoder", 12, 6): (0.81 * (12**4 * 6) ** (1 / 16), 0.87 * (12**4 * 6) ** (-1 / 16)),
        ("decoder", 12, 6): (18**0.25, 72**-0.25),
    }
    for (part, n, m), (alpha, beta) in table.items():
        found = deepnorm_constants(part, n, m)
        assert found.alpha == pytest.approx(alpha)
        assert found.beta == pytest.approx(beta)
    glm = deepnorm_constants("decoder", decoder_layers=70)  # GLM-130B: 70 layers, alpha = (2 N)^(1/2) in its own form
    assert glm.alpha == pytest.approx(3.4400, abs=1e-3)
    with pytest.raises(UsageError, match="decoder_layers above 0"):
        deepnorm_constants("decoder", encoder_layers=4)


@pytest.mark.row("LAY-09", reference="torch.nn.init; published: Wang et al. 2022, figure 2")
def test_deepnorms_initialiser():
    """Gain beta for values, outputs and the feed-forward network, 1 for queries and keys."""
    torch.manual_seed(0)
    block = Block(LayerNorm(200), Attention(200, 4, bias=True), LayerNorm(200), GatedMLP(200, 300))
    beta = deepnorm_constants("decoder", decoder_layers=100).beta
    init.deepnorm(block, beta)
    spread = lambda a, b: math.sqrt(2 / (a + b))  # noqa: E731
    expected = {"q_proj": 1.0, "k_proj": 1.0, "v_proj": beta, "o_proj": beta}
    for name, gain in expected.items():
        weight = getattr(block.attn, name).weight
        assert weight.std().item() == pytest.approx(gain * spread(200, 200), rel=0.03), name
        assert not getattr(block.attn, name).bias.any()
    for name in ("gate_proj", "up_proj", "down_proj"):
        assert getattr(block.mlp, name).weight.std().item() == pytest.approx(beta * spread(200, 300), rel=0.03), name
    torch.manual_seed(0)
    init.deepnorm(block, beta)
    torch.manual_seed(0)
    first = nn.init.xavier_normal_(torch.empty(200, 200), gain=1.0)
    assert_close(block.attn.q_proj.weight.data, first)


@pytest.mark.row("LAY-09", reference="property: Wang et al. 2022, the update of a deep model stays bounded")
def test_a_deep_model_moves_less_in_its_first_step_with_deepnorm():
    """One SGD step on 24 layers: the output of post-norm moves far more than that of DeepNorm."""

    def moved(deep: bool) -> float:
        torch.manual_seed(0)
        alpha, beta = deepnorm_constants("encoder", 24)
        if not deep:
            alpha, beta = 1.0, 1.0
        blocks = []
        for _ in range(24):
            attn, mlp = Attention(16, 2, mask=Bidirectional()), MLP(16, 32)
            blocks.append(DeepNormBlock(LayerNorm(16), attn, LayerNorm(16), mlp, alpha=alpha))
            init.deepnorm(blocks[-1], beta)
        model, x = nn.ModuleList(blocks), torch.randn(4, 6, 16)

        def run():
            h = x
            for block in model:
                h = block(h, plain(6))
            return h

        before = run()
        (before * torch.randn(16)).mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.01 * parameter.grad
            return (run() - before).norm().item() / before.norm().item()

    assert moved(deep=True) < 0.1 * moved(deep=False)  # 0.013 of its length against 1.0 at four times the width


@pytest.mark.row("LAY-05", reference="torch")
def test_each_heads_features_are_normalised_alone():
    torch.manual_seed(0)
    x, ours, theirs = torch.randn(3, 7, 24) * 0.05, HeadGroupNorm(4, 24), nn.GroupNorm(4, 24, eps=64e-5)
    with torch.no_grad():
        ours.weight.normal_()
        ours.bias.normal_()
    theirs.load_state_dict(ours.state_dict())
    expected = theirs(x.flatten(0, 1)).unflatten(0, (3, 7))
    assert_close(ours(x), expected)
    heads = x.unflatten(-1, (4, 6))
    mean, variance = heads.mean(-1, keepdim=True), heads.var(-1, keepdim=True, unbiased=False)
    by_hand = ((heads - mean) / (variance + 64e-5).sqrt()).flatten(-2) * ours.weight + ours.bias
    assert_close(ours(x), by_hand)
    assert not torch.allclose(F.group_norm(x.flatten(0, 1), 4, ours.weight, ours.bias).view_as(x), ours(x), atol=1e-3)


@pytest.mark.row("LAY-05", reference="hand calculation: RWKV-5's division by 8 and eps 1e-5 are RWKV-6's eps 64e-5")
def test_rwkv_5_and_6_write_the_same_norm():
    x, ours = torch.randn(2, 3, 24), HeadGroupNorm(4, 24)
    fifth = F.group_norm(x.flatten(0, 1) / 8, 4, ours.weight, ours.bias, eps=1e-5).view_as(x)
    assert_close(ours(x), fifth)


@pytest.mark.row("LAY-11", reference="hand calculation: Shazeer 2020, equations 5 and 6")
@pytest.mark.parametrize("name", ["sigmoid", "linear", "relu", "gelu", "silu"])
def test_the_five_gated_units(name):
    """GLU, bilinear, ReGLU, GeGLU, SwiGLU."""
    torch.manual_seed(0)
    x, mlp = torch.randn(2, 3, 8), GatedMLP(8, 24, activation(name))
    gated = {
        "sigmoid": lambda g: 1 / (1 + torch.exp(-g)),
        "linear": lambda g: g,
        "relu": lambda g: g * (g > 0),
        "gelu": lambda g: g * (1 + torch.erf(g / math.sqrt(2))) / 2,
        "silu": lambda g: g / (1 + torch.exp(-g)),
    }[name]
    g, u = x @ mlp.gate_proj.weight.T, x @ mlp.up_proj.weight.T
    assert_close(mlp(x), (gated(g) * u) @ mlp.down_proj.weight.T)
    if name == "sigmoid":  # torch's GLU takes both halves from one matrix: first the values, then the gate
        assert_close(mlp(x), F.glu(torch.cat((u, g), -1)) @ mlp.down_proj.weight.T)
