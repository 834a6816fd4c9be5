"""The building blocks, against torch's own, hand calculations and published numbers."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from groundup.layers import init
from groundup.layers.activations import ACTIVATIONS, activation, mish, squared_relu
from groundup.layers.attention_steps import BufferedAttention, CausalAttention
from groundup.layers.block import Block, PostBranchNormBlock
from groundup.layers.context import Context
from groundup.layers.embedding import Embedding, PositionalEmbedding, ScaledEmbedding
from groundup.layers.feedforward import MLP, GatedMLP, gated_width
from groundup.layers.norms import AllHeadsNorm, LayerNorm, OffsetRMSNorm, RMSNorm, StdLayerNorm


def plain(length: int) -> Context:
    return Context(torch.arange(length)[None])


@pytest.mark.row("LAY-01", reference="hand calculation")
def test_embedding_is_one_hot_times_matrix():
    embed, ids = Embedding(10, 4), torch.tensor([[3, 1, 3, 9]])
    linear = nn.Linear(10, 4, bias=False)
    linear.weight.data = embed.weight.data.T.clone()
    looked_up, multiplied = embed(ids, plain(4)), linear(F.one_hot(ids, 10).float())
    assert_close(looked_up, multiplied)
    looked_up.square().sum().backward()
    multiplied.square().sum().backward()
    assert_close(embed.weight.grad, linear.weight.grad.T)


def test_embedding_lets_vectors_pass():
    vectors = torch.randn(1, 3, 4)
    assert torch.equal(Embedding(10, 4)(vectors, plain(3)), vectors)


@pytest.mark.row("LAY-37", reference="hand calculation")
def test_learned_positions_are_added_by_position_not_by_slot():
    embed = PositionalEmbedding(10, 4, max_positions=6)
    out = embed(torch.tensor([[7, 7, 7]]), Context(torch.tensor([[5, 0, 2]])))
    assert_close(out[0, 0] - out[0, 1], embed.positions.weight[5] - embed.positions.weight[0])
    assert_close(out[0, 2], embed.weight[7] + embed.positions.weight[2])


@pytest.mark.row("LAY-02", reference="torch")
def test_linear_and_its_bias():
    assert MLP(4, 8, bias=False).up_proj.bias is None
    assert MLP(4, 8).up_proj.bias is not None
    x = torch.randn(3, 4)
    linear = MLP(4, 8).up_proj
    assert_close(linear(x), x @ linear.weight.T + linear.bias)


@pytest.mark.row("LAY-02", reference="torch")
def test_a_buffer_moves_with_the_module_and_is_neither_trained_nor_saved():
    """The mask of attention as a buffer: the numbers of the same attention without one, and torch's rules for both."""
    torch.manual_seed(0)
    buffered, plain = BufferedAttention(3, 2, context_length=8), CausalAttention(3, 2)
    assert [name for name, _ in buffered.named_buffers()] == ["later"]
    assert [name for name, _ in plain.named_buffers()] == []
    names = ["k_proj.weight", "q_proj.weight", "v_proj.weight"]
    assert sorted(name for name, _ in buffered.named_parameters()) == sorted(buffered.state_dict()) == names
    plain.load_state_dict(buffered.state_dict())
    x = torch.randn(2, 5, 3)
    assert_close(buffered(x), plain(x))
    before = buffered.later.clone()
    optimizer = torch.optim.SGD(buffered.parameters(), lr=1.0, weight_decay=0.5)
    buffered(x).square().sum().backward()
    optimizer.step()
    assert torch.equal(buffered.later, before)
    assert not torch.equal(buffered.q_proj.weight, plain.q_proj.weight)
    assert buffered.to(torch.float64).later.dtype == torch.bool
    assert buffered.to("meta").later.is_meta


@pytest.mark.row("LAY-03", reference="torch")
def test_layer_norm_both_forms():
    x = torch.randn(2, 5, 16) * 3 + 1
    ours, theirs = LayerNorm(16), nn.LayerNorm(16, eps=1e-5)
    theirs.load_state_dict(ours.state_dict())
    assert_close(ours(x), theirs(x))
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    assert_close(ours(x), (x - mean) / (var + 1e-5).sqrt())
    assert_close(StdLayerNorm(16)(x), (x - mean) / (x.std(-1, keepdim=True, unbiased=True) + 1e-6))
    assert LayerNorm(16, bias=False).bias is None


