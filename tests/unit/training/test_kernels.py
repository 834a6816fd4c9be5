"""The training kernels: equal to the plain modules in values and gradients, and gone when training ends."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F
from toy import ToyLoader, ToyModel, toy_rows

from groundup.layers.attention import AttentionCore
from groundup.layers.masks import Mask
from groundup.layers.norms import OffsetRMSNorm, RMSNorm
from groundup.models.configs.gemma import GemmaConfig
from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.training import session
from groundup.training.compilation import can_compile, compiled
from groundup.training.config import TrainingConfig
from groundup.training.kernels import attention
from groundup.training.kernels.attention import TiledCore, tiled_attention
from groundup.training.kernels.embedding import Lookup
from groundup.training.kernels.gelu import gelu_tanh, gelu_tanh_to_fuse
from groundup.training.kernels.install import accelerated
from groundup.training.kernels.rms_norm import FasterOffsetRMSNorm, FasterRMSNorm
from groundup.training.objectives.cross_entropy import IGNORED
from groundup.training.objectives.language_modeling import LanguageModeling

GPT2 = GPT2Config(
    vocab_size=17, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=12,
    embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0,
)  # fmt: skip
LLAMA = LlamaConfig(
    vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=12,
)  # fmt: skip
GEMMA = GemmaConfig(
    vocab_size=17, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, head_dim=4,
    num_key_value_heads=1, max_position_embeddings=12,
)  # fmt: skip
DOCUMENTS = torch.tensor([[1] * 5 + [2] * 7, [0] * 3 + [1] * 9, [1] * 12])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def small_tiles(monkeypatch):
    """Several tiles with a rest, several groups of rows with a rest."""
    monkeypatch.setattr(attention, "TILE", 5)
    monkeypatch.setattr(attention, "CACHE", {})
    monkeypatch.setattr(attention, "CACHE_OTHERS", 2 * 4 * 12 * 12)
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


@pytest.mark.parametrize("gelu", [gelu_tanh, gelu_tanh_to_fuse])
def test_gelu_is_torchs(gelu):
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(gelu(x), F.gelu(x, approximate="tanh"))
    assert torch.autograd.gradcheck(gelu, torch.randn(20, dtype=torch.float64, requires_grad=True))
    extreme = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4], requires_grad=True)
    found = gelu(extreme)
    torch.testing.assert_close(found, F.gelu(extreme, approximate="tanh"))
    torch.testing.assert_close(torch.autograd.grad(found.sum(), extreme)[0], torch.tensor([0, 0, 0.5, 1, 1]))


@pytest.mark.parametrize(("kind", "ours"), [(RMSNorm, FasterRMSNorm), (OffsetRMSNorm, FasterOffsetRMSNorm)])
def test_rms_norm_is_the_modules(kind, ours):
    norm = kind(6, eps=1e-3)
    norm.weight.data.uniform_(0.5, 2)
    faster = ours(6, eps=1e-3)
    faster.weight = norm.weight
    x = torch.randn(3, 4, 6, requires_grad=True)
    torch.testing.assert_close(faster(x), norm(x))
    upstream = torch.randn_like(x)
    wanted = torch.autograd.grad(norm(x), [x, norm.weight], upstream)
    torch.testing.assert_close(torch.autograd.grad(faster(x), [x, norm.weight], upstream), wanted)
    assert faster(x).grad_fn.name() == "_RMSNormBackward"
    faster.double()
    assert torch.autograd.gradcheck(faster, x.detach().double().requires_grad_())


def test_an_embeddings_gradient_is_summed_in_fp32():
    """Four thousand times one token: a bf16 sum of ones would stop at 256."""
    table = Lookup(3, 4).bfloat16()
    ids = torch.cat([torch.full((4000,), 1), torch.tensor([2])])
    (found,) = torch.autograd.grad(table(ids).sum(), table.weight)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), torch.tensor([[0.0], [4000.0], [1.0]]).expand(3, 4), rtol=4e-3, atol=0)


@pytest.mark.parametrize("config", [GPT2, LLAMA, GEMMA], ids=["gpt2", "llama", "gemma"])
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
    assert any("groundup_attention" in kind for kind in kinds) == (documents is None)
    known = {"gpt2": {"_GELUBackward"}, "llama": {"_RMSNormBackward"}, "gemma": {"_GELUBackward", "_RMSNormBackward"}}
    assert known[config.model_type] <= kinds
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

    def state():
        return [(type(module), dict(vars(module))) for module in model.modules()]

    before = state()
    with accelerated(model, compiled=True):
        assert "loss_and_gradient" in vars(model.lm_head)
        assert model.blocks["0"].mlp.act is gelu_tanh_to_fuse
    assert state() == before
    with accelerated(model):
        assert type(model.blocks["0"].attn.core) is TiledCore
        assert type(model.embed.tokens) is Lookup
        assert model.blocks["0"].mlp.act is gelu_tanh
    assert state() == before


def test_parts_of_others_are_left_alone():
    model = build_model(LLAMA)
    model.blocks["0"].attn.core = type("OtherCore", (AttentionCore,), {})()
    with accelerated(model):
        assert type(model.blocks["0"].attn.core).__name__ == "OtherCore"
        assert type(model.blocks["1"].attn.core) is TiledCore
    with accelerated(model, active=False):
        assert type(model.blocks["1"].attn.core) is AttentionCore


def test_long_rows_and_evaluation_take_torchs_kernel(monkeypatch):
    (q, k, v), core = heads(), AttentionCore()

    def tiled():
        found = tiled_attention(core, q, k, v, Mask(causal=True))
        return any("groundup_attention" in name for name in graph_names(found))

    monkeypatch.setattr(attention, "LONGEST", 11)
    assert not tiled()
    monkeypatch.setattr(attention, "LONGEST", 12)
    assert tiled()
    with torch.no_grad():
        rested = tiled_attention(core, q, k, v, Mask(causal=True))
    torch.testing.assert_close(rested, core(q, k, v, Mask(causal=True)).detach(), rtol=0, atol=0)


def test_bf16_attention_is_as_exact_as_torchs():
    """Both against fp64: our error is no larger than twice that of torch's kernel."""
    exact = [x.detach().requires_grad_() for x in heads(rows=2, length=40, width=16)]
    upstream = torch.randn(2, 4, 40, 16, dtype=torch.float64)

    def results(attend, dtype):
        inputs = [x.detach().to(dtype).requires_grad_() for x in exact]
        out = attend(*inputs, Mask(causal=True))
        return [out.detach(), *torch.autograd.grad(out, inputs, upstream.to(dtype))]

    def error(attend):
        pairs = zip(results(attend, torch.bfloat16), results(core, torch.float64), strict=True)
        return [float((found - wanted).norm() / wanted.norm()) for found, wanted in pairs]

    core = AttentionCore()
    for ours, torchs in zip(error(lambda *inputs: tiled_attention(core, *inputs)), error(core), strict=True):
        assert 0 < ours < 2 * torchs


