"""FlashAttention-3: its schedules, its 8 bits, and the way to its kernel. The kernel itself needs a Hopper GPU: the row
is not proven here.
"""

import importlib.machinery
import sys
import types
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.layers.attention import AttentionCore
from groundup.layers.flash import v3
from groundup.layers.flash.tiles import Blocks, TileMask, by_group
from groundup.layers.masks import Mask


def inputs(queries=50, keys=50, heads=4, kv_heads=2, width=8):
    torch.manual_seed(0)
    return [torch.randn(2, h, n, width) for h, n in ((heads, queries), (kv_heads, keys), (kv_heads, keys))]


def test_units_idle_less_from_schedule_to_schedule():
    """Products and exponentials of the same length: one after another the tensor cores rest a third of the time."""
    share = {
        name: v3.busy(v3.tasks(name, tiles=32)) for name in ("one after another", "ping-pong", "pipelined", "both")
    }
    assert share["one after another"] == pytest.approx(2 / 3, abs=0.02)
    for name in ("ping-pong", "pipelined", "both"):
        assert share[name] > 0.95
    slow_copies = v3.busy(v3.tasks("both", tiles=32, copy=5.0))
    assert slow_copies < 0.9  # then the producer is what all wait for
    assert v3.busy(v3.tasks("ping-pong", 32, softmax=4.0), "exp") > 0.9


def test_nothing_starts_before_what_it_needs_and_units_do_one_thing_at_a_time():
    for schedule in ("one after another", "ping-pong", "pipelined", "both"):
        work = v3.tasks(schedule, tiles=6, softmax=1.5)
        times = v3.run(work)
        assert len(times) == len(work)
        for task in work:
            assert all(times[key][1] <= times[task.name, task.group, task.tile][0] for key in task.after)
        for unit in ("tensor", "exp", "copy"):
            spans = sorted(times[t.name, t.group, t.tile] for t in work if t.unit == unit)
            assert all(a[1] <= b[0] for a, b in pairwise(spans))
    early, plain = (v3.run(v3.tasks(name, 6)) for name in ("pipelined", "one after another"))
    assert early["S", 0, 1][0] < early["P", 0, 0][1]  # the next scores begin before this softmax ends
    assert plain["S", 0, 1][0] >= plain["O", 0, 0][1]


@pytest.mark.parametrize("blocks", [(16, 16), (7, 30), (64, 64)], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_the_pipelined_order_computes_the_same(causal, blocks):
    q, k, v = inputs()
    got = v3.pipelined(*by_group(q, k, v), TileMask(Mask(causal=causal), 50, 50, 2), 0.3, Blocks(*blocks))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=0.3, enable_gqa=True)
    assert_close(got.flatten(1, 2), expected)


