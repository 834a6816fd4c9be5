"""LLM.int8() against bitsandbytes, and against its formula in float64."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.quantization import Int8Config, LLMInt8Config, quantize
from groundup.quantization.integers import Int8Linear
from groundup.quantization.llm_int8 import LLMInt8Linear, integer_product, split

PARITY = pytest.mark.row("QNT-05", reference="bitsandbytes")
ROW = pytest.mark.row("QNT-05", reference="the formula in float64")


def case(rows=5, bias=True, outliers=(3, 17)):
    """A layer and inputs whose numbers are float16 numbers, some columns of them 30 times larger."""
    torch.manual_seed(0)
    layer = nn.Linear(32, 12, bias)
    layer.weight.data = layer.weight.data.half().float()
    x = torch.randn(rows, 32)
    x[:, list(outliers)] *= 30
    return layer, x.half().float()


@PARITY
@pytest.mark.parametrize("outliers", [(), (3, 17)])
def test_integers_and_outputs(outliers):
    bnb = pytest.importorskip("bitsandbytes")
    layer, x = case(outliers=outliers)
    theirs = bnb.nn.Linear8bitLt(32, 12, has_fp16_weights=False, threshold=6.0)
    theirs.load_state_dict(copy.deepcopy(layer.state_dict()))
    theirs = theirs.to("cpu").eval()  # in training it computes in floating point on CPUs
    ours = LLMInt8Config().make(layer)
    x, y = x.requires_grad_(), x.clone().requires_grad_()
    got, want = ours(x), theirs(y)

    weights, stats, _ = bnb.functional.int8_vectorwise_quant(layer.weight.detach().half())
    assert ours.q.equal(weights)
    assert_close(ours.scale * 127, stats)
    rows, stats, columns = bnb.functional.int8_vectorwise_quant(x.detach().half(), threshold=6.0)
    q, scale, found = split(x.detach(), 6.0)
    assert q.equal(rows)
    assert_close(scale * 127, stats)
    assert found.tolist() == columns.tolist() == list(outliers)
    assert integer_product(q, ours.q).equal(bnb.functional.int8_linear_matmul(rows, weights))

    # their constant for 1 / 127^2 is 6.200124e-05, and should be 6.2000124e-05: 1.8e-5 of each integer product
    assert_close(got, want, rtol=0, atol=2e-5 * (x @ layer.weight.T).abs().max().item())
    g = torch.randn(got.shape)
    assert_close(*(torch.autograd.grad(out, into, g)[0] for out, into in ((got, x), (want, y))))


@ROW
@pytest.mark.parametrize("threshold", [0.5, 6.0, 1e9])
@pytest.mark.parametrize("shape", [(1, 32), (2, 3, 32), (0, 32)])
def test_the_formula(threshold, shape):
    layer, x = case(rows=6)
    layer.weight.data[4] = 0  # rows without anything in them
    x = x.view(2, 3, 32)[..., :] if len(shape) == 3 else x[: shape[0]]
    if len(x) and x.dim() == 3:
        x[0, 1] = 0
    ours = LLMInt8Config(threshold=threshold).make(layer)
    w, flat = layer.weight.detach().double(), x.reshape(-1, 32).double()
    out = (flat.abs() >= threshold).any(0)
    s_w = (w.abs().amax(1, keepdim=True) / 127).clamp(min=1e-300)
    q_w = (w / s_w).round()
    s_x = (flat.masked_fill(flat.abs() >= threshold, 0).abs().amax(1, keepdim=True) / 127).clamp(min=1e-300)
    rest = flat.masked_fill(out, 0)
    want = (rest / s_x).round() @ q_w.T * s_x * s_w.T + flat[:, out] @ (q_w * s_w)[:, out].T + layer.bias.double()
    got = ours(x)
    assert got.shape == (*x.shape[:-1], 12)
    assert_close(got.reshape(-1, 12), want.float().view(-1, 12))


@ROW
def test_outliers_are_why():
    """With columns 30 times larger, taking them out leaves less than half of the error."""
    layer, x = case(rows=64)
    true = layer(x)
    taken_out, whole = ((LLMInt8Config(threshold=t).make(layer)(x) - true).pow(2).mean().sqrt() for t in (6.0, 1e9))
    weights_alone = (Int8Linear.of(layer)(x) - true).pow(2).mean().sqrt()
    assert taken_out < 0.5 * whole
    assert taken_out < 2 * weights_alone


@ROW
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model(dtype):
    """Through `quantize`, in place: a quarter of the bytes of float32, close logits, gradients for what lies below."""
    torch.manual_seed(0)
    shape = {"vocab_size": 32, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    model = build_model(LlamaConfig(**shape, num_attention_heads=2, max_position_embeddings=32), dtype=dtype).eval()
    x = torch.randint(32, (2, 9))
    want = model(x)
    report = quantize(model, LLMInt8Config())
    assert type(model.blocks["0"].mlp.up_proj) is LLMInt8Linear
    assert report.bits_per_weight == 8 + 32 / 64
    got = model(x)
    assert got.dtype == dtype
    assert (got - want).abs().max() < 0.05 * want.abs().max()
    got.sum().backward()
    assert model.embed.tokens.weight.grad.abs().sum() > 0


@ROW
def test_int8_config_still_leaves_inputs_alone():
    layer, x = case()
    ours = Int8Config().make(layer)
    assert_close(ours(x), torch.nn.functional.linear(x, ours.dequantize(), layer.bias))
