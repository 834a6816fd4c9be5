"""Integers with scales: rounding, packing, layers, and models of every family made of them."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from families import CASES, REFERENCES
from families.tiny import ids, make_ours, randomised
from groundup.adapters.attach import adapters_of
from groundup.adapters.configs.lora import LoRAConfig
from groundup.adapters.plan import targets
from groundup.base.errors import UsageError
from groundup.layers.moe.experts import GroupedLinear
from groundup.models.catalogue import config_from_hf, model_class
from groundup.quantization import (
    ChatGLMInt4Config,
    ChatGLMInt8Config,
    Int4Config,
    Int8Config,
    IntegerConfig,
    QuantizedLinear,
    quantize,
)
from groundup.quantization.exchange import exchange_empty, layers_to_quantize
from groundup.quantization.experts import QuantizedExperts
from groundup.quantization.packing import pack, packed_bytes, unpack
from groundup.quantization.rounding import absmax, restore, zero_point
from groundup.replace import put

GROUPS = ["tensor", "row", 5, 32]


def matrix(out=6, inner=37, seed=0):
    weight = torch.randn(out, inner, generator=torch.Generator().manual_seed(seed))
    weight[1] += 3  # not centred
    weight[2] = 0
    return weight


def linear(weight, bias=True):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias)
    layer.weight.data = weight
    return layer


def parts_of(weight, group):
    """The numbers that share a scale, as lists of indices."""
    rows, inner = weight.shape
    if group == "tensor":
        return [[(i, j) for i in range(rows) for j in range(inner)]]
    size = inner if group == "row" else group
    return [[(i, j) for j in range(at, min(at + size, inner))] for i in range(rows) for at in range(0, inner, size)]


@pytest.mark.row("QNT-03", reference="the formulas number by number")
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rounding_is_the_formulas(bits, group):
    weight = matrix()
    symmetric, affine = torch.empty_like(weight), torch.empty_like(weight)
    for part in parts_of(weight, group):
        index = tuple(torch.tensor(part).T)
        numbers = weight[index].double()
        scale = numbers.abs().max() / (2 ** (bits - 1) - 1)
        symmetric[index] = (scale * (numbers / scale).round()).nan_to_num().float()
        low, high = min(0.0, numbers.min()), max(0.0, numbers.max())
        scale = torch.as_tensor((high - low) / (2**bits - 1))
        zero = (-low / scale).round()
        affine[index] = (scale * (((numbers / scale).round() + zero).clamp(0, 2**bits - 1) - zero)).nan_to_num().float()
    q, scale = absmax(weight, bits, group)
    assert q.abs().max() == 2 ** (bits - 1) - 1
    assert_close(restore(q, scale, group), symmetric)
    q, scale, zero = zero_point(weight, bits, group)
    assert int(q.min()) >= 0
    assert int(q.max()) == 2**bits - 1
    assert_close(restore(q, scale, group, zero), affine)
    assert not restore(q, scale, group, zero)[2].any()  # zeros stay exact


@pytest.mark.filterwarnings("ignore:torch.quantize")
@pytest.mark.row("QNT-03", reference="torch.quantize_per_channel")
def test_rounding_is_torchs():
    weight = matrix()
    q, scale, zero = zero_point(weight, 8, "row")
    theirs = torch.quantize_per_channel(weight, scale[:, 0].double(), zero[:, 0].long(), 0, torch.quint8)
    assert torch.equal(q, theirs.int_repr())
    assert_close(restore(q, scale, "row", zero), theirs.dequantize())


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("count", [1, 31, 32, 70])
def test_packing_gives_the_numbers_back(bits, count):
    q = torch.randint(0, 2**bits, (3, count), dtype=torch.uint8)
    packed = pack(q, bits)
    assert packed.shape == (3, packed_bytes(count, bits))
    assert torch.equal(unpack(packed, bits, count), q)


def test_four_bits_lie_16_apart():
    q = torch.randint(0, 16, (2, 64), dtype=torch.uint8)
    packed = pack(q, 4)
    for run in range(2):
        for i in range(16):
            assert torch.equal(packed[:, 16 * run + i], q[:, 32 * run + i] + 16 * q[:, 32 * run + i + 16])


EVERY = [
    Int8Config(),
    Int4Config(),
    ChatGLMInt8Config(),
    *[IntegerConfig(bits=b, group=g, symmetric=s) for b, g, s in ((8, 32, True), (3, 5, False), (2, "tensor", True))],
    IntegerConfig(bits=4, group="row", symmetric=False),
]


@pytest.mark.row("QNT-03", reference="w = scale q + offset")
@pytest.mark.parametrize("config", EVERY, ids=lambda c: c.kind)
def test_a_layer_is_its_levels(config):
    layer = linear(matrix())
    new = config.make(layer)
    q, scale, offset, _ = new.levels()
    size = 37 // scale.shape[1]
    assert 37 % scale.shape[1] == 0
    assert q.shape == (6, 37)
    assert scale.shape[0] == 6
    assert scale.dtype == torch.float32
    wide = scale.repeat_interleave(size, 1)[:, :37]
    weight = q * wide
    if offset is not None:
        weight = weight + offset.repeat_interleave(size, 1)[:, :37]
    assert_close(weight, new.dequantize())
    assert bool(((new.dequantize() - layer.weight).abs() <= wide * 0.51 + 0.01).all())
    x = torch.randn(2, 3, 37)
    assert_close(new(x), nn.functional.linear(x, weight, layer.bias))
    empty = config.empty(37, 6, True)
    empty.load_state_dict(new.state_dict())
    assert torch.equal(empty(x), new(x))
    assert {k: v.dtype for k, v in new.to(torch.bfloat16).named_buffers()} == {
        k: v.dtype for k, v in empty.named_buffers()
    }


@pytest.mark.row("QNT-04", reference="the published kernel's bytes, by hand")
def test_chatglm_stores_rows_in_half_and_two_numbers_a_byte():
    weight = torch.randn(5, 8).half()
    eight, four = (config.make(linear(weight)) for config in (ChatGLMInt8Config(), ChatGLMInt4Config()))
    for new, limit in ((eight, 127), (four, 7)):
        scale = weight.abs().max(dim=-1).values / limit
        q = torch.round(weight / scale[:, None]).to(torch.int8)
        assert torch.equal(new.scale, scale)
        assert new.scale.dtype == torch.float16
        assert torch.equal(new.integers(), q)
        assert torch.equal(new.dequantize(), q.float() * scale.float()[:, None])
    assert torch.equal(eight.q, eight.integers())
    by_hand = [[(row[i] << 4 | row[i + 1] & 15) & 255 for i in range(0, 8, 2)] for row in four.integers().tolist()]
    assert four.q.view(torch.uint8).tolist() == by_hand
    assert (eight.bits_per_weight, four.bits_per_weight) == (8 + 2, 4 + 2)  # rows of 8


def test_refusals_name_what_is_wrong():
    with pytest.raises(UsageError, match="37 inputs are odd"):
        ChatGLMInt4Config().make(linear(matrix()))
    for bad in (float("nan"), float("inf"), 1e7):
        weight = matrix()
        weight[0, 0] = bad
        for config in (Int4Config(), ChatGLMInt8Config()):
            with pytest.raises(UsageError, match="beyond float16"):
                config.make(linear(weight))


def test_a_refusal_leaves_the_model_as_it_was():
    model = nn.ModuleDict({"blocks": nn.ModuleList([linear(torch.randn(4, 6)), linear(torch.randn(4, 7))])})
    with pytest.raises(UsageError, match="7 inputs are odd"):
        quantize(model, ChatGLMInt4Config())
    assert all(type(layer) is nn.Linear for layer in model["blocks"])


def restored(model):
    """The model with plain layers that hold the quantized matrices."""
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantizedExperts):
            new = GroupedLinear(module.num_experts, module.in_features, module.out_features)
            new.weight, new.bias = nn.Parameter(module.dequantize()), module.bias
            put(model, name, new)
        elif isinstance(module, QuantizedLinear) and ".linears." not in name:
            new = linear(module.dequantize(), bias=False)
            new.bias = module.bias
            put(model, name, new)
    return model


def built(name):
    """A case of a family, built here rather than read from transformers' files."""
    reference = CASES[name]
    hf = reference.cases.get(name)
    config = reference.own[name]() if hf is None else config_from_hf(hf().to_dict())
    return randomised(model_class(config).build(config))


