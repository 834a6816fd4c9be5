"""Entropy of a language: against Shannon's published numbers, sources whose entropy is known, and hand calculation."""

import io
import json
import math

import numpy as np
import pytest

import groundup
from groundup.base.errors import DataError, UsageError
from groundup.cli import main
from groundup.evaluation.entropy import (
    ALPHABETS,
    bits_per_character,
    block_entropies,
    cross_entropy,
    entropy,
    guess_bounds,
    reduced,
    shares_of,
    word_entropy,
    zipf_entropy,
)
from groundup.evaluation.shannon_game import Game, ModelGuesser, NGramGuesser, play, predictor, ranking, restore
from groundup.models.configs.ngram import ModifiedKneserNey
from groundup.models.ngrams.lookup import log2_probabilities, next_log2
from groundup.models.ngrams.smoothing import smooth


@pytest.mark.row("LM-02", reference="published: Shannon 1951, section 2")
def test_shannons_own_numbers(shared):
    """Alphabets of 26 and 27 letters: F_0 4.70 and 4.76, F_1 4.14 and 4.03; with 27, F_2 3.32."""
    assert round(math.log2(26), 2) == 4.70
    assert block_entropies(ALPHABETS[27] * 3, 1)[0] == pytest.approx(4.76, abs=0.01)
    # his counts were of other English: a tenth of a bit is what authors differ by
    text = reduced((shared / "data/tinyshakespeare.txt").read_text())
    _, f1, f2 = block_entropies(text, 2)
    assert f1 == pytest.approx(4.03, abs=0.1)
    assert f2 == pytest.approx(3.32, abs=0.1)
    assert block_entropies(reduced(text, 26), 1)[1] == pytest.approx(4.14, abs=0.1)


CHAIN = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.25, 0.25]])  # P(next | now)


def stationary():
    values, vectors = np.linalg.eig(CHAIN.T)
    v = vectors[:, np.argmin(abs(values - 1))].real
    return v / v.sum()


def markov(length, seed=0):
    rng, state, found = np.random.default_rng(seed), 0, []
    cumulative = CHAIN.cumsum(1)
    for u in rng.random(length):
        state = int(np.searchsorted(cumulative[state], u))
        found.append(state)
    return "".join("abc"[s] for s in found)


@pytest.mark.row("LM-02", reference="a Markov source, whose entropies are known")
def test_blocks_of_a_known_source():
    p = stationary()
    h = sum(p[i] * entropy(CHAIN[i]) for i in range(3))
    f = block_entropies(markov(60_000), 4)
    assert f[0] == pytest.approx(math.log2(3))
    assert f[1] == pytest.approx(entropy(p), abs=0.01)
    assert f[2:] == pytest.approx([h] * 3, abs=0.01)


def test_blocks_by_hand():
    # "aabab": blocks of two are aa, ab, ba, ab
    assert block_entropies("aabab", 2) == pytest.approx([1, entropy([0.6, 0.4]), 1.5 - entropy([0.6, 0.4])])
    assert block_entropies("ababababa", 3)[2] == pytest.approx(1 - entropy([5 / 9, 4 / 9]), abs=1e-9)
    plain, corrected = (block_entropies("aabab", 1, corrected=c)[1] for c in (False, True))
    assert corrected - plain == pytest.approx(1 / (2 * math.log(2) * 5))
    assert block_entropies([3, 3, 3], 1) == [0, 0]
    with pytest.raises(DataError, match="blocks of 4"):
        block_entropies("abc", 4)


def test_the_correction_brings_short_texts_nearer():
    p = stationary()
    h = sum(p[i] * entropy(CHAIN[i]) for i in range(3))
    plain, corrected = (
        np.mean([block_entropies(markov(200, seed), 3, corrected=c)[3] for seed in range(20)]) for c in (False, True)
    )
    assert abs(corrected - h) < abs(plain - h) / 2


@pytest.mark.row("LM-02", reference="Euler's approximation of harmonic sums")
def test_words_by_zipfs_law():
    """sum of 0.1 / n reaches 1 where ln n + γ + 1 / (2 n) = 10: not at Shannon's 8,727, but at 12,366."""
    bits, words = zipf_entropy()
    assert words == 12366
    assert math.log(words) + 0.5772157 + 1 / (2 * words) == pytest.approx(10, abs=1e-4)
    # -sum p log2 p = log2 10 + 0.1 sum of log2(n) / n, whose ln form is ln(N)^2 / 2 and Stieltjes' -0.0728 about
    expected = math.log2(10) + 0.1 * (math.log(words) ** 2 / 2 - 0.0728158) / math.log(2)
    assert bits == pytest.approx(expected, abs=1e-3)


