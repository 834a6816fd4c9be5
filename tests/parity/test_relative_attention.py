"""Shaw's and Transformer-XL's attention, against transformers' XLNet, and against loops written from the papers."""

import math

import pytest
import torch
import transformers as tf
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.layers.attention import Attention
from groundup.layers.context import Context
from groundup.layers.masks import Bidirectional
from groundup.layers.positions import sinusoid
from groundup.layers.relative_attention import ShawAttention, TransformerXLAttention, relative_shift
from groundup.models.configs.llama import LlamaConfig
from groundup.models.text.llama import Llama
from groundup.observe import observe
from groundup.state import KVCache, SegmentMemory, State
from groundup.training.activation_checkpointing import checkpointed

SHAPE = dict(
    vocab_size=48, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=64, initializer_range=0.2,
)  # fmt: skip


def plain(length: int) -> Context:
    return Context(torch.arange(length)[None])


def randomised(module, std=0.4):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * std)
    return module


class Relative(Llama):
    """A Llama with one of the two kinds in place of rotary positions."""

    kind = ShawAttention
    memory: int | None = None

    def make_attention(self, i, **changes):
        extra = {"max_distance": 3} if self.kind is ShawAttention else {}
        return self.kind(24, 4, mask=self.make_mask(i), **extra)

    def make_layer_state(self, i, max_len):
        return {"attn": KVCache(max_len) if self.memory is None else SegmentMemory(self.memory)}


def build(kind, memory=None):
    model = type("Model", (Relative,), {"kind": kind, "memory": memory}).build(LlamaConfig(**SHAPE))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def ids(rows=2, length=12, seed=1):
    return torch.randint(1, 48, (rows, length), generator=torch.Generator().manual_seed(seed))


def heads_of(layer, x):
    cut = lambda t: t.unflatten(-1, (-1, layer.head_dim)).transpose(1, 2).tolist()  # noqa: E731
    return cut(layer.q_proj(x)), cut(layer.k_proj(x)), cut(layer.v_proj(x))


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def softmax(scores):
    top = max(scores)
    shares = [math.exp(s - top) for s in scores]
    return [s / sum(shares) for s in shares]


