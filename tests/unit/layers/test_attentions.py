"""Sparse patterns, dual chunks, sources, and the Transformer as functions."""

import cmath

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.layers.attention import Attention
from groundup.layers.attentions.cross import CrossAttention
from groundup.layers.attentions.dual_chunk import DualChunkAttention
from groundup.layers.attentions.sparse import ByHead, Fixed, Strided, alternating
from groundup.layers.context import Context
from groundup.layers.flash.core import FlashCore
from groundup.layers.flash.tiles import Blocks, TileMask
from groundup.layers.functions import (
    BlockWeights,
    HeadWeights,
    attention,
    embed_token,
    embed_token_with_position,
    gpt,
    positions,
    self_attention,
    transformer_block,
)
from groundup.layers.masks import Bidirectional, Causal
from groundup.layers.rope import Rope
from groundup.layers.rotary_scaling import DynamicNTKScaling
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.replace import replace
from groundup.state import KVCache, RollingKVCache, SourceCache, State


def plain(tokens, documents=None):
    return Context(torch.arange(tokens)[None], documents)


def llama(layers=2, **changes):
    torch.manual_seed(0)
    shape = dict(vocab_size=48, hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2)
    return build_model(LlamaConfig(**shape, num_hidden_layers=layers, initializer_range=0.2, **changes)).eval()


def assert_a_state_changes_nothing(model, length=17):
    """Left-padded rows, in chunks and steps, equal each row alone without a state."""
    x, lengths = torch.randint(0, 48, (2, length), generator=torch.Generator().manual_seed(1)), (length, 9)
    documents = torch.stack([(torch.arange(length) >= length - n).long() for n in lengths])
    with torch.no_grad():
        state, parts = model.make_state(2, length), []
        for part in (slice(0, 3), slice(3, 10), *(slice(t, t + 1) for t in range(10, length))):
            parts.append(model(x[:, part], documents=documents[:, part], state=state))
        got = torch.cat(parts, 1)
        assert got.isfinite().all()
        for row, n in enumerate(lengths):
            assert_close(got[row, -n:], model(x[row : row + 1, -n:])[0], atol=1e-4, rtol=1e-4)


# -- sparse attention --------------------------------------------------------------------------------------------------


def sets(pattern, i):
    """Child et al. 2019, section 4.2, as sets of indices; a token always sees itself."""
    stride, before = pattern.stride, range(i + 1)
    if isinstance(pattern, Strided):
        near, far = set(range(max(0, i - stride), i + 1)), {j for j in before if (i - j) % stride == 0}
    else:
        near = {j for j in before if j // stride == i // stride}
        far = {j for j in before if j % stride in range(stride - pattern.summary, stride)}
    return {"local": near, "column": far, "both": near | far}[pattern.part] | {i}


PATTERNS = [Strided(4, part) for part in ("local", "column", "both")]
PATTERNS += [Fixed(4, part, summary) for part in ("local", "column", "both") for summary in (1, 2)]


@pytest.mark.row("LAY-27", reference="published: Child et al. 2019, section 4.2, as sets")
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_patterns_are_the_papers_sets(pattern):
    allowed = plain(18).mask(pattern).allowed[0, 0]
    for i in range(18):
        assert set(allowed[i].nonzero().flatten().tolist()) == sets(pattern, i)


@pytest.mark.row("LAY-27", reference="property: two steps reach everything, T sqrt(T) pairs each")
@pytest.mark.parametrize("kind", [Strided, Fixed])
def test_two_steps_reach_everything_before(kind):
    local, column = (plain(64).mask(kind(8, part)).allowed[0, 0].float() for part in ("local", "column"))
    # near, then along the columns; or by the summary of an earlier block, and what it has seen
    reached = local @ column if kind is Strided else local + column @ local
    assert torch.equal(reached > 0, torch.ones(64, 64, dtype=torch.bool).tril())
    assert max(local.sum(), column.sum()) < 64 * (8 + 2)


@pytest.mark.row("LAY-27", reference="property: equal to the row without a state")
def test_any_model_takes_sparse_layers_alternately_and_remembers_as_much_as_they_see():
    """GPT-3's alternation, and both parts of the Sparse Transformer, layer by layer."""
    model = llama(layers=4)
    for i, block in model.blocks.items():
        block.attn.mask = alternating(int(i), window=3)
    state = model.make_state(1, 20)
    kinds = [type(layer) for layer in state.layers.values()]
    assert kinds == [KVCache, RollingKVCache, KVCache, RollingKVCache]
    assert_a_state_changes_nothing(model)
    for i, block in model.blocks.items():
        block.attn.mask = Strided(3, ("local", "column")[int(i) % 2])
    assert_a_state_changes_nothing(model)
    for block in model.blocks.values():
        block.attn.mask = ByHead((Fixed(3, "local"), Fixed(3, "column")), num_heads=4)
    assert_a_state_changes_nothing(model)


def test_each_head_its_own_pattern_and_packed_rows_count_anew():
    documents = torch.tensor([[1, 1, 1, 1, 1, 2, 2, 2, 2, 2]])
    packed = Context(torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4]]), documents)
    allowed = packed.mask(ByHead((Fixed(2, "local"), Causal()), num_heads=3)).allowed
    alone = plain(5).mask(Fixed(2, "local")).allowed[0, 0]
    assert allowed.shape == (1, 3, 10, 10)
    for head, one in ((0, alone), (1, torch.ones(5, 5, dtype=torch.bool).tril()), (2, alone)):
        assert torch.equal(allowed[0, head], torch.block_diag(one, one).bool())


