"""NF4 and FP4 held against bitsandbytes bit for bit, and QLoRA against peft on its layers."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from families.tiny import ids, make_ours
from groundup.adapters.attach import adapters_of
from groundup.adapters.configs.lora import LoRAConfig
from groundup.base.errors import UsageError
from groundup.quantization import FP4Config, NF4Config, quantize, tables
from groundup.quantization import nf4 as nf4_module
from groundup.quantization.experts import QuantizedExperts
from groundup.quantization.nf4 import NF4Linear
from groundup.quantization.tables import dynamic, nf4, to_dynamic, to_places

bitsandbytes = pytest.importorskip("bitsandbytes")
theirs = bitsandbytes.functional

PUBLISHED = """
-1.0 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635 -0.18477343022823334
-0.09105003625154495 0.0 0.07958029955625534 0.16093020141124725 0.24611230194568634 0.33791524171829224
0.44070982933044434 0.5626170039176941 0.7229568362236023 1.0"""
"""Dettmers et al. 2023, appendix E."""


def layer_of(weight, bias=False):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias, dtype=weight.dtype)
    layer.weight.data = weight
    return layer


def weights(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(shape[0])
    weight = torch.randn(shape, generator=generator) * torch.rand(shape[0], 1, generator=generator)
    weight[0] = 0
    return weight.to(dtype)


@pytest.mark.row("QNT-09", reference="the published levels")
def test_the_levels_follow_from_quantiles():
    assert nf4().tolist() == [float(number) for number in PUBLISHED.split()]


@pytest.mark.row("QNT-09", reference="bitsandbytes 0.50.2")
def test_the_maps_are_theirs():
    assert torch.equal(dynamic(), theirs.create_dynamic_map())
    for config in (NF4Config(), FP4Config()):
        quant_map = config.empty(8, 8, False).quant_map
        assert torch.equal(quant_map, theirs.get_4bit_type(config.kind, device="cpu"))


@pytest.mark.row("QNT-09", reference="bitsandbytes 0.50.2, bit for bit")
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize(
    ("shape", "dtype", "block"),
    [
        ((96, 384), torch.float32, 64),  # several nested blocks
        ((37, 22), torch.float32, 64),  # a block that is not full
        ((5, 7), torch.float32, 128),  # an odd number of numbers
        ((48, 96), torch.bfloat16, 32),
        ((1, 6), torch.float32, 64),  # nothing but zeros
        ((48, 64), torch.float16, 64),
    ],
)
def test_bytes_and_values_are_theirs(kind, shape, dtype, block):
    weight = weights(shape, dtype)
    for double in (True, False):
        packed, state = theirs.quantize_4bit(weight, blocksize=block, compress_statistics=double, quant_type=kind)
        ours = NF4Linear.of(layer_of(weight), double, kind, block)
        assert torch.equal(ours.packed, packed)
        assert torch.equal(ours.absmax, state.absmax)
        assert torch.equal(ours.quant_map, state.code)
        if double:
            assert torch.equal(ours.nested_absmax, state.state2.absmax)
            assert torch.equal(ours.nested_quant_map, state.state2.code)
            assert torch.equal(ours.offset, state.offset)
            assert ours.nested_block == state.state2.blocksize
        else:
            assert ours.offset is None
        state.dtype = torch.float32
        assert torch.equal(ours.dequantize(), theirs.dequantize_4bit(packed, state))


@pytest.mark.row("QNT-09", reference="bitsandbytes 0.50.2, bit for bit")
def test_rounding_to_places_is_theirs_at_every_border():
    ascending = theirs.create_dynamic_map()
    near = [ascending, (ascending[1:] + ascending[:-1]) / 2]
    near += [torch.nextafter(n, torch.full_like(n, to)) for n in near for to in (-1, 1)]
    numbers = torch.cat([*near, torch.linspace(-1, 1, 50000), torch.zeros(512), torch.tensor([-1.0, 1.0])])
    for scale in (1.0, 0.3):
        q, state = theirs.quantize_blockwise(numbers * scale, blocksize=256)
        ours, absmax = to_dynamic(numbers * scale, ascending, 256)
        assert torch.equal(ours, q)
        assert torch.equal(absmax, state.absmax)
    borders = (nf4()[1:] + nf4()[:-1]) / 2
    near = [torch.nextafter(borders, torch.full_like(borders, to)) for to in (-1, 1)]
    for scale in torch.linspace(0.1, 3, 20):
        for count in (64, 46):  # a whole block, and one that is not full
            row = torch.cat([borders, *near, torch.ones(count - 45)]) * scale
            packed, _ = theirs.quantize_4bit(row, quant_type="nf4")
            codes, _ = to_places(row, nf4(), 64)
            assert torch.equal(codes[::2] << 4 | codes[1::2], packed[:, 0])


@pytest.mark.row("QNT-09", reference="bits by hand")
def test_bits_a_weight():
    layer = layer_of(torch.randn(1024, 1024))
    tables = 8 * 4 * (16 + 256 + 1)
    assert math.isclose(NF4Config().make(layer).bits_per_weight, 4 + 8 / 64 + 32 / (64 * 256) + tables / 2**20)
    assert math.isclose(NF4Config(double=False).make(layer).bits_per_weight, 4 + 32 / 64 + 8 * 4 * 16 / 2**20)


@pytest.mark.row("QNT-09", reference="peft 0.21.2 on bitsandbytes' Linear4bit")
def test_qlora_is_pefts():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = layer_of(weights((48, 128)), bias=True)
    linear = bitsandbytes.nn.Linear4bit(128, 48, compute_dtype=torch.float32, quant_type="nf4")
    linear.load_state_dict(base.state_dict())
    root = nn.ModuleDict({"up": linear.to("cpu")})
    linear.weight = linear.weight._quantize("cpu") if not linear.weight.bnb_quantized else linear.weight
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["up"])
    reference = peft.get_peft_model(root, config).base_model.model["up"]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleDict({"up": base})

    model = Model()
    quantize(model, NF4Config())
    adapters_of(model).add("a", LoRAConfig(rank=4, alpha=8))
    ours = model.blocks["up"]
    part = ours.adapters["a"]
    with torch.no_grad():
        part.lora_B.weight.normal_()
        reference.lora_A["default"].weight.copy_(part.lora_A.weight)
        reference.lora_B["default"].weight.copy_(part.lora_B.weight)
    x = torch.randn(3, 5, 128)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    y, expected = ours(inputs[0]), reference(inputs[1])
    assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    assert_close(inputs[0].grad, inputs[1].grad)
    assert_close(part.lora_A.weight.grad, reference.lora_A["default"].weight.grad)
    assert_close(part.lora_B.weight.grad, reference.lora_B["default"].weight.grad)


@pytest.mark.row("QNT-09", reference="the same layers with files between")
@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_a_model_in_nf4_learns_by_lora(name, tmp_path):
    model = make_ours(name, tmp_path)
    quantize(model, NF4Config())
    assert any(isinstance(m, QuantizedExperts) for m in model.modules()) == (name == "mixtral")
    stored = {k: v.clone() for k, v in model.state_dict().items()}
    adapters_of(model).add("a", LoRAConfig())
    adapters_of(model).train_only("a")
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer, x, losses = torch.optim.AdamW(learning, lr=0.01), ids(), []
    for _ in range(3):
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[0]
    assert all(torch.equal(model.state_dict()[k], v) for k, v in stored.items())


def test_tables_and_layers_are_counted_on_the_meta_device():
    nf4.cache_clear()
    dynamic.cache_clear()
    with torch.device("meta"):
        layer = NF4Config().make(nn.Linear(128, 48))
        assert NF4Config().empty(128, 48, True).to("meta").stored_bytes == layer.stored_bytes
    assert layer.packed.is_meta
    assert not nf4().is_meta


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(UsageError, match="not finite"):
        NF4Config().make(layer_of(torch.tensor([[1.0, float("inf")]])))


@pytest.mark.row("QNT-09", reference="the whole at once")
@pytest.mark.parametrize("double", [True, False])
def test_parts_are_what_the_whole_is(double, monkeypatch):
    """Large matrices are rounded and looked up a part at a time."""
    linear = nn.Linear(96, 45, bias=False)  # parts and blocks end within rows
    whole = NF4Linear.of(linear, double)
    wanted = whole.dequantize()
    monkeypatch.setattr(tables, "AT_ONCE", 200)  # three blocks
    monkeypatch.setattr(nf4_module, "AT_ONCE", 50)
    parts = NF4Linear.of(linear, double)
    assert all(torch.equal(a, b) for a, b in zip(whole.buffers(), parts.buffers(), strict=True))
    assert torch.equal(parts.dequantize(), wanted)


@pytest.mark.row("QNT-09", reference="dequantized, each by itself")
def test_layers_that_share_room_do_not_disturb_each_other():
    torch.manual_seed(0)
    sizes = [(64, 128), (128, 64), (64, 32), (32, 64)]
    layers = [NF4Linear.of(nn.Linear(*size, bias=False)) for size in sizes]
    x = torch.randn(5, 64, requires_grad=True)
    y = x
    for layer in layers:
        y = layer(y)
    (found,) = torch.autograd.grad(y.square().sum(), x)
    plain = [layer.dequantize() for layer in layers]
    z = x
    for weight in plain:
        z = z @ weight.T
    (wanted,) = torch.autograd.grad(z.square().sum(), x)
    torch.testing.assert_close(y, z)
    torch.testing.assert_close(found, wanted)