COUNTED = [name for name, reference in CASES.items() if reference.make is not None]
FAMILIES = [next(iter((*reference.cases, *reference.own))) for reference in REFERENCES.values()]


@pytest.mark.row("QNT-03", reference="the same model with the rounded matrices in plain layers")
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in COUNTED])
def test_every_family_in_8_or_4_bits(name):
    model, x = built(name), ids()
    numbers, dtype = model.num_parameters(), model.dtype
    with torch.no_grad():
        plain = model(x)
        quantize(model, Int8Config() if FAMILIES.index(name) % 2 else Int4Config())
        assert (model.num_parameters(), model.dtype) == (numbers, dtype)
        y, state = model(x), model.make_state(batch=2, max_len=12)
        steps = [model(x[:, a:b], state=state) for a, b in ((0, 8), (8, 11), (11, 12))]
    assert not torch.equal(y, plain)
    assert_close(torch.cat(steps, 1), y, **CASES[name].tolerance)
    adapters_of(model).add("a", LoRAConfig(targets=["all-linear"]))
    y = model(x)
    y.square().mean().backward()
    grads = {n: p.grad for n, p in adapters_of(model).parameters("a").items() if "lora_B" in n}
    assert any(grad is not None and grad.any() for grad in grads.values())
    adapters_of(model).remove("a")
    with torch.no_grad():
        assert_close(restored(model)(x), y, **CASES[name].tolerance)


