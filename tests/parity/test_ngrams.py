"""N-gram smoothing against dictionaries written from the formulas, hand calculation, and numbers of other programs."""

import json
import math
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.base.errors import UsageError
from groundup.estimates.params import count_parameters
from groundup.models.catalogue import config_of_size
from groundup.models.configs import ngram as configs
from groundup.models.configs.ngram import NGramConfig
from groundup.models.hub import load_model
from groundup.models.ngrams.counts import Counts
from groundup.models.ngrams.good_turing import simple_good_turing, turing
from groundup.models.ngrams.lookup import log2_probabilities
from groundup.models.ngrams.smoothing import cut_end, katz_discounts, learned_weights, smooth
from groundup.models.text.ngram import NGramLM

METHODS = {
    "maximum_likelihood": configs.MaximumLikelihood(),
    "laplace": configs.Additive(),
    "lidstone": configs.Additive(k=0.1),
    "jelinek_mercer": configs.JelinekMercer(weight=0.7),
    "witten_bell": configs.WittenBell(),
    "absolute": configs.AbsoluteDiscounting(),
    "absolute 0.3": configs.AbsoluteDiscounting(discount=0.3),
    "katz": configs.Katz(),
    "katz 2": configs.Katz(cutoff=2),
    "good_turing": configs.Katz(cutoff=None),
    "kneser_ney": configs.KneserNey(),
    "kneser_ney 0.6": configs.KneserNey(discount=0.6),
    "modified_kneser_ney": configs.ModifiedKneserNey(),
    "stupid_backoff": configs.StupidBackoff(),
}
every_method = pytest.mark.parametrize("name", METHODS)
NORMALISED = [name for name in METHODS if name != "stupid_backoff"]


class Dictionary:
    """Every method by its formula, one dictionary for each order, recursion for every probability."""

    def __init__(self, documents, order, vocabulary, config):
        self.order, self.vocabulary, self.config = order, vocabulary, config
        grams = [[] for _ in range(order + 1)]
        for document in documents:
            row = ["<s>"] * (order - 1) + list(document)
            for i in range(order - 1, len(row)):
                for k in range(1, order + 1):
                    grams[k].append(tuple(row[i - k + 1 : i + 1]))
        self.raw = {k: Counter(grams[k]) for k in range(1, order + 1)}
        self.counts = dict(self.raw)
        if "kneser_ney" in config.kind:
            for k in range(1, order):
                self.counts[k] = Counter(gram[1:] for gram in self.raw[k + 1])
        self.followers = {k: defaultdict(dict) for k in self.counts}
        for k, counts in self.counts.items():
            for gram, count in counts.items():
                self.followers[k][gram[:-1]][gram[-1]] = count
        self.memory = {}

    def probability(self, word, history, k=None):
        k = self.order if k is None else k
        history = tuple(history[len(history) - k + 1 :]) if k > 1 else ()
        key = (word, history, k)
        if key not in self.memory:
            self.memory[key] = self.compute(word, history, k)
        return self.memory[key]

    def compute(self, word, history, k):
        kind, config = self.config.kind, self.config
        if k == 0:
            return 1 / self.vocabulary
        seen = self.followers[k].get(history, {})
        total, count, types = sum(seen.values()), seen.get(word, 0), len(seen)
        if kind in ("maximum_likelihood", "additive"):
            k_added = getattr(config, "k", 0.0)
            if not total and not k_added:
                return 1 / self.vocabulary
            return (count + k_added) / (total + k_added * self.vocabulary)
        lower = lambda w: self.probability(w, history[1:], k - 1)  # noqa: E731
        if kind == "stupid_backoff":
            return count / total if count else config.alpha * lower(word)
        if not total:
            return lower(word)
        if kind == "jelinek_mercer":
            return config.weight * count / total + (1 - config.weight) * lower(word)
        if kind == "witten_bell":
            return (count + types * lower(word)) / (total + types)
        if kind == "katz":
            return self.katz(word, seen, total, lower, k)
        taken = {w: min(self.discount(c, k), c) for w, c in seen.items()}
        return (count - taken.get(word, 0)) / total + sum(taken.values()) / total * lower(word)

    @cache  # noqa: B019
    def counts_of_counts(self, k):
        return Counter(self.counts[k].values())

    def discount(self, count, k):
        n = self.counts_of_counts(k)
        if getattr(self.config, "discount", None) is not None:
            return self.config.discount
        y = n[1] / (n[1] + 2 * n[2]) if n[1] else 0.5
        if self.config.kind == "modified_kneser_ney" and n[1] and n[2] and n[3]:
            d = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
            i = min(count, 3) - 1
            return min(max(d[i], 0), i + 1)
        return min(y, 0.9)

    def katz(self, word, seen, total, lower, k):
        n = self.counts_of_counts(k)
        y = min(n[1] / (n[1] + 2 * n[2]) if n[1] else 0.5, 0.9)
        by_count = self.katz_discounts(n, y, k)
        p = {w: by_count(c) * c / total for w, c in seen.items()}
        if sum(p.values()) > 1 - 1e-9:
            p = {w: (c - y) / total for w, c in seen.items()}
        room = 1 - sum(lower(w) for w in seen)
        if room < 1e-9:
            return p.get(word, 0) / sum(p.values())
        return p[word] if word in p else (1 - sum(p.values())) / room * lower(word)

    def katz_discounts(self, n, y, k):
        cutoff = self.config.cutoff
        absolute = lambda c: (c - y) / c  # noqa: E731
        if cutoff is None:
            star = good_turing_by_hand(n)
            return lambda c: star[c] / c if 0 < star[c] / c < 1 else absolute(c)
        if any(not n[r] for r in range(1, cutoff + 2)):
            return lambda c: absolute(c) if c <= cutoff else 1.0
        a = (cutoff + 1) * n[cutoff + 1] / n[1]
        d = {r: ((r + 1) * n[r + 1] / n[r] / r - a) / (1 - a) if a < 1 else -1 for r in range(1, cutoff + 1)}
        if all(0 < x < 1 for x in d.values()):
            return lambda c: d.get(c, 1.0)
        return lambda c: absolute(c) if c <= cutoff else 1.0

    def log2(self, document):
        row = ["<s>"] * (self.order - 1) + list(document)
        start = self.order - 1
        p = [self.probability(row[i], row[i - start : i]) for i in range(start, len(row))]
        return [math.log2(x) if x else -math.inf for x in p]


