"""Linformer and Performer: attention at a cost that grows with the length, not with its square."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.layers.attention import Attention
from groundup.layers.attentions.linformer import Linformer, LowRank
from groundup.layers.attentions.performer import Performer, RandomFeatures, linear_attention, log_features
from groundup.layers.context import Context
from groundup.layers.masks import Bidirectional, Causal
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.replace import replace
from groundup.state import RecurrentState, State


def plain(tokens, documents=None):
    return Context(torch.arange(tokens)[None], documents)


# -- Linformer ---------------------------------------------------------------------------------------------------------


@pytest.mark.row("LAY-28", reference="second implementation, head by head from the paper's equation 7")
@pytest.mark.parametrize("sharing", ["none", "headwise", "key-value"])
def test_linformer_is_the_papers_equation(sharing):
    torch.manual_seed(0)
    attention, x = Linformer(16, 4, 2, max_len=12, rank=5, sharing=sharing), torch.randn(2, 9, 16)
    weight = attention.low_rank.weight
    assert weight.shape == {"none": (2, 2, 5, 12), "headwise": (2, 1, 5, 12), "key-value": (1, 1, 5, 12)}[sharing]
    heads = []
    for h in range(4):
        kv, q_rows = h // 2, slice(4 * h, 4 * h + 4)
        kv_rows = slice(4 * kv, 4 * kv + 4)
        q = x @ attention.q_proj.weight[q_rows].T
        k, v = x @ attention.k_proj.weight[kv_rows].T, x @ attention.v_proj.weight[kv_rows].T
        e, f = (weight[i, kv if sharing == "none" else 0, :, :9] for i in (0, -1))
        p = torch.softmax(torch.einsum("btd,brd->btr", q, torch.einsum("rn,bnd->brd", e, k)) / 2, -1)
        heads.append(torch.einsum("btr,rn,bnd->btd", p, f, v))
    assert_close(attention(x, plain(9)), torch.cat(heads, -1) @ attention.o_proj.weight.T)


@pytest.mark.row("LAY-28", reference="torch")
def test_linformer_with_identities_for_projections_is_attention():
    torch.manual_seed(0)
    full, low = Attention(16, 4, 2, mask=Bidirectional()), Linformer(16, 4, 2, max_len=9, rank=9)
    low.load_state_dict(full.state_dict() | {"low_rank.weight": torch.eye(9).expand(2, 1, 9, 9)})
    x = torch.randn(2, 9, 16)
    assert_close(low(x, plain(9)), full(x, plain(9)))


def test_linformer_layers_can_share_and_padding_has_no_share():
    torch.manual_seed(0)
    shared = LowRank(12, 5, 2)
    one, two = (Linformer(16, 4, 2, projection=shared) for _ in range(2))
    assert one.low_rank is two.low_rank
    x, documents = torch.randn(2, 9, 16), torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    padded = one(x, plain(9, documents))
    assert_close(padded[1:, :6], one(x[1:, :6], plain(6)))
    assert_close(padded[:1], one(x[:1], plain(9)))
    # scores have r columns, whatever the length: T r numbers, not T T
    seen = []
    one.core.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].shape))
    one(x, plain(9))
    assert seen == [(2, 2, 5, 4)]


def test_linformer_refuses_what_it_cannot_do():
    with pytest.raises(UsageError, match="cannot be causal"):
        Linformer(16, 4, mask=Causal())
    attention = Linformer(16, 4, max_len=8)
    with pytest.raises(UsageError, match="9 tokens arrive, but Linformer's projection is for 8"):
        attention(torch.randn(1, 9, 16), plain(9))
    with pytest.raises(UsageError, match="no cache"):
        attention(torch.randn(1, 4, 16), Context(torch.arange(4)[None], state=State({}, 1, 8)))
    with pytest.raises(UsageError, match="one document a row"):
        attention(torch.randn(1, 4, 16), plain(4, torch.tensor([[1, 1, 2, 2]])))


# -- Performer ---------------------------------------------------------------------------------------------------------

DRAWS = 50_000


def estimates(q, k, orthogonal):
    """phi(q) phi(k) under many independent draws of d features, (DRAWS,): blocks of one long draw."""
    d = len(q)
    w = RandomFeatures(d, d * DRAWS, 0, orthogonal).draw().double()
    return (log_features(q, w) + log_features(k, w)).exp().unflatten(0, (DRAWS, d)).mean(1)


@pytest.mark.row("LAY-28", reference="statistics: e^(q k) within four standard errors, over 50000 draws")
@pytest.mark.parametrize("angle", [0.0, 1.0, 3.0])
def test_features_estimate_the_exponential_without_bias(angle):
    q = torch.tensor([0.5, 0.0, 0.0, 0.0], dtype=torch.float64)
    turn = torch.tensor([angle], dtype=torch.float64)
    k = torch.cat((turn.cos(), turn.sin(), torch.zeros(2, dtype=torch.float64))) * 0.5
    for orthogonal in (False, True):
        found = estimates(q, k, orthogonal)
        assert abs(found.mean() - (q @ k).exp()) < 4 * found.std() / DRAWS**0.5


@pytest.mark.row("LAY-28", reference="published: Choromanski et al. 2021, theorem 2 and lemma 2")
def test_orthogonal_features_vary_less():
    q = torch.full((4,), 0.25, dtype=torch.float64)
    exact, far, m, d = (q @ q).exp(), (-(q @ q)).exp(), 4, 4
    independent, orthogonal = estimates(q, q, False).var(), estimates(q, q, True).var()
    # lemma 2: the variance of independent ones is e^(2 q k) (e^(|q + k|^2) - 1) / m
    assert float(independent) == pytest.approx(float(exact**2 * ((2 * q).square().sum().exp() - 1) / m), rel=0.1)
    # theorem 2: orthogonal ones vary less by at least this; 1.2 for the error of the two estimates
    least = 2 * (m - 1) / (m * (d + 2)) * (exact - far) ** 2
    assert independent - orthogonal > least / 1.2


def test_each_vector_is_a_normal_one_and_those_of_a_block_are_orthogonal():
    draws = torch.stack([RandomFeatures(4, 6, seed).draw() for seed in range(2000)])  # (2000, 6, 4)
    assert_close(draws.mean(0), torch.zeros(6, 4), atol=0.1, rtol=0)  # standard error 0.022
    assert_close(draws.square().mean(0), torch.ones(6, 4), atol=0.15, rtol=0)
    products = draws @ draws.mT
    block = products[:, :4, :4] - torch.diag_embed(products[:, :4, :4].diagonal(dim1=1, dim2=2))
    assert block.abs().max() < 1e-4
    assert products[:, 0, 4].abs().mean() > 0.1  # of another block


@pytest.mark.row("LAY-28", reference="torch")
@pytest.mark.parametrize("mask", [Causal(), Bidirectional()], ids=["causal", "bidirectional"])
def test_many_features_come_close_to_softmax_attention(mask):
    """The error falls as 1 / sqrt(m)."""
    torch.manual_seed(0)
    full, x = Attention(16, 4, 2, mask=mask), torch.randn(2, 20, 16) / 2
    expected, errors = full(x, plain(20)), []
    for count in (256, 16384):
        approximate = []
        for seed in range(8):
            performer = Performer(16, 4, 2, mask=mask, num_features=count, seed=seed, chunk=8)
            performer.load_state_dict(full.state_dict())
            approximate.append((performer(x, plain(20)) - expected).detach().square().mean().sqrt())
        errors.append(float(torch.stack(approximate).mean() / expected.detach().std()))
    assert errors[1] < 0.05
    assert 5 < errors[0] / errors[1] < 12  # the root of 64 times as many is 8


def pairwise(performer, x):
    """Performer by its definition: weights phi(q) phi(k) of every pair, masked and divided by their sums."""
    q, k, v = performer.heads(x, plain(x.shape[1]))
    w, root = performer.features.draw().double(), performer.scale**0.5
    phi_q, phi_k = (log_features(t.double() * root, w).exp() for t in (q, k.repeat_interleave(2, 1)))
    weights = phi_q @ phi_k.mT
    weights = weights.tril() if performer.mask == Causal() else weights
    y = weights / weights.sum(-1, keepdim=True) @ v.repeat_interleave(2, 1).double()
    return performer.o_proj(y.float().transpose(1, 2).flatten(2))


@pytest.mark.row("LAY-28", reference="second implementation, pair by pair")
@pytest.mark.parametrize("chunk", [1, 4, 7, 64])
@pytest.mark.parametrize("mask", [Causal(), Bidirectional()], ids=["causal", "bidirectional"])
def test_sums_equal_pairs(mask, chunk):
    torch.manual_seed(0)
    performer = Performer(16, 4, 2, mask=mask, num_features=12, chunk=chunk)
    x = (torch.randn(2, 21, 16) * 3).requires_grad_()
    got, expected = performer(x, plain(21)), pairwise(performer, x)
    assert_close(got, expected)
    parameters = [x, *performer.parameters()]
    for a, b in zip(*(torch.autograd.grad(t.square().sum(), parameters) for t in (got, expected)), strict=True):
        assert_close(a, b, atol=1e-4, rtol=1e-4)  # sums over 21 tokens, gradients up to 100


def test_large_keys_do_not_overflow():
    log_q, log_k, v = torch.randn(1, 1, 1, 3, 5) + 500, torch.randn(1, 1, 4, 5) * 3 + 400, torch.randn(1, 1, 4, 2)
    got = linear_attention(log_q, log_k, v)
    phi_q, phi_k = (log_q.double() - 500).exp(), (log_k.double() - 400).exp()
    weights = phi_q[:, :, 0] @ phi_k.mT
    assert_close(got[:, :, 0], (weights / weights.sum(-1, keepdim=True) @ v.double()).float())


@pytest.mark.row("LAY-28", reference="property: equal to the row without a state")
def test_a_model_of_performers_trains_in_chunks_and_decodes_by_sums():
    torch.manual_seed(0)
    shape = dict(vocab_size=48, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4)
    model = build_model(LlamaConfig(**shape, num_key_value_heads=2, initializer_range=0.2)).eval()

    def performer(old):
        new = Performer(32, 4, 2, rope=old.rope, num_features=16, chunk=4)
        new.load_state_dict(old.state_dict())
        return new

    assert replace(model, "blocks.*.attn", performer) == 2
    x, lengths = torch.randint(0, 48, (2, 14)), (14, 5)
    documents = torch.stack([(torch.arange(14) >= 14 - n).long() for n in lengths])
    with torch.no_grad():
        state, parts = model.make_state(2, 100), []
        assert all(type(layer) is RecurrentState for layer in state.layers.values())
        for a, b in ((0, 3), (3, 10), (10, 11), (11, 12), (12, 13), (13, 14)):
            parts.append(model(x[:, a:b], documents=documents[:, a:b], state=state))
        sizes = state.nbytes
        got = torch.cat(parts, 1)
        assert got.isfinite().all()
        for row, n in enumerate(lengths):
            assert_close(got[row, -n:], model(x[row : row + 1, -n:])[0], atol=1e-4, rtol=1e-4)
        moment = state.snapshot()
        ahead = model(x[:, :3], state=state)
        assert state.nbytes == sizes  # it does not grow
        state.restore(moment)
        state.select(torch.tensor([1, 0]))
        assert_close(model(x[:, :3].flip(0), state=state), ahead.flip(0), atol=1e-5, rtol=1e-5)
    loss = F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_performer_refuses_what_it_cannot_do():
    with pytest.raises(UsageError, match="cannot follow Causal"):
        Performer(16, 4, mask=Causal(window=3))
    with pytest.raises(UsageError, match="dropout=0"):
        Performer(16, 4, dropout=0.1)
    both_ways = Performer(16, 4, mask=Bidirectional())
    with pytest.raises(UsageError, match="no state"):
        both_ways(torch.randn(1, 4, 16), Context(torch.arange(4)[None], state=State({}, 1, 8)))
    shape = dict(vocab_size=8, hidden_size=16, intermediate_size=8, num_hidden_layers=1, num_attention_heads=4)
    model = build_model(LlamaConfig(**shape))
    replace(model, "blocks.*.attn", lambda _: both_ways)
    with pytest.raises(UsageError, match="layer 0: Performer has no state"):
        model.make_state(1, 8)
    with pytest.raises(UsageError, match="one document a row"):
        Performer(16, 4)(torch.randn(1, 4, 16), plain(4, torch.tensor([[1, 1, 2, 2]])))


def test_redrawing_features_is_another_seed():
    performer, x = Performer(16, 4, num_features=8), torch.randn(1, 6, 16)
    first = performer(x, plain(6))
    assert torch.equal(first, performer(x, plain(6)))
    performer.features = RandomFeatures(4, 8, seed=1)
    assert not torch.allclose(first, performer(x, plain(6)))
    assert "features" not in " ".join(performer.state_dict())
