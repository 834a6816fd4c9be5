"""The feed-forward language model against the formula of Bengio et al. 2003, a position at a time."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from groundup.models.catalogue import config_of_size, model_class
from groundup.models.configs.bengio import BengioConfig
from groundup.models.hub import build_model, load_model

V, N, M, H = 13, 4, 3, 5


def formula(model, ids):
    """y = b + W x + U tanh(d + H x), x = (C(w_t), C(w_{t-1}), ...): scores of the word after each of `ids`. (T, V)"""
    weights = dict(model.named_parameters())
    c, h, d = (weights[n] for n in ("embed.tokens.weight", "blocks.0.hidden.weight", "blocks.0.hidden.bias"))
    u, b = weights["lm_head.weight"][:, :H], weights["lm_head.bias"]
    w = weights["lm_head.weight"][:, H:] if model.config.direct else torch.zeros(V, (N - 1) * M)
    rows = []
    for t in range(len(ids)):
        vectors = [c[ids[t - j]] if t >= j else torch.zeros(M) for j in range(N - 1)]
        x = torch.cat(vectors)
        rows.append(b + w @ x + u @ torch.tanh(d + h @ x))
    return torch.stack(rows)


@pytest.fixture(params=[True, False], ids=["direct", "hidden only"])
def model(request):
    torch.manual_seed(0)
    config = BengioConfig(vocab_size=V, order=N, embedding_size=M, hidden_size=H, direct=request.param)
    built = build_model(config).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return built


def ids(rows=2, length=9):
    return torch.randint(0, V, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.row("LM-04", reference="formula of Bengio et al. 2003")
def test_logits_and_gradients_equal_the_formula(model):
    x = ids()
    loss = F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
    ours = torch.autograd.grad(loss, list(model.parameters()))
    expected = torch.stack([formula(model, row) for row in x.tolist()])
    assert_close(model(x), expected)
    loss = F.cross_entropy(expected[:, :-1].flatten(0, 1), x[:, 1:].flatten())
    for mine, theirs in zip(ours, torch.autograd.grad(loss, list(model.parameters())), strict=True):
        assert_close(mine, theirs)


@pytest.mark.row("LM-04", reference="formula of Bengio et al. 2003")
def test_only_the_last_words_count(model):
    x = ids(1, 12)
    last = model(x)[:, -1]  # position 11 sees 9, 10 and 11
    for changed, same in ((9, True), (10, False)):
        other = x.clone()
        other[:, :changed] = (other[:, :changed] + 1) % V
        assert torch.allclose(model(other)[:, -1], last) == same


@pytest.mark.row("LM-04", reference="formula of Bengio et al. 2003")
def test_state_left_padding_packed_documents_and_files(model, tmp_path):
    x, state = ids(), model.make_state(2, 20)
    with torch.no_grad():
        whole = model(x)
        parts = [model(x[:, a:b], state=state) for a, b in ((0, 4), (4, 5), (5, 9))]
        assert_close(torch.cat(parts, 1), whole)
        documents = torch.tensor([[0] * 4 + [1] * 5, [1] * 9])
        state = model.make_state(2, 20)
        # the padding covers a whole chunk of the first row
        parts = [model(x[:, a : a + 3], documents=documents[:, a : a + 3], state=state) for a in (0, 3, 6)]
        padded = torch.cat(parts, 1)
        assert_close(padded[0, 4:], formula(model, x[0, 4:].tolist()))
        assert_close(padded[1], whole[1])
        packed = model(x[:1], documents=torch.tensor([[1] * 3 + [2] * 6]))
        assert_close(packed[0, 3:], formula(model, x[0, 3:].tolist()))
    model.save_pretrained(tmp_path)
    assert torch.equal(load_model(tmp_path)(x), model(x))


@pytest.mark.row("LM-04", reference="published: Bengio et al. 2003, section 2")
@pytest.mark.parametrize("name", ["bengio-brown", "bengio-ap"])
def test_the_published_count_of_parameters(name):
    """|V| (1 + n m + h) + h (1 + (n - 1) m)"""
    c = config_of_size(name)
    with torch.device("meta"):
        count = model_class(c)(c).num_parameters()
    v, n, m, h = c.vocab_size, c.order, c.embedding_size, c.hidden_size
    assert count == v * (1 + n * m + h) + h * (1 + (n - 1) * m)


@pytest.mark.row("LM-04", reference="Kneser-Ney trigrams on the same text")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_which_words_are_used_alike(seed):
    """A language of "X eats Y": two classes of animals, each with foods of its own; half of the pairs are ever shown.

    To counting, a pair never seen is as likely whether it makes sense or not. The network knows better, from vectors.
    """
    from groundup.models.configs.ngram import ModifiedKneserNey
    from groundup.models.ngrams.lookup import log2_probabilities
    from groundup.models.ngrams.smoothing import smooth

    animals, foods, eats, end = range(12), range(12, 24), 24, 25
    sensible = [(a, f) for a in animals for f in foods if a % 2 == f % 2]
    shown = random.Random(seed).sample(sensible, len(sensible) // 2)
    unseen = [pair for pair in sensible if pair not in shown]
    absurd = [(a, f) for a in animals for f in foods if a % 2 != f % 2]
    sentences = [[a, eats, f, end] for a, f in shown] * 2
    torch.manual_seed(0)
    model = build_model(BengioConfig(vocab_size=26, order=3, embedding_size=3, hidden_size=6, direct=False))
    optimizer, x = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.5), torch.tensor(sentences)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
        optimizer.step()
    tables = smooth(sentences, 3, 26, ModifiedKneserNey())

    def counted(pairs):
        return sum(2.0 ** log2_probabilities(tables, [a, eats, f])[-1] for a, f in pairs) / len(pairs)

    @torch.no_grad()
    def learned(pairs):
        scores = model(torch.tensor([[a, eats] for a, _ in pairs]))[:, -1].softmax(-1)
        return scores[torch.arange(len(pairs)), torch.tensor([f for _, f in pairs])].mean().item()

    assert 0.5 < counted(unseen) / counted(absurd) < 2
    assert learned(unseen) / learned(absurd) > 5
