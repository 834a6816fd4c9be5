"""Rows hold the token stream, nothing twice, nothing across documents where that is asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.base.errors import DataError
from groundup.data.document import Document
from groundup.data.loader import in_order
from groundup.data.packing import DocumentRows, PaddedRows, StreamRows, pack
from groundup.data.tokens import Tokens, encode_documents, tokens_in_memory

E = 99
DOCUMENTS = [[1, 2, 3, E], [4, 5, E], [6, E], [7, 8, 9, 10, 11, 12, E]]

corpora = st.lists(
    st.lists(st.integers(0, 97), min_size=0, max_size=30).map(lambda d: [*d, E]), min_size=1, max_size=12
)


def read(rows):
    starts, lengths = rows.locate(np.arange(len(rows)))
    return rows.read(starts, lengths)


def test_end_of_text_is_appended():
    class Letters:
        vocab_size, eos_id, pad_id = 100, E, None

        def encode_batch(self, texts):
            return [[ord(c) - 96 for c in text] for text in texts]

        def fingerprint(self):
            return "letters"

    arrays = encode_documents([(Document("a", "ab"), True), (Document("b", "c"), False)], Letters())
    assert [a.tolist() for a in arrays] == [[1, 2, E], [3]]


@pytest.mark.row("DAT-03", reference="hand calculation")
def test_three_packings_by_hand():
    tokens = tokens_in_memory(DOCUMENTS, vocab_size=100)
    stream = read(pack(tokens, 5, "stream"))
    assert stream["ids"].tolist() == [[1, 2, 3, E, 4], [5, E, 6, E, 7], [8, 9, 10, 11, 12]]
    assert stream["labels"].tolist() == [[2, 3, E, 4, 5], [E, 6, E, 7, 8], [9, 10, 11, 12, E]]
    assert "documents" not in stream

    packed = read(pack(tokens, 6, "documents", pad_id=0))
    assert packed["ids"].tolist() == [[1, 2, 3, E, 4, 5], [E, 6, E, 7, 8, 9], [10, 11, 12, 0, 0, 0]]
    assert packed["labels"].tolist() == [
        [2, 3, E, -100, 5, E],
        [-100, E, -100, 8, 9, 10],
        [11, 12, E, -100, -100, -100],
    ]
    assert packed["documents"].tolist() == [[1, 1, 1, 1, 2, 2], [1, 2, 2, 3, 3, 3], [1, 1, 1, 0, 0, 0]]

    padded = read(pack(tokens, 4, "pad", pad_id=0))
    assert padded["ids"].tolist() == [[1, 2, 3, 0], [4, 5, 0, 0], [6, 0, 0, 0], [7, 8, 9, 10], [11, 12, 0, 0]]
    assert padded["labels"].tolist() == [
        [2, 3, E, -100],
        [5, E, -100, -100],
        [E, -100, -100, -100],
        [8, 9, 10, 11],
        [12, E, -100, -100],
    ]
    assert padded["documents"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]


@pytest.mark.row("DAT-03", reference="property")
@given(corpora, st.integers(1, 12))
def test_rows_reproduce_the_stream(documents, context_length):
    tokens = tokens_in_memory(documents, vocab_size=100)
    line = [id for document in documents for id in document]
    stream = StreamRows(tokens, context_length)
    if len(stream):
        batch = read(stream)
        used = len(stream) * context_length
        assert batch["ids"].ravel().tolist() == line[:used]
        assert batch["labels"].ravel().tolist() == line[1 : used + 1]
        assert len(line) - 1 - used < context_length
    else:
        assert len(line) <= context_length
    rows = DocumentRows(tokens, context_length)
    if len(rows):
        batch = read(rows)
        assert batch["ids"][batch["documents"] > 0].tolist() == line[:-1]
    # Every token but the first of each document is a label exactly once, in both packings that know documents.
    wanted = [id for document in documents for id in document[1:]]
    for kind in (rows, PaddedRows(tokens, context_length)):
        trained = read(kind)["labels"] if len(kind) else np.array([])
        assert trained[trained != -100].tolist() == wanted


@given(corpora, st.integers(1, 12))
def test_documents_do_not_mix(documents, context_length):
    tokens = tokens_in_memory(documents, vocab_size=100)
    for kind in (DocumentRows, PaddedRows):
        rows = kind(tokens, context_length)
        if not len(rows):
            continue
        starts, lengths = rows.locate(np.arange(len(rows)))
        batch = rows.read(starts, lengths)
        owner = tokens.document_at(starts[:, None] + np.arange(context_length))
        for row, (documents_of, owners) in enumerate(zip(batch["documents"], owner, strict=True)):
            real = documents_of > 0
            assert real.sum() == lengths[row]
            # the numbers of the row and the documents of the corpus match one to one
            pairs = set(zip(documents_of[real].tolist(), owners[real].tolist(), strict=True))
            assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
            assert documents_of[0] == 1


@given(st.integers(1, 50), st.integers(1, 10), st.integers(1, 12))
def test_sliding_windows_are_those_of_range(count, length, stride):
    """The book's dataset takes a window at each of range(0, N - max_length, stride)."""
    rows = StreamRows(tokens_in_memory([range(count)], vocab_size=50), length, stride)
    expected = [list(range(i, i + length)) for i in range(0, count - length, stride)]
    assert (read(rows)["ids"].tolist() if len(rows) else []) == expected


def test_several_segments_read_as_one():
    line = np.arange(100, dtype=np.uint16)
    offsets, names = np.array([0, 30, 100]), ["a", "b"]
    whole = Tokens([line], offsets, names, vocab_size=100)
    parts = Tokens([line[:7], line[:0], line[7:50], line[50:]], offsets, names, vocab_size=100)
    starts = np.array([0, 5, 48, 93])
    assert (whole.gather(starts, 7) == parts.gather(starts, 7)).all()
    assert whole.fingerprint == parts.fingerprint
    assert parts.document(1).tolist() == list(range(30, 100))


def test_ids_outside_the_vocabulary_are_named():
    tokens = Tokens([np.array([1, 2, 300], dtype=np.uint16)], np.array([0, 1, 3]), ["a.txt", "b.txt"], vocab_size=256)
    with pytest.raises(DataError, match=r"token id 300 in document b\.txt is outside the vocabulary of 256"):
        tokens.gather(np.array([0]), 3)
    with pytest.raises(DataError, match="outside the vocabulary"):
        tokens_in_memory([[-1]], vocab_size=4)


def test_row_sources_and_evaluation_order():
    tokens = tokens_in_memory(DOCUMENTS, vocab_size=100, names=["a", "b", "c", "d"])
    rows = DocumentRows(tokens, 6)
    batches = list(in_order(rows, 2))
    assert [len(batch["ids"]) for batch in batches] == [2, 1]
    assert [name for batch in batches for name in batch["sources"]] == ["a to b", "b to d", "d"]
    shared = [batch for rank in range(2) for batch in in_order(rows, 1, rank=rank, world_size=2)]
    assert sorted(batch["ids"][0, 0].item() for batch in shared) == [1, 10, E]


def test_nothing_to_learn_from():
    for packing in ("documents", "pad"):
        with pytest.raises(DataError, match="train part has 0 tokens"):
            pack(tokens_in_memory([[5]], vocab_size=10), 4, packing)
