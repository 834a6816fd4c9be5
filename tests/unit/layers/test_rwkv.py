"""RWKV's recurrences: the parallel form against the recurrence told token by token, in float64 where it counts."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from families import CASES
from families.tiny import ids, make_ours
from groundup.layers.norms import HeadGroupNorm
from groundup.layers.rwkv.decayed_attention import decayed_attention
from groundup.layers.rwkv.delta_rule import LOWEST, Delta, delta_rule
from groundup.layers.rwkv.scan import linear_scan, scan
from groundup.layers.rwkv.stream import Stream
from groundup.layers.rwkv.wkv import WKV, clamped_wkv, convolved_wkv, stable_wkv
from groundup.models.catalogue import config_from_hf, model_class
from groundup.training.activation_checkpointing import checkpointed
from groundup.training.compilation import compiled

LONG = 4096


def gradients(out, weights, tensors):
    found = torch.autograd.grad((out * weights).sum(), tensors, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, tensors, strict=True)]


def assert_near(found, wanted, tolerance=1e-4):
    """Within `tolerance` of the largest number, or of 0.01: what cancels to nothing has errors of its parts' size."""
    found, wanted = found.detach(), wanted.detach()
    assert found.isfinite().all()
    assert_close(found, wanted.to(found.dtype), rtol=0, atol=tolerance * float(wanted.abs().max().clamp(min=0.01)))


# -- the recurrences, as the papers have them --------------------------------------------------------------------------


def told_wkv(decay, bonus, k, v):
    """RWKV-4, with the largest exponent taken out (Peng et al. 2023, appendix D); the last state too."""
    w = -torch.exp(decay)
    a, b, p = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), torch.full_like(k[:, 0], -1e30)
    out = []
    for t in range(k.shape[1]):
        q = torch.maximum(p, bonus + k[:, t])
        old, new = torch.exp(p - q), torch.exp(bonus + k[:, t] - q)
        out.append((old * a + new * v[:, t]) / (old * b + new))
        q = torch.maximum(p + w, k[:, t])
        old, new = torch.exp(p + w - q), torch.exp(k[:, t] - q)
        a, b, p = old * a + new * v[:, t], old * b + new, q
    return torch.stack(out, 1), a / b


def told_clamped(decay, bonus, k, v, eps):
    w, a, b, out = torch.exp(-torch.exp(decay)), 0, 0, []
    for t in range(k.shape[1]):
        e = torch.exp(k[:, t].clamp(max=60))
        out.append((a + bonus.exp() * e * v[:, t]) / (b + bonus.exp() * e + eps))
        a, b = w * a + e * v[:, t], w * b + e
    return torch.stack(out, 1)


def told_attention(r, w, k, v, u):
    s, out = torch.zeros(*k.shape[:2], k.shape[-1], v.shape[-1], dtype=k.dtype), []
    for t in range(k.shape[2]):
        kv = k[:, :, t, :, None] * v[:, :, t, None]
        out.append((r[:, :, t, None] @ (s + u[None, :, :, None] * kv)).squeeze(2))
        s = torch.exp(w[:, :, t, :, None]) * s + kv
    return torch.stack(out, 2), s


def told_delta(r, w, k, a, b, v):
    s, out = torch.zeros(*k.shape[:2], v.shape[-1], k.shape[-1], dtype=k.dtype), []
    for t in range(k.shape[2]):
        at = [x[:, :, t, None] for x in (r, w, k, a, b, v)]  # (B, H, 1, N)
        s = s * torch.exp(at[1]) + (s @ at[3].mT) @ at[4] + at[5].mT @ at[2]
        out.append((at[0] @ s.mT).squeeze(2))
    return torch.stack(out, 2), s.mT


# -- inputs ------------------------------------------------------------------------------------------------------------

DECAYS = [-12.0, -5.0, 0.0, 2.0, 5.0]
"""log(-w): from never to at once."""


def channels(tokens, scale=1.0):
    torch.manual_seed(tokens)
    k, v = scale * torch.randn(2, tokens, 5), torch.randn(2, tokens, 5)
    return [x.requires_grad_() for x in (torch.tensor(DECAYS), torch.randn(5), k, v)]


def heads(tokens, width=4):
    torch.manual_seed(tokens)
    r, k, v = (torch.randn(2, 2, tokens, width) for _ in range(3))
    speed = torch.tensor([-12.0, -3.0, 0.0, 5.0]) + 3 * torch.randn(2, 2, tokens, width)
    return [x.requires_grad_() for x in (r, -torch.exp(speed), k, v, torch.randn(2, width))]


