"""AdapterFusion's two stages; MAD-X's couplings, stacks and swaps."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from groundup.adapters import (
    BottleneckConfig,
    FusionConfig,
    InvertibleConfig,
    adapters_of,
    add_adapter,
)
from groundup.adapters.invertible import Invertible
from groundup.base.errors import UsageError
from groundup.layers.moe.losses import scaled
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model

PFEIFFER = BottleneckConfig.pfeiffer(reduction_factor=4)
LANGUAGE = InvertibleConfig(reduction_factor=4)


@pytest.fixture
def model():
    sizes = dict(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    torch.manual_seed(0)
    return build_model(LlamaConfig(**sizes, num_key_value_heads=1)).eval()


def ids(rows=3, seed=0):
    return torch.randint(1, 32, (rows, 7), generator=torch.Generator().manual_seed(seed))


def disturb(model, *names, scale=0.2):
    torch.manual_seed(1)
    with torch.no_grad():
        for name in names:
            for parameter in adapters_of(model).parameters(name).values():
                parameter.add_(torch.randn_like(parameter) * scale)


def loss(model, x):
    return F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten(), reduction="sum")


def fused(model, **changes):
    adapters = add_adapter(model, PFEIFFER, "a")
    add_adapter(model, PFEIFFER, "b")
    disturb(model, "a", "b")
    add_adapter(model, FusionConfig(of=["a", "b"], **changes), "ab")
    return adapters


@pytest.mark.row("PEFT-15", reference="separate training of each task")
def test_multi_task_extraction_trains_each_adapter_on_its_own_rows(model):
    """MT-A: one backward pass over rows of two tasks gives each adapter its gradient, and the base their sum."""
    adapters = add_adapter(model, PFEIFFER, "a")
    add_adapter(model, PFEIFFER, "b")
    disturb(model, "a", "b")
    x, tasks = ids(4), ["a", "b", "b", "a"]
    adapters.train_only("a", "b", base=True)
    with adapters.for_rows(tasks):
        loss(model, x).backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for task in "ab":  # ST-A, but for the base, which then stays as it is
        with adapters.using(task):
            loss(model, x[[t == task for t in tasks]]).backward()
    for name, parameter in model.named_parameters():
        assert_close(together[name], parameter.grad, msg=lambda m, name=name: f"{name}: {m}")
    adapters.train_only("a")
    learning = {name.split(".adapters.")[1][0] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"a"}


@pytest.mark.row("PEFT-15", reference="the formula, step by step")
def test_composition_is_attention_over_the_adapters(model):
    """softmax(Q y . K z_i) V z_i, and only Q, K and V learn."""
    adapters = fused(model)
    disturb(model, "ab")
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))
    block = model.blocks["0"]
    f, parts = block.adapters["ab"], [block.adapters["a"], block.adapters["b"]]
    wanted = x.clone()
    for row in range(2):
        for t in range(5):
            y = x[row, t]
            z = [p.up(torch.relu(p.down(y))) for p in parts]
            a = torch.stack([f.query(y) @ f.key(each) for each in z]).softmax(0)
            wanted[row, t] += sum(w * f.value(each) for w, each in zip(a, z, strict=True))
    assert_close(f.after(block, (x,), x), wanted)
    assert {n.split(".adapters.")[1].split(".")[0] for n, p in model.named_parameters() if p.requires_grad} == {"ab"}
    loss(model, ids()).backward()
    assert all(p.grad is None for name in "ab" for p in adapters.parameters(name).values())
    assert all(p.grad.any() for p in adapters.parameters("ab").values() if p.grad.ndim == 2)


@pytest.mark.row("PEFT-15", reference="the formula")
def test_values_are_held_near_the_identity(model):
    adapters = fused(model, regularisation=0.5)
    disturb(model, "ab")
    x = ids()
    gradients = []
    for train in (False, True):
        model.train(train), model.zero_grad()
        with scaled(1 / x.numel()):
            (loss(model, x) / x.numel()).backward()
        gradients.append({n: p.grad.clone() for n, p in adapters.parameters("ab").items()})
    for name, parameter in adapters.parameters("ab").items():
        wanted = gradients[0][name]
        if name.endswith("value.weight"):
            wanted = wanted + 0.5 * 2 * (parameter - torch.eye(16)).detach()
        assert_close(gradients[1][name], wanted)


@pytest.mark.row("PEFT-15", reference="the formula")
def test_a_fusion_begins_between_its_adapters(model):
    """With scores near zero and V the identity it begins near the mean of what they do."""
    fused(model)
    block, x = model.blocks["0"], torch.randn(2, 5, 16)
    mean = sum(block.adapters[name].change(x) for name in "ab") / 2
    given = block.adapters["ab"].after(block, (x,), x) - x
    assert (given - mean).norm() < 0.05 * mean.norm()


@pytest.mark.row("PEFT-16", reference="its own inverse")
@settings(max_examples=25, deadline=None)
@given(dim=st.integers(2, 33), seed=st.integers(0, 1000), factor=st.sampled_from([0.5, 1, 2, 7]))
def test_the_coupling_can_be_turned_back(dim, seed, factor):
    torch.manual_seed(seed)
    config = InvertibleConfig(embedding_reduction_factor=factor, std=0.5)
    coupling = Invertible(dim, config, {"dtype": torch.float64})
    x = torch.randn(2, 3, dim, dtype=torch.float64)
    assert not torch.allclose(coupling(x), x)
    assert_close(coupling.inverse(coupling(x)), x)
    assert_close(coupling(coupling.inverse(x)), x)


@pytest.mark.row("PEFT-16", reference="the parts, one after the other")
def test_task_adapters_are_stacked_on_languages_and_languages_are_swapped(model):
    adapters = add_adapter(model, LANGUAGE, "english")
    add_adapter(model, LANGUAGE, "python")
    add_adapter(model, PFEIFFER, "task")
    for seed, name in enumerate(("english", "python", "task")):
        disturb(model, name, scale=0.1 + 0.05 * seed)
    x, block = torch.randn(1, 4, 16), model.blocks["0"]
    with adapters.using():
        plain = block(x, _context())
    for language in ("english", "python"):
        adapters.activate(language, "task")
        spoken = plain + block.adapters[language].change(plain)
        assert_close(block(x, _context()), spoken + block.adapters["task"].change(spoken))
    adapters.activate("english", "task")
    first = model(ids())
    adapters.activate("python", "task")
    assert not torch.allclose(model(ids()), first)
    with adapters.using("english", "task"):
        assert torch.equal(model(ids()), first)


def _context():
    from groundup.layers.context import Context

    return Context(torch.arange(4)[None], None, None, None, None)


@pytest.mark.row("PEFT-16", reference="the parts, one after the other")
def test_the_head_reads_what_was_turned_back(model):
    adapters = add_adapter(model, LANGUAGE, "l")
    disturb(model, "l")
    seen = []
    model(ids(), head=lambda hidden, _: seen.append(hidden))
    coupling = model.embed.adapters["l"]
    assert_close(model(ids()), F.linear(coupling.inverse(seen[0]), model.lm_head.weight))
    with adapters.using():
        vectors = model.embed(ids(), _context())
    assert_close(model.embed(ids(), _context()), coupling(vectors))
    count = sum(p.numel() for p in adapters.parameters("l").values())
    own = sum(p.numel() for n, p in model.named_parameters() if ".adapters." in n)
    assert count == own  # the weights at both ends are one, and counted once
    again = copy.deepcopy(model)
    again.embed.adapters["l"].F.up.bias.data.add_(1.0)
    assert again.lm_head.adapters["l"]._coupling[0] is again.embed.adapters["l"]


@pytest.mark.row("PEFT-16", reference="its own refusal")
def test_loose_tokens_have_no_language_of_their_own(model):
    adapters = add_adapter(model, LANGUAGE, "l")
    with adapters.for_rows(["l", None, "l"]), pytest.raises(UsageError, match="not laid out row by row"):
        model(ids(), head=lambda hidden, lm_head: lm_head(hidden.flatten(0, 1)))