def test_tiled_kernels_leave_out_what_no_pair_sees():
    torch.manual_seed(0)
    rule, q, k, v = Strided(4, "local"), *(torch.randn(1, 2, 40, 8) for _ in range(3))
    mask = plain(40).mask(rule)
    tiles = TileMask(mask, 40, 40, 2)
    spans = [slice(a, a + 4) for a in range(0, 40, 4)]
    assert sum(not tiles.unseen(rows, cols) for rows in spans for cols in spans) == 10 + 9  # of 100
    assert_close(FlashCore(blocks=Blocks(4, 4))(q, k, v, mask), Attention(16, 2).core(q, k, v, mask))


def test_impossible_patterns_are_refused():
    for make in (lambda: Strided(0), lambda: Strided(4, "some"), lambda: Fixed(4, "both", 5)):
        with pytest.raises(UsageError, match=r"stride|summary"):
            make()


# -- dual chunk attention ----------------------------------------------------------------------------------------------


def by_pairs(module, x, theta, chunk_size, local_size):
    """Written from An et al. 2024, equations 3 to 6, pair by pair, with complex numbers for the rotation."""
    size, (rows, length, _) = chunk_size - local_size, x.shape
    heads, width = 4, module.head_dim
    q, k, v = (p(x).unflatten(-1, (-1, width)).double() for p in (module.q_proj, module.k_proj, module.v_proj))
    out = torch.zeros(rows, length, heads, width, dtype=torch.float64)
    for b in range(rows):
        for h in range(heads):
            for i in range(length):
                scores = []
                for j in range(i + 1):
                    apart = i // size - j // size
                    place = i % size if apart == 0 else min(i % size + size, chunk_size)
                    place = min(2 * size - 1, chunk_size) if apart > 1 else place
                    total = 0.0
                    for f in range(width // 2):
                        angle = (place - j % size) * theta ** (-2 * f / width)
                        a = complex(q[b, i, h, f], q[b, i, h, f + width // 2])
                        c = complex(k[b, j, h // 2, f], k[b, j, h // 2, f + width // 2])
                        total += (a * cmath.exp(1j * angle) * c.conjugate()).real
                    scores.append(total / width**0.5)
                weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
                out[b, i, h] = weights @ v[b, : i + 1, h // 2]
    return module.o_proj(out.flatten(2).float())


@pytest.mark.row("LAY-30", reference="second implementation, pair by pair from the paper")
@pytest.mark.parametrize(("chunk_size", "local_size"), [(6, 2), (5, 4), (8, 1), (30, 10)])
def test_dual_chunks_equal_the_paper_pair_by_pair(chunk_size, local_size):
    torch.manual_seed(0)
    module = DualChunkAttention(16, 4, 2, rope=Rope(4, 100.0), chunk_size=chunk_size, local_size=local_size)
    x = torch.randn(1, 15, 16) * 2
    with torch.no_grad():
        assert_close(module(x, plain(15)), by_pairs(module, x, 100.0, chunk_size, local_size), atol=2e-5, rtol=1e-5)


@pytest.mark.row("LAY-30", reference="property: plain attention within a chunk, and at every near distance")
def test_within_a_chunk_it_is_plain_attention_in_values_and_gradients():
    torch.manual_seed(0)
    full = Attention(16, 4, 2, rope=Rope(4, 100.0))
    dual = DualChunkAttention(16, 4, 2, rope=Rope(4, 100.0), chunk_size=14, local_size=4)
    dual.load_state_dict(full.state_dict())
    x = torch.randn(2, 20, 16, requires_grad=True)
    got, expected = dual(x[:, :10], plain(10)), full(x[:, :10], plain(10))
    assert_close(got, expected)
    for a, b in zip(
        *(torch.autograd.grad(y.square().sum(), [x, *m.parameters()]) for y, m in ((got, dual), (expected, full))),
        strict=True,
    ):
        assert_close(a, b, atol=1e-5, rtol=1e-5)
    # across the border of a chunk too: nothing beyond the local distances exists up to token 13
    assert_close(dual(x[:, :14], plain(14)), full(x[:, :14], plain(14)))
    assert not torch.allclose(dual(x, plain(20))[:, 16:], full(x, plain(20))[:, 16:], atol=1e-4)
    torch.autograd.grad(dual(x, plain(20)).sum(), x)[0].isfinite().all()


@pytest.mark.row("LAY-30", reference="property: equal to the row without a state")
def test_a_model_with_dual_chunks_decodes_and_packs():
    model = llama()

    def dual(old):
        new = DualChunkAttention(32, 4, 2, rope=old.rope, chunk_size=7, local_size=3)
        new.load_state_dict(old.state_dict())
        return new

    replace(model, "blocks.*.attn", dual)
    assert_a_state_changes_nothing(model)
    x = torch.randint(0, 48, (1, 20))
    packed = model(x, documents=torch.tensor([[1] * 12 + [2] * 8]))
    assert_close(packed[:, 12:], model(x[:, 12:]), atol=1e-5, rtol=1e-5)
    assert_close(packed[:, :12], model(x[:, :12]), atol=1e-5, rtol=1e-5)
    packed.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_dual_chunks_refuse_what_they_cannot_do():
    sizes, rope = dict(chunk_size=8, local_size=2), Rope(4)
    for settings in (
        sizes,
        dict(**sizes, rope=rope, mask=Bidirectional()),
        dict(**sizes, rope=rope, dropout=0.1),
        dict(chunk_size=8, local_size=8, rope=rope),
        dict(**sizes, rope=Rope(4, scaling=DynamicNTKScaling())),
    ):
        with pytest.raises(UsageError, match=r"rope=|dropout=0|local_size|fixed frequencies"):
            DualChunkAttention(16, 4, **settings)


# -- cross-attention ---------------------------------------------------------------------------------------------------


def reading(tokens, source, source_documents=None, documents=None, state=None):
    return Context(torch.arange(tokens)[None], documents, state, source=source, source_documents=source_documents)


@pytest.mark.row("LAY-20", reference="torch")
@pytest.mark.parametrize("source_dim", [None, 12])
def test_cross_attention_is_torchs(source_dim):
    torch.manual_seed(0)
    ours = CrossAttention(16, 4, bias=True, source_dim=source_dim)
    theirs = nn.MultiheadAttention(16, 4, kdim=source_dim, vdim=source_dim, batch_first=True)
    with torch.no_grad():
        parts = [ours.q_proj, ours.k_proj, ours.v_proj]
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        if source_dim is None:
            theirs.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        else:
            for name, part in zip("qkv", parts, strict=True):
                getattr(theirs, f"{name}_proj_weight").copy_(part.weight)
        theirs.out_proj.load_state_dict(ours.o_proj.state_dict())
    x, source = torch.randn(2, 5, 16, requires_grad=True), torch.randn(2, 7, source_dim or 16, requires_grad=True)
    padding = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    for documents in (None, padding):
        got = ours(x, reading(5, source, documents))
        expected, _ = theirs(x, source, source, key_padding_mask=None if documents is None else documents == 0)
        assert_close(got, expected)
        for a, b in zip(*(torch.autograd.grad(y.square().sum(), (x, source)) for y in (got, expected)), strict=True):
            assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.row("LAY-20", reference="property: equal to the whole target at once")
def test_the_source_is_read_once_and_remembered():
    torch.manual_seed(0)
    ours, x, source = CrossAttention(16, 4, 2), torch.randn(3, 6, 16), torch.randn(3, 7, 16)
    ours.path = "cross"
    padding = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [0] * 2 + [1] * 5])
    whole = ours(x, reading(6, source, padding))
    state = State({"cross": SourceCache()}, 3, 6)
    parts = [ours(x[:, :2], reading(2, source, padding, state=state)), ours(x[:, 2:3], reading(1, None, state=state))]
    assert_close(torch.cat(parts, 1), whole[:, :3])
    moment, held = state.snapshot(), state.nbytes
    assert held == 2 * 3 * 2 * 7 * 4 * 4
    rows = torch.tensor([2, 0, 0])
    ours(x[:, 3:], reading(3, None, state=state))
    state.restore(moment)
    state.select(rows)
    assert_close(ours(x[rows, 3:], reading(3, None, state=state)), whole[rows, 3:])


def test_packed_targets_read_their_own_source_and_padding_stays_finite():
    torch.manual_seed(0)
    ours, x, source = CrossAttention(16, 4), torch.randn(1, 6, 16), torch.randn(1, 7, 16)
    target, read = torch.tensor([[1, 1, 2, 2, 2, 0]]), torch.tensor([[1, 1, 1, 2, 2, 0, 0]])
    got = ours(x, reading(6, source, read, target))
    assert_close(got[:, :2], ours(x[:, :2], reading(2, source[:, :3])))
    assert_close(got[:, 2:5], ours(x[:, 2:5], reading(3, source[:, 3:5])))
    assert got.isfinite().all()


def test_cross_attention_without_a_source_is_refused():
    with pytest.raises(UsageError, match="nothing to read"):
        CrossAttention(16, 4)(torch.randn(1, 2, 16), plain(2))
    with pytest.raises(UsageError, match="no rope"):
        CrossAttention(16, 4, rope=Rope(4))


# -- the Transformer as functions --------------------------------------------------------------------------------------


def torch_block(d=16, heads=4, hidden=24):
    """A block of torch's and its weights as the functions take them."""
    theirs = nn.TransformerEncoderLayer(d, heads, hidden, dropout=0.0, batch_first=True).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        theirs.self_attn.in_proj_bias.zero_()  # the notes have no biases here
        theirs.self_attn.out_proj.bias.zero_()
    q, k, v = theirs.self_attn.in_proj_weight.unflatten(0, (3, heads, d // heads)).detach()
    detach = lambda *tensors: [t.detach() for t in tensors]  # noqa: E731
    ours = BlockWeights(
        [HeadWeights(q[h], k[h], v[h]) for h in range(heads)],
        theirs.self_attn.out_proj.weight.detach(),
        *detach(theirs.linear1.weight, theirs.linear1.bias, theirs.linear2.weight, theirs.linear2.bias),
        *detach(theirs.norm1.weight, theirs.norm1.bias, theirs.norm2.weight, theirs.norm2.bias),
    )
    return theirs, ours


@pytest.mark.row("LAY-22", reference="torch")
@pytest.mark.parametrize("causal", [False, True])
def test_functions_compose_to_torchs_block(causal):
    torch.manual_seed(0)
    theirs, w = torch_block()
    x = torch.randn(7, 16)
    later = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    attended, _ = theirs.self_attn(x[None], x[None], x[None], attn_mask=later)
    assert_close(self_attention(x.T, w.heads, w.output, causal).T[None], attended)
    assert_close(transformer_block(x.T, w, causal).T[None], theirs(x[None], src_mask=later))


@pytest.mark.row("LAY-22", reference="torch")
def test_one_head_looked_at_by_one_vector():
    torch.manual_seed(0)
    x, y = torch.randn(16, 7), torch.randn(16)
    head = HeadWeights(*(torch.randn(4, 16) for _ in range(3)))
    q, k, v = head.query @ y, head.key @ x, head.value @ x
    expected = nn.functional.scaled_dot_product_attention(q[None], k.T, v.T)[0]
    assert_close(attention(x, y, head), expected)


@pytest.mark.row("LAY-22", reference="torch")
def test_gpt_is_the_blocks_after_the_embedding():
    torch.manual_seed(0)
    blocks, table, ids = [torch_block() for _ in range(3)], torch.randn(11, 16), torch.tensor([3, 0, 10, 3])
    assert_close(embed_token(ids, table), (nn.functional.one_hot(ids, 11).float() @ table).T)
    wave = positions(16, 4)
    for p in range(4):
        for j in range(0, 16, 2):
            angle = torch.tensor(p / 10_000 ** (j / 16))
            assert_close(wave[j : j + 2, p], torch.stack((angle.sin(), angle.cos())))
    x = embed_token_with_position(ids, table).T[None]
    assert_close(x[0].T - embed_token(ids, table), wave)
    later = torch.ones(4, 4, dtype=torch.bool).triu(1)
    for theirs, _ in blocks:
        x = theirs(x, src_mask=later)
    assert_close(gpt(ids, table, [w for _, w in blocks]), x[0].T)