@pytest.mark.row("LAY-38", reference="second implementation: loops over equations 3 and 4 of Shaw et al. 2018")
@pytest.mark.parametrize("values", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_shaw_by_loops_over_the_papers_equations(causal, values):
    rule = {} if causal else {"mask": Bidirectional()}
    layer = randomised(ShawAttention(12, 2, max_distance=2, relative_values=values, **rule)).double()
    x = torch.randn(1, 7, 12, dtype=torch.float64)
    (q,), (k,), (v,) = heads_of(layer, x)
    a_k = layer.relative_keys.weight.tolist()
    a_v = layer.relative_values.weight.tolist() if values else [[0.0] * 6] * 5
    out = torch.zeros(7, 12, dtype=torch.float64)
    for h in range(2):
        for i in range(7):
            seen = range(i + 1) if causal else range(7)
            n = [max(-2, min(2, j - i)) + 2 for j in seen]
            shifted = [[a + b for a, b in zip(k[h][j], a_k[m], strict=True)] for j, m in zip(seen, n, strict=True)]
            weights = softmax([dot(q[h][i], row) / math.sqrt(6) for row in shifted])
            for w, j, m in zip(weights, seen, n, strict=True):
                for f in range(6):
                    out[i, 6 * h + f] += w * (v[h][j][f] + a_v[m][f])
    assert_close(layer(x, plain(7))[0], layer.o_proj(out))


@pytest.mark.row("LAY-38", reference="transformers: wav2vec2-BERT, relative_key")
def test_shaws_keys_are_those_of_transformers():
    """Its encoder has vectors for the keys alone, with another reach to each side: the same on both here."""
    from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import Wav2Vec2BertSelfAttention

    config = tf.Wav2Vec2BertConfig(
        hidden_size=24, num_attention_heads=4, position_embeddings_type="relative_key", attention_dropout=0.0,
        left_max_position_embeddings=3, right_max_position_embeddings=3,
    )  # fmt: skip
    theirs = randomised(Wav2Vec2BertSelfAttention(config)).eval()
    ours = ShawAttention(24, 4, bias=True, max_distance=3, relative_values=False, mask=Bidirectional())
    for a, b in (("q_proj", "linear_q"), ("k_proj", "linear_k"), ("v_proj", "linear_v"), ("o_proj", "linear_out")):
        getattr(ours, a).load_state_dict(getattr(theirs, b).state_dict())
    ours.relative_keys.load_state_dict(theirs.distance_embedding.state_dict())
    x = torch.randn(2, 9, 24)
    assert_close(ours(x, plain(9)), theirs(x)[0])


@pytest.mark.row("LAY-38", reference="property: dropout acts on the weights of both sums")
def test_shaw_drops_weights_once_for_both_sums():
    layer = randomised(ShawAttention(8, 2, max_distance=2, dropout=0.5, mask=Bidirectional())).train()
    with torch.no_grad():
        layer.v_proj.weight.zero_()
        layer.relative_values.weight.fill_(1.0)  # so each head's result is the sum of the weights that were kept
        layer.o_proj.weight.copy_(torch.eye(8))
    torch.manual_seed(5)
    sums = layer(torch.randn(64, 6, 8), plain(6))
    assert sums.mean().item() == pytest.approx(1, abs=0.1)
    assert sums.std() > 0.3


def xlnet_layer(num_heads=4, width=24):
    from transformers.models.xlnet.modeling_xlnet import XLNetRelativeAttention

    config = tf.XLNetConfig(d_model=width, n_head=num_heads, d_inner=8, dropout=0.0)
    theirs = randomised(XLNetRelativeAttention(config), std=0.2).eval()
    ours = TransformerXLAttention(width, num_heads)
    with torch.no_grad():
        for a, b in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("r_proj", "r")):
            getattr(ours, a).weight.copy_(getattr(theirs, b).flatten(1).T)
        ours.o_proj.weight.copy_(theirs.o.flatten(1))
        ours.u.copy_(theirs.r_w_bias)
        ours.v.copy_(theirs.r_r_bias)
    theirs.layer_norm = torch.nn.Identity()  # taken off, as the residual: what remains is attention
    return ours, theirs


@pytest.mark.row("LAY-39", reference="transformers: XLNet")
@pytest.mark.parametrize("memory", [0, 5])
def test_transformer_xl_is_the_attention_of_xlnet(memory):
    """XLNet kept Transformer-XL's relative attention and its memory; values and all gradients."""
    ours, theirs = xlnet_layer()
    model = tf.XLNetModel(tf.XLNetConfig(d_model=24, n_head=4, d_inner=8, n_layer=1, attn_type="uni"))
    x, before = torch.randn(2, 7, 24), torch.randn(2, memory, 24)
    total = 7 + memory
    r = model.relative_positional_encoding(7, total, bsz=2)  # distances from memory + 7 down to 0
    hidden = torch.ones(7, total).triu(memory + 1)[:, :, None, None]
    mems = before.transpose(0, 1) if memory else None
    h = x.transpose(0, 1)
    expected = (theirs(h, None, hidden, None, r, None, mems=mems)[0] - h).transpose(0, 1)
    if memory:
        layer_memory = SegmentMemory(memory)
        ours.path = "attn"

        state = State({"attn": layer_memory}, 2, 100)
        layer_memory.hidden = before
        found = ours(x, Context(torch.arange(7)[None], None, state, state.place(7, None)))
        assert torch.equal(layer_memory.hidden, x[:, -memory:])
    else:
        found = ours(x, plain(7))
    assert_close(found, expected)
    for y in (found, expected):
        y.sin().sum().backward()
    pairs = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "r_proj": "r"}
    for a, b in pairs.items():
        assert_close(getattr(ours, a).weight.grad, getattr(theirs, b).grad.flatten(1).T, msg=lambda m, a=a: f"{a}: {m}")
    assert_close(ours.u.grad, theirs.r_w_bias.grad)
    assert_close(ours.v.grad, theirs.r_r_bias.grad)


