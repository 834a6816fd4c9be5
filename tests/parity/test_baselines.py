"""Baselines against hand calculation, a brute-force dictionary implementation and the compressors themselves."""

import gzip
import lzma
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.base.errors import UsageError
from groundup.data.builtin import stories
from groundup.evaluation.baselines import Gzip, KneserNey, NotFitted, Uniform, Unigram, Xz, bits_per_byte
from groundup.models.ngrams.smoothing import discounts


class Dictionary:
    """Interpolated modified Kneser-Ney straight from the definition, one dictionary of counts for each order."""

    def __init__(self, order, vocabulary, documents):
        self.order, self.vocabulary = order, vocabulary
        grams = [[] for _ in range(order + 1)]
        for document in documents:
            row = ["<s>"] * (order - 1) + list(document)
            for i in range(order - 1, len(row)):
                for k in range(1, order + 1):
                    grams[k].append(tuple(row[i - k + 1 : i + 1]))
        self.counts = {order: Counter(grams[order])}
        for k in range(order - 1, 0, -1):
            self.counts[k] = Counter(gram[1:] for gram in set(grams[k + 1]))
        self.discount, self.followers = {}, {}
        for k, counts in self.counts.items():
            n = Counter(counts.values())
            y = n[1] / (n[1] + 2 * n[2]) if n[1] else 0.5
            if n[1] and n[2] and n[3]:
                d = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
                d = [min(max(x, 0), i + 1) for i, x in enumerate(d)]
            else:
                d = [min(y, 0.9)] * 3
            self.discount[k] = d
            self.followers[k] = defaultdict(dict)
            for gram, count in counts.items():
                self.followers[k][gram[:-1]][gram[-1]] = count

    def probability(self, word, history, k=None):
        k = self.order if k is None else k
        if k == 0:
            return 1 / self.vocabulary
        history = tuple(history[len(history) - k + 1 :])
        lower = self.probability(word, history[1:], k - 1)
        seen = self.followers[k].get(history)
        if not seen:
            return lower
        total = sum(seen.values())
        taken = sum(self.discount[k][min(c, 3) - 1] for c in seen.values())
        count = seen.get(word, 0)
        kept = count - self.discount[k][min(count, 3) - 1] if count else 0
        return max(kept, 0) / total + taken / total * lower

    def log2(self, document):
        row = ["<s>"] * (self.order - 1) + list(document)
        start = self.order - 1
        return [math.log2(self.probability(row[i], row[i - start : i])) for i in range(start, len(row))]


@pytest.mark.row("LM-01", reference="brute-force dictionaries written from Chen & Goodman 1999")
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_kneser_ney_equals_the_dictionary_implementation(order):
    train = [d.text.encode() for d in stories.documents(stories.StoriesConfig(documents=25))]
    test = [d.text.encode() for d in stories.documents(stories.StoriesConfig(documents=3, split="test"))]
    ours, theirs = KneserNey(order).fit(train), Dictionary(order, 256, train)
    for document in [*test, b"", b"\xff\x00 unseen"]:
        np.testing.assert_allclose(ours.log2_probabilities(document), theirs.log2(document), rtol=1e-9, atol=1e-12)


@pytest.mark.row("LM-01", reference="hand calculation")
def test_kneser_ney_by_hand():
    """Bigrams of "aab" over {a, b, c}: counts <s>a 1, aa 1, ab 1; no count of two, so Y = 1 is capped to D = 0.9.

    Unigram continuation counts: a follows <s> and a: 2; b follows a: 1. n1 = 1, n2 = 1, n3 = 0, so D = Y = 1 / 3.
    p1(a) = (2 - 1/3)/3 + (2/3)/3 * 1/3 = 5/9 + 2/27 = 17/27;  p1(b) = 2/9 + 2/27 = 8/27;  p1(c) = 2/27
    p2(a|a) = (1 - 0.9)/2 + (1.8/2) 17/27 = 0.05 + 0.9 * 17/27
    """
    model = KneserNey(order=2, vocabulary=3).fit([[0, 0, 1]])
    p = model.probabilities([0])
    assert p == pytest.approx([0.05 + 0.9 * 17 / 27, 0.05 + 0.9 * 8 / 27, 0.9 * 2 / 27])
    # b was never a context: its distribution is that of the unigrams.
    assert model.probabilities([1]) == pytest.approx([17 / 27, 8 / 27, 2 / 27])