def test_words():
    assert word_entropy("a b a c".split()) == 1.5
    assert reduced("Don't  STOP — 3 Näpfe!") == "don t stop n pfe"
    assert reduced("Don't stop", 26) == "dontstop"
    with pytest.raises(UsageError, match="26 letters"):
        reduced("a", 28)


@pytest.mark.row("LM-02", reference="hand calculation of Shannon 1951, equation 17")
def test_the_bounds_by_hand():
    """q = (0.8, 0.2): lower 1 (0.6) 0 + 2 (0.2) 1 = 0.4, upper 0.8 log2 1.25 + 0.2 log2 5 = 0.7219."""
    assert guess_bounds([0.8, 0.2]) == pytest.approx((0.4, 0.72193), abs=1e-5)
    for k in (1, 2, 8, 27):  # equally likely letters: both bounds are log2 k
        assert guess_bounds([1 / k] * k) == pytest.approx((math.log2(k), math.log2(k)))
    # 0.5, 0.25, 0.25: 2 x 0 x 1 + 3 x 0.25 log2 3 = 1.1887; 1.5
    assert guess_bounds([0.5, 0.25, 0.25]) == pytest.approx((0.75 * math.log2(3), 1.5))
    assert shares_of([1, 1, 3, 1]) == [0.75, 0, 0.25]
    with pytest.raises(UsageError, match="sum to 1"):
        guess_bounds([0.5, 0.2])
    with pytest.raises(UsageError, match="no guesses"):
        shares_of([])


@pytest.mark.row("LM-02", reference="property: Shannon 1951's theorem")
def test_the_bounds_hold_for_an_ideal_guesser():
    """Whoever names the likeliest letter first: lower <= F_N <= upper, over many sources."""
    rng = np.random.default_rng(0)
    for concentration in (0.1, 0.3, 1.0, 5.0):
        for _ in range(20):
            weights, rows = rng.dirichlet(np.ones(6)), rng.dirichlet(np.full(8, concentration), size=6)
            h = sum(w * entropy(row) for w, row in zip(weights, rows, strict=True))
            q = sum(w * np.sort(row)[::-1] for w, row in zip(weights, rows, strict=True))
            lower, upper = guess_bounds(q)
            assert lower - 1e-9 <= h <= upper + 1e-9


class Ideal:
    """Knows the chain."""

    def probabilities(self, past):
        return CHAIN["abc".index(past[-1])] if past else np.array([1.0, 0, 0])


@pytest.mark.row("LM-02", reference="a Markov source, whose entropies are known")
def test_the_game_brackets_the_entropy_and_the_twin_restores_the_text():
    p = stationary()
    h = sum(p[i] * entropy(CHAIN[i]) for i in range(3))
    game = Game("a" + markov(8_000), "abc", known=1)
    guesses = play(game, Ideal())
    lower, upper = game.bounds()
    assert lower - 0.02 < h < upper + 0.02
    assert upper < entropy(p)
    assert restore(guesses[:200], Ideal(), "abc", known="a") == game.text[:201]
    assert cross_entropy(game.text[1:3000], lambda t: predictor(Ideal(), "abc")("a" + t)) == pytest.approx(h, abs=0.05)


def test_a_game_by_hand():
    game = Game("abba", "abc", known=1)
    assert (game.past, game.guess("c"), game.guess("c"), game.guess("b")) == ("a", False, False, True)
    assert game.guesses == [2]  # the same wrong letter twice is one guess
    assert [game.guess(x) for x in "aba"] == [False, True, True]
    assert (game.guesses, game.over) == ([2, 2, 1], True)
    with pytest.raises(UsageError, match="over"):
        game.guess("a")
    with pytest.raises(UsageError, match="one letter"):
        Game("ab", "ab").guess("x")
    with pytest.raises(UsageError, match="left to guess"):
        Game("ab", "ab", known=2)


@pytest.mark.row("LM-02", reference="log2_probabilities of the same tables")
def test_letters_of_ngrams(shared):
    text = reduced((shared / "data/tinyshakespeare.txt").read_text())
    alphabet, train, test = ALPHABETS[27], text[:60_000], text[60_000:60_300]
    guesser = NGramGuesser(train, alphabet, order=4)
    ids = [alphabet.index(c) for c in train]
    tables = smooth([ids], 4, 27, ModifiedKneserNey())
    known = [alphabet.index(c) for c in text[59_000:60_300]]
    exact = -log2_probabilities(tables, known)[-300:].mean()
    past = predictor(guesser, alphabet)
    assert cross_entropy(test, lambda t: past(text[59_000:60_000] + t)) == pytest.approx(exact, rel=1e-9)
    for context in ([], [5], known[:2], known[:9]):
        p = 2.0 ** next_log2(tables, context, np.arange(27))
        assert p.sum() == pytest.approx(1)
        assert np.log2(p[4]) == pytest.approx(log2_probabilities(tables, [*context, 4])[-1])
    guesses = play(Game(text[59_900:60_100], alphabet, known=100), guesser)
    assert restore(guesses, guesser, alphabet, text[59_900:60_000]) == text[59_900:60_100]
    lower, upper = guess_bounds(shares_of(guesses))
    assert 0.5 < lower < upper < 4
    with pytest.raises(UsageError, match="not in the alphabet"):
        guesser.probabilities("É")