@pytest.mark.row("LAY-04", reference="torch")
def test_rms_norm():
    x = torch.randn(2, 5, 16) * 3 + 1
    ours, theirs = RMSNorm(16, eps=1e-6), nn.RMSNorm(16, eps=1e-6)
    with torch.no_grad():
        ours.weight.normal_()
        theirs.weight.copy_(ours.weight)
    assert_close(ours(x), theirs(x))
    half = x.bfloat16()
    assert ours.bfloat16()(half).dtype == torch.bfloat16


@pytest.mark.row("LAY-10", reference="torch, hand calculation")
@pytest.mark.parametrize("name", ["relu", "relu2", "gelu", "gelu_new", "silu", "mish", "sigmoid", "tanh"])
def test_activations_by_their_formulas(name):
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)
    phi = torch.tensor([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()], dtype=torch.float64)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    formula = {
        "relu": x.clamp(min=0),
        "relu2": x.clamp(min=0) ** 2,
        "gelu": x * phi,
        "gelu_new": 0.5 * x * (1 + torch.tanh(inner)),
        "silu": x / (1 + torch.exp(-x)),
        "mish": x * torch.tanh(torch.log(1 + torch.exp(x))),
        "sigmoid": 1 / (1 + torch.exp(-x)),
        "tanh": (torch.exp(x) - torch.exp(-x)) / (torch.exp(x) + torch.exp(-x)),
    }
    assert_close(activation(name)(x), formula[name])
    assert_close(mish(x), F.mish(x))
    assert_close(squared_relu(x), F.relu(x).square())


def test_unknown_activation_names_the_nearest():
    with pytest.raises(Exception, match="Did you mean `gelu"):
        activation("geluu")
    assert "swish" in ACTIVATIONS


@pytest.mark.row("LAY-11", reference="hand calculation")
@pytest.mark.parametrize("name", ["sigmoid", "gelu", "silu"])
def test_gated_units(name):
    x, mlp = torch.randn(2, 3, 8), GatedMLP(8, 24, activation(name))
    gate, up, down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
    assert_close(mlp(x), (activation(name)(x @ gate.T) * (x @ up.T)) @ down.T)


@pytest.mark.row("LAY-11", reference="published: Touvron et al. 2023; Llama 3 8B")
def test_gated_width_of_the_published_models():
    assert [gated_width(d) for d in (4096, 5120, 6656, 8192)] == [11008, 13824, 17920, 22016]
    assert gated_width(4096, multiple_of=1024, multiplier=1.3) == 14336
    # as many parameters as the ungated MLP of width 4 d, to within the rounding
    gated, ungated = 3 * 4096 * gated_width(4096), 2 * 4096 * 4 * 4096
    assert abs(gated / ungated - 1) < 0.01


@pytest.mark.row("LAY-12", reference="hand calculation")
def test_feed_forward_treats_positions_alike():
    x, mlp = torch.randn(1, 6, 8), MLP(8, 32, F.relu)
    order = torch.randperm(6)
    assert_close(mlp(x)[:, order], mlp(x[:, order]))
    up, down = mlp.up_proj, mlp.down_proj
    assert_close(mlp(x), (x @ up.weight.T + up.bias).clamp(min=0) @ down.weight.T + down.bias)


def test_feed_forward_parameters_of_gpt2():
    count = sum(p.numel() for p in MLP(768, 4 * 768).parameters())
    assert count == 4_722_432  # Raschka 2024, chapter 4


@pytest.mark.row("LAY-13", reference="published: Raschka 2024, chapter 4")
def test_residual_connections_keep_gradients_alive():
    """Five layers of GELU: without shortcuts the first layer's gradient is a thousandth of what it is with them."""

    class Nothing(nn.Module):
        def forward(self, x, context):
            return torch.zeros_like(x)

    def first_gradient(residual: bool) -> float:
        torch.manual_seed(123)
        layers = [nn.Linear(3, 3) for _ in range(4)] + [nn.Linear(3, 1)]
        parts = [nn.Sequential(layer, nn.GELU(approximate="tanh")) for layer in layers]
        x = torch.tensor([[[1.0, 0.0, -1.0]]])
        for part in parts[:4]:  # the residual connection is that of our block, its other branch empty
            block = Block(nn.Identity(), Nothing(), nn.Identity(), part)
            x = block(x, plain(1)) if residual else part(x)
        F.mse_loss(parts[4](x), torch.tensor([[[0.0]]])).backward()
        return layers[0].weight.grad.abs().mean().item()

    assert first_gradient(residual=False) == pytest.approx(0.00020173587836325169, rel=1e-4)
    assert first_gradient(residual=True) == pytest.approx(0.22169792652130127, rel=1e-4)


