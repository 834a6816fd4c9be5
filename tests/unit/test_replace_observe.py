"""Exchanging parts of a built model, and looking inside it."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.observe import observe
from groundup.replace import matching, replace

SHAPE = dict(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(LlamaConfig(**SHAPE, num_key_value_heads=2)).eval()


IDS = torch.arange(10)[None]


class Doubled(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base = base

    def forward(self, x):
        return 2 * self.base(x)


def test_replace_exchanges_what_matches_and_keeps_the_rest(model):
    before, keys = model(IDS), set(model.state_dict())
    count = replace(model, ["blocks.*.attn.[qv]_proj"], Doubled)
    assert count == 4
    changed = {k for k in model.state_dict() if ".base." in k}
    assert {k.replace(".base.", ".") for k in model.state_dict()} == keys
    assert changed == {f"blocks.{i}.attn.{p}_proj.base.weight" for i in (0, 1) for p in "qv"}
    assert not torch.allclose(model(IDS), before)


def test_replace_works_on_any_module_and_keeps_mode_and_state(model):
    class Copy(nn.Module):
        def __init__(self, old):
            super().__init__()
            self.old = old

        def forward(self, x, context):
            return self.old(x, context)

    before = model(IDS)
    assert replace(model, "blocks.*.attn", Copy) == 2
    assert not model.blocks["0"].attn.training
    assert torch.equal(model(IDS), before)
    state = model.make_state(1, 10)
    with torch.no_grad():
        parts = torch.cat([model(IDS[:, :6], state=state), model(IDS[:, 6:], state=state)], 1)
    assert_close(parts, before)


def test_shared_modules_stay_shared():
    """Both places of one module get the one new module; a module shared with a place that was not named does not."""
    shared = nn.Linear(2, 2)
    outer = nn.ModuleDict({"x": nn.ModuleDict({"a": shared, "b": shared}), "y": shared})
    assert replace(outer, "x.?", Doubled) == 2
    assert isinstance(outer["x"]["a"], Doubled)
    assert outer["x"]["a"] is outer["x"]["b"]
    assert outer["y"] is shared


def test_a_replaced_part_keeps_gradients_ties_and_saves(model):
    """Names of what stays are kept, so a wrapped model still trains, and its other tensors load as before."""
    before = model.state_dict()
    replace(model, "blocks.1.mlp", Doubled)
    kept = [name for name in before if not name.startswith("blocks.1.mlp")]
    assert all(name in model.state_dict() for name in kept)
    model(IDS).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_no_match_says_what_names_look_like(model):
    with pytest.raises(UsageError, match="embed"):
        replace(model, "layers.*", Doubled)
    assert matching(model, "blocks.0*").keys() == {"blocks.0"}  # what is inside a match goes with it


def test_observe_records_and_then_leaves_nothing(model):
    with observe(model, ["blocks.*", "blocks.*.attn.core"]) as seen:
        out = model(IDS)
    assert seen["blocks.1"].shape == (1, 10, 16)
    assert_close(model.lm_head(model.norm(seen["blocks.1"])), out)
    assert all(not m._forward_hooks for m in model.modules())


def test_observed_attention_is_what_the_model_used(model):
    with observe(model, ["blocks.*.attn.core", "blocks.*.attn.v_proj"]) as seen:
        model(IDS)
    for i in range(2):
        weights = seen.attention(f"blocks.{i}.attn")
        assert weights.shape == (1, 4, 10, 10)
        assert_close(weights.sum(-1), torch.ones(1, 4, 10))
        assert (weights.triu(1) == 0).all()
        v = seen[f"blocks.{i}.attn.v_proj"].unflatten(-1, (2, 4)).transpose(1, 2).repeat_interleave(2, 1)
        assert_close(weights @ v, seen[f"blocks.{i}.attn.core"])


def test_edits_change_what_flows(model):
    with observe(model, {"blocks.0.mlp": torch.zeros_like, "blocks.0.attn": torch.zeros_like}) as seen:
        model(IDS)
    with observe(model, "embed") as plain:
        model(IDS)
    with observe(model, {"blocks.0": None, "blocks.0.mlp": torch.zeros_like, "blocks.0.attn": torch.zeros_like}) as cut:
        model(IDS)
    assert_close(cut["blocks.0"], plain["embed"])
    assert set(seen) == {"blocks.0.mlp", "blocks.0.attn"}


def test_an_unknown_name_is_an_error_and_hooks_are_gone(model):
    with pytest.raises(UsageError, match=r"layers\.0"), observe(model, ["embed", "layers.0"]):
        pass
    assert all(not m._forward_hooks for m in model.modules())
    with observe(model, "embed") as seen, pytest.raises(KeyError, match="did not run"):
        seen["blocks.0"]


def test_a_module_named_by_two_patterns_is_recorded_once_and_edited_by_both(model):
    with observe(model, ["blocks.*", "blocks.*.attn.core"]) as seen:
        model(IDS)
        model(IDS)
    assert {len(calls) for calls in seen.calls.values()} == {2}
    with observe(model, {"blocks.0.mlp": lambda y: y + 1, "blocks.?.mlp": lambda y: y * 2}) as seen:
        model(IDS)
    with observe(model, "blocks.0.mlp") as plain:
        model(IDS)
    assert_close(seen["blocks.0.mlp"], (plain["blocks.0.mlp"] + 1) * 2)


def test_attention_seen_through_a_state_and_padding(model):
    """Rows of the observed weights sum to 1 and give padding nothing, in a prefill and in a step."""
    documents = torch.tensor([[0] * 3 + [1] * 7])
    state = model.make_state(1, 12)
    with torch.no_grad(), observe(model, ["blocks.1.attn.core"]) as seen:
        model(IDS, documents=documents, state=state)
        model(IDS[:, :1], state=state)
    prefill, step = (seen.attention("blocks.1.attn", call) for call in (0, 1))
    assert (prefill[:, :, 3:, :3] == 0).all()
    assert step.shape[2] == 1
    assert_close(step[..., :8].sum(-1), torch.ones(1, 4, 1))


def test_gradients_flow_through_what_is_observed_on_demand(model):
    with observe(model, "blocks.0", detach=False) as seen:
        model(IDS).sum().backward()
    assert seen["blocks.0"].requires_grad
    with observe(model, "blocks.0") as seen:
        model(IDS)
    assert not seen["blocks.0"].requires_grad
