"""Unigram: worked numbers, all cuts counted out, sampling, training by hand and against the fast trainer."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.base.errors import CheckpointError, DataError, UsageError
from groundup.tokenizers import unigram_steps as steps
from groundup.tokenizers.training.unigram import (
    UnigramSettings,
    UnigramTrainer,
    digamma,
    finished,
    learn_pieces,
    seed_pieces,
)
from groundup.tokenizers.unigram import UnigramModel

ABABC = UnigramModel([("ab", math.log(2 / 3)), ("c", math.log(1 / 3))])
SMALL = [("a", -1.5), ("b", -2.0), ("ab", -2.5), ("ba", -3.1), ("aba", -3.6), ("<unk>", -9.0)]


def all_cuts(text, pieces):
    """Every way to cut `text`, with its log-probability."""
    for size in range(len(text)):
        for borders in itertools.combinations(range(1, len(text)), size):
            parts = [text[i:j] for i, j in itertools.pairwise([0, *borders, len(text)])]
            if all(part in pieces for part in parts):
                yield tuple(parts), sum(pieces[part] for part in parts)


@pytest.mark.row("TOK-14", reference="hand calculation")
def test_the_worked_number():
    # P(ab) P(ab) P(c) = 2/3 2/3 1/3, and there is no other way.
    assert math.exp(ABABC.log_likelihood("ababc")) == pytest.approx(4 / 27)
    assert ABABC.cut("ababc") == [(0, 2), (0, 4), (1, 5)]
    assert steps.forward("ababc", {"ab": 2 / 3, "c": 1 / 3})[-1] == pytest.approx(4 / 27)


@pytest.mark.row("TOK-14", reference="hand calculation")
@given(text=st.text("ab", min_size=1, max_size=9))
def test_all_cuts_counted_out(text):
    model, pieces = UnigramModel(SMALL, 5), dict(SMALL[:5])
    cuts = sorted(all_cuts(text, pieces), key=lambda cut: -cut[1])
    assert model.log_likelihood(text) == pytest.approx(math.log(sum(math.exp(score) for _, score in cuts)))
    found = model.n_best(text, 4)
    assert [score for _, score in found] == pytest.approx([score for _, score in cuts[:4]])
    spelled = [[model.pieces[number][0] for number, _ in cut] for cut, _ in found]
    for parts, (_, score) in zip(spelled, found, strict=True):
        assert "".join(parts) == text
        assert sum(pieces[part] for part in parts) == pytest.approx(score)
    assert len({tuple(parts) for parts in spelled}) == len(spelled)
    best = sum(pieces[model.pieces[number][0]] for number, _ in model.cut(text))
    assert best == pytest.approx(cuts[0][1])


@pytest.mark.row("TOK-14", reference="hand calculation")
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_samples_follow_the_tempered_distribution(alpha):
    model, generator = UnigramModel(SMALL, 5), random.Random(7)
    weights = {parts: math.exp(alpha * score) for parts, score in all_cuts("ababa", dict(SMALL[:5]))}
    total, draws = sum(weights.values()), 6000
    drawn = Counter(
        tuple(model.pieces[number][0] for number, _ in model.sample("ababa", alpha, generator)) for _ in range(draws)
    )
    assert set(drawn) <= set(weights)
    # Pearson's statistic has mean n - 1 and variance 2 (n - 1): five standard deviations.
    statistic = sum((drawn[cut] - draws * w / total) ** 2 / (draws * w / total) for cut, w in weights.items())
    freedom = len(weights) - 1
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)


def test_unknown_characters():
    pieces = [("<unk>", 0.0), ("a", -1.0), ("b", -2.0)]
    assert UnigramModel(pieces, 0).cut("aéé中b") == [(1, 1), (0, 4), (2, 5)]
    assert UnigramModel(pieces, 0, fuse_unk=False).cut("éé") == [(0, 1), (0, 2)]
    with_bytes = UnigramModel([*pieces, *((f"<0x{byte:02X}>", -5.0) for byte in range(256))], 0, byte_fallback=True)
    assert with_bytes.cut("aé") == [(1, 1), (3 + 0xC3, 2), (3 + 0xA9, 2)]
    with pytest.raises(UsageError, match="no unknown token"):
        UnigramModel(pieces).cut("aéb")
    with pytest.raises(CheckpointError, match="finite"):
        UnigramModel([("a", math.nan)])
    with pytest.raises(CheckpointError, match="unk_id 3"):
        UnigramModel(pieces, 3)


@pytest.mark.timeout(60)
def test_time_is_linear_in_the_text():
    model = UnigramModel([("<unk>", 0.0), *(("a" * n, -0.5 - n / 10) for n in range(1, 5))], 0)
    assert model.cut("a" * 1_000_000)[-1] == (4, 1_000_000)
    assert model.cut("e" + "\u0301" * 100_000) == [(0, 100_001)]
    assert math.isfinite(model.log_likelihood("a" * 100_000))


WORDS = st.dictionaries(st.text("abc", min_size=1, max_size=7), st.integers(1, 9), min_size=1, max_size=8)


@pytest.mark.row("TOK-14", reference="property")
@settings(deadline=None)
@given(words=WORDS)
def test_em_never_lowers_the_likelihood(words):
    pieces, before = steps.all_substrings(words), -math.inf
    for _ in range(5):
        now = steps.log_likelihood(words, pieces)
        assert now >= before - 1e-9 * abs(now)
        before, pieces = now, steps.em_step(words, pieces)
    trainer = UnigramTrainer(
        words, {piece: math.log(p) for piece, p in steps.all_substrings(words).items()}, UnigramSettings(bayesian=False)
    )
    likelihoods = [trainer.step() for _ in range(5)]
    assert all(later >= earlier - 1e-9 * abs(earlier) for earlier, later in itertools.pairwise(likelihoods))
    assert likelihoods[-1] == pytest.approx(before)


@settings(deadline=None)
@given(words=WORDS)
def test_fast_and_textbook_expectations_agree(words):
    pieces = steps.all_substrings(words)
    trainer = UnigramTrainer(words, {piece: math.log(p) for piece, p in pieces.items()})
    likelihood, counts = trainer.expected_counts()
    assert likelihood == pytest.approx(steps.log_likelihood(words, pieces))
    expected = steps.expected_counts(words, pieces)
    assert dict(zip(trainer.names, counts, strict=True)) == pytest.approx(expected, abs=1e-9)
    best = Counter()
    for word, count in words.items():
        assert math.prod(pieces[piece] for piece in steps.best_cut(word, pieces)) > 0
        best.update({piece: n * count for piece, n in Counter(steps.best_cut(word, pieces)).items()})
    # Cuts may be equally good, so what is compared is how good they are.
    theirs = sum(n * math.log(pieces[piece]) for piece, n in best.items())
    assert trainer.best_counts() @ trainer.log_p == pytest.approx(theirs)


@pytest.mark.row("TOK-14", reference="hand calculation")
def test_one_round_by_hand():
    # "ab" twice. Pieces a, b, ab begin with 2/6 each. P(ab) = 1/3 + 1/3 1/3 = 4/9, of which "ab" whole has 3/4.
    words = {"ab": 2}
    pieces = steps.all_substrings(words)
    assert pieces == pytest.approx({"a": 1 / 3, "ab": 1 / 3, "b": 1 / 3})
    assert steps.expected_counts(words, pieces) == pytest.approx({"a": 0.5, "b": 0.5, "ab": 1.5})
    after = steps.em_step(words, pieces)
    assert after == pytest.approx({"a": 0.2, "b": 0.2, "ab": 0.6})
    # Without "ab": a and b have 1/2 each, P = 1/4. With it P = 0.6 + 0.04.
    assert steps.loss(words, after, "ab") == pytest.approx(2 * math.log(0.64 / 0.25))


@pytest.mark.row("TOK-14", reference="hand calculation")
def test_four_fifths_are_kept_each_round():
    words = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}
    rounds = list(steps.learn(words, size=9, keep=0.8))
    sizes = [len(each.probabilities) for each in rounds]
    # 17 substrings of these words (with no b, u, g, ... missing); each round keeps ceil(0.8 n), until 9 are left.
    wanted = [sizes[0]]
    while wanted[-1] > 9:
        wanted.append(max(9, math.ceil(0.8 * wanted[-1])))
    assert sizes == wanted
    assert set("hugpnbs") <= set(rounds[-1].probabilities)
    for each in rounds[:-1]:
        gone = {each.losses[piece] for piece in each.removed}
        left = {loss for piece, loss in each.losses.items() if piece not in each.removed}
        assert max(gone) <= min(left, default=math.inf)


def test_digamma_and_seeds():
    from scipy.special import digamma as reference

    points = np.array([0.5, 1.0, 3.3, 6.9, 7.0, 100.0, 1e7])
    np.testing.assert_allclose(digamma(points), reference(points), atol=1e-9)
    words = {"abab": 3, "xab": 1, "cd": 1, "cde": 1, "cdf": 2}
    seeds = seed_pieces(words, UnigramSettings(), frozenset("abcdefx"))
    # "ab" stands in three places and "cd" in three; "a" is always followed by "b", but characters are always in.
    assert set(seeds) == {*"abcdefx", "ab", "cd"}
    assert sum(math.exp(score) for score in seeds.values()) == pytest.approx(1)
    assert seeds["ab"] == seeds["cd"]


def test_required_characters_and_size():
    words = {"abc": 5, "abe": 4, "ac": 3}
    pieces = learn_pieces(words, 5)
    assert {"a", "b", "c", "e"} <= {piece for piece, _ in pieces}
    assert len(pieces) == 5
    assert [score for _, score in pieces] == sorted((score for _, score in pieces), reverse=True)
    assert dict(finished({"a": -1.0, "ab": -2.0}, ["a", "z"], 2)) == {"a": -1.0, "z": -2.0}
    calls = []
    learn_pieces({"the" * 3: 2, "then": 4, "hen": 3}, 5, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (5, 5)
    with pytest.raises(UsageError, match="cannot hold the 4 required"):
        learn_pieces(words, 3)
    with pytest.raises(DataError, match="empty"):
        learn_pieces({}, 10)
    with pytest.raises(UsageError, match="keep"):
        learn_pieces(words, 5, UnigramSettings(keep=1.0))


def test_progress_is_even_and_reaches_the_end():
    """No step of more than a tenth, though the first round holds most of the work, and EM drops pieces of its own."""
    generator, told = random.Random(5), []
    words = Counter("".join(generator.choices("aabbcdefgh", k=generator.randint(3, 12))) for _ in range(3000))
    learn_pieces(words, 300, progress=lambda done, total: told.append((done, total)))
    assert {total for _, total in told} == {300}
    done = [0, *(done for done, _ in told)]
    assert done[-1] == 300
    steps = [after - before for before, after in itertools.pairwise(done)]
    assert min(steps) >= 0
    assert max(steps) <= 30
    assert 500 < len(told) < 3000


def test_progress_where_nothing_is_to_be_let_go():
    told = []
    learn_pieces({"ab": 2, "ba": 1}, 50, progress=lambda *both: told.append(both))
    assert told[-1] == (50, 50)


def some_words(seed, letters="abc", count=25):
    generator = random.Random(seed)
    words = {"".join(generator.choices(letters, k=generator.randint(1, 8))) for _ in range(count)}
    return {word: generator.randint(1, 9) for word in sorted(words)}


@pytest.mark.parametrize("seed", range(5))
def test_seeds_are_the_repeated_substrings_that_go_on_in_several_ways(seed):
    """Counted out: places among the different words, times length; one always followed by one letter is left out."""
    words, found = some_words(seed), {}
    places = Counter(word[i:j] for word in words for i in range(len(word)) for j in range(i + 2, len(word) + 1))
    for piece, count in places.items():
        after = {(word + "$")[i + len(piece)] for word in words for i in range(len(word)) if word.startswith(piece, i)}
        if count > 1 and (len(after) > 1 or "$" in after):
            found[piece] = count * len(piece)
    letters = Counter()
    for word, count in words.items():
        letters.update({letter: n * count for letter, n in Counter(word).items()})
    for seeds in (1000, 3 + len(found) // 2):
        best = sorted(found.items(), key=lambda item: (-item[1], item[0]))[: seeds - len(letters)]
        expected = dict(letters) | dict(best)
        total = sum(expected.values())
        ours = seed_pieces(words, UnigramSettings(seeds=seeds), frozenset("abc"))
        assert ours == pytest.approx({piece: math.log(n / total) for piece, n in expected.items()})


@pytest.mark.parametrize("seed", range(8))
def test_pruning_lets_go_of_the_pieces_whose_loss_costs_least(seed):
    """All cuts counted out: a piece's uses go to its second best cut, weighed by the words whose best cut has it."""
    words = some_words(seed)
    generator = random.Random(seed)
    names = [*"abc", *{word[i:j] for word in words for i in range(len(word)) for j in range(i + 2, i + 4) if j <= 8}]
    pieces = {name: -generator.uniform(1, 4) * len(name) ** 0.5 for name in sorted(set(names))}
    best = {word: max(all_cuts(word, pieces), key=lambda cut: cut[1])[0] for word in words}
    counts = Counter()
    for word, count in words.items():
        counts.update({piece: n * count for piece, n in Counter(best[word]).items()})
    total, text = counts.total(), sum(words.values())
    always, losses = [], {}
    for piece in pieces:
        cuts = [cut for cut, _ in sorted(all_cuts(piece, pieces), key=lambda cut: -cut[1])]
        if len(cuts) == 1:
            always.append(piece)
        elif cuts[0] == (piece,) and counts[piece]:
            after = math.log(total + counts[piece] * (len(cuts[1]) - 1))
            instead = sum(math.log(counts[other] + counts[piece]) - after for other in cuts[1])
            share = sum(count for word, count in words.items() if piece in best[word]) / text
            losses[piece] = share * (math.log(counts[piece]) - math.log(total) - instead)
    assert set(always) == set("abc")
    order = sorted(losses, key=lambda piece: -losses[piece])
    assert len(order) > 8
    for size in range(3, 3 + len(order)):
        trainer = UnigramTrainer(words, pieces)
        trainer.prune(size)
        assert set(trainer.names) == {*always, *order[: size - 3]}


def test_required_characters_that_em_dropped_come_last():
    scores = {"a": -1.0, "bc": -2.0, "d": -1.5}
    assert finished(scores, ["x", "a", "y"], 4) == [("a", -1.0), ("d", -1.5), ("y", -1.9999), ("x", -2.0)]
