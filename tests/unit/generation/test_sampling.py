import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from groundup.generation import sampling
from groundup.generation.config import SamplingConfig
from groundup.generation.sampler import Sampler, shortlist, uniforms

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, 3.0], [0.0, 0.1, 0.2, 0.3, 0.4]])


@pytest.mark.row("INF-02", reference="published: Stanford CS324, introduction")
@pytest.mark.parametrize(
    ("t", "expected"), [(1, (0.4, 0.6)), (0.5, (0.31, 0.69)), (0.2, (0.12, 0.88)), (0, (0, 1)), (1e9, (0.5, 0.5))]
)
def test_annealing(t, expected):
    annealed = sampling.temperature(torch.tensor([[0.4, 0.6]]).log(), t).softmax(-1)
    assert [round(float(x), 2) for x in annealed[0]] == pytest.approx(list(expected))


@pytest.mark.row("INF-03", reference="published: Build a Large Language Model (From Scratch), chapter 5")
def test_top_k_of_the_nine_words():
    logits = torch.tensor([[4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79]])
    kept = sampling.top_k(logits, 3).softmax(-1)[0]
    assert [round(float(kept[i]), 4) for i in (0, 3, 7)] == [0.0615, 0.5775, 0.3610]
    assert float(kept.sum()) == pytest.approx(1)
    assert int((kept > 0).sum()) == 3


@pytest.mark.row("INF-04", reference="hand calculation")
def test_top_p_by_hand():
    logits = torch.tensor([[0.1, 0.5, 0.3, 0.1]]).log()
    for p, kept in [(0.4, [1]), (0.6, [1, 2]), (0.79, [1, 2]), (1.0, [0, 1, 2, 3]), (1e-6, [1])]:
        assert (sampling.top_p(logits, p) > sampling.NEVER)[0].nonzero()[:, 0].tolist() == kept


@pytest.mark.parametrize("config", [
    {"top_k": 3}, {"top_k": 9}, {"top_p": 0.6}, {"min_p": 0.2}, {"top_k": 4, "top_p": 0.8, "min_p": 0.15},
])  # fmt: skip
def test_shortlist_equals_the_pure_functions(config):
    config = SamplingConfig(**config)
    scores, indices = shortlist(LOGITS, config)
    expected = sampling.top_k(LOGITS, config.top_k) if config.top_k else LOGITS
    expected = sampling.min_p(sampling.top_p(expected, config.top_p), config.min_p).softmax(-1)
    got = scores.softmax(-1)
    if indices is not None:
        got = torch.zeros_like(LOGITS).scatter(-1, indices, got)
    torch.testing.assert_close(got, expected)


@pytest.mark.row("INF-02", reference="scipy: chi-square")
@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_draws_follow_the_distribution(options):
    config = SamplingConfig(seed=5, **options)
    draws = 20_000
    sampler = Sampler(config, [[1]] * draws, range(draws), [], 5, 1, torch.device("cpu"))
    counts = torch.bincount(sampler(LOGITS[:1].expand(draws, -1)), minlength=5).double()
    expected = LOGITS[:1] / config.temperature
    expected = sampling.top_k(expected, config.top_k) if config.top_k else expected
    expected = sampling.min_p(sampling.top_p(expected, config.top_p), config.min_p).double().softmax(-1)[0]
    assert counts[expected == 0].sum() == 0
    counts, expected = counts[expected > 0], expected[expected > 0]
    assert stats.chisquare(counts.numpy(), (expected / expected.sum() * draws).numpy()).pvalue > 0.001


def test_uniforms_are_uniform_and_independent():
    numbers = np.stack([uniforms(0, [1, 2], copy, 64) for copy in range(300)])
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 0.001
    assert abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < 0.03
    assert np.array_equal(uniforms(0, [1, 2], 3, 8), uniforms(0, [1, 2], 3, 64)[:8])  # no matter how many are drawn


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1e-12, 0.1, 1.0]), min_size=1, max_size=8), st.floats(0, 1 - 2.0**-24))
def test_draw_never_takes_what_is_impossible(weights, u):
    if sum(weights) == 0:
        return
    token = int(sampling.draw(torch.tensor([weights]), torch.tensor([u], dtype=torch.float64)))
    assert weights[token] > 0


def test_exactly_k_among_equals():
    assert int((sampling.top_k(torch.zeros(1, 6), 2) > sampling.NEVER).sum()) == 2


def test_count_penalties_by_hand():
    counts = torch.tensor([[0.0, 1.0, 3.0]])
    got = sampling.count_penalties(torch.tensor([[1.0, 1.0, 1.0]]), counts, 0.5, 0.25)
    assert got.tolist() == [[1.0, 0.25, -0.75]]
