"""The training kernels: equal to the plain modules in values and gradients, and gone when training ends."""

import pytest
import torch
from torch.nn import functional as F

from groundup.layers.attention import AttentionCore
from groundup.layers.masks import Mask
from groundup.layers.norms import RMSNorm
from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.training.kernels import attention
from groundup.training.kernels.attention import tiled_attention
from groundup.training.kernels.gelu import gelu_tanh
from groundup.training.kernels.install import accelerated
from groundup.training.kernels.rms_norm import rms_norm

GPT2 = GPT2Config(
    vocab_size=17, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=12,
    embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0,
)  # fmt: skip
LLAMA = LlamaConfig(
    vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=12,
)  # fmt: skip
DOCUMENTS = torch.tensor([[1] * 5 + [2] * 7, [0] * 3 + [1] * 9, [1] * 12])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def small_tiles(monkeypatch):
    """Several tiles with a rest, several groups of rows with a rest."""
    monkeypatch.setattr(attention, "TILE", 5)
    monkeypatch.setattr(attention, "CACHE", 2 * 4 * 12 * 12)
    monkeypatch.setattr(attention, "pays", lambda *_: True)


def heads(rows=3, query_heads=4, kv_heads=4, length=12, width=6, dtype=torch.float64):
    shapes = [(rows, length, n, width) for n in (query_heads, kv_heads, kv_heads)]
    return [torch.randn(shape, dtype=dtype).transpose(1, 2).requires_grad_() for shape in shapes]


def block_mask():
    same = DOCUMENTS[:, :, None] == DOCUMENTS[:, None, :]
    return (same & torch.ones(12, 12, dtype=torch.bool).tril())[:, None]


MASKS = {
    "causal": Mask(causal=True),
    "everything": Mask(),
    "documents": Mask(allowed=block_mask()),
    "one for all": Mask(allowed=torch.ones(1, 1, 12, 12, dtype=torch.bool).tril().triu(-4)),
    "one a head": Mask(allowed=torch.rand(1, 4, 12, 12) < 0.5 + torch.eye(12)),
}


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("name", MASKS)
def test_attention_equals_the_core(name, kv_heads):
    inputs, core, mask = heads(kv_heads=kv_heads), AttentionCore(), MASKS[name]
    upstream = torch.randn(3, 4, 12, 6, dtype=torch.float64)
    wanted = core(*inputs, mask)
    found = tiled_attention(core, *inputs, mask)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(wanted, inputs, upstream)
    )


@pytest.mark.usefixtures("small_tiles")
def test_attention_gradients_are_those_of_finite_differences():
    inputs, core = heads(rows=3, query_heads=2, kv_heads=1, length=7, width=2), AttentionCore(scale=0.7)
    assert torch.autograd.gradcheck(lambda q, k, v: tiled_attention(core, q, k, v, Mask(causal=True)), inputs)


@pytest.mark.usefixtures("small_tiles")
def test_attention_drops_weights_and_their_gradients_alike():
    core = AttentionCore(dropout=0.4).train()
    inputs = heads(rows=2, query_heads=2, kv_heads=2, length=6, width=2)

    def seeded(q, k, v):
        torch.manual_seed(7)
        return tiled_attention(core, q, k, v, Mask(causal=True))

    assert torch.autograd.gradcheck(seeded, inputs)
    assert not torch.equal(seeded(*inputs), tiled_attention(core, *inputs, Mask(causal=True)))


@pytest.mark.usefixtures("small_tiles")
def test_dropout_keeps_the_mean_and_rests_in_evaluation():
    core, (q, k, v) = AttentionCore(dropout=0.3).train(), heads(rows=1, length=12)
    plain = AttentionCore()(q, k, v, Mask())
    mean = torch.stack([tiled_attention(core, q, k, v, Mask()) for _ in range(3000)]).mean(0)
    torch.testing.assert_close(mean, plain, atol=0.08, rtol=0)
    torch.testing.assert_close(tiled_attention(core.eval(), q, k, v, Mask()), plain)


def test_gelu_is_torchs():
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(gelu_tanh(x), F.gelu(x, approximate="tanh"))
    assert torch.autograd.gradcheck(gelu_tanh, torch.randn(20, dtype=torch.float64, requires_grad=True))
    extreme = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4], requires_grad=True)
    found = gelu_tanh(extreme)
    torch.testing.assert_close(found, F.gelu(extreme, approximate="tanh"))
    torch.testing.assert_close(torch.autograd.grad(found.sum(), extreme)[0], torch.tensor([0, 0, 0.5, 1, 1]))


def test_rms_norm_is_the_modules():
    norm = RMSNorm(6, eps=1e-3)
    norm.weight.data.uniform_(0.5, 2)
    x = torch.randn(3, 4, 6, requires_grad=True)
    torch.testing.assert_close(rms_norm(norm, x), norm(x))
    upstream = torch.randn_like(x)
    wanted = torch.autograd.grad(norm(x), [x, norm.weight], upstream)
    torch.testing.assert_close(torch.autograd.grad(rms_norm(norm, x), [x, norm.weight], upstream), wanted)
    norm.double()
    assert torch.autograd.gradcheck(lambda x: rms_norm(norm, x), x.detach().double().requires_grad_())


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize("documents", [None, DOCUMENTS], ids=["plain", "documents"])
def test_whole_models_keep_their_logits_and_gradients(config, documents):
    model = build_model(config).train()
    ids = torch.randint(0, 17, (3, 12))

    def results():
        logits = model(ids, documents=documents)
        return logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))

    wanted = results()
    with accelerated(model):
        found = results()
        kinds = graph_names(found[0])
    assert ("_AttentionBackward" in kinds) == (documents is None)
    assert kinds & {"_GELUBackward", "_RMSNormBackward"}
    torch.testing.assert_close(found, wanted)


def graph_names(tensor):
    """The names of all steps of a tensor's backward pass."""
    seen, pending = set(), [tensor.grad_fn]
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            pending += [following for following, _ in node.next_functions]
    return {node.name() for node in seen}


def test_nothing_stays_when_training_ends():
    model = build_model(GPT2)
    before = [dict(vars(module)) for module in model.modules()]
    with accelerated(model):
        assert "forward" in vars(model.blocks["0"].attn.core)
        assert model.blocks["0"].mlp.act is gelu_tanh
    assert [dict(vars(module)) for module in model.modules()] == before


def test_parts_of_others_are_left_alone():
    model = build_model(LLAMA)
    model.blocks["0"].attn.core = type("OtherCore", (AttentionCore,), {})()
    with accelerated(model):
        assert "forward" not in vars(model.blocks["0"].attn.core)
        assert "forward" in vars(model.blocks["1"].attn.core)
    with accelerated(model, active=False):
        assert "forward" not in vars(model.blocks["1"].attn.core)


def test_long_rows_and_evaluation_take_torchs_kernel(monkeypatch):
    (q, k, v), core = heads(), AttentionCore()
    monkeypatch.setattr(attention, "LONGEST", 11)
    assert "_AttentionBackward" not in tiled_attention(core, q, k, v, Mask(causal=True)).grad_fn.name()
    monkeypatch.setattr(attention, "LONGEST", 12)
    assert tiled_attention(core, q, k, v, Mask(causal=True)).grad_fn.name() == "_AttentionBackward"
    with torch.no_grad():
        rested = tiled_attention(core, q, k, v, Mask(causal=True))
    torch.testing.assert_close(rested, core(q, k, v, Mask(causal=True)).detach(), rtol=0, atol=0)