def good_turing_by_hand(n):
    """Gale & Sampson 1995, step by step over a dictionary r -> n_r."""
    rs = sorted(r for r in n if r)
    if len(rs) == 1:
        star = {rs[0]: float(rs[0])}
    else:
        xs, ys = [], []
        for i, r in enumerate(rs):
            q = rs[i - 1] if i else 0
            t = rs[i + 1] if i + 1 < len(rs) else 2 * r - q
            xs.append(math.log(r))
            ys.append(math.log(2 * n[r] / (t - q)))
        mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
        slope = sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / sum((x - mx) ** 2 for x in xs)
        star, on_the_line = {}, False
        for r in rs:
            line = (r + 1) * (1 + 1 / r) ** slope
            if not on_the_line and n.get(r + 1):
                raw = (r + 1) * n[r + 1] / n[r]
                sigma = math.sqrt((r + 1) ** 2 * n[r + 1] / n[r] ** 2 * (1 + n[r + 1] / n[r]))
                on_the_line = abs(raw - line) <= 1.96 * sigma
                star[r] = line if on_the_line else raw
            else:
                on_the_line, star[r] = True, line
    total = sum(r * n[r] for r in rs)
    p0, mass = n.get(1, 0) / total, sum(star[r] * n[r] for r in rs)
    return {r: star[r] * (1 - p0) * total / mass for r in rs}


VERSE = (
    "the king is dead long live the king . the queen is gone and the king is here . who is here ? the king , the queen "
    "and the fool . long live the fool and the queen of the king . the fool is the king of fools . long live the king ."
)


def as_ids(text):
    names = sorted(set(text.split()))
    return [names.index(word) for word in text.split()], len(names)


@pytest.mark.row("LM-01", reference="dictionaries written from the formulas")
@every_method
@pytest.mark.parametrize("order", [1, 2, 4])
def test_every_method_equals_its_formula(name, order):
    ids, words = as_ids(VERSE)
    train, vocabulary = [ids[:20], ids[20:44], ids[44:]], words + 2  # two words are never seen
    test = [ids[::-1], [*ids[10:30], words, 0, words + 1, 3, 4], []]
    theirs = Dictionary(train, order, vocabulary, METHODS[name])
    ours = smooth(train, order, vocabulary, METHODS[name])
    for document in test:
        np.testing.assert_allclose(log2_probabilities(ours, document), theirs.log2(document), rtol=1e-9, atol=1e-12)