class _Half(nn.Module):
    def forward(self, x, context=None):
        return x / 2


@pytest.mark.row("LAY-07", reference="hand calculation")
def test_pre_norm_block_joins_its_parts():
    norm1, norm2 = LayerNorm(8), LayerNorm(8)
    block, x = Block(norm1, _Half(), norm2, _Half()), torch.randn(2, 3, 8)
    h = x + norm1(x) / 2
    assert_close(block(x, plain(3)), h + norm2(h) / 2)


@pytest.mark.row("LAY-14", reference="hand calculation")
def test_four_dropout_rates_act_each_on_its_own_place():
    from groundup.models.configs.gpt2 import GPT2Config
    from groundup.models.text.gpt2 import GPT2

    shape = dict(vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=8)
    none = dict(embd_pdrop=0, attn_pdrop=0, resid_pdrop=0, mlp_pdrop=0)
    ids = torch.arange(8)[None]
    for name in none:
        torch.manual_seed(0)
        model = GPT2.build(GPT2Config(**shape, **{**none, name: 0.5}))
        quiet, drops = model.eval()(ids), {}
        model.train()
        for module_name, module in model.named_modules():
            if isinstance(module, nn.Dropout) and module.p > 0:
                drops[module_name] = module.p
        expected = {
            "embd_pdrop": {"embed.dropout"},
            "attn_pdrop": set(),
            "resid_pdrop": {"blocks.0.attn_dropout"},
            "mlp_pdrop": {"blocks.0.mlp_dropout"},
        }
        assert set(drops) == expected[name]
        assert model.blocks["0"].attn.core.dropout == (0.5 if name == "attn_pdrop" else 0)
        assert not torch.equal(model(ids), quiet)
        assert torch.equal(model.eval()(ids), quiet)


def test_dropout_scales_what_it_keeps():
    torch.manual_seed(0)
    out = nn.Dropout(0.25)(torch.ones(100_000))
    assert out.unique().tolist() == [0.0, pytest.approx(1 / 0.75)]
    assert out.mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.row("LAY-51", reference="torch.nn.init")
@pytest.mark.parametrize("shape", [(30, 50), (50, 30)])
def test_initialisers_draw_what_torch_draws(shape):
    """The same seed, the same numbers; torch draws a wide orthogonal matrix transposed: compared where it is tall."""

    def seeded(fill, *arguments):
        torch.manual_seed(7)
        return fill(torch.empty(shape), *arguments)

    assert_close(seeded(init.xavier_uniform, 1.5), seeded(nn.init.xavier_uniform_, 1.5))
    assert_close(seeded(init.xavier_normal, 0.5), seeded(nn.init.xavier_normal_, 0.5))
    if shape[0] > shape[1]:
        assert_close(seeded(init.orthogonal, 2.0), seeded(nn.init.orthogonal_, 2.0))
    module = nn.Linear(30, 50)
    torch.manual_seed(7)
    init.normal(module, 0.02)
    torch.manual_seed(7)
    assert_close(module.weight, nn.init.normal_(torch.empty(50, 30), std=0.02))
    assert not module.bias.any()


@pytest.mark.row("LAY-51", reference="transformers: T5")
def test_t5_queries_begin_as_in_transformers():
    from transformers import T5Config, T5Model

    torch.manual_seed(0)
    theirs = T5Model(T5Config(d_model=256, d_kv=32, num_heads=8, d_ff=64, num_layers=2, vocab_size=50)).encoder
    queries = torch.stack([block.layer[0].SelfAttention.q.weight for block in theirs.block])
    ours = init.t5_query(torch.empty(256, 256), dim=256, head_dim=32)
    assert ours.std().item() == pytest.approx(queries.std().item(), rel=0.02)
    # so the scores of unit-variance inputs, undivided, have the variance that division by sqrt(d) gives others
    x = torch.randn(2000, 256)
    keys = torch.randn(256, 256) / 16  # N(0, 1 / D)
    scores = ((x @ ours.T).unflatten(-1, (8, 32)) * (x.flip(0) @ keys.T).unflatten(-1, (8, 32))).sum(-1)
    assert scores.std().item() == pytest.approx(1, rel=0.05)