def directions(tokens, width=4, lowest=False):
    torch.manual_seed(tokens)
    r, k, v = (torch.randn(2, 2, tokens, width) for _ in range(3))
    w = LOWEST * torch.sigmoid(torch.tensor([-9.0, -2.0, 0.0, 9.0]) + 2 * torch.randn(2, 2, tokens, width))
    kappa = F.normalize(torch.randn(2, 2, tokens, width), dim=-1)
    b = kappa * torch.sigmoid(2 * torch.randn(2, 2, tokens, width))
    return [x.requires_grad_() for x in (r, torch.full_like(w, LOWEST) if lowest else w, k, -kappa, b, v)]


def double(tensors):
    return [t.detach().double().requires_grad_() for t in tensors]


# -- parallel = recurrent ----------------------------------------------------------------------------------------------

lengths = pytest.mark.parametrize("tokens", [1, 2, 31, 64, 65, 200, pytest.param(LONG, marks=pytest.mark.slow)])


def assert_same(found, wanted, inputs, wide):
    weights = torch.randn(found.shape)
    assert_near(found, wanted)
    for mine, told in zip(gradients(found, weights, inputs), gradients(wanted, weights.double(), wide), strict=True):
        assert_near(mine, told)


@pytest.mark.row("LM-39", reference="the recurrence in float64")
@lengths
def test_stable_wkv(tokens):
    inputs = channels(tokens)
    wide = double(inputs)
    found, state = stable_wkv(*inputs, WKV.empty(inputs[2]), Stream())
    wanted, mean = told_wkv(*wide)
    assert_same(found, wanted, inputs, wide)
    assert_near(state.num / state.den, mean)