@pytest.mark.row("LM-01", reference="dictionaries written from the formulas")
@pytest.mark.parametrize("name", ["katz", "good_turing", "witten_bell", "kneser_ney", "absolute"])
def test_on_real_text_where_no_count_of_counts_is_missing(name, shared):
    text = (shared / "data/tinyshakespeare.txt").read_bytes()
    train, test = [text[:20_000]], text[60_000:60_400]
    theirs = Dictionary(train, 3, 256, METHODS[name])
    np.testing.assert_allclose(
        log2_probabilities(smooth(train, 3, 256, METHODS[name]), test), theirs.log2(test), rtol=1e-9
    )


@pytest.mark.row("LM-01", reference="property: probabilities sum to one")
@pytest.mark.parametrize("name", NORMALISED)
@settings(max_examples=12, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=40), min_size=1, max_size=5),
    context=st.lists(st.integers(0, 5), max_size=6),
    order=st.integers(1, 4),
)
def test_probabilities_sum_to_one(name, documents, context, order):
    model = NGramLM.learn(NGramConfig(vocab_size=6, order=order, smoothing=METHODS[name]), documents)
    p = model(torch.tensor([[5, 5, 5, *context]]))[0, -1].exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    tables = smooth(documents, order, 6, METHODS[name])
    exact = [2.0 ** log2_probabilities(tables, [5, 5, 5, *context, w])[-1] for w in range(6)]
    assert sum(exact) == pytest.approx(1)
    np.testing.assert_allclose(p.detach().numpy(), exact, atol=1e-5)


@pytest.mark.row("LM-01", reference="nltk 3.10.4")
def test_scores_equal_nltks():
    """`tests/data/nltk_ngrams.json` holds text, contexts and nltk.lm's scores; `made_by` tells how."""
    stored = json.loads((Path(__file__).parents[1] / "data/nltk_ngrams.json").read_text())
    names, train = stored["vocabulary"], stored["train"]
    documents = [[names.index(word) for word in sentence] for sentence in train]
    config = {
        "MLE": configs.MaximumLikelihood(),
        "Laplace": configs.Additive(k=1),
        "Lidstone(0.2)": configs.Additive(k=0.2),
        "StupidBackoff(0.4)": configs.StupidBackoff(alpha=0.4),
    }
    checked = 0
    for model, scores in stored["scores"].items():
        tables = smooth(documents, stored["order"], len(names), config[model])
        for context, word, score in scores:
            ours = 2.0 ** log2_probabilities(tables, [names.index(w) for w in [*context, word]])[-1]
            assert ours == pytest.approx(score, rel=1e-9), (model, context, word)
            checked += 1
    assert checked > 300


@pytest.mark.row("LM-01", reference="hand calculation")
def test_katz_by_hand():
    """n1 = 6, n2 = 2, n3 = 1 and cutoff 2: 1* = 2 x 2/6 = 2/3, 2* = 3 x 1/2 = 3/2, A = 3 x 1/6 = 1/2.

    d1 = (2/3 - 1/2) / (1/2) = 1/3,  d2 = (3/4 - 1/2) / (1/2) = 1/2,  d3 = 1
    """
    found = katz_discounts(np.array([1] * 6 + [2] * 2 + [3]), cutoff=2)
    assert found == pytest.approx([0, 1 / 3, 1 / 2, 1])
    assert turing(np.array([0, 6, 2, 1]), np.array([1, 2])) == pytest.approx([2 / 3, 3 / 2])


@pytest.mark.row("LM-01", reference="nltk 3.10.4; Gale & Sampson 1995, step by step")
def test_simple_good_turing():
    stored = json.loads((Path(__file__).parents[1] / "data/nltk_ngrams.json").read_text())["simple_good_turing"]
    n = {int(r): count for r, count in stored["counts_of_counts"].items()}
    counts = np.repeat(list(n), list(n.values()))
    adjusted, p0 = simple_good_turing(counts)
    by_hand = good_turing_by_hand(n)
    assert p0 == pytest.approx(stored["p0"])
    for r in n:
        assert adjusted[r] == pytest.approx(by_hand[r])
    assert sum(adjusted[r] * n[r] for r in n) == pytest.approx((1 - p0) * counts.sum())
    for r, expected in stored["adjusted"].items():
        assert adjusted[int(r)] == pytest.approx(expected, rel=0.01), r


