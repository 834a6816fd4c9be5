"""GPTQ against its definition: column by column in float64, with an inverse Hessian that is updated explicitly."""

import copy
import itertools

import pytest
import torch

from families.tiny import ids, make_ours
from groundup.base.errors import UsageError
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.quantization import GPTQConfig, quantize
from groundup.quantization.calibration import BlockByBlock, gather
from groundup.quantization.gptq import gptq
from groundup.quantization.groups import round_to_nearest


def by_definition(weight, hessian, bits, size, symmetric, desc_act, damping):
    """Optimal Brain Quantization in a fixed order (Frantar et al. 2022, equations 2 and 3), row by row."""
    weight, hessian = weight.double().clone(), hessian.double().clone()
    inner = weight.shape[1]
    diagonal = hessian.diagonal().clone()
    order = sorted(range(inner), key=lambda j: -diagonal[j]) if desc_act else list(range(inner))
    inverse = torch.linalg.inv(hessian + damping * diagonal.mean() * torch.eye(inner, dtype=torch.float64))
    result, group = torch.zeros_like(weight), {}
    for row in range(len(weight)):
        w, left = weight[row].clone(), inverse.clone()
        for place, j in enumerate(order):
            if place % size == 0:
                low, high = (float(f(torch.stack([w[k] for k in order[place : place + size]]))) for f in (min, max))
                low, high = min(low, 0.0), max(high, 0.0)
                if symmetric:
                    high = max(high, -low)
                    low = -high
                scale = float(torch.tensor((high - low) / (2**bits - 1)).half())
                zero = 2 ** (bits - 1) if symmetric else min(max(round(-low / scale), 0), 2**bits - 1)
            code = min(max(round(float(w[j]) / scale) + zero, 0), 2**bits - 1)
            result[row, j], group[j] = scale * (code - zero), place // size
            error = (w[j] - result[row, j]) / left[j, j]
            w -= error * left[j]
            left = left - torch.outer(left[:, j], left[j]) / left[j, j]
            left[j], left[:, j] = 0, 0
    return result, torch.tensor([group[j] for j in range(inner)])


@pytest.mark.row("QNT-06", reference="the paper's equations in float64")
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize(("symmetric", "desc_act"), [(True, False), (False, True)])
def test_every_number_is_that_of_the_definition(bits, symmetric, desc_act):
    torch.manual_seed(bits)
    weight, x = torch.randn(6, 24).double(), torch.randn(60, 24).double() * torch.rand(24) * 3
    hessian = x.T @ x
    for size, block in itertools.product((8, 24), (5, 8, 128)):
        wanted, groups = by_definition(weight, hessian, bits, size, symmetric, desc_act, 0.01)
        numbers = gptq(weight, hessian, bits, size, symmetric=symmetric, desc_act=desc_act, damping=0.01, block=block)
        torch.testing.assert_close(numbers.dequantize().double(), wanted, rtol=1e-6, atol=1e-6)
        assert numbers.groups.tolist() == groups.tolist()


@pytest.mark.row("QNT-06", reference="the paper's equations in float64")
def test_an_input_that_is_always_zero_gets_zero():
    weight, x = torch.randn(4, 8), torch.randn(50, 8)
    x[:, 3] = 0
    numbers = gptq(weight, x.T @ x, 4, 8)
    assert not numbers.dequantize()[:, 3].any()


def trained_model():
    """A llama that has learned to count, so that its layers' inputs are correlated as real ones are."""
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = build_model(LlamaConfig(vocab_size=64, num_key_value_heads=2, **shape))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(40):
        x = counting(16, seed=step)
        loss = torch.nn.functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 2
    return model.eval()


def counting(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    start, stride = (torch.randint(1, high, (rows, 1), generator=generator) for high in (64, 4))
    return (start + stride * torch.arange(24)) % 64


@pytest.fixture(scope="module")
def trained():
    return trained_model()


@pytest.mark.row("QNT-06", reference="round to nearest")
def test_the_output_of_every_layer_errs_less_than_by_rounding_to_the_nearest(trained):
    """On the inputs that it saw, and with the same groups."""
    model, x = copy.deepcopy(trained), counting(64, seed=999)
    layers = {name: m for name, m in model.named_modules() if name.startswith("blocks.") and type(m) is torch.nn.Linear}
    walk = BlockByBlock(model, [x])
    for block, _ in walk:
        here = {name: layer for name, layer in layers.items() if name.startswith(block)}
        for name, inputs in gather(here, walk).items():
            weight = here[name].weight.detach()
            errors = []
            for numbers in (gptq(weight, inputs.gram, 3, 16), round_to_nearest(weight, 3, 16, symmetric=True)):
                difference = numbers.dequantize() - weight
                errors.append(float(((difference @ inputs.gram) * difference).sum()))
            assert errors[0] < 0.9 * errors[1], name


@pytest.mark.row("QNT-06", reference="the model itself")
def test_a_quantized_model_predicts_nearly_as_the_model(trained):
    x = counting(32, seed=5)
    losses = []
    for config in (None, GPTQConfig(bits=4, group_size=32, desc_act=True), GPTQConfig(bits=2, group_size=16)):
        model = copy.deepcopy(trained)
        if config is not None:
            report = quantize(model, config, counting(64, seed=999))
            assert report.layers == 14
            assert not report.left
        with torch.no_grad():
            losses.append(torch.nn.functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten()).item())
    assert losses[1] < losses[0] + 0.05
    assert losses[2] > losses[1]


@pytest.mark.row("QNT-06", reference="the same on the model as it was")
def test_later_layers_see_what_the_quantized_ones_before_them_give(tmp_path):
    """The last block is rounded on inputs that went through the quantized first ones."""
    model, x = make_ours("llama", tmp_path), ids(4, 16)
    other = copy.deepcopy(model)
    quantize(model, GPTQConfig(bits=2, group_size=8), x)
    last = "blocks.2.mlp.down_proj"
    quantize(other, GPTQConfig(bits=2, group_size=8, targets=[last]), x)
    assert not torch.equal(model.get_submodule(last).dequantize(), other.get_submodule(last).dequantize())


@pytest.mark.row("QNT-06", reference="the same on the model as it was")
def test_what_cannot_be_is_refused_by_name_and_the_model_stays_as_it_was(tmp_path):
    model = make_ours("llama", tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UsageError, match=r"blocks.0.attn.q_proj.*groups of 7"):
        quantize(model, GPTQConfig(group_size=7), ids())
    with pytest.raises(UsageError, match="calibration"):
        quantize(model, GPTQConfig(group_size=8))
    with pytest.raises(UsageError, match="ids"):
        quantize(model, GPTQConfig(group_size=8), torch.randn(2, 3))
    model.blocks["2"].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        quantize(model, GPTQConfig(group_size=8), ids())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