@pytest.mark.row("LM-39", reference="the recurrence in float64")
@pytest.mark.parametrize("scale", [50.0, 1000.0])
def test_stable_wkv_with_keys_that_would_overflow(scale):
    inputs = channels(LONG // 8, scale)
    wide = double(inputs)
    found, _ = stable_wkv(*inputs, WKV.empty(inputs[2]), Stream())
    assert_near(found, told_wkv(*wide)[0], scale * 1e-5)  # exponents of some 4 scale are rounded to a 10-millionth
    told = told_wkv(*inputs)[0]
    weights = torch.randn(found.shape)
    for mine, theirs in zip(gradients(found, weights, inputs), gradients(told, weights, inputs), strict=True):
        assert_near(mine, theirs, 1e-3)


@pytest.mark.row("LM-37", reference="the recurrence in float64; torch's conv1d")
@lengths
def test_clamped_wkv_is_its_recurrence_and_its_convolution(tokens):
    inputs = channels(tokens)
    wide = double(inputs)
    found, _ = clamped_wkv(*inputs, WKV.empty(inputs[2], 0.0), Stream(), 1e-9)
    assert_same(found, told_clamped(*wide, 1e-9), inputs, wide)
    if tokens <= 200:
        again = convolved_wkv(*inputs, 1e-9)
        weights = torch.randn(found.shape)
        assert_near(found, again)
        for mine, theirs in zip(gradients(found, weights, inputs), gradients(again, weights, inputs), strict=True):
            assert_near(mine, theirs)


@pytest.mark.row("LM-37", reference="the recurrence in float64")
@pytest.mark.row("LM-38", reference="the recurrence in float64")
@pytest.mark.parametrize("eps", [1e-9, 1e-8])
def test_clamped_wkv_with_extreme_keys(eps):
    inputs = channels(300, 100.0)
    found, _ = clamped_wkv(*inputs, WKV.empty(inputs[2], 0.0), Stream(), eps)
    assert_near(found, told_clamped(*double(inputs), eps))
    assert all(g.isfinite().all() for g in gradients(found, torch.ones_like(found), inputs))


@pytest.mark.row("LM-40", reference="the recurrence in float64")
@pytest.mark.row("LM-41", reference="the recurrence in float64")
@lengths
def test_decayed_attention(tokens):
    inputs = heads(tokens)
    wide = double(inputs)
    found, state = decayed_attention(*inputs, None, Stream())
    wanted, told = told_attention(*wide)
    assert_same(found, wanted, inputs, wide)
    assert_near(state, told)


def test_decays_of_a_whole_batch_are_those_of_each_row():
    r, w, k, v, u = heads(70)
    found, _ = decayed_attention(r, w[:1], k, v, u, None, Stream())
    wanted, _ = decayed_attention(r, w[:1].expand_as(r), k, v, u, None, Stream())
    assert_close(found, wanted)


@pytest.mark.parametrize("lowest", [False, True])
@lengths
def test_delta_rule(tokens, lowest):
    inputs = directions(tokens, lowest=lowest)
    wide = double(inputs)
    found, state = delta_rule(Delta(*inputs[:5]), inputs[5], None, Stream())
    wanted, told = told_delta(*wide)
    assert_same(found, wanted, inputs, wide)
    assert_near(state, told)


@pytest.mark.parametrize("chunk", [1, 4, 16, 64])
def test_the_size_of_a_chunk_changes_nothing(chunk):
    inputs, turned = heads(100), directions(100)
    assert_near(
        decayed_attention(*inputs, None, Stream(), chunk)[0], decayed_attention(*inputs, None, Stream())[0], 1e-5
    )
    x = Delta(*turned[:5])
    assert_near(delta_rule(x, turned[5], None, Stream(), chunk)[0], delta_rule(x, turned[5], None, Stream())[0], 1e-5)


@pytest.mark.parametrize("tokens", [1, 2, 3, 17, 100])
def test_scans(tokens):
    torch.manual_seed(0)
    decay, x, first = torch.rand(1, 3, tokens, 4), torch.randn(2, 3, tokens, 4), torch.randn(2, 3, 4)
    h, largest, told, most = first, first, [], []
    for t in range(tokens):
        h = decay[:, :, t] * h + x[:, :, t]
        largest = torch.maximum(largest - decay[:, :, t], x[:, :, t])
        told.append(h)
        most.append(largest)
    assert_close(linear_scan(decay, x, first), torch.stack(told, 2))
    assert_close(scan(-decay.expand_as(x), x, first, torch.add, torch.maximum), torch.stack(most, 2))


def test_the_gradient_of_a_scan_by_finite_differences():
    torch.manual_seed(0)
    inputs = [torch.rand(1, 2, 7, 3).double(), torch.randn(2, 2, 7, 3).double(), torch.randn(2, 2, 3).double()]
    assert torch.autograd.gradcheck(linear_scan, [x.requires_grad_() for x in inputs])


@pytest.mark.row("LAY-05", reference="torch.nn.GroupNorm")
def test_group_norm_over_heads_is_torchs():
    torch.manual_seed(0)
    ours, theirs = HeadGroupNorm(4, 32), torch.nn.GroupNorm(4, 32, eps=64e-5)
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.copy_(mine.normal_())
    x = torch.randn(2, 5, 32) * 0.02  # so small that eps counts
    assert_close(ours(x), theirs(x.flatten(0, 1)).view_as(x))
    first = torch.nn.functional.group_norm(x.flatten(0, 1) / 8, 4, ours.weight, ours.bias, 1e-5)
    assert_close(ours(x), first.view_as(x))  # as the training code of version 5 writes it


# -- whole models ------------------------------------------------------------------------------------------------------

FAMILY_CASES = [name for name in CASES if name.startswith("rwkv") and not name.endswith(("wide", "tied"))]
ROWS = {"rwkv": "LM-39", "rwkv2": "LM-37", "rwkv3": "LM-38", "rwkv6": "LM-41"}
families = pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            n, marks=[pytest.mark.row(ROWS.get(n, "LM-40"), reference="itself, step by step")] * (n != "rwkv7")
        )
        for n in FAMILY_CASES
    ],
)


@families
@pytest.mark.slow
def test_a_long_text_at_once_and_step_by_step(tmp_path, name):
    """At length 4096, equal to 1e-4, with a state that does not grow."""
    model = make_ours(name, tmp_path)
    x = ids(rows=1, length=LONG)
    state = model.make_state(1, LONG)
    with torch.no_grad():
        whole = model(x)
        model(x[:, :1], state=state)
        size = state.nbytes
        steps = [model(x[:, t : t + 1], state=state) for t in range(1, LONG)]
    assert_near(torch.cat(steps, dim=1), whole[:, 1:])
    assert state.nbytes == size