@pytest.mark.row("LM-01", reference="property")
@settings(max_examples=40, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=40), min_size=1, max_size=6),
    context=st.lists(st.integers(0, 5), max_size=7),
    order=st.integers(1, 5),
)
def test_kneser_ney_sums_to_one(documents, context, order):
    p = KneserNey(order, vocabulary=6).fit(documents).probabilities(context)
    assert p.sum() == pytest.approx(1)
    assert p.min() > 0


def test_kneser_ney_sums_to_one_on_bytes():
    train = [d.text.encode() for d in stories.documents(stories.StoriesConfig(documents=60))]
    model = KneserNey().fit(train)
    for context in (b"", b"The ", b"and so", train[3][:50], b"zqx\xff", b"\x00"):
        assert model.probabilities(context).sum() == pytest.approx(1)


def test_discounts_follow_the_formula():
    # n1 = 4, n2 = 2, n3 = 1, n4 = 1: Y = 1/2
    assert discounts(np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])) == pytest.approx([0, 0.5, 2 - 1.5 * 0.5, 3 - 2])


def test_longer_context_and_more_text_cost_fewer_bits():
    train = [d.text.encode() for d in stories.documents(stories.StoriesConfig(documents=300))]
    test = [d.text.encode() for d in stories.documents(stories.StoriesConfig(documents=20, split="test"))]
    cost = [bits_per_byte(KneserNey(order).fit(train), test) for order in (1, 2, 3, 5)]
    assert cost == sorted(cost, reverse=True)
    assert bits_per_byte(KneserNey().fit(train[:30]), test) > cost[-1]
    assert cost[-1] < bits_per_byte(Unigram().fit(train), test) < bits_per_byte(Uniform(), test) == 8


def test_unigram_by_hand():
    # (2 + 1/2) / (3 + 1) and (1 + 1/2) / (3 + 1)
    assert Unigram(2).fit([[0, 0, 1]]).bits([0, 1]) == pytest.approx(-math.log2(2.5 / 4) - math.log2(1.5 / 4))


def test_compressors_agree_with_the_tools():
    documents = [d.text.encode() for d in stories.documents(stories.StoriesConfig(documents=40))]
    text = b"".join(documents)
    # The tools add headers and check sums: 18 bytes (gzip), under 100 (xz).
    assert len(gzip.compress(text, 9)) * 8 == pytest.approx(Gzip().alone(documents), abs=8 * 40)
    assert len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) * 8 == pytest.approx(
        Xz().alone(documents), abs=8 * 120
    )


@pytest.mark.parametrize("compressor", [Gzip, Xz])
def test_training_text_helps_a_compressor(compressor):
    train = [d.text.encode() for d in stories.documents(stories.StoriesConfig(documents=200))]
    test = next(d.text.encode() for d in stories.documents(stories.StoriesConfig(documents=1, split="test")))
    fitted = compressor().fit(train)
    assert fitted.bits(test) < 0.7 * compressor().alone([test])
    assert fitted.bits(train[-1]) < 0.2 * compressor().alone([train[-1]])


def test_misuse_is_named():
    with pytest.raises(NotFitted, match="fit"):
        KneserNey().bits(b"x")
    with pytest.raises(UsageError, match="vocabulary of 4"):
        KneserNey(2, vocabulary=4).fit([[7]])
    with pytest.raises(UsageError, match="empty"):
        KneserNey().fit([b""])
    with pytest.raises(UsageError, match="total_bytes"):
        bits_per_byte(Uniform(4), [[1, 2]])