@pytest.mark.row("LAY-39", reference="second implementation: loops over the equations of Dai et al. 2019, section 3.3")
def test_transformer_xl_by_loops_over_the_papers_equations():
    layer = randomised(TransformerXLAttention(12, 2)).double()
    x = torch.randn(1, 6, 12, dtype=torch.float64)
    (q,), (k,), (v,) = heads_of(layer, x)
    u, w = layer.u.tolist(), layer.v.tolist()
    out = torch.zeros(6, 12, dtype=torch.float64)
    for h in range(2):
        rows = layer.r_proj.weight[6 * h : 6 * h + 6].tolist()
        for i in range(6):
            scores = []
            for j in range(i + 1):
                angles = [(i - j) / 10_000 ** (2 * m / 12) for m in range(6)]
                wave = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
                r = [dot(row, wave) for row in rows]
                terms = dot(q[h][i], k[h][j]) + dot(q[h][i], r) + dot(u[h], k[h][j]) + dot(w[h], r)
                scores.append(terms / math.sqrt(6))
            for weight, j in zip(softmax(scores), range(i + 1), strict=True):
                for f in range(6):
                    out[i, 6 * h + f] += weight * v[h][j][f]
    assert_close(layer(x, plain(6))[0], layer.o_proj(out), atol=1e-6, rtol=1e-6)  # sinusoids are float32


@pytest.mark.row("LAY-39", reference="property: the papers' shift equals looking up by distance")
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (3, 8), (1, 6)])
def test_relative_shift_is_a_lookup_by_distance(queries, keys):
    scores = torch.randn(2, 3, queries, keys)  # column c: distance keys - 1 - c
    shifted = relative_shift(scores)
    for t in range(queries):
        for j in range(keys - queries + t + 1):
            distance = keys - queries + t - j
            assert torch.equal(shifted[..., t, j], scores[..., t, keys - 1 - distance])


@pytest.mark.parametrize("kind", [ShawAttention, TransformerXLAttention])
def test_steps_padding_and_packing_equal_plain_rows(kind):
    model, x, lengths = build(kind), ids(rows=3), (12, 7, 3)
    documents = torch.stack([(torch.arange(12) >= 12 - n).long() for n in lengths])
    state, more = model.make_state(3, 20), ids(rows=3, length=3, seed=2)
    with torch.no_grad():
        prefilled = model(x, documents=documents, state=state)
        stepped = torch.cat([model(more[:, :2], state=state), model(more[:, 2:], state=state)], 1)
        for row, n in enumerate(lengths):
            alone = model(torch.cat((x[row : row + 1, -n:], more[row : row + 1]), 1))[0]
            assert_close(prefilled[row, -n:], alone[:n], atol=2e-5, rtol=1e-4)
            assert_close(stepped[row], alone[n:], atol=2e-5, rtol=1e-4)
        packed = model(x[:1], documents=torch.tensor([[1] * 5 + [2] * 4 + [0] * 3]))
        assert_close(packed[:, 5:9], model(x[:1, 5:9]), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [ShawAttention, TransformerXLAttention])
def test_observed_weights_are_those_that_were_used(kind):
    model = build(kind)
    with observe(model, ["blocks.0.attn.core"]) as seen, torch.no_grad():
        model(ids())
    weights, (_, _, _, mask) = seen.attention("blocks.0.attn"), seen._cores["blocks.0.attn.core"][0]
    assert_close(weights.sum(-1), torch.ones(2, 4, 12))
    assert mask.bias is not None
    assert torch.equal(weights.triu(1), torch.zeros_like(weights))


def segments(model, x, state, size=4):
    return torch.cat([model(part, state=state) for part in x.split(size, 1)], 1)


@pytest.mark.row("LAY-39", reference="property: memory of everything equals one pass over everything")
def test_segments_with_a_long_memory_equal_one_pass():
    model, x = build(TransformerXLAttention, memory=100), ids()
    with torch.no_grad():
        assert_close(segments(model, x, model.make_state(2, 1000)), model(x), atol=2e-5, rtol=1e-4)
        cached = build(TransformerXLAttention)
        assert_close(segments(cached, x, cached.make_state(2, 12)), model(x), atol=2e-5, rtol=1e-4)