def outlying(shape, seed):
    """N(0, 1), and one number in a thousand N(0, 100) besides: the paper's section 4.3."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g) + 10 * torch.randn(shape, generator=g) * (
        torch.rand(shape, generator=g) < 1e-3
    )


def test_both_ways_to_keep_8_bits_accurate_help():
    """Root of the mean squared error on numbers with outliers. The paper measures 2.6 times less than with one scale a
    tensor, on its kernels; here, where nothing else rounds, it is 1.5 times less.
    """
    errors = {}
    for seed in range(3):
        q, k, v = (outlying((1, 4, 512, 64), 3 * seed + i) for i in range(3))
        exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double()).float()
        for name, blocks, spread in (
            ("plain", None, False), ("blocks", Blocks(128, 128), False),
            ("spread", None, True), ("both", Blocks(128, 128), True),
        ):  # fmt: skip
            found = v3.attention_8_bit(q, k, v, Mask(), 0.125, blocks, spread)
            errors[name] = errors.get(name, 0) + float((found - exact).square().mean().sqrt()) / 3
    assert 1e-2 < errors["plain"] < 5e-2
    assert errors["both"] < errors["plain"] / 1.3
    assert errors["spread"] < errors["plain"] / 1.3
    assert errors["both"] <= errors["spread"] * 1.02


def test_incoherent_processing_keeps_products_and_spreads_outliers():
    torch.manual_seed(0)
    q, k = torch.randn(5, 64), torch.randn(7, 64)
    q[:, 3] = 50
    spread_q, spread_k = v3.incoherent(q, k)
    assert_close(spread_q @ spread_k.T, q @ k.T, atol=1e-3, rtol=1e-4)  # products up to 200
    assert spread_q.abs().max() < 15
    matrix = v3.hadamard(64)
    assert_close(matrix @ matrix.T, torch.eye(64))
    with pytest.raises(UsageError, match="power of two, not 48"):
        v3.hadamard(48)


def test_rounding_has_a_scale_for_each_block_of_each_head():
    x = torch.rand(1, 2, 8, 4) + 0.5
    x[:, 0, :4] *= 1000
    one, blocks = v3.to_e4m3(x, None), v3.to_e4m3(x, 4)
    small = torch.ones_like(x, dtype=torch.bool)
    small[:, 0, :4] = False
    relative = lambda y: ((y - x) / x).abs()[small].max()  # noqa: E731
    assert relative(blocks) <= 2**-4 + 1e-6  # three bits of mantissa
    assert relative(one) <= 2**-4 + 1e-6  # floating numbers bear a factor of 1000 ...
    x[:, 0, :4] *= 1000
    assert ((v3.to_e4m3(x, None) - x) / x).abs()[small].max() > 0.2  # ... but not of a million
    assert ((v3.to_e4m3(x, 4) - x) / x).abs()[small].max() <= 2**-4 + 1e-6
    assert (v3.to_e4m3(torch.zeros(1, 1, 4, 4), 2) == 0).all()


def test_masks_hold_in_8_bits():
    q, k, v = inputs(20, 20)
    got = v3.attention_8_bit(q, k, v, Mask(causal=True), 0.3, Blocks(8, 8))
    changed = v.clone()
    changed[:, :, 15:] += 5
    again = v3.attention_8_bit(q, k, changed, Mask(causal=True), 0.3, Blocks(5, 5))
    assert_close(got[:, :, 0], v[:, :, 0].repeat_interleave(2, 1), atol=0.2, rtol=0.1)
    assert_close(v3.attention_8_bit(q, k, v, Mask(causal=True), 0.3, Blocks(5, 5))[:, :, :15], again[:, :, :15])


# -- the way to the kernel ---------------------------------------------------------------------------------------------


def test_without_the_kernel_the_core_is_the_plain_one_and_tells_why():
    q, k, v = inputs()
    core = v3.Flash3Core()
    assert_close(core(q, k, v, Mask(causal=True)), AttentionCore()(q, k, v, Mask(causal=True)))
    assert [reason for reason in core.obstacles(q, Mask()) if "float32" in reason]
    assert v3.why_no_kernel(torch.device("cpu")) == "it is for NVIDIA GPUs, and this is cpu"


def test_what_is_asked_of_the_kernel(monkeypatch):
    """A stand-in with the package's signature: layouts, scale and mask are those that it takes."""
    calls = []

    def flash_attn_func(q, k, v, softmax_scale=None, causal=False):
        calls.append((tuple(q.shape), tuple(k.shape), softmax_scale, causal))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=softmax_scale, enable_gqa=True)
        return y.transpose(1, 2), None

    module = types.ModuleType("flash_attn_interface")
    module.flash_attn_func = flash_attn_func
    module.__spec__ = importlib.machinery.ModuleSpec("flash_attn_interface", None)
    monkeypatch.setitem(sys.modules, "flash_attn_interface", module)
    monkeypatch.setattr(v3, "why_no_kernel", lambda device: None)
    q, k, v = (t.bfloat16() for t in inputs())
    core = v3.Flash3Core(scale=0.3, dropout=0.1).eval()
    for mask in (Mask(causal=True), Mask()):
        assert_close(core(q, k, v, mask), AttentionCore(scale=0.3)(q, k, v, mask))
    assert calls == [((2, 50, 4, 8), (2, 50, 2, 8), 0.3, True), ((2, 50, 4, 8), (2, 50, 2, 8), 0.3, False)]
    core(q, k, v, Mask(allowed=torch.ones(1, 1, 50, 50, dtype=torch.bool)))
    core.train()(q, k, v, Mask())
    assert len(calls) == 2  # masks pair by pair and dropout are not for it


@pytest.mark.skipif(
    not torch.cuda.is_available() or v3.why_no_kernel(torch.device("cuda")) is not None,
    reason="needs a Hopper GPU and the package flash_attn_interface",
)
@pytest.mark.parametrize("causal", [False, True])
def test_the_kernel_itself_in_values_and_gradients(causal):
    q, k, v = (t.bfloat16().cuda().requires_grad_() for t in inputs(300, 300, width=64))
    mask = Mask(causal=causal)
    wide = [t.detach().float().requires_grad_() for t in (q, k, v)]
    got, expected = v3.Flash3Core()(q, k, v, mask), AttentionCore()(*wide, mask)
    assert_close(got.float(), expected, atol=2e-2, rtol=2e-2)  # bfloat16
    for a, b in zip(torch.autograd.grad(got.sum(), (q, k, v)), torch.autograd.grad(expected.sum(), wide), strict=True):
        assert_close(a.float(), b, atol=5e-2, rtol=5e-2)
