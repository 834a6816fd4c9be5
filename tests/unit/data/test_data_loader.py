"""The order of batches depends on the seed and the place, on nothing else."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.base.errors import DataError, UsageError
from groundup.data.loader import Loader
from groundup.data.mixture import Mixture, expected_epochs
from groundup.data.order import permuted
from groundup.data.packing import pack
from groundup.data.tokens import tokens_in_memory

SAMPLINGS = ["shuffled", "sequential", "random"]


def make_rows(count=40, length=4, packing="stream", first=0):
    documents = [[first + (7 * d + i) % 500 for i in range(3 + d % 9)] for d in range(count)]
    return pack(tokens_in_memory(documents, vocab_size=1000), length, packing)


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else a[k] == b[k] for k in a)


@given(st.integers(1, 5000), st.integers(0, 2**31), st.integers(0, 50))
def test_permutation_is_a_bijection(size, seed, epoch):
    order = permuted(np.arange(size), size, seed, 0, epoch)
    assert (np.sort(order) == np.arange(size)).all()


def test_permutations_differ_and_look_random():
    orders = np.array([permuted(np.arange(1000), 1000, 0, 0, epoch) for epoch in range(50)])
    # correlation of a random permutation with the identity, and of two with each other, is N(0, 1/999)
    assert np.abs(np.corrcoef(np.vstack([np.arange(1000), orders]))[np.triu_indices(51, 1)]).max() < 5 / 999**0.5
    # each of 20 rows comes first equally often: chi-squared of 19 degrees of freedom is below 43.8 with p = 0.999
    first = np.bincount([permuted(np.array([0]), 20, seed)[0] for seed in range(2000)], minlength=20)
    assert ((first - 100) ** 2 / 100).sum() < 43.8


@pytest.mark.parametrize("packing", ["stream", "documents", "pad"])
def test_every_row_once_an_epoch(packing):
    rows = make_rows(packing=packing)
    loader = Loader(rows, 3, seed=5)
    epochs = []
    for _ in range(3):
        drawn = [tuple(row.tolist()) for _ in range(len(rows)) for row in next(loader)["labels"]]
        for part in range(3):
            epochs.append(drawn[part * len(rows) : (part + 1) * len(rows)])
    batch = rows.read(*rows.locate(np.arange(len(rows))))
    wanted = sorted(tuple(row) for row in batch["labels"].tolist())
    assert all(sorted(epoch) == wanted for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert loader.epoch == 9


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(SAMPLINGS),
    st.sampled_from(["stream", "documents", "pad"]),
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.integers(0, 12),
    st.sampled_from([0, 0, 2]),
)
def test_resume_at_any_place(sampling, packing, sizes, stop, workers):
    """Also with batch sizes that change on the way."""

    def loader(workers):
        parts = {"a": make_rows(30, packing=packing), "b": make_rows(11, packing=packing, first=300)}
        return Loader(Mixture(parts, [1, 2]), 1, seed=3, sampling=sampling, workers=workers)

    def take(source, some):
        batches = []
        for size in some:
            source.batch_size = size
            batches.append(next(source))
        return batches

    straight, first, second = loader(0), loader(workers), loader(0)
    whole = take(straight, sizes)
    start = take(first, sizes[:stop])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    rest = take(second, sizes[stop:])
    first.close()
    assert all(same(a, b) for a, b in zip(whole, start + rest, strict=True))
    assert second.state_dict() == straight.state_dict()


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(SAMPLINGS), st.sampled_from([1, 2, 3, 4, 6]), st.sampled_from([0, 1, 3]))
def test_ranks_and_workers_change_nothing(sampling, world, workers):
    rows = make_rows(packing="documents")
    ranks = [Loader(rows, 12, rank=r, world_size=world, workers=workers, sampling=sampling) for r in range(world)]
    one = Loader(rows, 12, sampling=sampling)
    for whole, *parts in itertools.islice(zip(one, *ranks, strict=True), 8):
        joined = torch.empty_like(whole["ids"])
        for rank, part in enumerate(parts):
            joined[rank::world] = part["ids"]
            assert part["sources"] == whole["sources"][rank::world]
        assert torch.equal(joined, whole["ids"])
    assert all(rank.state_dict() == one.state_dict() for rank in ranks)
    for rank in ranks:
        rank.close()


def test_batch_contents():
    rows = make_rows()
    batch = next(Loader(rows, 2, sampling="sequential"))
    assert batch["ids"].dtype == batch["labels"].dtype == torch.int64
    assert batch["ids"].tolist() == [[0, 1, 2, 7], [8, 9, 10, 14]]
    assert batch["labels"].tolist() == [[1, 2, 7, 8], [9, 10, 14, 15]]
    assert batch["sources"] == ["0 to 1", "1 to 2"]


def test_random_windows_begin_anywhere():
    rows = pack(tokens_in_memory([range(100)], vocab_size=100), 10)
    loader = Loader(rows, 1000, sampling="random")
    starts = next(loader)["ids"][:, 0]
    counts = torch.bincount(starts, minlength=100)
    # as torch.randint(len(data) - block_size): 0 to 89; chi-squared of 89 degrees is below 135.9 with p = 0.999
    assert counts[90:].sum() == 0
    assert ((counts[:90] - 1000 / 90) ** 2 / (1000 / 90)).sum() < 135.9
    assert loader.epochs == {"data": 100.0}


def test_tokens_seen_counts_no_padding():
    rows = pack(tokens_in_memory([[1, 2, 3], [4, 5]], vocab_size=9), 4, "pad")
    loader = Loader(rows, 2)
    batch = next(loader)
    assert loader.tokens_seen == 3 == int((batch["labels"] != -100).sum())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": make_rows(41)}, "content of data was"),
        ({"rows": make_rows(40, 5)}, "context length of data was 4, is 5"),
        ({"rows": make_rows(40, packing="documents")}, "packing of data was stream, is documents"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"sampling": "random"}, "sampling was 'shuffled', is 'random'"),
        ({"rows": Mixture({"other": make_rows(40)})}, "sources were data, are other"),
    ],
)
def test_changed_data_is_refused(change, message):
    state = Loader(make_rows(40), 4).state_dict()
    settings = {"rows": make_rows(40)} | change
    loader = Loader(settings.pop("rows"), 4, **settings)
    before = loader.state_dict()
    with pytest.raises(DataError, match=message):
        loader.load_state_dict(state)
    assert loader.state_dict() == before


def test_batches_must_be_shared_equally():
    with pytest.raises(UsageError, match="a batch of 5 rows cannot be shared equally by 2"):
        Loader(make_rows(), 5, world_size=2)


# GPT-3 (Brown et al. 2020, table 2.2): tokens in billions, weight in %, epochs in 300 billion tokens of training.
GPT3 = {
    "Common Crawl": (410, 60, 0.44),
    "WebText2": (19, 22, 2.9),
    "Books1": (12, 8, 1.9),
    "Books2": (55, 8, 0.43),
    "Wikipedia": (3, 3, 3.4),
}


@pytest.mark.row("DAT-09", reference="published: GPT-3 table 2.2")
def test_expected_epochs_of_gpt3():
    tokens, weights, published = zip(*GPT3.values(), strict=True)
    found = expected_epochs(weights, tokens, 300)
    # The table rounds tokens, weights (which sum to 101) and epochs; WebText2 and Wikipedia carry the most of it.
    for epochs, table in zip(found, published, strict=True):
        assert epochs == pytest.approx(table, rel=0.2)


@pytest.mark.row("DAT-09", reference="hand calculation")
def test_mixture_proportions_and_epochs():
    # The same shares with a thousand rows for 10 billion tokens, and a budget of as many rows as GPT-3 had tokens.
    rows = {
        name: pack(tokens_in_memory([np.full(tokens * 40 + 1, i)], vocab_size=9), 4)
        for i, (name, (tokens, _, _)) in enumerate(GPT3.items())
    }
    weights = [weight for _, weight, _ in GPT3.values()]
    loader = Loader(Mixture(rows, weights), 100)
    counts = np.zeros(len(rows))
    for batch in itertools.islice(loader, 30):
        counts += np.bincount(batch["ids"][:, 0], minlength=len(rows))
    expected = np.array(weights) / sum(weights) * 3000
    # chi-squared of 4 degrees of freedom is below 18.5 with p = 0.999
    assert ((counts - expected) ** 2 / expected).sum() < 18.5
    assert list(loader.epochs.values()) == pytest.approx(
        [c / len(r) for c, r in zip(counts, rows.values(), strict=True)]
    )
    by_table = expected_epochs(weights, [tokens for tokens, _, _ in GPT3.values()], 300)
    spread = np.sqrt(expected) / [len(r) for r in rows.values()]
    assert (np.abs(np.array(list(loader.epochs.values())) - by_table) < 4 * spread).all()


def test_a_source_of_the_mixture_is_read_evenly():
    """However often a source comes, none of its rows is used twice before each was used once."""
    rows = {"a": make_rows(20), "b": make_rows(9, first=500)}
    loader = Loader(Mixture(rows, [3, 1]), 1)
    seen = [tuple(next(loader)["ids"][0].tolist()) for _ in range(400)]
    for part in rows.values():
        own = {tuple(row) for row in part.read(*part.locate(np.arange(len(part))))["ids"].tolist()}
        drawn = [row for row in seen if row in own]
        epochs = len(drawn) // len(part)
        assert epochs >= 1
        for epoch in range(epochs):
            assert set(drawn[epoch * len(part) : (epoch + 1) * len(part)]) == own


def test_zero_weight_is_never_drawn_and_bad_weights_are_refused():
    rows = {"a": make_rows(), "b": make_rows(first=500)}
    choice = Mixture(rows, [1, 0]).choose(np.arange(10_000), 0)
    assert (choice == 0).all()
    for weights in ([0, 0], [1, -1], [1, float("nan")], [1]):
        with pytest.raises(UsageError):
            Mixture(rows, weights)