@pytest.mark.parametrize("name", COUNTED[:1])
def test_families_that_count_have_nothing_to_quantize(name, tmp_path):
    with pytest.raises(UsageError, match="nothing to quantize"):
        quantize(make_ours(name, tmp_path), Int8Config())


@pytest.mark.parametrize("name", ["awd-lstm"])
def test_matrices_between_time_steps_keep_their_precision(name, tmp_path):
    model = make_ours(name, tmp_path)
    found = layers_to_quantize(model, Int8Config())
    assert any(n.endswith("input_proj") for n in found)
    assert not any(n.endswith("state_proj") for n in found)


@pytest.mark.parametrize("config", [Int8Config(), IntegerConfig(bits=3), ChatGLMInt4Config()], ids=lambda c: c.kind)
def test_experts_are_quantized_by_any_method(config, tmp_path):
    model, empty, x = make_ours("mixtral", tmp_path / "a"), make_ours("mixtral", tmp_path / "b"), ids()
    report = quantize(model, config)
    experts = [m for m in model.modules() if isinstance(m, QuantizedExperts)]
    assert len(experts) == 3 * len(model.blocks)
    assert report.bytes_after < report.bytes_before
    named = targets(model, ["all-linear"])  # an adapter stands on the experts, not on what they are made of
    assert set(experts) <= set(named.values())
    assert not any(".linears." in name for name in named)
    y = model(x)
    exchange_empty(empty, config)
    empty.load_state_dict(model.state_dict())
    assert torch.equal(empty(x), y)
    assert model.num_parameters(trainable=True) < model.num_parameters()
    assert_close(restored(model)(x), y)
    assert empty.to("meta")(x.to("meta")).shape == y.shape


def test_experts_without_rows_stay_packed():
    layer = GroupedLinear(4, 8, 6, bias=True)
    nn.init.normal_(layer.bias)
    new = QuantizedExperts.of(layer, Int8Config())
    for e in (0, 2):
        new.linears[e].dequantize = None
    x, sizes = torch.randn(5, 8, requires_grad=True), torch.tensor([0, 2, 0, 3])
    plain = torch.stack([linear.q.float() * linear.scale[:, None] for linear in new.linears])
    y = new(x, sizes)
    by_hand = torch.cat([x[:2] @ plain[1].T + layer.bias[1], x[2:] @ plain[3].T + layer.bias[3]])
    assert_close(y, by_hand)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert_close(grad, torch.autograd.grad(by_hand.sum(), x)[0])
    assert new(x[:0], torch.zeros(4, dtype=torch.int64)).shape == (0, 6)
