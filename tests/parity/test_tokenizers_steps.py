"""BPE step by step: worked examples, and the same merges as the fast trainer and the `tokenizers` library."""

import json
from collections import Counter

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from groundup.base.errors import DataError, UsageError
from groundup.tokenizers.bpe_steps import apply_steps, learn_steps, symbols_of, words_of
from groundup.tokenizers.byte_symbols import ALPHABET, to_symbols
from groundup.tokenizers.pretokenize import PreTokenizer
from groundup.tokenizers.training.byte_bpe import train_byte_bpe

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.row("TOK-07", reference="hand calculation")
def test_the_car_the_cat_the_rat():
    trace = learn_steps(words_of(["the car", "the cat", "the rat"]), 3)
    assert [(step.symbol, step.count) for step in trace.steps] == [("th", 3), ("the", 3), ("ca", 2)]
    assert trace.merges == [("t", "h"), ("th", "e"), ("c", "a")]
    assert trace.steps[0].rivals == (("h", "e"),)
    assert dict(trace.steps[2].words) == {("the",): 3, ("ca", "r"): 1, ("ca", "t"): 1, ("r", "a", "t"): 1}
    assert dict(trace.vocabulary) == {"the": 3, "ca": 2, "r": 2, "t": 2, "a": 1}
    assert str(trace.steps[0]) == "t + h -> th (3 times, gone: h; 6 symbols)"


@pytest.mark.row("TOK-07", reference="published: Sennrich et al. 2016, algorithm 1")
def test_low_lower_newest_widest():
    """The paper's own example; it prints these ten merges."""
    words = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    trace = learn_steps(words, 10, end_of_word="own")
    assert [" ".join(pair) for pair in trace.merges] == [
        "e s", "es t", "est </w>", "l o", "lo w", "n e", "ne w", "new est</w>", "low </w>", "w i",
    ]  # fmt: skip
    assert [step.count for step in trace.steps] == [9, 9, 9, 7, 7, 6, 6, 6, 5, 3]
    assert apply_steps(symbols_of("lowest", "own"), trace.merges)[-1] == ("low", "est</w>")


@pytest.mark.row("TOK-08", reference="hand calculation")
def test_hello_world_removes_what_is_used_up():
    trace = learn_steps(words_of(["hello world"]), 100, end_of_word="own")
    start = Counter("helloworld") | Counter({"</w>": 2})
    assert dict(Counter(s for word, n in trace.start.items() for s in word for _ in range(n))) == dict(start)
    first, second, third = trace.steps[:3]
    # h and e occur once each: both are used up. l occurs three times and stays.
    assert (first.symbol, first.count, first.removed) == ("he", 1, ("h", "e"))
    assert dict(first.vocabulary) == {"he": 1, "l": 3, "o": 2, "</w>": 2, "w": 1, "r": 1, "d": 1}
    assert (second.symbol, second.removed, second.vocabulary["l"]) == ("he" + "l", ("he",), 2)
    assert (third.symbol, third.removed, third.vocabulary["l"]) == ("hell", ("he" + "l",), 1)
    # 8 symbols, then a merge adds one and takes away none, one or two.
    sizes = [8, *(len(step.vocabulary) for step in trace.steps)]
    assert all(
        after == before + 1 - len(step.removed)
        for before, after, step in zip(sizes, sizes[1:], trace.steps, strict=False)
    )
    assert dict(trace.vocabulary) == {"hello</w>": 1, "world</w>": 1}
    assert len(trace.steps) == 10
    assert {"l", "o", "</w>", "d", "r", "w"} <= {symbol for step in trace.steps for symbol in step.removed}


@pytest.mark.row("TOK-08", reference="property: frequencies are those of the text")
@QUICK
@given(st.dictionaries(st.text("abc", min_size=1, max_size=7), st.integers(1, 5), min_size=1, max_size=6))
def test_a_symbol_is_in_the_vocabulary_exactly_while_it_occurs(words):
    trace = learn_steps(words, 30, end_of_word="own")
    before = set("</w>".split()) | set("".join(words))
    for step in trace.steps:
        occurring = {symbol for word in step.words for symbol in word}
        assert set(step.vocabulary) == occurring
        assert set(step.removed) == (before | {step.symbol}) - occurring
        assert all(count > 0 for count in step.vocabulary.values())
        before = occurring
        assert sum(step.words.values()) == sum(words.values())


@pytest.mark.row("TOK-08", reference="hand calculation")
def test_the_end_of_a_word_makes_another_symbol():
    trace = learn_steps({"est": 3, "esta": 5}, 2, end_of_word="own")
    assert trace.merges == [("e", "s"), ("es", "t")]
    closed = learn_steps({"est": 5, "esta": 3}, 3, end_of_word="own")
    assert closed.merges[2] == ("est", "</w>")
    assert {"est</w>", "est"} <= set(closed.vocabulary)


def fast(texts, size):
    return train_byte_bpe(texts, size).merges


def slow(texts, steps):
    counts = Counter(to_symbols(piece.encode()) for text in texts for piece in PreTokenizer("gpt2").split(text))
    return learn_steps(counts, steps, ties="ids", order=ALPHABET)


@pytest.mark.row("TOK-07", reference="own: the fast trainer, which equals tokenizers")
def test_equals_the_fast_trainer_on_real_text(shared):
    text = (shared / "data" / "llms-from-scratch" / "the-verdict.txt").read_text(encoding="utf-8")
    assert slow([text], 150).merges == fast([text], 406)


@pytest.mark.row("TOK-07", reference="own: the fast trainer, which equals tokenizers")
@QUICK
@given(st.lists(st.text("ab c", max_size=30), min_size=1, max_size=4).filter(any), st.integers(0, 25))
def test_equals_the_fast_trainer_on_any_text(texts, steps):
    """As long as no symbol comes about in two ways: the fast trainers then count a pair twice."""
    trace = slow(texts, steps)
    symbols = [step.symbol for step in trace.steps]
    if len(set(symbols)) == len(symbols):
        assert trace.merges == fast(texts, 256 + steps)


@pytest.mark.row("TOK-08", reference="tokenizers")
def test_joined_end_of_word_equals_the_library(shared):
    """The library numbers `x</w>` in random order, so that ties are random there: compared up to the first tie."""
    text = (shared / "data" / "llms-from-scratch" / "the-verdict.txt").read_text(encoding="utf-8")
    tokenizer = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=2000, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    theirs = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    trace = learn_steps(words_of([text]), 60, end_of_word="joined")
    certain = next(place for place, step in enumerate(trace.steps) if step.rivals)
    assert certain >= 10
    assert trace.merges[:certain] == theirs[:certain]


@pytest.mark.row("TOK-08", reference="hand calculation")
def test_a_symbol_that_merges_with_itself_is_gone_once():
    step = learn_steps({"aa": 2}, 1).steps[0]
    assert (step.removed, dict(step.vocabulary)) == (("a",), {"aa": 2})
    assert str(step) == "a + a -> aa (2 times, gone: a; 1 symbols)"


def test_wrong_input():
    with pytest.raises(DataError, match="empty"):
        learn_steps({}, 3)
    with pytest.raises(UsageError, match="leave it out"):
        learn_steps({"": 2}, 3)
    with pytest.raises(UsageError, match="0 times"):
        learn_steps({"a": 0}, 3)
    assert learn_steps({"a": 9}, 3).steps == ()
    assert learn_steps({"ab": 1, "cd": 2}, 9, min_frequency=2).merges == [("c", "d")]
