"""Which spans are taken out of a text."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data.spans import last_span, sentence_spans, short_spans


def rng(seed=0):
    return np.random.default_rng(seed)


@settings(max_examples=200, deadline=None)
@given(
    length=st.integers(1, 300),
    seed=st.integers(0, 10_000),
    share=st.floats(0.01, 0.9),
    mean=st.floats(0.5, 20),
    longest=st.integers(1, 60),
)
def test_short_spans_are_apart_and_leave_a_token(length, seed, share, mean, longest):
    spans = short_spans(length, rng(seed), share=share, mean=mean, longest=longest)
    taken = sum(last - first for first, last in spans)
    assert spans
    assert all(1 <= last - first <= longest for first, last in spans)
    assert all(later[0] > earlier[1] for earlier, later in itertools.pairwise(spans))
    assert spans[0][0] >= 0
    assert spans[-1][1] <= length
    assert taken < length or length == 1
    # nothing is drawn once the share is reached, and only a text without room falls short of it
    widest = max(last - first for first, last in spans)
    assert taken - widest < max(1, int(share * length))
    assert taken >= min(max(1, int(share * length)), (length - 1) // 2)


@pytest.mark.row("OBJ-13", reference="published: Du et al. 2022, lengths of a Poisson with mean 3, 15 % of the text")
def test_lengths_and_places_are_those_of_the_paper():
    drawn, covered, first_third, ends = [], [], 0, []
    for seed in range(2000):
        spans = short_spans(400, rng(seed))
        drawn += [last - first for first, last in spans]
        covered.append(sum(last - first for first, last in spans) / 400)
        ends.append((spans[0][1] - spans[0][0], spans[-1][1] - spans[-1][0]))
        first_third += sum(first < 400 / 3 for first, _ in spans)
    poisson = [math.exp(-3) * 3**n / math.factorial(n) / (1 - math.exp(-3)) for n in range(1, 9)]
    found = np.bincount(drawn, minlength=10)[1:9] / len(drawn)
    # The span that reaches the share is longer than others, as a bus that one waits for is late: 1 of about 20.
    assert np.abs(found - poisson).max() < 0.01
    first, last = np.mean(ends, axis=0)
    assert first == pytest.approx(last, abs=0.25)  # that longer one stands anywhere
    assert min(covered) >= 0.15
    assert np.mean(covered) < 0.16
    assert first_third / len(drawn) == pytest.approx(1 / 3, abs=0.02)


def test_a_text_of_three_tokens_in_all_ways():
    found = {tuple(short_spans(3, rng(seed), share=0.9, mean=1.0)) for seed in range(300)}
    assert found == {((0, 1), (2, 3)), ((0, 2),), ((1, 3),)}


def test_whole_sentences_until_the_share_is_reached():
    ends = np.zeros(40, dtype=bool)
    ends[[9, 12, 29]] = True  # sentences of 10, 3, 17 and, without an end, 10 tokens
    every = {(0, 10), (10, 13), (13, 30), (30, 40)}
    seen = set()
    for seed in range(100):
        spans = sentence_spans(ends, rng(seed))
        assert set(spans) <= every
        assert spans == sorted(spans)
        assert sum(b - a for a, b in spans) >= 6
        assert len(spans) == 1 or (len(spans) == 2 and (10, 13) in spans)  # 3 tokens do not make 15 %
        seen |= set(spans)
    assert seen == every
    assert sentence_spans([False] * 5, rng()) == [(1, 5)]
    assert sentence_spans([True], rng()) == [(0, 1)]


def test_the_end_of_a_text_is_uniform_between_its_bounds():
    lengths = [last - first for seed in range(2000) for first, last in last_span(1000, rng(seed))]
    assert 500 <= min(lengths) < 510
    assert 990 < max(lengths) <= 1000
    assert np.mean(lengths) == pytest.approx(750, abs=10)
    assert all(last == 1000 for seed in range(20) for _, last in last_span(1000, rng(seed)))
    assert last_span(5, rng(), least=0.0, most=0.0) == [(4, 5)]
