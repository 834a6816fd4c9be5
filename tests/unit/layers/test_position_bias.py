"""Biases of the scores: equal in every way a row may arrive, with every kernel, and for a share of the heads."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from groundup.generation.few_rows import for_decoding
from groundup.generation.few_rows.attention import attends_plainly
from groundup.layers.attention import Attention
from groundup.layers.context import Context
from groundup.layers.masks import Bidirectional, Causal
from groundup.layers.position_bias import ALiBi, KerpleLogarithmic, KerplePower, PositionBias, RoundedALiBi, T5Bias
from groundup.models.configs.llama import LlamaConfig
from groundup.models.text.llama import Llama
from groundup.observe import observe
from groundup.training.activation_checkpointing import checkpointed
from groundup.training.kernels import attention as tiled
from groundup.training.kernels.install import accelerated

BIASES = {
    "alibi": ALiBi,
    "alibi rounded": RoundedALiBi,
    "kerple power": KerplePower,
    "kerple logarithmic": KerpleLogarithmic,
    "t5": partial(T5Bias, num_buckets=8, max_distance=10),
}
SHAPE = dict(
    vocab_size=48, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.2,
)  # fmt: skip


class Biased(Llama):
    """A Llama with a bias in place of rotary positions; parameters of the bias leave their start."""

    make_bias: Callable[[int], PositionBias] = ALiBi

    def make_attention(self, i, **changes):
        return super().make_attention(i, rope=None, position_bias=type(self).make_bias(4), **changes)


@pytest.fixture(params=BIASES)
def model(request):
    torch.manual_seed(0)
    kind = type(request.param, (Biased,), {"make_bias": BIASES[request.param]})
    model = kind.build(LlamaConfig(**SHAPE)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "position_bias" in name:
                parameter.add_(torch.rand_like(parameter))
    return model


def ids(rows=2, length=12, seed=1):
    return torch.randint(1, 48, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_the_bias_is_added_to_the_scores_before_softmax():
    """By hand: scores, bias, causal mask, softmax, values."""
    torch.manual_seed(0)
    layer, x, context = Attention(16, 4, position_bias=ALiBi(4)), torch.randn(2, 6, 16), Context(torch.arange(6)[None])
    q, k, v = (p(x).unflatten(-1, (4, 4)).transpose(1, 2) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    scores = q @ k.mT / 2
    for h, slope in enumerate([2**-2, 2**-4, 2**-6, 2**-8]):
        for i in range(6):
            for j in range(6):
                scores[:, h, i, j] += -slope * (i - j) if j <= i else -torch.inf
    expected = layer.o_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    assert_close(layer(x, context), expected)


def test_later_keys_count_like_earlier_ones_without_a_causal_mask():
    bias = Context(torch.arange(5)[None]).mask(Bidirectional(), ALiBi(2)).bias
    assert torch.equal(bias, bias.mT)


def test_steps_padding_and_packing_equal_plain_rows(model):
    x, lengths = ids(rows=3), (12, 7, 3)
    documents = torch.stack([(torch.arange(12) >= 12 - n).long() for n in lengths])
    state, more = model.make_state(3, 20), ids(rows=3, length=3, seed=2)
    with torch.no_grad():
        prefilled = model(x, documents=documents, state=state)
        stepped = torch.cat([model(more[:, :2], state=state), model(more[:, 2:], state=state)], 1)
        for row, n in enumerate(lengths):
            alone = model(torch.cat((x[row : row + 1, -n:], more[row : row + 1]), 1))[0]
            assert_close(prefilled[row, -n:], alone[:n])
            assert_close(stepped[row], alone[n:])
        packed = model(x[:1], documents=torch.tensor([[1] * 5 + [2] * 4 + [0] * 3]))
        assert_close(packed[:, 5:9], model(x[:1, 5:9]))


def test_even_steps_equal_one_pass(model):
    x, state = ids(), model.make_state(2, 12)
    with torch.no_grad():
        parts = [model(x[:, a:b], state=state) for a, b in [(0, 5), (5, 8), (8, 9), (9, 10), (10, 12)]]
        assert_close(torch.cat(parts, 1), model(x))


def test_positions_matter(model):
    """Without the bias a block cannot tell the order of the tokens before the last."""
    x = ids(rows=1)
    swapped = x[:, [0, 2, 1, *range(3, 12)]]
    assert not torch.equal(x, swapped)
    with torch.no_grad():
        assert not torch.allclose(model(x)[:, -1], model(swapped)[:, -1], atol=1e-4)


def gradients(model, x, documents, **forms):
    model.zero_grad()
    logits = model(x, documents=documents)
    F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("documents", [None, torch.tensor([[1] * 5 + [2] * 7, [0] * 3 + [1] * 9])])
@pytest.mark.parametrize("compiled", [False, True])
def test_training_kernels_give_the_same_values_and_gradients(model, documents, compiled, monkeypatch):
    monkeypatch.setattr(tiled, "TILE", 5)
    monkeypatch.setattr(tiled, "pays", lambda *_: True)
    expected = gradients(model, ids(), documents)
    with accelerated(model, compiled=compiled):
        assert type(model.blocks["0"].attn.core) is tiled.TiledCore
        found = gradients(model, ids(), documents)
    assert_close(found, expected, atol=2e-5, rtol=1e-4)  # sums in another order
    assert all(gradient.abs().sum() > 0 for gradient in found[1].values())


def test_activation_checkpointing_gives_the_same_gradients(model):
    expected = gradients(model, ids(), None)
    with checkpointed(model):
        assert_close(gradients(model, ids(), None), expected)


@pytest.mark.slow
def test_compiled_blocks_give_the_same_gradients(model):
    from groundup.training.compilation import can_compile, compiled

    if not can_compile():
        pytest.skip("no working C++ compiler")
    expected = gradients(model, ids(), None)
    call = compiled(model, active=True)
    model.zero_grad()
    logits = call(ids())
    F.cross_entropy(logits[:, :-1].flatten(0, 1), ids()[:, 1:].flatten()).backward()
    assert_close(logits.detach(), expected[0])
    assert_close({name: p.grad for name, p in model.named_parameters()}, expected[1], atol=1e-5, rtol=1e-4)


def test_decoding_kernels_know_alibi_and_step_aside_for_others(model):
    pytest.importorskip("numba")
    attn = model.blocks["0"].attn
    assert attends_plainly(attn) == (type(attn.position_bias) is ALiBi and attn.q_proj.in_features % 64 == 0)
    view = for_decoding(model, fewest_parameters=0)
    states = [m.make_state(2, 12) for m in (model, view)]
    with torch.inference_mode():
        for part in (slice(0, 5), slice(5, 6), slice(6, 7)):
            expected, found = (m(ids()[:, part], state=s) for m, s in zip((model, view), states, strict=True))
            assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_observed_weights_contain_the_bias(model):
    with observe(model, ["blocks.1.attn.core"]) as seen, torch.no_grad():
        model(ids())
    attn, (core, q, k, _) = model.blocks["1"].attn, seen._cores["blocks.1.attn.core"][0]
    weights = seen.attention("blocks.1.attn")
    assert_close(weights.sum(-1), torch.ones(2, 4, 12))
    without = core.weights(q, k, Context(torch.arange(12)[None]).mask(attn.mask))
    assert not torch.allclose(weights, without, atol=1e-3)
    value = seen["blocks.1.attn.core"]
    assert value.shape == (2, 4, 12, 16)


def test_a_share_of_the_heads_gets_its_own_slopes(model):
    whole, part = ALiBi(6), ALiBi(6)
    part.heads = range(4, 6)
    context = Context(torch.arange(7)[None])
    assert torch.equal(part(context), whole(context)[:, 4:])
    assert torch.equal(context.mask(Causal(), part).bias, context.mask(Causal(), whole).bias[:, 4:])


def test_one_forward_pass_computes_equal_biases_once():
    context = Context(torch.arange(7)[None])
    assert context.mask(Causal(), ALiBi(4)) is context.mask(Causal(), ALiBi(4))
    assert context.mask(Causal(), ALiBi(4)) is not context.mask(Causal(), ALiBi(4, scale=0.5))
    assert context.mask(Causal(), ALiBi(4)) is not context.mask(Bidirectional(), ALiBi(4))
    assert context.mask(Causal()).bias is None


@pytest.mark.row("LAY-41", reference="hand calculation: Chi et al. 2022, equations 5 and 6")
@pytest.mark.parametrize("kind", [KerplePower, KerpleLogarithmic])
def test_kerple_by_its_formulas_pair_by_pair(kind):
    torch.manual_seed(0)
    bias = kind(3)
    with torch.no_grad():
        for parameter in bias.parameters():
            parameter.add_(torch.randn(3))
    found = Context(torch.arange(6)[None]).mask(Bidirectional(), bias).bias
    assert found.shape == (1, 3, 6, 6)
    r1, r2 = bias.r1.tolist(), bias.r2.tolist()
    for h in range(3):
        for i in range(6):
            for j in range(6):
                n = abs(i - j)
                value = -r1[h] * (n ** r2[h] if kind is KerplePower else math.log(1 + r2[h] * n))
                assert found[0, h, i, j].item() == pytest.approx(value, rel=1e-5, abs=1e-7)


@pytest.mark.row("LAY-41", reference="hand calculation: Chi et al. 2022, equations 5 and 6")
@pytest.mark.parametrize("kind", [KerplePower, KerpleLogarithmic])
def test_kerple_learns_its_shape_and_stays_a_kernel(kind):
    """Gradients of r1 and r2 by finite differences, both positive after any step, and minus the distance stays
    conditionally positive definite: c K c >= 0 for every c that sums to 0.
    """
    torch.manual_seed(0)
    layer = Attention(12, 3, position_bias=kind(3)).double()
    x, context = torch.randn(1, 7, 12, dtype=torch.float64), Context(torch.arange(7)[None])

    def loss(parameter, index, step):
        with torch.no_grad():
            parameter[index] += step
            value = layer(x, Context(torch.arange(7)[None])).sin().sum().item()
            parameter[index] -= step
        return value

    layer(x, context).sin().sum().backward()
    for name, parameter in layer.position_bias.named_parameters():
        for index in range(3):
            slope = (loss(parameter, index, 1e-2) - loss(parameter, index, -1e-2)) / 2e-2
            assert parameter.grad[index].item() == pytest.approx(slope, rel=1e-3, abs=1e-5), name
    with torch.no_grad():
        for parameter in layer.position_bias.parameters():
            parameter.mul_(3).sub_(1)
    bias = layer.position_bias
    assert (bias.r1 > 0).all()
    assert (bias.r2 > 0).all()
    if kind is KerplePower:
        assert (bias.r2 < 2).all()
    kernel = bias(Context(torch.arange(40)[None]))[0].double()  # (H, S, S)
    centre = torch.eye(40, dtype=torch.float64) - 1 / 40
    assert torch.linalg.eigvalsh(centre @ kernel @ centre).min() > -1e-5


@pytest.mark.row("LAY-41", reference="property: power with exponent 1 is ALiBi")
def test_kerple_power_begins_as_alibi():
    context = Context(torch.arange(9)[None])
    assert_close(KerplePower(6)(context), ALiBi(6)(context))