@pytest.mark.row("LM-02", reference="summing the model's own probabilities over all tokens")
def test_a_language_model_guesses_letters():
    """Over characters a letter's share is its token's; with subwords a longer token may stand for those before."""
    model, tokenizer = groundup.load_model("tiny", dtype="float32"), groundup.load_tokenizer("tiny")
    alphabet = ALPHABETS[27]
    guesser = ModelGuesser(model, tokenizer, alphabet)
    past = "one day the fox went to the vil"
    p = guesser.probabilities(past)
    assert p.sum() == pytest.approx(1)
    assert next(ranking(guesser, past, alphabet)) == "l"
    # each way to go on, listed: the last j tokens give way to one that begins with their text and the letter
    import torch

    ids = tokenizer.encode(past)
    texts = [guesser._in_alphabet(tokenizer.decode([id])) for id in range(tokenizer.vocab_size)]
    with torch.no_grad():
        rows = model(torch.tensor([[tokenizer.bos_id, *ids]]))[0].softmax(-1).double().numpy()
    total = np.zeros(27)
    for cut in range(5):
        kept = len(ids) - cut
        weight = math.prod(rows[i, ids[i]] for i in range(len(ids) - 4, kept))
        begin = guesser._in_alphabet(tokenizer.decode(ids[kept:])) if cut else ""
        for token, text in enumerate(texts):
            if text.startswith(begin) and len(text) > len(begin):
                total[alphabet.index(text[len(begin)])] += weight * rows[kept, token]
    np.testing.assert_allclose(p, total / total.sum(), rtol=1e-4, atol=1e-7)
    text = "one spring in the village the fox gave the red ball to anna"
    guesses = play(Game(text, alphabet, known=20), guesser)
    assert guesses.count(1) > len(guesses) * 0.6


@pytest.mark.row("LM-02", reference="perplexity.measure, which is held against transformers")
def test_bits_per_character_under_a_model():
    from groundup.evaluation.perplexity import measure

    model, tokenizer = groundup.load_model("tiny", dtype="float32"), groundup.load_tokenizer("tiny")
    texts = ["One day the fox gave Anna a red ball.", "Ärger im Dörfchen."]
    measured = measure(model, tokenizer, texts)
    characters, size = sum(map(len, texts)), sum(len(t.encode()) for t in texts)
    found = bits_per_character(model, tokenizer, texts)
    assert found == pytest.approx(measured.bits_per_byte * size / characters)
    assert found > measured.bits_per_byte


# -- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("The cat sat on the mat, and the dog sat on the cat. " * 80, encoding="utf-8")
    return str(path)


def test_the_entropy_command(book, capsys):
    assert main(["entropy", book, "--longest", "3", "--model", "tiny", "--measured", "300", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    text = reduced("The cat sat on the mat, and the dog sat on the cat. " * 80)
    assert list(found["bits_per_letter"].values()) == pytest.approx(block_entropies(text, 3))
    assert found["bits_per_word"] == pytest.approx(word_entropy(text.split()))
    assert found["bits_per_character"] == pytest.approx(found["bits_per_byte"])  # ASCII
    assert main(["entropy", "nowhere.txt"]) == 2
    assert "no text at nowhere.txt" in capsys.readouterr().err


def test_a_person_plays(book, capsys, monkeypatch):
    """The passage of seed 0, typed letter by letter with two wrong guesses at the first one, and rubbish between."""
    arguments = ["shannon", book, "--length", "5", "--known", "12", "--json"]
    assert main([*arguments, "--by", "ngram"]) == 0
    machine = json.loads(capsys.readouterr().out)
    assert len(machine["guesses"]) == 5
    letters = machine["text"][12:]
    wrong = [c for c in "zqx" if c != letters[0]][:2]
    typed = [wrong[0], "!!", wrong[1], *letters.replace(" ", "_")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(typed) + "\n"))
    assert main(arguments) == 0
    out = capsys.readouterr()
    person = json.loads(out.out)
    assert person["guesses"] == [3, 1, 1, 1, 1]
    assert person["text"] == machine["text"]
    assert (person["lower"], person["upper"]) == pytest.approx(guess_bounds([0.8, 0, 0.2]))
    assert person["model_bits"] == pytest.approx(machine["model_bits"])
    assert "guess one letter" in out.err
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == {"guesses": []}
    assert main(["shannon", book, "--length", "5000"]) == 2
    assert "twice as many" in capsys.readouterr().err
