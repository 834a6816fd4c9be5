"""LoRA on every family: unmerged, merged and unmerged again, under gradient checkpointing, step by step, row by row."""

import pytest
import torch

from families import CASES
from families.tiny import ids, make_ours
from groundup.adapters import LoRAConfig, adapters_of, add_adapter, merge, merged, unmerge
from groundup.base.errors import UsageError
from groundup.layers.moe.experts import GroupedLinear
from groundup.layers.recurrent import Cell
from groundup.layers.relative_attention import TransformerXLAttention
from groundup.training.activation_checkpointing import checkpointed

row = pytest.mark.row("PEFT-10", reference="definition")
LEARN = {name: reference for name, reference in CASES.items() if reference.make is None}
FIRST = {id(reference): name for name, reference in reversed(LEARN.items())}.values()
FAMILIES = [pytest.param(name, marks=[] if name in FIRST else pytest.mark.slow) for name in sorted(LEARN)]
"""One case of each family always, the others among the slow tests; a family that counts has nothing to adapt."""

ROUNDED = {"rtol": 1e-4, "atol": 1e-4}
"""Merging rounds every weight once more than adding does."""


def away(model, name="default", seed=0):
    """The adapter's numbers, B too, away from where they begin."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapters_of(model).parameters(name).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory):
    """A family with two LoRAs on everything that can carry one."""
    model = make_ours(request.param, tmp_path_factory.mktemp("family"))
    model.reference = CASES[request.param]
    model.plain = model(ids()).detach()
    for seed, name in enumerate(("one", "two")):
        add_adapter(model, LoRAConfig(rank=2 + seed, targets=["*"]), name)
        away(model, name, seed)
    return model


def close(a, b, model):
    torch.testing.assert_close(a, b, **model.reference.tolerance)


@row
def test_merged_and_unmerged_give_the_same(model):
    adapters, before = model.adapters, {n: p.clone() for n, p in model.named_parameters()}
    adapters.activate("one", "two")
    want = model(ids())
    assert not torch.allclose(want, model.plain)
    merge(model)
    inside = model(ids())
    unmerge(model)
    assert torch.equal(model(ids()), want)
    torch.testing.assert_close(inside, want, **ROUNDED)
    torch.testing.assert_close(merged(model)(ids()), want, **ROUNDED)
    adapters.activate()
    close(model(ids()), model.plain, model)  # recurrent cells leave their fused kernel: not bit for bit
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


@row
def test_gradients_reach_both_matrices_and_are_the_same_under_checkpointing(model):
    model.adapters.activate("one")
    model.adapters.train_only("one")
    own = model.adapters.parameters("one")
    found = []
    for active in (False, True):
        with checkpointed(model, active):
            model(ids()).logsumexp(-1).mean().backward()
        found.append({name: p.grad for name, p in own.items()})
        model.zero_grad()
    for name, gradient in found[0].items():
        assert gradient.isfinite().all(), name
        close(found[1][name], gradient, model)
    sides = [sum(float(g.abs().sum()) for n, g in found[0].items() if side in n) for side in ("lora_A", "lora_B")]
    assert min(sides) > 0
    assert all(p.grad is None for name, p in model.named_parameters() if ".adapters.one." not in name)
    model.adapters.freeze("one")


@row
def test_steps_with_a_state_equal_one_pass(model):
    model.adapters.activate("one", "two")
    x = ids(length=8)
    with torch.no_grad():
        whole = model(x)
        try:
            state = model.make_state(2, 8)
        except (UsageError, NotImplementedError):
            return
        steps = [model(x[:, :5], state=state), *(model(x[:, i : i + 1], state=state) for i in range(5, 8))]
    close(torch.cat(steps, 1), whole, model)


@row
def test_rows_have_adapters_of_their_own(model):
    adapters, x = model.adapters, ids(rows=3)
    carriers = [model.get_submodule(where) for where in adapters.plans["one"].parts]
    alone = []
    for b, name in enumerate(("two", None, "one")):
        with adapters.using(*[name] if name else []):
            alone.append(model(x[b : b + 1]))
    sorted_by_step = any(isinstance(module, Cell | TransformerXLAttention) for module in model.modules())
    moved = sorted_by_step or any(isinstance(layer, GroupedLinear) for layer in carriers)
    with torch.no_grad(), adapters.for_rows(["two", None, "one"]):
        if moved:
            with pytest.raises(UsageError, match="not laid out row by row"):
                model(x)
            return
        close(model(x), torch.cat(alone), model)
