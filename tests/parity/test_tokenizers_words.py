"""Words: where spaces fail, the book's tokenizers on the book's story, one-hot coding."""

import itertools
import json
import re

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.base.errors import DataError, UsageError
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.one_hot import from_one_hot, one_hot
from groundup.tokenizers.registry import WordsConfig
from groundup.tokenizers.words import (
    END_OF_TEXT,
    FAILURES,
    SIGNS_FIRST_PRINTING,
    UNKNOWN,
    SimpleTokenizerV1,
    SimpleTokenizerV2,
    UnknownWord,
    build_vocabulary,
    coverage,
    cut_words,
    split_on_spaces,
    train_words,
)

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def verdict(shared):
    text = (shared / "data" / "llms-from-scratch" / "the-verdict.txt").read_text(encoding="utf-8")
    assert len(text) == 20_479
    return text


@pytest.mark.row("TOK-01", reference="str.split")
@given(st.text(max_size=40))
def test_splitting_at_spaces_and_back(text):
    assert split_on_spaces(text) == text.split(" ")
    assert " ".join(split_on_spaces(text)) == text


@pytest.mark.row("TOK-01", reference="hand calculation")
def test_where_spaces_fail():
    words = {failure.text: failure.words for failure in FAILURES}
    assert words["今天天气很好"] == ["今天天气很好"]  # Chinese: one word
    assert words["Abwasserbehandlungsanlage"] == ["Abwasserbehandlungsanlage"]  # a German compound: one word
    assert words["don't"] == ["don't"]  # two words written as one
    assert words["Stop. Go!"] == ["Stop.", "Go!"]
    assert words["a  b"] == ["a", "", "b"]
    for failure in FAILURES:
        assert failure.words != list(failure.wanted)
        assert failure.why


@pytest.mark.row("TOK-01", reference="hand calculation")
def test_compounds_are_unknown_though_their_parts_are_known():
    vocab = build_vocabulary(split_on_spaces("Abwasser behandlungs anlage don t"))
    assert coverage(vocab, split_on_spaces("Abwasserbehandlungsanlage don't")).rate == 1.0


@pytest.mark.row("TOK-02", reference="published: Raschka 2024, chapter 2 (both printings)")
def test_counts_on_the_story(verdict):
    words, first = cut_words(verdict), cut_words(verdict, SIGNS_FIRST_PRINTING)
    assert (len(words), len(build_vocabulary(words))) == (4690, 1130)
    assert (len(first), len(build_vocabulary(first))) == (4649, 1159)
    assert len(build_vocabulary(words, [END_OF_TEXT, UNKNOWN])) == 1132
    assert len(build_vocabulary(first, [END_OF_TEXT, UNKNOWN])) == 1161
    vocab = build_vocabulary(words)
    assert (vocab["!"], vocab['"'], vocab["Her"], vocab["Hermia"]) == (0, 1, 49, 50)


@pytest.mark.row("TOK-02", reference="the book's expression through re")
def test_words_are_those_of_the_books_expression(verdict, shared):
    def book(text, signs):
        return [word.strip() for word in re.split(rf"({signs}|\s)", text) if word.strip()]

    shakespeare = (shared / "data" / "tinyshakespeare.txt").read_text()[:200_000]
    for text in (verdict, shakespeare, "a--b ---c d'e (f)?! \t g_h\n", ""):
        assert cut_words(text) == book(text, r"""[,.:;?_!"()\']|--""")
        assert cut_words(text, SIGNS_FIRST_PRINTING) == book(text, r"""[,.?_!"()\']|--""")


@pytest.mark.row("TOK-02", reference="hand calculation")
def test_out_of_vocabulary(verdict, shared):
    vocab = build_vocabulary(cut_words("the cat sat on the mat"))
    found = coverage(vocab, cut_words("the dog sat on the dog, not the mat"))
    assert (found.words, found.unknown, found.different) == (10, 4, ("dog", ",", "not"))
    assert found.rate == 0.4
    other = (shared / "data" / "tinyshakespeare.txt").read_text()[:100_000]
    rate = coverage(build_vocabulary(cut_words(verdict)), cut_words(other)).rate
    assert 0.2 < rate < 0.6  # a story's words are not those of a play
    assert coverage(build_vocabulary(cut_words(verdict)), cut_words(verdict)).unknown == 0


class BookV1:
    """The first tokenizer of the book."""

    def __init__(self, vocab):
        self.ids, self.words = vocab, {number: word for word, number in vocab.items()}

    def encode(self, text):
        pieces = re.split(r'([,.:;?_!"()\']|--|\s)', text)
        return [self.ids[word.strip()] for word in pieces if word.strip()]

    def decode(self, ids):
        return re.sub(r'\s+([,.:;?!"()\'])', r"\1", " ".join(self.words[number] for number in ids))


class BookV2(BookV1):
    """The second: unknown words become <|unk|>."""

    def encode(self, text):
        pieces = [piece.strip() for piece in re.split(r'([,.:;?_!"()\']|--|\s)', text) if piece.strip()]
        return [self.ids[piece if piece in self.ids else UNKNOWN] for piece in pieces]


