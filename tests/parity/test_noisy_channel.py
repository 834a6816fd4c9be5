"""The noisy channel: its probabilities, its decoder against trying everything, and real text garbled and mended."""

import io
import itertools
import json
import math

import pytest

from groundup.base.errors import UsageError
from groundup.cli import main
from groundup.generation.noisy_channel import (
    Corrector,
    EditChannel,
    corrupted,
    keyboard_channel,
    learn_channel,
    sentences,
)
from groundup.generation.noisy_channel.decoder import judged
from groundup.generation.noisy_channel.edits import BEGIN, LETTERS, Edit, edits

TEXT = sentences(
    "the king is here. the king is dead. kings are here. the cat is in the kin. the kin is there. a cat. " * 3
)


@pytest.mark.row("LM-03", reference="Kernighan, Church & Gale 1990: the edits of acress")
def test_the_edits_of_a_published_example():
    """`acress` may have been actress, cress, caress, access, across or acres: each a single edit of the word."""
    meant = {
        "actress": Edit("delete", "c", "t"),
        "cress": Edit("insert", BEGIN, "a"),
        "caress": Edit("exchange", "c", "a"),
        "access": Edit("replace", "c", "r"),
        "across": Edit("replace", "o", "e"),
        "acres": Edit("insert", "s", "s"),
    }
    for word, edit in meant.items():
        assert edit in [e for e, typed in edits(word) if typed == "acress"], word
    assert meant.keys() <= keyboard_channel().sources("acress")
    assert [e for e, typed in edits("acres") if typed == "acress"] == [
        Edit("insert", "e", "s"),
        Edit("insert", "s", "s"),
    ]


def test_every_edit_by_hand():
    found = {(tuple(edit), typed) for edit, typed in edits("ab", "abc")}
    assert found == {
        *((("insert", BEGIN, y), y + "ab") for y in "abc"),
        *((("insert", "a", y), "a" + y + "b") for y in "abc"),
        *((("insert", "b", y), "ab" + y) for y in "abc"),
        (("delete", BEGIN, "a"), "b"),
        (("delete", "a", "b"), "a"),
        *((("replace", "a", y), y + "b") for y in "bc"),
        *((("replace", "b", y), "a" + y) for y in "ac"),
        (("exchange", "a", "b"), "ba"),
    }


@pytest.mark.row("LM-03", reference="property: a distribution over what is typed, and its inverse")
@pytest.mark.parametrize("channel", [keyboard_channel(0.2), EditChannel(0.3)], ids=["keyboard", "uniform"])
def test_what_the_channel_gives_sums_to_one_and_is_found_again(channel):
    for word in ("a", "the", "balloon", "don't"):
        outcomes = {typed: channel.probability(typed, word) for typed in channel.outcomes(word)}
        assert sum(outcomes.values()) + channel.probability(word, word) == pytest.approx(1)
        assert channel.probability("qqqqqqq", word) == 0
        for typed in list(outcomes)[::7]:
            assert word in channel.sources(typed) or not typed
    with pytest.raises(UsageError, match="above 0"):
        EditChannel(0.0)


@pytest.mark.row("LM-03", reference="hand calculation")
def test_confusions_are_counted_and_ambiguous_ones_shared():
    """Of 10 words one lost its second letter: e after h of "the". A letter lost from "aab" is either of two."""
    channel = learn_channel([("th", "the")] + [("the", "the")] * 9, prior=1e-6)
    assert channel.rate == 0.1
    assert channel.weights[Edit("delete", "h", "e")] == pytest.approx(0.1, rel=1e-3)  # 1 of 10 times "he"
    assert channel.probability("th", "the") == pytest.approx(0.1, rel=1e-3)
    assert channel.probability("te", "the") < 1e-4
    pairs = [("ab", "aab")] * 2 + [("aab", "aab")] * 8
    shared = learn_channel(pairs, rounds=1, prior=1e-6).weights
    assert shared[Edit("delete", BEGIN, "a")] == pytest.approx(shared[Edit("delete", "a", "a")], rel=1e-3)
    # where words are seen to lose an a at their begin, that explains the ambiguous ones too
    told = learn_channel([*pairs, *[("b", "ab")] * 5, *[("ab", "ab")] * 5], rounds=8, prior=1e-6).weights
    assert told[Edit("delete", BEGIN, "a")] > 5 * told[Edit("delete", "a", "a")]
    with pytest.raises(UsageError, match="some differ and some agree"):
        learn_channel([("a", "a")])


@pytest.mark.row("LM-03", reference="the channel that garbled")
def test_a_channel_is_learned_from_what_it_garbled(shared):
    """The weights of common edits come back in their order: neighbours on the keyboard before strangers."""
    words = [w for s in sentences((shared / "data/tinyshakespeare.txt").read_text()[:200_000]) for w in s]
    true = keyboard_channel(0.3)
    learned = learn_channel(zip(corrupted(words, true, seed=0), words, strict=True))
    assert learned.rate == pytest.approx(0.3, abs=0.02)
    for x, near, far in (("e", "r", "p"), ("t", "y", "m"), ("o", "i", "z"), ("a", "s", "j")):
        assert learned.weight(Edit("replace", x, near)) > 5 * learned.weight(Edit("replace", x, far))
    for word, typed in (("the", "teh"), ("the", "thw"), ("what", "whst"), ("have", "hve")):
        ratio = learned.probability(typed, word) / true.probability(typed, word)
        assert 1 / 3 < ratio < 3, (word, typed)