def test_counts_by_hand():
    """The text "abab" and "b": bigrams <s>a, ab, ba, ab, <s>b."""
    counts = Counts([[0, 1, 0, 1], [1]], order=2, vocabulary=2)
    one, two = counts.orders
    assert one.count.tolist() == [2, 3, 0]  # a, b, and the start, which is never predicted
    assert one.left.tolist() == [2, 2, 0]  # a stands behind the start and b; b behind a and the start
    assert {(int(k) // 3, int(k) % 3): int(c) for k, c in zip(two.keys, two.count, strict=True) if c} == {
        (0, 1): 2,
        (1, 0): 1,
        (2, 0): 1,
        (2, 1): 1,
    }


def test_learned_weights_are_a_maximum_of_the_likelihood():
    """Of one order and one class of contexts, λ is a scalar: expectation maximisation finds what a search finds."""
    rng = np.random.default_rng(0)
    train, held_out = rng.integers(0, 4, 64), rng.integers(0, 6, 200)
    counts = Counts([train], order=1, vocabulary=6)
    found = learned_weights(counts, [held_out], rounds=300)[0, 6]  # c(empty context) = 64 = 2^6
    frequency = np.bincount(train, minlength=6) / 64
    grid = np.linspace(0.001, 0.999, 999)
    likelihood = [np.log(w * frequency[held_out] + (1 - w) / 6).sum() + np.log(w * (1 - w)) / 2 for w in grid]
    assert found == pytest.approx(grid[int(np.argmax(likelihood))], abs=2e-3)


def test_learned_weights_beat_fixed_ones_and_rarer_contexts_are_trusted_less(shared):
    text = (shared / "data/tinyshakespeare.txt").read_bytes()
    train, test = [text[:60_000]], text[60_000:70_000]
    cost = {
        w: -log2_probabilities(smooth(train, 4, 256, configs.JelinekMercer(weight=w)), test).mean()
        for w in (None, 0.5, 0.7, 0.9)
    }
    assert cost[None] < min(cost[w] for w in (0.5, 0.7, 0.9))
    begin, end = cut_end([np.frombuffer(text[:60_000], np.uint8).astype(np.int64)], 0.1)
    assert (sum(map(len, begin)), sum(map(len, end))) == (54_000, 6_000)
    weights = learned_weights(Counts(begin, 4, 256), end)
    assert weights[2, 1] < weights[2, 4] < weights[2, 7]


@pytest.mark.row("LM-01", reference="Chen & Goodman 1999: the order of the methods")
def test_the_methods_rank_as_published(shared):
    """Bits a byte of held-out Shakespeare, 5-grams: modified Kneser-Ney first, additive smoothing far behind."""
    text = (shared / "data/tinyshakespeare.txt").read_bytes()
    train, test = [text[:150_000]], text[1_000_000:1_020_000]
    names = ("modified_kneser_ney", "kneser_ney", "katz", "absolute", "laplace")
    cost = {n: -log2_probabilities(smooth(train, 5, 256, METHODS[n]), test).mean() for n in names}
    assert cost["modified_kneser_ney"] < cost["kneser_ney"] < cost["absolute"] < cost["laplace"]
    assert cost["modified_kneser_ney"] < cost["katz"] < cost["laplace"]
    assert 2.8 < cost["modified_kneser_ney"] < 3.05
    assert cost["laplace"] > cost["modified_kneser_ney"] + 1


# -- the model ---------------------------------------------------------------------------------------------------------


@every_method
def test_the_model_equals_the_tables(name):
    ids, words = as_ids(VERSE)
    config = NGramConfig(vocab_size=words, order=3, smoothing=METHODS[name])
    model, tables = NGramLM.learn(config, [ids[:30], ids[30:]]), smooth([ids[:30], ids[30:]], 3, words, METHODS[name])
    text = ids[5:25] + ids[40:20:-1]
    scores = model(torch.tensor([text]))
    ours = scores[0, :-1].gather(1, torch.tensor(text)[1:, None])[:, 0] / math.log(2)
    expected = torch.tensor(log2_probabilities(tables, text))[1:].float()
    torch.testing.assert_close(ours, expected)


def test_state_left_padding_packed_documents_and_files(tmp_path):
    ids, words = as_ids(VERSE)
    config = NGramConfig(vocab_size=words, order=4, kept={"eos_token_id": 0})
    model = NGramLM.learn(config, [ids])
    x = torch.tensor([ids[:12], ids[12:24]])
    whole = model(x)
    state = model.make_state(2, 20)
    parts = [model(x[:, a:b], state=state) for a, b in ((0, 5), (5, 6), (6, 12))]
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    documents = torch.tensor([[0, 0, 0, *[1] * 9], [1] * 12])
    state = model.make_state(2, 20)
    padded = model(x, documents=documents, state=state)
    torch.testing.assert_close(padded[0, 3:], model(x[:1, 3:])[0])
    torch.testing.assert_close(padded[1], whole[1])
    torch.testing.assert_close(model(x[:, :1], state=state)[0, 0], model(torch.cat((x[:1, 3:], x[:1, :1]), 1))[0, -1])
    packed = model(x[:1], documents=torch.tensor([[1] * 5 + [2] * 7]))
    torch.testing.assert_close(packed[:, 5:], model(x[:1, 5:]))
    # an end of text inside a row begins a new document, as padding in front of it would
    ended = x[:1].clone()
    ended[0, 4] = 0
    torch.testing.assert_close(model(ended)[:, 5:], model(x[:1, 5:]))
    model.save_pretrained(tmp_path)
    for dtype in (None, "float32"):
        again = load_model(tmp_path, dtype=dtype)
        assert torch.equal(again(x), whole)
    assert again.config.smoothing == config.smoothing
    assert (again.num_parameters(), again.config.grams) == (model.num_parameters(), model.config.grams)


def test_a_model_without_counts_finds_all_alike():
    model = NGramLM.build(NGramConfig(vocab_size=5, order=3))
    torch.testing.assert_close(model(torch.tensor([[1, 2]])), torch.full((1, 2, 5), -math.log(5)))


def test_what_it_writes_is_made_of_ngrams_it_has_read():
    """Maximum likelihood of order 3: each three tokens in a row stood in the text, or a document began there."""
    from groundup.generation.generate import generate
    from standin import Bytes

    text = (VERSE + " ") * 3
    config = NGramConfig(vocab_size=258, order=3, smoothing=configs.MaximumLikelihood())
    model = NGramLM.learn(config, [text.encode()])
    done = generate(model, Bytes(), ["th", "qu"], max_new_tokens=60, seed=0)
    for prompt, completion in zip(("th", "qu"), done, strict=True):
        written = prompt + completion.text
        assert len(written) == 62
        assert all(written[i : i + 3] in text for i in range(60))


def test_misuse_is_named():
    with pytest.raises(UsageError, match="order >= 1"):
        Counts([[1]], 0, 4)
    with pytest.raises(UsageError, match="vocabulary of 4"):
        smooth([[7]], 2, 4, configs.KneserNey())
    with pytest.raises(UsageError, match="empty"):
        smooth([[]], 2, 4, configs.KneserNey())
    with pytest.raises(UsageError, match="kneser_ney"):
        NGramConfig.parse({"smoothing": {"kind": "kneser_nay"}})


def test_the_largest_published_counts_have_a_shape():
    """Web 1T: a probability an n-gram, a back-off weight a context (all n-grams but the longest, and the empty one)."""
    grams = [13_588_391, 314_843_401, 977_069_902, 1_313_818_354, 1_176_470_663]
    config = config_of_size("web-1t-5gram")
    with torch.device("meta"):
        model = NGramLM(config)
    assert model.num_parameters() == count_parameters(config) == sum(grams) + 1 + sum(grams[:-1])


def test_training_counts_into_a_run_folder(tmp_path, capsys):
    """The loss that the run tells is the tables' on the held-out text; the command line reads the folder again."""
    from groundup.cli import main

    (tmp_path / "text.txt").write_text(VERSE * 30, encoding="utf-8")
    out = tmp_path / "run"
    words = ["train", "--model.model_type", "ngram", "--model.order", "4", "--model.smoothing.kind", "witten_bell"]
    words += ["--tokenizer.kind", "characters", "--tokenizer.special_tokens", "<|endoftext|>", "--threads", "1"]
    words += ["--data.source", str(tmp_path / "text.txt"), "--data.split.method", "tail", "--out-dir", str(out)]
    assert main([*words, "--data.split.validation", "0.2", "--sample-tokens", "12", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    text = (VERSE * 30).encode()
    cut = text[: round(len(text) * 0.8)]
    assert 0 < summary["validation_loss"] < 0.6
    assert summary["state"] == "finished"
    model = load_model(out / "final")
    assert model.config.smoothing == configs.WittenBell()
    assert (out / "report.html").is_file()
    assert len((out / "samples.jsonl").read_text().splitlines()) == 1
    assert abs(model.lm_head.orders[0].keys.numel() - len(set(cut))) <= 3  # its characters, the start, the end of text
    assert main(["generate", str(out / "final"), "the k", "--max-new-tokens", "8", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["completions"][0]["text"]) == 8
    assert main(["evaluate", str(out / "final"), str(tmp_path / "text.txt"), "--json"]) == 0
    assert main([*words, "--resume", "none"]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert main([*words, "--init-from", str(out / "final"), "--out-dir", str(tmp_path / "b")]) == 2
    assert "all of its text at once" in capsys.readouterr().err
