"""The trainable kind `bpe`: the `tokenizers` library's trainer on the same settings, and the teaching version."""

import json

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from groundup.base.errors import DataError, UsageError
from groundup.tokenizers.bpe_steps import learn_steps, words_of
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.registry import BPEConfig
from groundup.tokenizers.training.bpe import alphabet_of, count_words, train_bpe
from nasty_corpus import nasty_lines

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))  # type: ignore[arg-type]
UNK = "<|unk|>"


def library(texts, size, least=0, special=(UNK,)):
    made = tokenizers.Tokenizer(models.BPE(unk_token=UNK, end_of_word_suffix="</w>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoders.BPEDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=least, special_tokens=list(special), end_of_word_suffix="</w>",
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(texts, trainer)
    return made


def model_of(theirs):
    return json.loads(theirs.to_str())["model"]


def merges_of(ours):
    return ours.model.merges


def first_symbols(theirs, texts):
    """The library's own order of the first symbols, in which those that end words come at random."""
    known = set(alphabet_of(count_words(texts)))
    vocab = theirs.get_vocab()
    return sorted(known & set(vocab), key=lambda token: vocab[token])


def same(texts, size, least):
    theirs = library(texts, size, least)
    alphabet = first_symbols(theirs, texts)
    ours = train_bpe(texts, max(size, len(alphabet) + 1), min_frequency=least, alphabet=alphabet)
    assert [list(pair) for pair in merges_of(ours)] == model_of(theirs)["merges"]
    assert dict(ours.vocab) == theirs.get_vocab()
    return theirs, ours


@pytest.mark.row("TOK-08", reference="tokenizers")
def test_training_and_ids_equal_the_library_on_real_text(shared, tmp_path):
    text = (shared / "data" / "tinyshakespeare.txt").read_text(encoding="utf-8")[:300_000]
    theirs, ours = same([text], 2000, 2)
    ours.save_pretrained(tmp_path)
    back = load_tokenizer(tmp_path)
    assert back.fingerprint() == ours.fingerprint()
    for line in [*nasty_lines(shared)[:1500], text[:20_000]]:
        ids = theirs.encode(line).ids
        assert ours.encode(line) == back.encode(line) == ids, line
        assert back.decode(ids) == theirs.decode(ids, skip_special_tokens=False), line


@pytest.mark.row("TOK-08", reference="tokenizers")
@QUICK
@given(
    st.lists(st.text("ab c", max_size=30), min_size=1, max_size=4).filter(lambda texts: any(map(str.strip, texts))),
    st.integers(8, 40),
    st.integers(0, 3),
)
def test_training_equals_the_library_on_any_text(texts, size, least):
    """As long as no symbol comes about in two ways: the library may then hold a merge twice."""
    merges = model_of(library(texts, size, least))["merges"]
    if len({"".join(pair) for pair in merges}) == len(merges):
        same(texts, size, least)


@pytest.mark.row("TOK-08", reference="own: step by step")
def test_equals_the_teaching_version(shared):
    """Ties included: both prefer the older symbols, in the same order."""
    text = (shared / "data" / "llms-from-scratch" / "the-verdict.txt").read_text(encoding="utf-8")
    words = words_of([text])
    trace = learn_steps(words, 200, end_of_word="joined", ties="ids", order=alphabet_of(words))
    ours = train_bpe([text], len(alphabet_of(words)) + 1 + 200)
    assert sum(bool(step.rivals) for step in trace.steps) > 20
    assert merges_of(ours) == trace.merges


@pytest.mark.row("TOK-08", reference="hand calculation")
def test_low_lower_newest_widest():
    texts = ["low " * 5 + "lower " * 2 + "newest " * 6 + "widest " * 3]
    # Without a symbol of its own for the end: "es" 9, "est</w>" 9, "lo" 7, then "ne" before "west</w>" (6 each).
    merges = merges_of(train_bpe(texts, 100))
    assert merges[:4] == [("e", "s"), ("es", "t</w>"), ("l", "o"), ("e", "w")]
    tokenizer = train_bpe(texts, 100)
    assert tokenizer.decode(tokenizer.encode("lowest\n  newel")) == "lowest newe" + UNK
    assert [tokenizer.token(number) for number in tokenizer.encode("newest")] == ["newest</w>"]


def test_from_the_registry(tmp_path):
    config = BPEConfig(vocab_size=300, end_of_word="_", unk=False)
    tokenizer = config.train(["the cat and the hat and the rat\n"] * 3)
    tokenizer.save_pretrained(tmp_path)
    back = load_tokenizer(tmp_path)
    assert back.encode("the hat") == tokenizer.encode("the hat") == [tokenizer.id("the_"), tokenizer.id("hat_")]
    assert (back.bos_id, back.eos_id, back.unk_id) == (0, 0, None)
    assert back.chat_template == tokenizer.chat_template is not None
    assert back.decode(back.encode("the Zat")) == "the at"  # without <|unk|> what is unknown is left out


def test_control_tokens_are_not_learnt():
    tokenizer = train_bpe(["<|x|> <|x|> <|x|>"], 100, ["<|x|></w>", "<|x|>"])
    assert tokenizer.decode(tokenizer.encode("<|x|>")) == "<|x|>"
    assert not set(tokenizer.encode("<|x|>")) & set(tokenizer.special_tokens.values())


def test_wrong_input():
    with pytest.raises(DataError, match="empty"):
        train_bpe([" \n"], 100)
    with pytest.raises(UsageError, match="must be 4 to"):
        train_bpe(["ab"], 3)
    with pytest.raises(UsageError, match="different"):
        train_bpe(["ab"], 100, ["a"])
    with pytest.raises(UsageError, match="different"):
        train_bpe(["ab"], 100, ["<x>", "<x>"])
