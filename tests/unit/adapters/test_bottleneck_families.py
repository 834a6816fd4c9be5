"""(IA)3, bottlenecks, MAD-X and AdaLoRA on every family, or refused by name; on quantized bases; checkpointed."""

import pytest
import torch
from torch.testing import assert_close

from families import REFERENCES
from families.tiny import ids, make_ours
from groundup.adapters import (
    AdaLoRAConfig,
    BottleneckConfig,
    FusionConfig,
    IA3Config,
    InvertibleConfig,
    adapters_of,
    add_adapter,
    load_adapter,
    remove_adapter,
    save_adapter,
)
from groundup.base.errors import UsageError
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.quantization import Int8Config, quantize
from groundup.training.activation_checkpointing import checkpointed

KINDS = {
    "ia3": IA3Config(),
    "houlsby": BottleneckConfig.houlsby(reduction_factor=4),
    "pfeiffer": BottleneckConfig.pfeiffer(reduction_factor=4),
    "language": InvertibleConfig(reduction_factor=4),
    "adalora": AdaLoRAConfig(steps=10, rank=2, target_rank=1),
}
NO_BRANCHES = {"rnn", "awd_lstm", "elmo", "bengio", "ngram"}
REFUSED = {
    "ia3": {**dict.fromkeys({"mamba", "mamba2", *NO_BRANCHES}, "no linear layers are called `k_proj`")},
    **{kind: dict.fromkeys(NO_BRANCHES, "no attention and no mixer") for kind in ("houlsby", "pfeiffer", "language")},
    "adalora": {"ngram": "no linear layers"},
}


@pytest.mark.parametrize("family", REFERENCES)
def test_every_family_or_refused_by_name(family, tmp_path):
    reference = REFERENCES[family]
    model = make_ours(next(iter({**reference.cases, **reference.own})), tmp_path)
    x = ids(2, 6)
    with torch.no_grad():
        before = model(x)
    for kind, config in KINDS.items():
        names = dict(model.named_parameters()).keys()
        reason = REFUSED[kind].get(family)
        if reason is not None:
            with pytest.raises(UsageError, match=reason):
                add_adapter(model, config, kind)
            assert not adapters_of(model).configs
            assert dict(model.named_parameters()).keys() == names
            continue
        adapters = add_adapter(model, config, kind)
        disturb(adapters.parameters(kind))
        after = model(x)
        assert not torch.allclose(after, before)
        after.square().mean().backward()
        unused = [name for name, p in adapters.parameters(kind).items() if p.grad is None]
        assert not unused
        adapters.activate()
        with torch.no_grad():
            assert_close(model(x), before)  # recurrent layers compute plain weights in one call, by other roundings
        adapters.activate(kind)
        remove_adapter(model, kind)
        assert dict(model.named_parameters()).keys() == names


def disturb(parameters, scale=0.1):
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(torch.randn_like(parameter) * scale)


def llama(**changes):
    sizes = dict(vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    torch.manual_seed(0)
    return build_model(LlamaConfig(**sizes | {"num_key_value_heads": 1} | changes)).eval()


def test_a_file_keeps_all_of_it(tmp_path):
    """In our own layout: bottlenecks, couplings, fusions, and what AdaLoRA has counted."""
    model, other = llama(), llama()
    kinds = {"a": KINDS["pfeiffer"], "b": KINDS["pfeiffer"], "ab": FusionConfig(of=["a", "b"]), "l": KINDS["language"]}
    for name, config in kinds.items():
        disturb(add_adapter(model, config, name).parameters(name))
        save_adapter(model, tmp_path / name, name)
        load_adapter(other, tmp_path / name, name)
        assert adapters_of(other).configs[name] == config
        assert torch.equal(other(ids(2, 6) % 32), model(ids(2, 6) % 32))


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_rows_go_through_their_own_adapters(kind):
    model = llama()
    for name in ("a", "b"):
        disturb(add_adapter(model, KINDS[kind], name).parameters(name), 0.1 if name == "a" else 0.2)
    x = ids(3, 6) % 32
    adapters = adapters_of(model)
    with adapters.for_rows(["b", None, "a"]):
        together = model(x)
    for row, names in enumerate((("b",), (), ("a",))):
        with adapters.using(*names):
            assert_close(together[row], model(x[row : row + 1])[0])


def test_gradient_checkpointing_changes_nothing(kind):
    model = llama().train()
    adapters = add_adapter(model, KINDS[kind])
    disturb(adapters.parameters("default"))
    gradients = []
    for active in (False, True):
        model.zero_grad()
        with checkpointed(model, active):
            model(ids(2, 6) % 32).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in adapters.parameters("default").items()})
    for name, gradient in gradients[0].items():
        assert_close(gradients[1][name], gradient)


def test_a_quantized_base_learns_through_the_adapter(kind):
    model = llama(hidden_size=64, intermediate_size=64)
    quantize(model, Int8Config())
    adapters = add_adapter(model, KINDS[kind])
    disturb(adapters.parameters("default"))
    model(ids(2, 6) % 32).square().sum().backward()
    assert all(p.grad is not None and p.dtype == torch.float32 for p in adapters.parameters("default").values())


def test_a_fusion_is_composed_with_what_it_fuses_and_refused_without():
    model = llama()
    pfeiffer = KINDS["pfeiffer"]
    adapters = add_adapter(model, pfeiffer, "a")
    with pytest.raises(UsageError, match="does not have"):
        add_adapter(model, FusionConfig(of=["a", "b"]), "ab")
    add_adapter(model, KINDS["houlsby"], "b")
    with pytest.raises(UsageError, match="different places"):
        add_adapter(model, FusionConfig(of=["a", "b"]), "ab")
    add_adapter(model, KINDS["ia3"], "c")
    with pytest.raises(UsageError, match="bottleneck, which `c` is not"):
        add_adapter(model, FusionConfig(of=["a", "c"]), "ac")
    add_adapter(model, pfeiffer, "d")
    add_adapter(model, FusionConfig(of=["a", "d"]), "ad")
    with pytest.raises(UsageError, match="`ad` is made of `a`"):
        adapters.remove("a")
    adapters.remove("ad")
    adapters.remove("a")


def test_sizes_and_places_are_checked():
    model = llama()
    with pytest.raises(UsageError, match="no block is left"):
        add_adapter(model, BottleneckConfig(leave_out=[0, 1]))
    with pytest.raises(ValueError, match="places"):
        BottleneckConfig(places=[])
    adapters = add_adapter(model, BottleneckConfig.houlsby(reduction_factor=1000, leave_out=[0]))
    assert {*adapters.plans["default"].parts} == {"blocks.1.attn", "blocks.1.mlp"}
    assert all(part.down.out_features == 1 for part in adapters.plans["default"].parts.values())


def test_it_begins_near_the_identity():
    model = llama()
    x = ids(2, 6) % 32
    before = model(x)
    add_adapter(model, BottleneckConfig.houlsby(reduction_factor=4))
    moved = (model(x) - before).norm() / before.norm()
    assert 0 < moved < 0.01
