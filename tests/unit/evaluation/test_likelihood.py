import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.base.errors import DataError, UsageError
from groundup.evaluation import likelihood as module
from groundup.evaluation.likelihood import encode_pair, loglikelihood, rolling_loglikelihood, windows
from groundup.evaluation.metrics.statistics import bootstrap, mean, ratio_stderr
from groundup.evaluation.perplexity import measure, mix, perplexity
from standin import Bytes, Decay

PAIRS = [
    ("The cat", " sat"),
    ("", "Alone"),
    ("A long context that goes on", " and on and on"),
    ("x", "y"),
    ("ab ", "cd"),
]


@pytest.fixture(scope="module")
def model():
    return Decay()


@torch.no_grad()
def direct(model, ids, start):
    logprobs = model(torch.tensor([ids])).log_softmax(-1)[0]
    return [float(logprobs[t - 1, ids[t]]) for t in range(start, len(ids))]


def test_loglikelihood_by_hand(model):
    for (context, text), got in zip(PAIRS, loglikelihood(model, Bytes(), PAIRS, batch_size=3), strict=True):
        before = [*context.encode()] or [257]
        moved = len(context) - len(context.rstrip())
        expected = direct(model, [*before, *text.encode()], len(before) - moved)
        assert got.token_logprobs == pytest.approx(expected, rel=1e-5)
        assert got.logprob == pytest.approx(sum(expected), rel=1e-5)
        assert got.text_bytes == len(text.encode())


@pytest.mark.parametrize("at_once", [1, 2**24])
def test_batch_and_slices_change_nothing(model, monkeypatch, at_once):
    expected = loglikelihood(model, Bytes(), PAIRS, batch_size=1)
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", at_once)
    for size in (2, 5):
        for got, want in zip(loglikelihood(model, Bytes(), PAIRS, batch_size=size), expected, strict=True):
            assert got.token_logprobs == pytest.approx(want.token_logprobs, rel=1e-5)
            assert got.greedy == want.greedy


def test_greedy(model):
    best = int(model(torch.tensor([[97]]))[0, -1].argmax())
    texts = [chr(best) if best < 128 else "?", "~"]
    got = [found.greedy for found in loglikelihood(model, Bytes(), [("a", text) for text in texts])]
    assert got == [best < 128, False]


def test_too_long_for_the_context():
    model = Decay(limit=8)
    loglikelihood(model, Bytes(), [("abcdef", "ghi")])  # 9 tokens: 8 to read
    with pytest.raises(UsageError, match=r"9 tokens to read.* holds 8"):
        loglikelihood(model, Bytes(), [("abcdef", "ghij")])
    with pytest.raises(UsageError, match="empty"):
        loglikelihood(model, Bytes(), [("abc", "")])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 60), st.integers(1, 20), st.data())
def test_windows_score_every_token_once(length, window, data):
    stride = data.draw(st.integers(1, window))
    found = list(windows(length, window, stride))
    assert [t for _, start, end in found for t in range(start, end)] == list(range(1, length))
    for first, start, end in found:
        assert 0 <= first < start < end
        assert end - 1 - first <= window  # tokens read
        assert first == 0 or end - 1 - first == window  # as much context as there is room for


@pytest.mark.parametrize(("window", "stride"), [(4, 1), (4, 2), (4, 4), (100, 50)])
def test_rolling_by_hand(model, window, stride):
    texts = ["Hello there", "", "ü"]
    got = rolling_loglikelihood(model, Bytes(), texts, window=window, stride=stride, batch_size=2)
    for text, found in zip(texts, got, strict=True):
        ids, expected = [257, *text.encode()], []
        for first, start, end in windows(len(ids), window, stride):
            expected += direct(model, ids[first:end], start - first)
        assert found.token_logprobs == pytest.approx(expected, rel=1e-5)
        assert (found.tokens, found.text_bytes) == (len(ids) - 1, len(text.encode()))
    with pytest.raises(UsageError):
        rolling_loglikelihood(model, Bytes(), texts, window=4, stride=5)


def test_without_a_begin_token_the_code_stays_complete():
    """Summed over all texts of one length, probabilities reach 1."""

    class Three(Bytes):
        vocab_size, special_tokens, eos_id, bos_id = 3, {}, None, None

        def encode_batch(self, texts, **options):
            return [["abc".index(c) for c in text] for text in texts]

    texts = [a + b + c for a in "abc" for b in "abc" for c in "abc"]
    found = rolling_loglikelihood(Decay(vocab=3), Three(), texts, window=2)
    assert math.fsum(math.exp(item.logprob) for item in found) == pytest.approx(1, rel=1e-5)


