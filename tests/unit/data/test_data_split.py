"""Documents are divided by their text; a single text by its end."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.base.errors import DataError
from groundup.data.document import Document
from groundup.data.packing import pack
from groundup.data.split import Split, cut_document, part_of, require_tokens, split_documents
from groundup.data.tokens import tokens_in_memory


def documents(count):
    return [Document(str(i), f"text {i}") for i in range(count)]


def test_shares_and_stability():
    split = Split(validation=0.2, test=0.1)
    parts = {d.text: part for part, d, _ in split_documents(documents(10_000), split)}
    counts = [list(parts.values()).count(part) for part in ("train", "validation", "test")]
    # three standard deviations of a binomial of 10,000 are below 140
    assert all(abs(count - expected) < 140 for count, expected in zip(counts, (7000, 2000, 1000), strict=True))
    fewer = {d.text: part for part, d, _ in split_documents(reversed(documents(500)), split)}
    assert all(parts[text] == part for text, part in fewer.items())
    other = Split(validation=0.2, test=0.1, seed=1)
    assert sum(part_of(text, other) != part for text, part in parts.items()) > 2000


def test_equal_texts_share_a_part():
    twice = [Document("a", "same text"), Document("b", "same text"), Document("c", "other")]
    parts = [part for part, _, _ in split_documents(twice, Split(method="documents", validation=0.5))]
    assert parts[0] == parts[1]


@given(st.text(min_size=1, max_size=200), st.floats(0, 0.5), st.floats(0, 0.4))
def test_tail_pieces_join_to_the_text(text, validation, test):
    pieces = list(cut_document(Document("a", text), Split(validation=validation, test=test)))
    assert "".join(piece.text for _, piece in pieces) == text


def test_auto():
    (train, validation) = split_documents([Document("a", "0123456789" * 10)], Split())
    assert (train[0], len(train[1].text), train[2]) == ("train", 90, False)
    assert (validation[0], len(validation[1].text), validation[2]) == ("validation", 10, False)
    several = list(split_documents(documents(60), Split()))
    assert len(several) == 60
    assert {part for part, _, _ in several} == {"train", "validation"}
    assert all(ended for _, _, ended in several)


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(0, 50), st.floats(0.01, 0.4), st.floats(0, 0.4))
def test_auto_leaves_no_wanted_part_empty(count, seed, validation, test):
    """Few documents, of which the hash may hold none back, give their ends."""
    split = Split(validation=validation, test=test if test > 0.01 else 0.0, seed=seed)
    given = [Document(str(i), f"text {i} " * 50) for i in range(count)]
    found = list(split_documents(iter(given), split))
    assert {part for part, _, _ in found} == {"train", "validation"} | ({"test"} if split.test else set())
    assert sorted("".join(d.text for _, d, _ in found)) == sorted("".join(d.text for d in given))
    by_hash = [part_of(d.text, split) for d in given]
    if len(set(by_hash)) == 2 + bool(split.test):  # enough for every part: whole documents, in order
        assert [(part, d.id) for part, d, _ in found] == [(part, d.id) for part, d in zip(by_hash, given, strict=True)]


def test_the_methods_that_are_named_never_change():
    split = Split(method="documents", validation=0.001)
    assert [part for part, _, _ in split_documents(documents(5), split)] == ["train"] * 5


def test_assigned_part_wins():
    held = [Document(str(i), str(i), {"split": "validation" if i % 2 else "train"}) for i in range(10)]
    assert [part for part, _, _ in split_documents(held, Split(validation=0))] == ["train", "validation"] * 5


def test_shares_must_leave_something():
    with pytest.raises(ValueError, match="leave something"):
        Split(validation=0.6, test=0.4)


@pytest.mark.row("DAT-02", reference="hand calculation")
@pytest.mark.parametrize("context_length", [4, 256])
def test_too_few_tokens(context_length):
    def rows(count):
        return pack(tokens_in_memory([[1] * count], vocab_size=2), context_length, part="validation")

    assert len(rows(context_length + 1)) == 1
    with pytest.raises(DataError, match=rf"validation part has {context_length} tokens.* needs {context_length + 1}"):
        rows(context_length)
    with pytest.raises(DataError, match="context length of at most 2"):
        rows(3)


def test_guard_says_how_much_more():
    with pytest.raises(DataError, match=r"about 10.3 times as long or a test share larger than 0.1"):
        require_tokens("test", 25, 256, share=0.1)