@pytest.mark.row("LM-03", reference="all sentences tried")
@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_decoder_finds_what_trying_everything_finds(order):
    corrector = Corrector(TEXT, keyboard_channel(0.2), order, beam=None)
    for typed in (["thw", "kimg", "is", "hete"], ["the", "kin", "os", "dad"], ["q", "cta"], ["king"]):
        choices = [[word for word, _ in corrector.candidates(t)] for t in typed]
        every = {words: corrector.log2(words, typed) for words in itertools.product(*choices)}
        found = corrector.decode(typed)
        assert -found.bits == pytest.approx(max(every.values()))
        assert every[tuple(found.words)] == pytest.approx(max(every.values()))
        assert found.candidates == list(map(len, choices))


@pytest.mark.row("LM-03", reference="hand calculation of P(w) P(typed | w)")
def test_context_decides_between_words():
    """`kin` is a word, and so is king: alone it stays; before `is dead`, in this text, the king is meant."""
    corrector = Corrector(TEXT, keyboard_channel(0.6), order=3)
    assert corrector.decode(["the", "kin", "is", "dead"]).words == ["the", "king", "is", "dead"]
    assert corrector.decode(["in", "the", "kin"]).words == ["in", "the", "kin"]
    words, typed = ["the", "king"], ["thw", "king"]
    said = [corrector.number[w] for w in words]
    from groundup.models.ngrams.lookup import log2_probabilities

    expected = log2_probabilities(corrector.language, said).sum()
    expected += math.log2(corrector.channel.probability("thw", "the")) + math.log2(0.4)
    assert corrector.log2(words, typed) == pytest.approx(expected)
    assert corrector.decode(["zzyzx"]).words == ["zzyzx"]  # nothing known is near: it stays
    assert corrector.decode([]).words == []


@pytest.mark.row("LM-03", reference="held-out Shakespeare, garbled by a known channel; unigrams and no language model")
def test_garbled_shakespeare_is_mended(shared):
    """15 % of held-out words are garbled; the channel is learned from garbled text, the language from the rest."""
    text = sentences((shared / "data/tinyshakespeare.txt").read_text())
    cut, true = int(len(text) * 0.9), keyboard_channel(0.15)
    train, meant = text[:cut], text[cut : cut + 120]
    pairs = [p for n, words in enumerate(train[:1500]) for p in zip(corrupted(words, true, n), words, strict=True)]
    learned = learn_channel(pairs)
    typed = [corrupted(words, true, 10**6 + n) for n, words in enumerate(meant)]
    flat = lambda rows: [word for row in rows for word in row]  # noqa: E731
    results = {}
    for name, channel, order in (("unigrams, any edit", EditChannel(0.15), 1), ("bigrams, learned", learned, 2)):
        corrector = Corrector(train, channel, order)
        decoded = [corrector.decode(words).words for words in typed]
        results[name] = judged(flat(meant), flat(typed), flat(decoded))
    plain, full = results.values()
    assert 0.82 < full["right_before"] < 0.92
    assert full["right_after"] > 0.94  # measured: 0.96 of 1,600 words
    assert full["mended"] > 0.72  # measured: 0.82
    assert full["spoilt"] < 0.03
    assert full["mended"] > plain["mended"] + 0.05
    assert full["right_after"] > plain["right_after"]


def test_judged_by_hand():
    found = judged(["a", "b", "c", "d"], ["a", "x", "y", "d"], ["a", "b", "z", "e"])
    assert found == {"words": 4, "right_before": 0.5, "right_after": 0.5, "mended": 0.5, "spoilt": 0.5}


def test_the_same_seed_garbles_alike_and_letters_stay_letters():
    words = ["hello", "world", "again"] * 20
    channel = keyboard_channel(0.5)
    assert corrupted(words, channel, 1) == corrupted(words, channel, 1) != corrupted(words, channel, 2)
    assert set("".join(corrupted(words, channel, 1))) <= set(LETTERS)
    assert 0.3 < sum(a != b for a, b in zip(words, corrupted(words, channel, 1), strict=True)) / 60 < 0.7


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(". ".join(" ".join(words) for words in TEXT * 4) + ".", encoding="utf-8")
    return path


def test_the_command_corrects(book, tmp_path, capsys, monkeypatch):
    assert main(["correct", "The", "kimg", "is", "hete", "--source", str(book), "--json"]) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["sentences"][0]["corrected"] == ["the", "king", "is", "here"]
    monkeypatch.setattr("sys.stdin", io.StringIO("the cta is deaf.\nthe kin\n"))
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("cta\tcat\ndead\tdead\nteh\tthe\nthe\tthe\ndeaf\tdead\n", encoding="utf-8")
    assert main(["correct", "-", "--source", str(book), "--pairs", str(pairs), "--json"]) == 0
    found = [s["corrected"] for s in json.loads(capsys.readouterr().out)["sentences"]]
    assert found[0] == ["the", "cat", "is", "dead"]
    assert len(found) == 2
    pairs.write_text("just one word\n", encoding="utf-8")
    assert main(["correct", "a", "--source", str(book), "--pairs", str(pairs)]) == 2
    assert "line 1" in capsys.readouterr().err


def test_the_command_measures_itself(book, capsys):
    assert main(["correct", "--source", str(book), "--held-out", "30", "--rate", "0.3", "--json"]) == 0
    measures = json.loads(capsys.readouterr().out)["measures"]
    assert measures.keys() == {"1-grams", "3-grams"}
    assert measures["3-grams"]["right_after"] > measures["3-grams"]["right_before"]
    assert main(["correct", "--source", "nowhere.txt"]) == 2
    assert "no text at nowhere.txt" in capsys.readouterr().err
