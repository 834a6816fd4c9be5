"""Attention in tiles: FlashAttention 1 and 2, and Flash-Decoding, against torch's own kernels."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.layers.flash import v1, v2
from groundup.layers.flash.core import FlashCore, SplitCore
from groundup.layers.flash.decoding import attend_part, merge, split_attention
from groundup.layers.flash.tiles import Blocks, OnlineSoftmax, TileMask, by_group, dropped, spans
from groundup.layers.flash.work import order_v1, order_v2, traffic_plain, traffic_v1, traffic_v2
from groundup.layers.masks import Mask
from groundup.models.configs.gpt2 import GPT2Config
from groundup.models.configs.llama import LlamaConfig
from groundup.models.configs.parts import PartsConfig
from groundup.models.hub import build_model
from groundup.replace import replace

ATTEND = {1: v1.FlashAttention1, 2: v2.FlashAttention2}
both = pytest.mark.parametrize("version", [1, 2])


def inputs(queries=13, keys=13, heads=4, kv_heads=2, width=8, dtype=torch.float32):
    torch.manual_seed(0)
    shapes = [(2, heads, queries, width), (2, kv_heads, keys, width), (2, kv_heads, keys, width)]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def masks(queries, keys):
    """Every kind of mask: plain, with a hole for each row, by head, broadcast over all."""
    strewn = torch.rand(2, 4, queries, keys, generator=torch.Generator().manual_seed(1)) < 0.5
    strewn[..., 0] = True
    return {
        "full": Mask(),
        "strewn": Mask(allowed=strewn[:, :1]),
        "by head": Mask(allowed=strewn[:1]),
        "broadcast": Mask(allowed=torch.ones(1, 1, 1, 1, dtype=torch.bool)),
    } | ({"causal": Mask(causal=True)} if queries == keys else {})


def reference(q, k, v, mask, scale):
    return F.scaled_dot_product_attention(
        q, k, v, mask.allowed, is_causal=mask.causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


def assert_values_and_gradients_agree(attend, q, k, v, mask, scale):
    weights = torch.randn(q.shape, generator=torch.Generator().manual_seed(2), dtype=q.dtype)
    got, expected = attend(q, k, v), reference(q, k, v, mask, scale)
    assert_close(got, expected)
    found = torch.autograd.grad((got * weights).sum(), (q, k, v))
    for name, a, b in zip("qkv", found, torch.autograd.grad((expected * weights).sum(), (q, k, v)), strict=True):
        # two orders of sums over up to 13 terms
        assert_close(a, b, atol=3e-5, rtol=1e-4, msg=lambda m, name=name: f"gradient of {name}: {m}")


@pytest.mark.row("LAY-31", reference="torch")
@pytest.mark.row("LAY-32", reference="torch")
@pytest.mark.parametrize("blocks", [(4, 4), (3, 8), (8, 5), (64, 64), (1, 1)], ids=str)
@pytest.mark.parametrize("kind", ["full", "causal", "strewn", "by head", "broadcast"])
@both
def test_values_and_gradients_equal_torch(version, kind, blocks):
    """13 tokens: blocks that divide them, that do not, and that are longer."""
    q, k, v = inputs()
    mask = masks(13, 13)[kind]
    attend = lambda *x: ATTEND[version].apply(*x, None, mask, 0.3, Blocks(*blocks), 0.0, 0)  # noqa: E731
    assert_values_and_gradients_agree(attend, q, k, v, mask, 0.3)


@pytest.mark.row("LAY-31", reference="torch")
@pytest.mark.row("LAY-32", reference="torch")
@pytest.mark.parametrize(("queries", "keys"), [(3, 21), (21, 3), (1, 19)])
@both
def test_other_numbers_of_keys_than_queries(version, queries, keys):
    q, k, v = inputs(queries, keys, heads=2, kv_heads=2)
    for mask in (Mask(), Mask(allowed=masks(queries, keys)["strewn"].allowed)):
        attend = lambda *x, m=mask: ATTEND[version].apply(*x, None, m, 0.3, Blocks(4, 6), 0.0, 0)  # noqa: E731
        assert_values_and_gradients_agree(attend, q, k, v, mask, 0.3)


@pytest.mark.row("LAY-31", reference="torch")
@pytest.mark.row("LAY-32", reference="torch")
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("causal", [False, True])
@both
def test_a_bias_of_the_scores_gets_its_gradient(version, causal, rows):
    """As ALiBi and T5 have: one for all rows of the batch, or one each; minus infinity at hidden keys."""
    q, k, v = inputs(13, 13)
    bias = torch.randn(rows, 4, 13, 13, requires_grad=True)
    hidden = bias.masked_fill(torch.ones(13, 13, dtype=torch.bool).triu(1), -torch.inf) if causal else bias
    got = ATTEND[version].apply(q, k, v, hidden, Mask(causal=causal), 0.3, Blocks(4, 5), 0.0, 0)
    expected = F.scaled_dot_product_attention(q, k, v, hidden, scale=0.3, enable_gqa=True)
    assert_close(got, expected)
    for a, b in zip(
        *(torch.autograd.grad(t.square().sum(), (q, k, v, bias), retain_graph=True) for t in (got, expected)),
        strict=True,
    ):
        assert_close(a, b, atol=3e-5, rtol=1e-4)


@pytest.mark.row("LAY-31", reference="torch.autograd.gradcheck")
@pytest.mark.row("LAY-32", reference="torch.autograd.gradcheck")
@both
def test_gradients_are_the_slopes(version):
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, h, 3, 2, dtype=torch.float64, requires_grad=True) for h in (2, 1, 1))
    attend = lambda *x: ATTEND[version].apply(*x, None, Mask(causal=True), 0.3, Blocks(2, 2), 0.0, 0)  # noqa: E731
    assert torch.autograd.gradcheck(attend, (q, k, v))


@both
def test_large_scores_and_queries_that_see_nothing(version):
    """Scores of +-1000 overflow e^s without the maximum; a query without keys gives 0 and no gradient, not NaN."""
    q, k, v = inputs(6, 6, heads=2, kv_heads=2)
    q = (q * 300).detach().requires_grad_()
    allowed = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    allowed[..., 2, :] = False
    y = ATTEND[version].apply(q, k, v, None, Mask(allowed=allowed), 1.0, Blocks(2, 2), 0.0, 0)
    y.sum().backward()
    seeing = torch.arange(6) != 2
    assert_close(y[:, :, seeing], reference(q, k, v, Mask(), 1.0)[:, :, seeing])
    assert (y[:, :, 2] == 0).all()
    assert (q.grad[:, :, 2] == 0).all()
    assert all(t.grad.isfinite().all() for t in (q, k, v))


@both
def test_half_precision_sums_in_float32(version):
    q, k, v = (t.detach().bfloat16() for t in inputs(60, 60))
    y = ATTEND[version].apply(q, k, v, None, Mask(), 0.3, Blocks(16, 16), 0.0, 0)
    assert y.dtype == torch.bfloat16
    expected = reference(q.float(), k.float(), v.float(), Mask(), 0.3)
    assert_close(y, expected.bfloat16(), atol=1e-5, rtol=2**-7)  # one rounding, at the end


@both
def test_dropout_is_drawn_anew_and_alike_in_the_backward_pass(version):
    """The dropped weights as one matrix, put together from the tiles, give the same values and gradients."""
    q, k, v = inputs(11, 9, heads=2, kv_heads=2)
    blocks, p, seed = Blocks(4, 5), 0.4, 7
    keep = torch.cat(
        [
            torch.cat(
                [dropped(p, seed, (2, 2, 1, r.stop - r.start, c.stop - c.start), r, c, "cpu") for c in spans(9, 5)], -1
            )
            for r in spans(11, 4)
        ],
        -2,
    )[:, :, 0]
    assert set(keep.unique().tolist()) == {0.0, torch.tensor(1 / 0.6).item()}
    assert (keep == 0).float().mean() == pytest.approx(p, abs=0.1)
    y = ATTEND[version].apply(q, k, v, None, Mask(), 0.3, blocks, p, seed)
    expected = ((q @ k.mT * 0.3).softmax(-1) * keep) @ v
    assert_close(y, expected)
    for a, b in zip(*(torch.autograd.grad(t.square().sum(), (q, k, v)) for t in (y, expected)), strict=True):
        assert_close(a, b, atol=3e-5, rtol=1e-4)


@pytest.mark.row("LAY-31", reference="hand calculation")
@pytest.mark.row("LAY-32", reference="hand calculation")
@pytest.mark.parametrize("version", [1, 2])
def test_what_is_kept_for_the_backward_pass_is_linear_in_the_length(version):
    """The matrix of weights, 2 * 4 * 48 * 48 numbers, is neither kept nor ever made: the largest tensor is a tile."""
    q, k, v = inputs(48, 48)
    kept, made = [], []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made.extend(t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor))
            return out

    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t), Watch():
        y = ATTEND[version].apply(q, k, v, None, Mask(causal=True), 0.3, Blocks(16, 16), 0.0, 0)
        y.sum().backward()
    numbers = 2 * 4 * 48  # queries
    # q, o; k, v with half the heads; version 1 keeps m and z, version 2 their sum
    assert sum(kept) == numbers * 8 * 2 + numbers * 8 + numbers * (2 if version == 1 else 1)
    assert max(made) == numbers * 8
    assert max(made) < 2 * 4 * 48 * 48


def test_online_softmax_is_softmax_whatever_the_blocks():
    torch.manual_seed(0)
    scores, values = torch.randn(3, 5, 20) * 10, torch.randn(3, 20, 4)
    for size in (1, 3, 20):
        softmax = OnlineSoftmax(scores, 4)
        for part in spans(20, size):
            softmax.add(scores[..., part], values[..., part, :])
        o, lse = softmax.result()
        assert_close(o, scores.softmax(-1) @ values)
        assert_close(lse[..., 0], scores.logsumexp(-1))


@pytest.mark.row("LAY-32", reference="torch's own flash kernel")
@pytest.mark.parametrize("causal", [False, True])
def test_the_kept_number_is_that_of_torchs_kernel(causal):
    q, k, v = (t.detach() for t in inputs(33, 33, heads=2, kv_heads=2))
    o, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=0.3)
    tiles = TileMask(Mask(causal=causal), 33, 33, 2)
    mine, log = v2.forward(*by_group(q, k, v), tiles, 0.3, Blocks(8, 8))
    assert_close(mine.flatten(1, 2), o)
    assert_close(log.flatten(1, 2)[..., 0], lse)


@pytest.mark.row("LAY-32", reference="property: workers in any order and at once")
@pytest.mark.parametrize("causal", [False, True])
def test_workers_along_the_sequence_do_not_wait_for_each_other(causal):
    """Blocks of queries (forward) and of keys (backward) in a random order, and in threads: bit for bit the same."""
    q, k, v = by_group(*(t.detach() for t in inputs(50, 50)))
    tiles, do = TileMask(Mask(causal=causal), 50, 50, 2), torch.randn(2, 2, 2, 50, 8)

    def shuffled(work, blocks):
        numbers = random.Random(0).sample(range(len(blocks)), len(blocks))
        done = {i: work(blocks[i]) for i in numbers}
        return [done[i] for i in range(len(blocks))]

    def run(workers):
        o, lse = v2.forward(q, k, v, tiles, 0.3, Blocks(8, 8), workers=workers)
        return o, lse, *v2.backward(do, (q, k, v, o, lse), tiles, 0.3, Blocks(8, 8), workers=workers)

    expected = run(map)
    with ThreadPoolExecutor(4) as pool:
        for workers in (shuffled, pool.map):
            for a, b in zip(run(workers), expected, strict=True):
                assert torch.equal(a, b)
    # one block of queries alone, as a worker elsewhere computes it
    o, _ = v2.query_block(slice(16, 24), q, k, v, tiles, 0.3, Blocks(8, 8), 0.0, 0)
    assert torch.equal(o, expected[0][..., 16:24, :])


@pytest.mark.row("LAY-32", reference="hand calculation")
def test_the_order_of_work():
    blocks = Blocks(2, 2)
    assert order_v1(4, 6, blocks) == [[(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]]
    assert order_v2(4, 6, blocks) == [[(0, 0), (0, 1), (0, 2)], [(1, 0), (1, 1), (1, 2)]]
    assert order_v1(6, 6, blocks, causal=True) == [[(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (2, 2)]]
    assert order_v2(5, 5, blocks, causal=True) == [[(0, 0)], [(1, 0), (1, 1)], [(2, 0), (2, 1), (2, 2)]]
    # 4 queries, 6 keys, width 3, tiles of 2 x 2
    plain, one, two = traffic_plain(4, 6, 3), traffic_v1(4, 6, 3, blocks), traffic_v2(4, 6, 3, blocks)
    assert (plain.loads, plain.stores) == (4 * 3 + 2 * 6 * 3 + 2 * 24, 2 * 24 + 4 * 3)
    # version 1: k, v once; at each of 6 tiles 2 queries with q, o, m, l in, and o, m, l out
    assert (one.loads, one.stores, one.divisions) == (36 + 6 * 2 * (3 + 3 + 2), 6 * 2 * (3 + 2), 6 * 2 * 3)
    # version 2: q once, k and v for each of 2 workers; o and L out
    assert (two.loads, two.stores, two.divisions) == (12 + 2 * 36, 12 + 4, 12)
    assert (one.workers, two.workers) == (1, 2)
    large = Blocks(128, 128)
    totals = [t.total for t in (traffic_plain(4096, 4096, 64), traffic_v1(4096, 4096, 64, large))]
    assert totals[0] > 2.5 * totals[1] > 2.5 * traffic_v2(4096, 4096, 64, large).total


@pytest.mark.row("LAY-33", reference="torch")
@pytest.mark.parametrize("parts", [1, 2, 3, 7, 64])
@pytest.mark.parametrize(("queries", "kind"), [(1, "full"), (1, "strewn"), (3, "by head"), (19, "causal")])
def test_keys_in_parts_equal_torch(queries, kind, parts):
    q, k, v = (t.detach() for t in inputs(queries, 19))
    mask = masks(queries, 19)[kind]
    assert_close(split_attention(q, k, v, mask, 0.3, parts), reference(q, k, v, mask, 0.3))


@pytest.mark.row("LAY-33", reference="torch")
def test_merging_is_exact_in_any_order_and_grouping():
    q, k, v = by_group(*(t.detach() for t in inputs(2, 24, heads=2, kv_heads=2)))
    tiles = TileMask(Mask(), 2, 24, 2)
    parts = [attend_part(q, k, v, tiles, 0.3, part) for part in spans(24, 7)]
    scores = q @ k.mT * 0.3
    whole = (scores.softmax(-1) @ v, scores.logsumexp(-1, keepdim=True))
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        for a, b in zip(merge(*zip(*(parts[i] for i in order), strict=True)), whole, strict=True):
            assert_close(a, b)
    left, right = (merge(*zip(*half, strict=True)) for half in (parts[:2], parts[2:]))
    for a, b in zip(merge(*zip(left, right, strict=True)), whole, strict=True):
        assert_close(a, b)
    # a part of which nothing is seen has no say; of nothing at all comes 0
    nothing = torch.full_like(whole[0], 5.0), torch.full_like(whole[1], -torch.inf)
    for a, b in zip(merge(*zip(whole, nothing, strict=True)), whole, strict=True):
        assert_close(a, b)
    assert (merge(*zip(nothing, nothing, strict=True))[0] == 0).all()


SHAPE = dict(vocab_size=48, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, initializer_range=0.3)
CORES = {
    "flash 1": lambda core: FlashCore.like(core, version=1, blocks=Blocks(4, 3)),
    "flash 2": lambda core: FlashCore.like(core, version=2, blocks=Blocks(4, 3)),
    "split": lambda core: SplitCore.like(core, parts=3, most_queries=2, blocks=Blocks(4, 3)),
}


@pytest.mark.row("LAY-31", reference="torch")
@pytest.mark.row("LAY-32", reference="torch")
@pytest.mark.row("LAY-33", reference="torch")
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", CORES)
def test_cores_take_their_place_in_a_model(family, name):
    """Logits, gradients, padded rows, prefill and steps are those of the model before."""
    torch.manual_seed(0)
    dropouts = dict(embd_pdrop=0, attn_pdrop=0, resid_pdrop=0)
    llama = LlamaConfig(**SHAPE, intermediate_size=40, num_key_value_heads=2)
    model = build_model(GPT2Config(**SHAPE, **dropouts) if family == "gpt2" else llama).eval()
    x = torch.randint(0, 48, (2, 11))
    documents = torch.stack([(torch.arange(11) >= 11 - n).long() for n in (11, 4)])

    def run():
        state, grads = model.make_state(2, 11), {}
        with torch.no_grad():
            steps = [model(x[:, :5], documents=documents[:, :5], state=state)]
            steps += [model(x[:, t : t + 1], documents=documents[:, t : t + 1], state=state) for t in range(5, 11)]
        model(x).square().mean().backward()
        for key, parameter in model.named_parameters():
            grads[key], parameter.grad = parameter.grad, None
        return torch.cat(steps, 1)[:, -4:], grads

    logits, grads = run()
    assert replace(model, "blocks.*.attn.core", CORES[name]) == 2
    got, found = run()
    assert_close(got, logits, atol=1e-4, rtol=1e-4)  # logits up to 20
    for key, gradient in grads.items():
        assert_close(found[key], gradient, atol=1e-4, rtol=1e-4, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("positions", ["alibi", "t5"])
def test_cores_take_biases_and_give_them_their_gradients(positions, name):
    torch.manual_seed(0)
    model = build_model(PartsConfig(**SHAPE, positions=positions, num_key_value_heads=2, attention="gqa")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    x, found = torch.randint(0, 48, (2, 9)), []
    for core in (None, CORES[name]):
        if core is not None:
            replace(model, "blocks.*.attn.core", core)
        model.zero_grad()
        logits = model(x)
        logits.square().mean().backward()
        found.append((logits, [parameter.grad for parameter in model.parameters()]))
    (logits, grads), (again, grads_again) = found
    assert_close(again, logits, atol=1e-4, rtol=1e-4)
    for a, b in zip(grads, grads_again, strict=True):
        assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_core_with_dropout_trains_and_is_repeatable():
    q, k, v = inputs(8, 8)
    core = FlashCore(dropout=0.5, blocks=Blocks(4, 4))
    for module in (core, SplitCore(dropout=0.5)):
        torch.manual_seed(3)
        first = module(q, k, v, Mask(causal=True))
        torch.manual_seed(3)
        assert torch.equal(first, module(q, k, v, Mask(causal=True)))
        assert not torch.equal(first, module(q, k, v, Mask(causal=True)))
    core.eval()
    assert_close(core(q, k, v, Mask(causal=True)), reference(q, k, v, Mask(causal=True), None))


def test_impossible_settings_are_refused():
    with pytest.raises(UsageError, match="not 0 x 4"):
        Blocks(0, 4)
    with pytest.raises(UsageError, match="FlashAttention 1 or 2, not 3"):
        FlashCore(version=3)
    q, k, v = inputs(4, 4, heads=4, kv_heads=3)
    with pytest.raises(UsageError, match="4 query heads cannot share 3"):
        FlashCore()(q, k, v, Mask())
    with pytest.raises(UsageError, match="at least one part"):
        split_attention(q, k, v, Mask(), 1.0, 0)