@pytest.mark.row("LAY-51", reference="published variances")
def test_initialisers_have_their_variances():
    torch.manual_seed(0)
    w = torch.empty(300, 500)
    bound = math.sqrt(6 / 800)
    assert init.xavier_uniform(w).abs().max() <= bound
    assert w.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert init.xavier_normal(w, gain=2).std().item() == pytest.approx(2 * math.sqrt(2 / 800), rel=0.01)
    q = init.orthogonal(torch.empty(20, 50))
    assert_close(q @ q.T, torch.eye(20), atol=1e-5, rtol=0)
    q = init.orthogonal(torch.empty(50, 20), gain=3)
    assert_close(q.T @ q, 9 * torch.eye(20), atol=1e-4, rtol=0)
    assert init.t5_query(w, dim=500, head_dim=64).std().item() == pytest.approx((500 * 64) ** -0.5, rel=0.01)


@pytest.mark.row("LAY-51", reference="published: Radford et al. 2019")
def test_gpt2_begins_as_published():
    from groundup.models.configs.gpt2 import GPT2Config
    from groundup.models.text.gpt2 import GPT2

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=500, hidden_size=128, num_hidden_layers=8, num_attention_heads=4)
    model = GPT2.build(config)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert not weight.any(), name
        elif "norm" in name:
            assert (weight == 1).all(), name
        else:
            ends = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = 0.02 / math.sqrt(16) if ends else 0.02
            assert weight.std().item() == pytest.approx(std, rel=0.05), name


@pytest.mark.row("LAY-48", reference="property: the gradient of a shared matrix is the sum of both uses")
def test_tied_head_is_the_embedding():
    from groundup.models.configs.gpt2 import GPT2Config
    from groundup.models.text.gpt2 import GPT2

    shape = dict(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=8)
    tied = GPT2.build(GPT2Config(**shape)).eval()
    free = GPT2.build(GPT2Config(**shape, tie_word_embeddings=False)).eval()
    assert tied.lm_head.weight is tied.embed.weight
    assert free.num_parameters() - tied.num_parameters() == 50 * 16
    ids = torch.arange(8)[None]
    tied(ids).square().sum().backward()
    free.load_state_dict(tied.state_dict())
    free(ids).square().sum().backward()
    assert_close(tied.embed.weight.grad, free.embed.weight.grad + free.lm_head.weight.grad)


def test_a_branch_normalised_at_its_end_is_that_of_olmo2():
    class Attend(nn.Linear):
        def forward(self, x, context):
            return super().forward(x)

    torch.manual_seed(0)
    block = PostBranchNormBlock(RMSNorm(8), Attend(8, 8), RMSNorm(8), nn.Linear(8, 8))
    nn.init.normal_(block.norm1.weight)
    x = torch.randn(2, 3, 8)
    first = F.linear(x, block.attn.weight, block.attn.bias)
    h = x + F.rms_norm(first, (8,), block.norm1.weight, 1e-6)
    assert_close(block(x, plain(3)), h + F.rms_norm(block.mlp(h), (8,), eps=1e-6))


def test_norm_of_all_heads_sees_them_as_one_vector():
    norm = AllHeadsNorm(RMSNorm(12))
    nn.init.normal_(norm.norm.weight)
    x = torch.randn(2, 5, 3, 4)
    expected = F.rms_norm(x.flatten(2), (12,), norm.norm.weight, 1e-6)
    assert_close(norm(x).flatten(2), expected)
    assert norm(x).shape == x.shape


def test_offset_norm_begins_as_a_plain_one_and_adds_one_to_its_weight():
    norm, x = OffsetRMSNorm(8), torch.randn(2, 3, 8)
    assert_close(norm(x), F.rms_norm(x, (8,), eps=1e-6))
    nn.init.normal_(norm.weight)
    assert_close(norm(x), F.rms_norm(x, (8,), norm.weight + 1, 1e-6))


def test_scaled_embedding_scales_ids_and_not_vectors():
    embed, ids, vectors = ScaledEmbedding(10, 16), torch.tensor([[3, 1]]), torch.randn(1, 2, 16)
    assert_close(embed(ids, plain(2)), 4 * embed.weight[ids])
    assert torch.equal(embed(vectors, plain(2)), vectors)
