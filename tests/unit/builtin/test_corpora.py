"""The registry and the fixed corpora."""

import sys

import pytest

from groundup.base.errors import MissingDependency, UsageError
from groundup.data import builtin
from groundup.data.builtin import digits, pydocs


def test_an_unknown_corpus_is_named_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean `pydocs`"):
        builtin.open_corpus("pydoc")
    with pytest.raises(UsageError, match="Did you mean `seed`"):
        builtin.open_corpus("stories", sede=1)


@pytest.mark.parametrize("name", builtin.NAMES)
def test_every_corpus_yields_documents(name):
    documents = list(builtin.open_corpus(name, documents=8))
    assert len({document.id for document in documents}) == 8
    assert all(document.text.strip() for document in documents)
    assert documents == list(builtin.open_corpus(name, documents=8))
    assert sum(len(d.text.encode()) for d in builtin.open_corpus(name, bytes=3000)) >= 3000


def test_pydocs_is_the_language_reference():
    documents = {d.id: d.text for d in builtin.open_corpus("pydocs")}
    assert "for" in documents["pydocs-compound"]
    assert sum(map(len, documents.values())) > 300_000


def test_pydocs_holds_out_what_it_does_not_train_on():
    """Over five seeds: 71 % of the held-out lines stood in training text while repeating topics were kept."""
    from groundup.data.document import Document
    from groundup.data.split import Split, split_documents

    given = [Document(d.id, d.text) for d in builtin.open_corpus("pydocs")]
    for seed in range(5):
        lines = {"train": set(), "validation": set()}
        for part, document, _ in split_documents(given, Split(seed=seed)):
            lines[part] |= pydocs.telling_lines(document.text)
        shared = lines["validation"] & lines["train"]
        assert len(shared) < 0.05 * len(lines["validation"])


def test_a_topic_inside_another_is_left_out():
    first, second = "a line that is long enough to tell", "another line that is long enough"
    topics = {"part": f"{first}\n", "whole": f"{first}\n{second}\n", "other": "something else that is new here\nx"}
    assert sorted(pydocs.distinct(topics)) == ["other", "whole"]


def test_pystdlib_has_the_library_and_not_its_tests():
    names = [d.id for d in builtin.open_corpus("pystdlib")]
    assert "pystdlib-argparse.py" in names
    assert "pystdlib-json/decoder.py" in names
    assert names == sorted(names)
    assert not [n for n in names if "/test/" in n or n.startswith("pystdlib-test/")]


def test_digits():
    images, labels = digits.load()
    assert images.shape == (1797, 8, 8)
    assert (images.min(), images.max()) == (0, 1)
    first = next(iter(builtin.open_corpus("digits")))
    lines = first.text.split("\n")
    assert [len(line) for line in lines[:8]] == [8] * 8
    assert lines[8] == str(labels[0])


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingDependency, match=r"groundup\[data\]"):
        digits.load()
