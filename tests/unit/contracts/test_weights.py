"""The contract of WeightMap: loading and saving are inverse, streamed, and refuse what no rule knows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.base.errors import CheckpointError
from groundup.weights import Chain, Fused, Mapped, Transpose, WeightMap, rule

OPERATIONS = ["same", "transpose", "fused", "fused transposed", "mapped"]


def make(kinds, layers):
    """A map with one rule per kind, and a model's tensors that it fits. Names of ours: m0, m1, ... in every layer."""
    torch.manual_seed(0)
    rules, ours = [], {}
    for n, kind in enumerate(kinds):
        names = [f"blocks.{{i}}.m{n}.{part}" for part in ("abc" if kind.startswith("fused") else "a")]
        sizes = [2, 3, 4][: len(names)]
        operation = {
            "same": None,
            "transpose": Transpose(),
            "fused": Fused(*sizes),
            "fused transposed": Chain(Transpose(), Fused(*sizes)),
            "mapped": Mapped(lambda t: t - 1, lambda t: t + 1),
        }[kind]
        rules.append(rule(names, f"layers.{{i}}.their{n}", operation))
        for i in range(layers):
            for name, size in zip(names, sizes, strict=True):
                at = name.format(i=i)
                ours |= {at + ".weight": torch.randn(size, 5).round(), at + ".bias": torch.randn(size).round()}
    return WeightMap(*rules, i=layers), ours


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=5), st.integers(1, 12), st.randoms())
def test_loading_undoes_saving_whatever_the_order_of_names(kinds, layers, random):
    mapped, ours = make(kinds, layers)
    theirs = dict(mapped.save(ours, ours.__getitem__))
    assert len(theirs) == 2 * layers * len(kinds)
    assert all(tensor.is_contiguous() for tensor in theirs.values())
    shuffled = random.sample(list(theirs), len(theirs))
    back = dict(mapped.load(shuffled, theirs.__getitem__))
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[name], ours[name]) for name in ours)
    again = dict(mapped.save(back, back.__getitem__))
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=4), st.integers(1, 4), st.booleans())
def test_tensors_are_fetched_once_and_no_earlier_than_their_pair(kinds, layers, saving):
    mapped, ours = make(kinds, layers)
    side = ours if saving else dict(mapped.save(ours, ours.__getitem__))
    fetched = []

    def get(name):
        fetched.append(name)
        return side[name]

    stream = (mapped.save if saving else mapped.load)(side, get)
    assert not fetched
    before = 0
    for _ in stream:
        assert len(fetched) - before <= 3  # what comes out next needs one pair more: three tensors at most
        before = len(fetched)
    assert sorted(fetched) == sorted(side)


def test_what_no_rule_knows_is_an_error_on_either_side():
    mapped, ours = make(["same", "fused"], 2)
    theirs = dict(mapped.save(ours, ours.__getitem__))
    strange = {**theirs, "layers.2.their0.weight": torch.zeros(1), "head.scale": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"2 tensors: layers\.2\.their0\.weight, head\.scale"):
        dict(mapped.load(strange, strange.__getitem__))
    with pytest.raises(CheckpointError, match=r"blocks\.5\.m0"):
        dict(mapped.save({"blocks.5.m0.a.weight": None}, dict().__getitem__))
    del ours["blocks.1.m1.b.weight"]
    with pytest.raises(CheckpointError, match=r"missing tensors: blocks\.1\.m1\.b\.weight, which belong with"):
        dict(mapped.save(ours, ours.__getitem__))


def test_nothing_is_fetched_before_all_names_are_known():
    mapped, ours = make(["same"], 1)
    with pytest.raises(CheckpointError):
        next(mapped.save({**ours, "other": None}, lambda name: pytest.fail(f"fetched {name}")))


def test_names_without_their_prefix_and_names_that_hold_nothing():
    mapped = WeightMap(rule("embed", "base.wte"), rule("head", "head"), prefix="base.", ignore=("*.mask",))
    values = {"wte.weight": torch.ones(1), "head.weight": torch.zeros(1), "base.h.mask": torch.zeros(9)}
    loaded = dict(mapped.load(values, values.__getitem__))
    assert {name: tensor.item() for name, tensor in loaded.items()} == {"embed.weight": 1.0, "head.weight": 0.0}


def test_two_names_for_one_tensor_are_refused():
    mapped = WeightMap(rule("embed", "base.wte"), prefix="base.")
    both = {"wte.weight": torch.ones(1), "base.wte.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="both"):
        dict(mapped.load(both, both.__getitem__))


def test_suffixes_follow_their_module():
    mapped = WeightMap(rule("blocks.{i}.attn", "h.{i}.self_attn"), rule("blocks.{i}.attn.q", "h.{i}.query"), i=1)
    values = {"h.0.self_attn.k.lora_A.weight": torch.ones(1), "h.0.query.weight": torch.zeros(1)}
    assert set(dict(mapped.load(values, values.__getitem__))) == {
        "blocks.0.attn.k.lora_A.weight",
        "blocks.0.attn.q.weight",
    }