def test_a_token_across_the_border():
    class Pairs(Bytes):
        def encode(self, text, **options):
            return [
                300 if pair == "bc" else ord(pair[0])
                for pair in text.replace("bc", "\x00").replace("\x00", "bc\n").split("\n")
                if pair
            ]

    span = encode_pair(Pairs(), "b", "c")
    assert (span.ids, span.scored) == ([98, 99], 1)  # not the one token of "bc"


@pytest.mark.row("OBJ-17", reference="published: Stanford CS324, capabilities")
def test_perplexity_counts_branches():
    assert perplexity([math.log(1 / 8)] * 5) == pytest.approx(2**3)
    assert perplexity([math.log(1 / 2)] * 3) == pytest.approx(2)
    assert perplexity([math.log(p) for p in (0.5, 0.25, 0.125)]) == pytest.approx(4)  # 1 / geometric mean


@pytest.mark.row("OBJ-17", reference="property")
def test_one_impossible_token_makes_it_infinite():
    assert perplexity([math.log(0.9)] * 1000 + [-math.inf]) == math.inf
    model = Decay()
    model.lm_head.weight.data *= 0
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(258).index_fill(0, torch.tensor(ord("z")), -math.inf))
    assert measure(model, Bytes(), ["abc"]).perplexity == pytest.approx(257)
    assert measure(model, Bytes(), ["abz"]).perplexity == measure(model, Bytes(), ["abz"]).bits_per_byte == math.inf
    with pytest.raises(DataError):
        perplexity([])


@pytest.mark.row("OBJ-17", reference="property")
@given(st.lists(st.tuples(st.floats(1e-6, 1), st.floats(0, 1)), min_size=1, max_size=20), st.floats(0, 0.99))
def test_mixing_in_noise_costs_little(probabilities, share):
    own = [math.log(p) for p, _ in probabilities]
    noise = [math.log(r) if r > 0 else -math.inf for _, r in probabilities]
    mixed = perplexity(mix(own, noise, share))
    assert mixed <= perplexity(own) / (1 - share) * (1 + 1e-9)


@pytest.mark.row("OBJ-17", reference="published: Stanford CS324, capabilities")
def test_five_percent_noise_costs_about_five_percent():
    own = [math.log(0.1)] * 10
    assert perplexity(mix(own, [-math.inf] * 10, 0.05)) / perplexity(own) == pytest.approx(1 / 0.95)
    assert perplexity(mix([-math.inf], [math.log(0.5)], 0.05)) < math.inf  # and saves from infinity


@pytest.mark.row("EVAL-01", reference="hand calculation")
def test_bits_per_byte_counts_the_text_s_bytes():
    model = Decay()
    model.lm_head.weight.data *= 0  # uniform over 258
    found = measure(model, Bytes(), ["Où ça?", "ab"])
    assert found.perplexity == pytest.approx(258)
    assert found.text_bytes == 10
    assert found.bits_per_byte == pytest.approx(math.log2(258))
    assert found.bits_per_byte_stderr == pytest.approx(0, abs=1e-6)

    class Twice(Bytes):  # another cut of the same text: 2 tokens a byte
        def encode_batch(self, texts, **options):
            return [[i for byte in text.encode() for i in (byte, byte)] for text in texts]

    assert measure(model, Twice(), ["abcd"]).bits_per_byte == pytest.approx(2 * math.log2(258))
    with pytest.raises(DataError):
        measure(model, Bytes(), ["", ""])


def test_standard_errors():
    values = [float(x) for x in torch.randn(400, generator=torch.Generator().manual_seed(0)).exp()]
    got = mean(values)
    tensor = torch.tensor(values, dtype=torch.float64)
    assert got.stderr == pytest.approx(float(tensor.std()) / 20)
    assert bootstrap(values).stderr == pytest.approx(got.stderr, rel=0.1)
    assert ratio_stderr(values, [1.0] * 400) == pytest.approx(got.stderr)
    assert math.isnan(mean([1.0]).stderr)
    assert math.isnan(mean([]).value)