@pytest.mark.parametrize(
    "config", [pytest.param(GPT2, id="gpt2"), pytest.param(LLAMA, id="llama", marks=pytest.mark.slow)]
)
def test_compiled_blocks_keep_losses_and_gradients(config):
    """A training with compiled blocks, in fp32: the same losses, one compilation for all but the first block."""
    if not can_compile():
        pytest.skip("torch.compile does not work here")
    config = config.model_copy(update={"num_hidden_layers": 4})
    ids, labels = torch.randint(0, 17, (3, 12)), torch.randint(0, 17, (3, 12))
    labels[0, :4] = IGNORED

    def results(model, forward):
        total, *_ = forward(ids, head=LanguageModeling().head({"labels": labels}))
        return [total, *torch.autograd.grad(total, list(model.parameters()))]

    model = build_model(config).train()
    wanted = results(model, model)
    torch._dynamo.reset()  # what other tests compiled counts towards the limit of compilations
    torch._dynamo.utils.counters.clear()
    with accelerated(model, compiled=True):
        found = results(model, compiled(model, True))
    torch.testing.assert_close(found, wanted)
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3  # two blocks, and the loss
    assert all(block._compiled_call_impl is None for block in model.blocks.values())


@pytest.mark.parametrize(
    ("variable", "value", "said"), [("CXX", "/bin/false", "does not work"), ("PATH", "", "no C++")]
)
def test_without_a_working_compiler_training_runs_uncompiled(variable, value, said, tmp_path):
    code = "from groundup.training.compilation import can_compile; print(can_compile())"
    places = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | places | {variable: value}, capture_output=True, text=True
    )
    assert run.stdout.strip() == "False", run.stderr
    assert said in run.stderr
    assert run.stderr.count("\n") == 1


def test_long_trainings_are_compiled_and_short_ones_are_not(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(session, "compiled", lambda model, active: calls.append(active) or model)
    short, long = session.STEPS_WORTH_COMPILING - 1, session.STEPS_WORTH_COMPILING
    for number, (steps, wish) in enumerate([(short, "auto"), (long, "auto"), (short, True), (long, False)]):
        training = {"steps": steps, "batch_size": 8, "compile": wish, "out_dir": str(tmp_path / str(number))}
        data = ToyLoader(toy_rows(), 8)
        with session.Training(ToyModel(), LanguageModeling(), data, TrainingConfig.parse(training)) as started:
            started.start()
    assert calls == [False, True, True, False]
