"""Gated attention and Gated DeltaNet against transformers' Qwen3-Next."""

import pytest
import torch
import transformers.models.qwen3_next.modeling_qwen3_next as theirs
from torch.testing import assert_close
from transformers import Qwen3NextConfig

from groundup.layers.attention import Attention
from groundup.layers.attentions.gated import GatedAttention
from groundup.layers.attentions.gated_delta import GatedDeltaNet, delta_rule, delta_rule_chunked
from groundup.layers.context import Context
from groundup.layers.norms import OffsetRMSNorm
from groundup.layers.rope import Rope
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.replace import replace

CONFIG = Qwen3NextConfig(
    vocab_size=32, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
    linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=8, linear_value_head_dim=6,
    linear_conv_kernel_dim=4, partial_rotary_factor=0.5, attention_bias=True, num_experts=2,
)  # fmt: skip
CONFIG._attn_implementation = "eager"


def plain(tokens, documents=None):
    return Context(torch.arange(tokens)[None], documents)


def shaken(module):
    """Norms and biases leave their trivial start."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


def assert_same_gradients(got, expected, tensors):
    for a, b in zip(*(torch.autograd.grad(y.square().sum(), tensors) for y in (got, expected)), strict=True):
        assert_close(a, b, atol=1e-4, rtol=1e-4)  # sums over all tokens, values up to 100


# -- gated attention ---------------------------------------------------------------------------------------------------


@pytest.mark.row("LAY-29", reference="transformers")
def test_gated_attention_is_qwen3_nexts():
    torch.manual_seed(0)
    their = shaken(theirs.Qwen3NextAttention(CONFIG, 3))
    norms = {name: OffsetRMSNorm(16, CONFIG.rms_norm_eps) for name in ("q_norm", "k_norm")}
    ours = GatedAttention(32, 4, 2, 16, bias=True, rope=Rope(8, CONFIG.rope_parameters["rope_theta"]), **norms)
    weights = their.state_dict()
    for kind in ("weight", "bias"):  # theirs holds each head's query beside its gate
        both = weights.pop(f"q_proj.{kind}").unflatten(0, (4, 2, 16))
        weights |= {f"q_proj.{kind}": both[:, 0].flatten(0, 1), f"gate_proj.{kind}": both[:, 1].flatten(0, 1)}
    ours.load_state_dict(weights)
    x = torch.randn(2, 9, 32, requires_grad=True)
    cos_sin = theirs.Qwen3NextRotaryEmbedding(CONFIG)(x, torch.arange(9)[None])
    mask = torch.full((9, 9), -torch.inf).triu(1)[None, None]
    expected, _ = their(x, cos_sin, mask)
    got = ours(x, plain(9))
    assert_close(got, expected)
    assert_same_gradients(got, expected, [x])


def test_a_gate_for_each_head():
    torch.manual_seed(0)
    full, gated, x = Attention(16, 4), GatedAttention(16, 4, gate="headwise"), torch.randn(2, 5, 16)
    gated.load_state_dict(full.state_dict(), strict=False)
    assert gated.gate_proj.weight.shape == (4, 16)
    with torch.no_grad():
        gated.gate_proj.weight.zero_()
    assert_close(gated(x, plain(5)) * 2, full(x, plain(5)))  # sigmoid(0) = 1/2
    gated.gate_proj.bias = torch.nn.Parameter(torch.tensor([40.0, -40.0, -40.0, -40.0]))  # the first head alone
    first = full.mixed(x, plain(5)) * (torch.arange(16) < 4)
    assert_close(gated(x, plain(5)), full.o_proj(first))


# -- the gated delta rule ----------------------------------------------------------------------------------------------


def rule_inputs(tokens, seed=0):
    torch.manual_seed(seed)
    q, k = torch.randn(2, 3, tokens, 8), torch.randn(2, 3, tokens, 8)
    q, k = (torch.nn.functional.normalize(t, dim=-1) for t in (q, k))
    v, s = torch.randn(2, 3, tokens, 6), torch.randn(2, 3, 8, 6)
    g, b = -torch.rand(2, 3, tokens) * 2, torch.rand(2, 3, tokens)
    return [t.requires_grad_() for t in (q, k, v, g, b, s)]


@pytest.mark.row("LAY-29", reference="transformers")
@pytest.mark.parametrize("tokens", [1, 5, 16, 37])
@pytest.mark.parametrize("form", ["recurrent", "chunked 4", "chunked 16", "chunked 64"])
def test_the_rule_equals_transformers_in_values_and_gradients(form, tokens):
    q, k, v, g, b, s = inputs = rule_inputs(tokens)
    size = int(form.split()[-1]) if " " in form else None
    got, after = delta_rule(*inputs) if size is None else delta_rule_chunked(*inputs, chunk=size)
    turned = [t.transpose(1, 2) for t in (q * 8**0.5, k, v)]  # theirs divides q by sqrt(d)
    for reference in (theirs.torch_recurrent_gated_delta_rule, theirs.torch_chunk_gated_delta_rule):
        expected, s_after = reference(
            *turned, g=g.transpose(1, 2), beta=b.transpose(1, 2), initial_state=s, output_final_state=True
        )
        assert_close(got, expected.transpose(1, 2), atol=2e-5, rtol=1e-5)  # sums in another order
        assert_close(after, s_after, atol=2e-5, rtol=1e-5)
    both = [torch.cat((y.flatten(), m.flatten())) for y, m in ((got, after), (expected.transpose(1, 2), s_after))]
    assert_same_gradients(*both, inputs)


@pytest.mark.row("LAY-29", reference="hand calculation")
def test_the_rule_corrects_what_a_key_gives():
    """Write 5 at a key, then 7 at the same key: the memory gives 7, not 12; and half of it after fading by half."""
    k, v = torch.tensor([[[[1.0, 0.0]] * 3]]), torch.tensor([[[[5.0], [7.0], [0.0]]]])
    g, b = torch.tensor([[[0.0, 0.0, -(2.0**0.5)]]]), torch.tensor([[[1.0, 1.0, 0.0]]])
    y, _ = delta_rule(k, k, v, g, b)
    assert_close(y.flatten(), torch.tensor([5.0, 7.0, 7.0 * torch.tensor(-(2.0**0.5)).exp()]))


def test_strong_decay_over_long_rows_stays_finite():
    q, k, v, g, b, s = rule_inputs(300)
    y, after = delta_rule_chunked(q, k, v, g * 50, b, s, chunk=64)
    expected, _ = delta_rule(q, k, v, g * 50, b, s)
    # sums of logarithms up to 3200 have an error of 2e-4, and so have their exponentials
    assert_close(y, expected, atol=2e-4, rtol=2e-4)
    grads = torch.autograd.grad(y.sum() + after.sum(), (q, k, v, g, b, s))
    assert all(grad.isfinite().all() for grad in grads)


# -- the layer ---------------------------------------------------------------------------------------------------------


def pair(chunk=4):
    torch.manual_seed(0)
    their = shaken(theirs.Qwen3NextGatedDeltaNet(CONFIG, 0))
    ours = GatedDeltaNet(32, 4, 2, head_dim=6, k_head_dim=8, eps=CONFIG.rms_norm_eps, chunk=chunk)
    w = their.state_dict()
    # per key head: query (8), key (8), 2 values (6 each), 2 gates; and 2 betas, 2 decays
    q, k, v, z = w.pop("in_proj_qkvz.weight").unflatten(0, (2, 40)).split([8, 8, 12, 12], 1)
    beta, decay = w.pop("in_proj_ba.weight").unflatten(0, (2, 4)).split([2, 2], 1)
    parts = dict(q_proj=q, k_proj=k, v_proj=v, gate_proj=z, beta_proj=beta, decay_proj=decay)
    renamed = dict(A_log="a_log", dt_bias="dt_bias")
    ours.load_state_dict(
        {f"{name}.weight": part.flatten(0, 1) for name, part in parts.items()}
        | {renamed[name]: w[name] for name in renamed}
        | {"norm.weight": w["norm.weight"], "o_proj.weight": w["out_proj.weight"], "conv.weight": w["conv1d.weight"]}
    )
    return their, ours


@pytest.mark.row("LAY-29", reference="transformers")
@pytest.mark.parametrize("chunk", [4, 64])
def test_the_layer_is_qwen3_nexts(chunk):
    their, ours = pair(chunk)
    x = torch.randn(2, 11, 32, requires_grad=True)
    got, expected = ours(x, plain(11)), their(x)
    assert_close(got, expected)
    assert_same_gradients(got, expected, [x])
    documents = torch.tensor([[1] * 11, [0] * 7 + [1] * 4])
    padded = ours(x, plain(11, documents))
    expected = their(x, attention_mask=documents)
    assert_close(padded[0], expected[0])
    assert_close(padded[1, 7:], expected[1, 7:])


@pytest.mark.row("LAY-29", reference="property: equal to the row without a state")
@pytest.mark.parametrize("side", ["left", "right", "strewn"])
def test_a_model_of_these_layers_decodes_from_a_state_of_fixed_size(side):
    torch.manual_seed(0)
    shape = dict(vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4)
    model = build_model(LlamaConfig(**shape, initializer_range=0.2)).eval()
    replace(model, "blocks.0.attn", lambda _: shaken(GatedDeltaNet(32, 4, 2, chunk=4)))
    replace(model, "blocks.1.attn", lambda old: shaken(GatedAttention(32, 4, 2, rope=old.rope)))  # a hybrid
    x, lengths, place = torch.randint(0, 48, (3, 17)), (17, 9, 2), torch.arange(17)
    order = torch.rand(3, 17).argsort(1) if side == "strewn" else place if side == "right" else place.flip(0)
    documents = (order.expand(3, 17) < torch.tensor(lengths)[:, None]).long()
    with torch.no_grad():
        state, parts = model.make_state(3, 40), []
        for a, b in ((0, 2), (2, 9), (9, 10), (10, 11), (11, 15), (15, 16), (16, 17)):
            parts.append(model(x[:, a:b], documents=documents[:, a:b], state=state))
        got = torch.cat(parts, 1)
        assert got.isfinite().all()
        for row, n in enumerate(lengths):
            real = documents[row].bool()
            assert real.sum() == n
            assert_close(got[row, real], model(x[row, real][None])[0], atol=1e-4, rtol=1e-4)
        moment, size = state.snapshot(), state.layers["blocks.0.attn"].nbytes
        ahead = model(x[:, :3], state=state)
        assert state.layers["blocks.0.attn"].nbytes == size
        state.restore(moment)
        state.select(torch.tensor([2, 0, 1]))
        assert_close(model(x[[2, 0, 1], :3], state=state), ahead[[2, 0, 1]], atol=1e-4, rtol=1e-4)


@pytest.mark.row("LAY-29", reference="property: equal to each document alone")
@pytest.mark.parametrize("chunk", [4, 5, 64])
def test_packed_documents_do_not_touch_each_other(chunk):
    """Borders within a chunk and at its ends, a document longer than one, padding between and around."""
    torch.manual_seed(0)
    layer = shaken(GatedDeltaNet(32, 4, 2, chunk=chunk))
    x = torch.randn(2, 19, 32, requires_grad=True)
    documents = torch.tensor(
        [[1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4, 4, 4, 4, 4], [0, 0, 5, 5, 0, 0] + [9] * 10 + [0] * 3]
    )
    got = layer(x, plain(19, documents))
    alone = torch.zeros_like(got)
    for row in (0, 1):
        for document in documents[row].unique():
            if document:
                at = documents[row] == document
                alone[row, at] = layer(x[row, at][None], plain(int(at.sum())))[0]
    real = documents != 0
    assert_close(got[real], alone[real])
    assert_same_gradients(got[real], alone[real], [x, layer.conv.weight, layer.a_log])


def test_rounding_by_autocast_stays_out_of_the_memory():
    torch.manual_seed(0)
    layer, x = shaken(GatedDeltaNet(32, 4, 2, chunk=4)), torch.randn(1, 12, 32)
    seen = []
    layer._remember = lambda *inputs, known=layer._remember: seen.append([inputs, known(*inputs)]) or seen[-1][1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x, plain(12))
    inputs, found = seen[0]
    assert_close(found, GatedDeltaNet._remember(layer, *inputs))