@pytest.mark.row("LAY-39", reference="property: what a segment sees and what it does not")
def test_a_short_memory_reaches_one_segment_a_layer():
    """Two layers with a memory of 4 and segments of 4: the third segment still sees the first through the second layer
    (Dai et al. 2019, figure 2b), one layer with it does not.
    """
    model, x = build(TransformerXLAttention, memory=4), ids(rows=1)
    changed = x.clone()
    changed[:, 2] = (changed[:, 2] + 1) % 48
    with torch.no_grad():
        a, b = (segments(model, row, model.make_state(1, 1000)) for row in (x, changed))
        assert not torch.allclose(a[:, 8:], b[:, 8:])
        four = torch.cat((x, x), 1), torch.cat((changed, x), 1)
        a, b = (segments(model, row, model.make_state(1, 1000)) for row in four)
        assert_close(a[:, 12:], b[:, 12:])  # the fourth is out of reach
        assert not torch.allclose(a[:, 4:8], b[:, 4:8])


@pytest.mark.row("LAY-39", reference="property: no gradient enters the memory, its projections learn from it")
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_stop_at_the_segments_border(checkpointing):
    model, x = build(TransformerXLAttention, memory=8).train(), ids()
    first, second = (model.embed.tokens(part).detach().requires_grad_() for part in x.split(6, 1))
    state = model.make_state(2, 1000)
    model(first, state=state)
    stored = state.layers["blocks.0.attn"].hidden.clone()
    with checkpointed(model, active=checkpointing):
        logits = model(second, state=state)
        logits.sin().sum().backward()
    assert first.grad is None
    assert second.grad.abs().sum() > 0
    # the same by hand: keys of the memory are computed anew with gradient, the memory itself is a constant
    got = model.blocks["0"].attn.k_proj.weight.grad.clone()
    model.zero_grad()
    again = model.make_state(2, 1000)
    again._longest = 6
    again.layers["blocks.0.attn"].hidden = stored
    with torch.no_grad():
        other = model.make_state(2, 1000)
        model(first, state=other)
    again.layers["blocks.1.attn"].hidden = other.layers["blocks.1.attn"].hidden
    model(second.detach(), state=again).sin().sum().backward()
    assert_close(model.blocks["0"].attn.k_proj.weight.grad, got)
    model.zero_grad()
    model(second.detach(), state=model.make_state(2, 1000)).sin().sum().backward()
    assert not torch.allclose(model.blocks["0"].attn.k_proj.weight.grad, got)


def test_a_memory_follows_its_rows_and_refuses_what_it_cannot_do():
    model, x = build(TransformerXLAttention, memory=5), ids()
    state = model.make_state(2, 1000)
    with torch.no_grad():
        model(x[:, :4], state=state)
        before = state.snapshot()
        model(x[:, 4:8], state=state)
        state.restore(before)
        state.select(torch.tensor([1, 0]))
        found = model(x[[1, 0], 4:8], state=state)
        whole = model.make_state(2, 1000)
        model(x[:, :4], state=whole)
        assert_close(found[[1, 0]], model(x[:, 4:8], state=whole))
        assert state.nbytes == 2 * (2 * 5 * 24 * 4)
        with pytest.raises(UsageError, match="equal length without padding"):
            model(x, documents=torch.tensor([[0] * 2 + [1] * 10, [1] * 12]), state=model.make_state(2, 20))
        with pytest.raises(UsageError, match="cannot forget"):
            state.trim(1)
    with pytest.raises(UsageError, match="TransformerXLAttention"):
        SegmentMemory(4).update(x, x, state.place(1, None))


def test_both_are_plain_attention_when_their_vectors_are_zero():
    x = torch.randn(2, 6, 24)
    base = randomised(Attention(24, 4))
    shaw, xl = ShawAttention(24, 4), TransformerXLAttention(24, 4)
    with torch.no_grad():
        for layer in (shaw, xl):
            layer.load_state_dict(base.state_dict(), strict=False)
        shaw.relative_keys.weight.zero_()
        shaw.relative_values.weight.zero_()
        xl.r_proj.weight.zero_()
    for layer in (shaw, xl):
        assert_close(layer(x, plain(6)), base(x, plain(6)))


def test_sinusoids_of_distances_are_all_sines_then_all_cosines():
    wave = sinusoid(torch.tensor([3]), 6, interleaved=False)[0]
    angles = [3 / 10_000 ** (2 * j / 6) for j in range(3)]
    assert_close(wave, torch.tensor([*map(math.sin, angles), *map(math.cos, angles)]))