@pytest.mark.row("TOK-05", reference="the book's class")
def test_v1_as_in_the_book(verdict):
    vocab = build_vocabulary(cut_words(verdict))
    ours, book = SimpleTokenizerV1(vocab), BookV1(vocab)
    text = '"It\'s the last he painted, you know," Mrs. Gisburn said with pardonable pride.'
    ids = ours.encode(text)
    assert ids == book.encode(text)
    assert ids == [1, 56, 2, 850, 988, 602, 533, 746, 5, 1126, 596, 5, 1, 67, 7, 38, 851, 1108, 754, 793, 7]
    assert ours.decode(ids) == book.decode(ids)
    assert ours.encode(verdict) == book.encode(verdict)
    assert ours.decode(ours.encode(verdict)) == book.decode(book.encode(verdict))


@pytest.mark.row("TOK-05", reference="the book's class")
def test_v1_raises_on_an_unknown_word(verdict):
    vocab = build_vocabulary(cut_words(verdict))
    text = "Hello, do you like tea?"
    with pytest.raises(KeyError, match="Hello"):
        BookV1(vocab).encode(text)
    with pytest.raises(KeyError, match="Hello") as caught:
        SimpleTokenizerV1(vocab).encode(text)
    assert isinstance(caught.value, UnknownWord)
    assert isinstance(caught.value, UsageError)
    assert str(caught.value).startswith("the word 'Hello' is not in the vocabulary")


@pytest.mark.row("TOK-06", reference="published: Raschka 2024, chapter 2")
def test_v2_as_in_the_book(verdict):
    ours = SimpleTokenizerV2(build_vocabulary(cut_words(verdict)))
    text = "Hello, do you like tea? <|endoftext|> In the sunlit terraces of the palace."
    ids = ours.encode(text, allowed_special=True)
    assert ids == [1131, 5, 355, 1126, 628, 975, 10, 1130, 55, 988, 956, 984, 722, 988, 1131, 7]
    assert ids == BookV2(ours.vocab).encode(text)
    assert ours.decode(ids) == BookV2(ours.vocab).decode(ids)
    assert ours.decode(ids) == "<|unk|>, do you like tea? <|endoftext|> In the sunlit terraces of the <|unk|>."
    assert (ours.vocab_size, ours.eos_id, ours.unk_id) == (1132, 1130, 1131)
    assert 1130 not in ours.encode(text)  # the text of a user never becomes a control token


@pytest.mark.row("TOK-06", reference="the book's class")
@QUICK
@given(text=st.lists(st.sampled_from([*"abAB .,:;?!_\"'()-\n", "the ", "cat"]), max_size=50).map("".join))
def test_v2_on_any_text(text):
    vocab = build_vocabulary(["the", "cat", "a", "b", ",", ".", "--", "'", '"', "_", "A"], [END_OF_TEXT, UNKNOWN])
    ours, book = SimpleTokenizerV2(vocab), BookV2(vocab)
    assert ours.encode(text) == book.encode(text)
    assert ours.decode(ours.encode(text)) == book.decode(book.encode(text))


@pytest.mark.row("TOK-04", reference="hand calculation")
def test_one_hot_of_a_sequence():
    ids = [{"a": 0, "b": 1, ".": 2}[character] for character in "ab.b"]
    rows = one_hot(ids, 3)
    assert rows.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert from_one_hot(rows) == ids


@pytest.mark.row("TOK-04", reference="numpy")
@given(st.integers(1, 9).flatmap(lambda size: st.tuples(st.just(size), st.lists(st.integers(0, size - 1), max_size=8))))
def test_one_hot_times_a_matrix_is_an_embedding(case):
    size, ids = case
    weights = np.arange(size * 5, dtype=np.float32).reshape(size, 5)
    np.testing.assert_array_equal(one_hot(ids, size) @ weights, weights[np.array(ids, dtype=int)])
    assert from_one_hot(one_hot(ids, size)) == ids


@pytest.mark.parametrize("ids", [[3], [-1]])
def test_one_hot_outside(ids):
    with pytest.raises(UsageError, match="outside 0 to 2"):
        one_hot(ids, 3)


@pytest.mark.parametrize("rows", [[[1, 1]], [[0, 0]], [[0.5, 0.5]], [[2, -1]], [1, 0]])
def test_what_is_not_one_hot(rows):
    with pytest.raises(UsageError, match="single one"):
        from_one_hot(np.array(rows))


@pytest.mark.row("TOK-02", reference="tokenizers")
def test_saved_words_in_the_library_and_back(verdict, tmp_path):
    ours = WordsConfig().train([verdict])
    ours.save_pretrained(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    back = load_tokenizer(tmp_path)
    assert type(back) is type(ours)
    assert back.fingerprint() == ours.fingerprint()
    for text in (verdict, "Hello--world, it's\n<|endoftext|> _x_", "中文 no"):
        assert (
            ours.encode(text, allowed_special=True)
            == theirs.encode(text).ids
            == back.encode(text, allowed_special=True)
        )
        assert back.decode(ours.encode(text)) == ours.decode(ours.encode(text))


def test_training_words():
    with pytest.raises(DataError, match="empty"):
        train_words([" \n"])
    with pytest.raises(UsageError, match="different"):
        build_vocabulary(["a"], ["a"])
    rare = train_words(["a a b"], min_frequency=2)
    assert json.dumps(rare.vocab) == json.dumps({"a": 0, "<|unk|>": 1})
    assert rare.encode("a b") == [0, 1]
    assert list(itertools.chain(rare.encode("<|unk|>"))) == [1]  # the word is unknown: the same id as any other such