@families
def test_prefill_over_many_chunks_with_packing_and_padding(tmp_path, name):
    model = make_ours(name, tmp_path)
    x = ids(rows=2, length=230)
    lengths = torch.tensor([[70, 33, 127], [1, 100, 60]])
    documents = torch.zeros(2, 230, dtype=torch.int64)
    for row, parts in enumerate(lengths.tolist()):
        numbers = torch.repeat_interleave(torch.tensor([3, 1, 2]), torch.tensor(parts))
        documents[row, : len(numbers)] = numbers
    with torch.no_grad():
        packed = model(x, documents=documents)
        for row, parts in enumerate(lengths.tolist()):
            for start, n in zip((0, parts[0], parts[0] + parts[1]), parts, strict=True):
                alone = model(x[row : row + 1, start : start + n])
                assert_near(packed[row : row + 1, start : start + n], alone)
        real = torch.zeros(2, 230, dtype=torch.int64)
        real[0, 101:], real[1, 10:90], real[1, 120:] = 1, 1, 1  # padding at the left, and in the middle
        state = model.make_state(2, 300)
        parts = [model(x[:, a:b], documents=real[:, a:b], state=state) for a, b in ((0, 100), (100, 101), (101, 230))]
        padded = torch.cat(parts, dim=1)
        for row in range(2):
            kept = real[row].bool()
            assert_near(padded[row, kept], model(x[row : row + 1, kept])[0])
    assert state.lengths.tolist() == [129, 190]


@families
def test_gradients_of_packed_documents_are_those_of_each_alone(tmp_path, name):
    model = make_ours(name, tmp_path).train()
    x, documents = ids(rows=1, length=90), torch.tensor([[1] * 40 + [2] * 50])
    sums = []
    for parts in ([(x, documents)], [(x[:, :40], None), (x[:, 40:], None)]):
        model.zero_grad()
        for part, which in parts:
            model(part, documents=which).square().sum().backward()
        sums.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for key, gradient in sums[0].items():
        assert_near(gradient, sums[1][key])


@families
def test_activation_checkpointing_gives_the_same_gradients(tmp_path, name):
    model = make_ours(name, tmp_path).train()
    found = []
    for active in (False, True):
        model.zero_grad()
        with checkpointed(model, active):
            model(ids()).square().sum().backward()
        found.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for key, gradient in found[0].items():
        assert_close(gradient, found[1][key], msg=key)


@families
def test_blocks_are_not_compiled(tmp_path, name):
    model = make_ours(name, tmp_path)
    assert compiled(model, True) is model


@families
def test_under_autocast_the_recurrence_stays_in_float32(tmp_path, name):
    model = make_ours(name, tmp_path)
    with torch.no_grad():
        plain = model(ids(length=200))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(ids(length=200))
    assert rounded.isfinite().all()
    assert (plain - rounded).abs().mean() < 0.1 * plain.abs().mean()


@families
def test_a_new_block_passes_its_input_on(name):
    """What ends a branch begins at zero, so that the first logits are those of the embedding, normed."""
    config = CASES[name].cases[name]() if name in CASES[name].cases else CASES[name].own[name]()
    config = config_from_hf(config.to_dict()) if hasattr(config, "to_dict") else config
    model = model_class(config).build(config)
    x = ids()
    hidden = model(x, head=lambda hidden, _: hidden)
    stream = model.embed(x, None)
    for block in model.blocks.values() if config.model_type == "rwkv2" else ():
        stream = block.norm2(block.norm1(stream))
    assert_close(hidden, model.norm(stream))


# -- the page ----------------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[3] / "docs" / "rwkv.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "told"),
    [("rwkv2", "4 D"), ("rwkv3", "4 D"), ("rwkv", "5 D"), ("rwkv-5.0", "2 D + D N"), ("rwkv-5.1", "2 D + D N")]
    + [(name, "2 D + D N") for name in ("rwkv-5.2", "rwkv6", "rwkv7")],
)
def test_the_report_tells_the_size_of_a_state(tmp_path, name, told):
    version = {"rwkv": "4"}.get(name, name.removeprefix("rwkv").removeprefix("-"))
    assert f"| {version} | {told} |" in PAGE
    model = make_ours(name, tmp_path)
    state = model.make_state(1, 8)
    with torch.no_grad():
        model(ids(rows=1, length=8), state=state)
    numbers = {"4 D": 4 * 32, "5 D": 5 * 32, "2 D + D N": 2 * 32 + 32 * 8}[told]
    assert state.nbytes == 3 * 4 * numbers
