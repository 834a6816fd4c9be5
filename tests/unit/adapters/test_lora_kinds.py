"""LoRA's descendants by their formulas, on quantized bases too; merging; sums, multiples and differences."""

import copy

import pytest
import torch
from torch import nn

from families.tiny import ids, make_ours
from groundup.adapters import (
    LoRAConfig,
    add_adapter,
    combine,
    extract,
    merge,
    merged,
    multiply,
    remove_adapter,
    unmerge,
)
from groundup.base.errors import UsageError
from groundup.quantization.configs import Int8Config
from groundup.quantization.exchange import quantize
from groundup.training.config import TrainingConfig
from groundup.training.objectives.language_modeling import LanguageModeling
from groundup.training.optimizers.config import AdamWConfig
from groundup.training.optimizers.lora_plus import lora_plus_groups
from groundup.training.session import Training

pytestmark = pytest.mark.row("PEFT-10", reference="definition")


@pytest.fixture
def model(tmp_path):
    return make_ours("llama", tmp_path)


def away(model, name="default", seed=0, size=0.1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.adapters.parameters(name).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * size)


def part_of(model, where="blocks.0.attn.q_proj", name="default"):
    return model.get_submodule(where).adapters[name]


def test_it_begins_as_the_base_with_a_random_and_b_zero(model):
    plain = model(ids())
    for init in ("kaiming", "gaussian"):
        add_adapter(model, LoRAConfig(rank=8, init=init))
        assert torch.equal(model(ids()), plain)
        a = torch.cat([p.flatten() for n, p in model.adapters.parameters("default").items() if "lora_A" in n])
        b = [p for n, p in model.adapters.parameters("default").items() if "lora_B" in n]
        assert a.std() > 0
        assert not any(p.any() for p in b)
        if init == "gaussian":  # deviation 1 / r, and tails that a uniform distribution lacks
            assert 0.11 < float(a.std()) < 0.14
            assert float(a.abs().max()) > 2.5 / 8
        remove_adapter(model)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(("rslora", "scale"), [(False, 6 / 4), (True, 6 / 2)])
def test_the_update_is_alpha_over_r_times_b_a(model, rslora, scale):
    add_adapter(model, LoRAConfig(rank=4, alpha=6, rslora=rslora, targets=["q_proj"]))
    away(model)
    layer, x = model.get_submodule("blocks.0.attn.q_proj"), torch.randn(2, 5, 32)
    part = part_of(model)
    want = x @ (layer.weight + scale * part.lora_B.weight @ part.lora_A.weight).T
    torch.testing.assert_close(layer(x), want)


def test_ranks_and_alphas_of_single_targets(model):
    add_adapter(model, LoRAConfig(rank=4, alpha=8, ranks={"blocks.1.*": 2, "down_proj": 3}, alphas={"o_proj": 1.0}))
    assert part_of(model).rank == 4
    assert part_of(model, "blocks.1.mlp.down_proj").rank == 2
    assert part_of(model, "blocks.0.mlp.down_proj").rank == 3
    assert part_of(model, "blocks.0.attn.o_proj").scale == 1 / 4
    with pytest.raises(UsageError, match="name `embedding`"):
        LoRAConfig(ranks={"embedding": 2}).plan(model, "x")


def test_pissa_starts_from_the_largest_singular_values_and_leaves_the_base(model):
    weight = model.get_submodule("blocks.0.attn.q_proj").weight.detach().clone()
    plain = model(ids())
    add_adapter(model, LoRAConfig(rank=4, alpha=6, init="pissa"))
    torch.testing.assert_close(model(ids()), plain)
    part = part_of(model)
    u, s, v = torch.linalg.svd(weight)
    torch.testing.assert_close(6 / 4 * part.lora_B.weight @ part.lora_A.weight, u[:, :4] * s[:4] @ v[:4])
    torch.testing.assert_close(part.lora_A.weight.norm(dim=1), part.lora_B.weight.norm(dim=0))
    remove_adapter(model)
    assert torch.equal(model.get_submodule("blocks.0.attn.q_proj").weight, weight)
    with pytest.raises(UsageError, match="32 singular values"):
        LoRAConfig(rank=33, init="pissa").plan(model, "x")
    with pytest.raises(UsageError, match="choose one"):
        LoRAConfig(init="pissa", dora=True).plan(model, "x")
    with pytest.raises(UsageError, match="is an embedding"):
        LoRAConfig(init="pissa", targets=["tokens"]).plan(model, "x")


def test_dora_sets_the_length_of_each_row(model):
    plain = model(ids())
    add_adapter(model, LoRAConfig(rank=4, alpha=4, dora=True))
    torch.testing.assert_close(model(ids()), plain)
    away(model)
    merge(model)
    for where, part in model.adapters.plans["default"].parts.items():
        torch.testing.assert_close(model.get_submodule(where).weight.norm(dim=1), part.lora_magnitude)


@pytest.mark.parametrize("settings", [{}, {"dora": True}, {"init": "pissa"}, {"rslora": True}], ids=str)
def test_on_a_quantized_base(model, settings):
    quantize(model, Int8Config())
    plain = model(ids())
    add_adapter(model, LoRAConfig(rank=4, **settings))
    torch.testing.assert_close(model(ids()), plain, rtol=1e-4, atol=1e-5)
    away(model)
    want = model(ids())
    want.logsumexp(-1).mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.adapters.parameters("default").values())
    with pytest.raises(UsageError, match=r"is quantized.*requantize"):
        merge(model)
    assert torch.equal(model(ids()), want)
    merge(model, requantize=True)
    inside = model(ids())
    assert not torch.equal(inside, want)
    assert (inside - want).norm() < 0.1 * want.norm()
    unmerge(model)
    assert torch.equal(model(ids()), want)
    again = merged(model, requantize=True)
    torch.testing.assert_close(again(ids()), inside)
    assert {type(m).__name__ for n, m in again.named_modules() if n.endswith("q_proj")} == {"Int8Linear"}


def test_merging_is_all_or_nothing(model):
    add_adapter(model, LoRAConfig(rank=2))
    away(model)
    with torch.no_grad():
        part_of(model, "blocks.1.mlp.down_proj").lora_B.weight.fill_(torch.inf)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UsageError, match="that are not finite"):
        merge(model)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not model.adapters.merged


def test_what_is_merged_is_not_switched(model):
    for name in ("one", "two"):
        add_adapter(model, LoRAConfig(rank=2, dora=name == "two"), name)
        away(model, name)
    with pytest.raises(UsageError, match="`one` does not act"):
        merge(model, "one")
    model.adapters.activate("one", "two")
    want = model(ids())
    with pytest.raises(UsageError, match="not the first"):
        merge(model, "two")
    merge(model, "one")
    torch.testing.assert_close(model(ids()), want, rtol=1e-4, atol=1e-5)
    for action in (
        lambda: model.adapters.activate("two"),
        lambda: model.adapters.remove("one"),
        lambda: add_adapter(model, LoRAConfig(), "three"),
        lambda: model.adapters.for_rows(["two", "two"]).__enter__(),
        lambda: multiply(model, 2.0, "one"),
    ):
        with pytest.raises(UsageError, match="unmerge it"):
            action()
    merge(model, "two")
    torch.testing.assert_close(model(ids()), want, rtol=1e-4, atol=1e-5)
    unmerge(model)
    assert torch.equal(model(ids()), want)


def test_a_tied_head_stays_what_it_was_when_the_embedding_takes_an_adapter_in(tmp_path):
    model = make_ours("gpt2", tmp_path)
    add_adapter(model, LoRAConfig(rank=2, targets=["tokens"]))
    away(model)
    want = model(ids())
    merge(model)
    torch.testing.assert_close(model(ids()), want, rtol=1e-4, atol=1e-5)
    unmerge(model)
    assert model.lm_head.weight is model.embed.tokens.weight
    new = merged(model)
    assert not new.config.tie_word_embeddings
    assert model.config.tie_word_embeddings
    torch.testing.assert_close(new(ids()), want, rtol=1e-4, atol=1e-5)


def test_multiples_and_sums(model):
    plain = model(ids())
    deltas = {}
    for seed, (name, rank) in enumerate({"one": 2, "two": 3}.items()):
        add_adapter(
            model, LoRAConfig(rank=rank, alpha=5, targets=["q_proj"] if name == "one" else ["q_proj", "o_proj"]), name
        )
        away(model, name, seed)
        deltas[name] = part_of(model, name=name).delta().detach().clone()
    combine(model, {"one": 0.5, "two": -2.0}, "both")
    torch.testing.assert_close(part_of(model, name="both").delta(), 0.5 * deltas["one"] - 2 * deltas["two"])
    assert part_of(model, name="both").rank == 5
    assert part_of(model, "blocks.0.attn.o_proj", "both").rank == 3
    combine(model, {"one": 1.0, "two": 1.0}, "best", rank=2)
    u, s, v = torch.linalg.svd(deltas["one"] + deltas["two"])
    torch.testing.assert_close(part_of(model, name="best").delta(), u[:, :2] * s[:2] @ v[:2], rtol=1e-4, atol=1e-5)
    multiply(model, 3.0, "one")
    torch.testing.assert_close(part_of(model, name="one").delta(), 3 * deltas["one"])
    multiply(model, 0.0, "one")
    model.adapters.activate("one")
    torch.testing.assert_close(model(ids()), plain)
    add_adapter(model, LoRAConfig(dora=True), "dora")
    with pytest.raises(UsageError, match="only plain LoRAs"):
        combine(model, {"dora": 1.0}, "no")


def test_an_adapter_from_the_difference_of_two_models(model):
    tuned = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, layer in tuned.named_modules():
            if isinstance(layer, nn.Linear) and name.startswith("blocks."):
                out, inner = layer.weight.shape
                layer.weight += torch.randn(out, 3, generator=generator) @ torch.randn(3, inner, generator=generator)
    found = extract(tuned, model, rank=3)
    assert found.share == pytest.approx(1, abs=1e-5)
    assert not found.left_out
    torch.testing.assert_close(model(ids()), tuned(ids()), rtol=1e-3, atol=1e-3)
    remove_adapter(model)
    with torch.no_grad():
        tuned.norm.weight += 10
    some = extract(tuned, model, rank=2)
    assert 0.5 < some.share < 0.99
    assert some.left_out == ("norm.weight",)
    assert all(0 < share < 1 for share in some.layers.values())
    assert "% of the difference's norm; left out: norm.weight" in str(some)
    part, where = part_of(model), "blocks.0.attn.q_proj.weight"
    whole = tuned.state_dict()[where] - model.state_dict()[where]
    assert float((part.delta().norm() / whole.norm()).detach()) == pytest.approx(
        some.layers["blocks.0.attn.q_proj"], rel=1e-4
    )
    with pytest.raises(UsageError, match="do not differ"):
        extract(model, copy.deepcopy(model), rank=2, name="none")


def test_other_rows_with_dora_ranks_and_starts(model):
    x, names = ids(rows=4), ["wide", "dora", None, "pissa"]
    for seed, (name, config) in enumerate(
        {"wide": {"rank": 6}, "dora": {"rank": 2, "dora": True}, "pissa": {"rank": 3, "init": "pissa"}}.items()
    ):
        add_adapter(model, LoRAConfig(targets=["*"], **config) if name != "pissa" else LoRAConfig(**config), name)
        away(model, name, seed)
    alone = []
    for b, name in enumerate(names):
        with model.adapters.using(*[name] if name else []):
            alone.append(model(x[b : b + 1]))
    with model.adapters.for_rows(names):
        torch.testing.assert_close(model(x), torch.cat(alone))


def test_biases_and_whole_modules_learn_beside_it(tmp_path):
    model = make_ours("gpt2", tmp_path)
    plain = model(ids())
    add_adapter(model, LoRAConfig(targets=["q_proj"], bias="lora_only", modules_to_save=["norm"]))
    learn = {name for name, p in model.named_parameters() if p.requires_grad and ".adapters." not in name}
    assert {"norm.weight", "norm.bias", "blocks.0.attn.q_proj.bias"} <= learn
    assert "blocks.0.attn.k_proj.bias" not in learn
    away(model)
    want = model(ids())
    new = merged(model)
    remove_adapter(model)
    assert torch.equal(model(ids()), plain)
    torch.testing.assert_close(new(ids()), want, rtol=1e-4, atol=1e-5)
    everything = LoRAConfig(targets=["q_proj"], bias="all").plan(model, "x").tensors
    assert set(everything) == {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    with pytest.raises(UsageError, match="is tied"):
        LoRAConfig(modules_to_save=["lm_head"]).plan(model, "x")


def test_dropout_acts_in_training_alone(model):
    add_adapter(model, LoRAConfig(rank=4, dropout=0.5))
    away(model)
    assert torch.equal(model(ids()), model(ids()))
    model.train()
    assert not torch.equal(model(ids()), model(ids()))


def test_lora_plus_gives_b_a_faster_rate(model):
    add_adapter(model, LoRAConfig(rank=2, lr_ratio=16))
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = lora_plus_groups([{"params": named, "weight_decay": 0.1}], lr=1e-3, ratios={"default": 16})
    rates = {name: (group["lr"], group["weight_decay"]) for group in groups for name, _ in group["params"]}
    assert len(rates) == len(named)
    assert all(rate == ((1.6e-2 if ".lora_B." in name else 1e-3), 0.1) for name, rate in rates.items())
    torch.optim.SGD([{**group, "params": [p for _, p in group["params"]]} for group in groups], lr=1.0)
    slow = lora_plus_groups([{"params": named, "weight_decay": 0.1, "lr": 1e-4}], lr=1e-3, ratios={"default": 2})
    assert sorted(group["lr"] for group in slow) == [1e-4, 2e-4]
    (other,) = lora_plus_groups([{"params": named, "weight_decay": 0.1}], lr=1e-3, ratios={"another": 16})
    assert other["lr"] == 1e-3


def test_the_training_takes_the_rate_from_the_adapter(model, tmp_path):
    add_adapter(model, LoRAConfig(rank=2, lr_ratio=16))
    config = TrainingConfig(steps=1, out_dir=tmp_path / "run", optimizer=AdamWConfig(lr=1e-3))
    training = Training(model, LanguageModeling(), [{"ids": ids(), "labels": ids()}], config)
    assert sorted({group["lr"] for group in training.optimizer.param_groups}) == [1e-3, 1.6e-2]


def test_experts_have_matrices_of_their_own(tmp_path):
    model = make_ours("mixtral", tmp_path)
    add_adapter(model, LoRAConfig(rank=2, alpha=3, targets=["*.experts.*"]))
    away(model)
    where, part = next(iter(model.adapters.plans["default"].parts.items()))
    layer = model.get_submodule(where)
    experts, out, inner = layer.weight.shape
    assert part.lora_A.weight.shape == (experts, 2, inner)
    assert part.lora_B.weight.shape == (experts, out, 2)
    x, sizes = torch.randn(7, inner), torch.tensor([3, 0, 4] + [0] * (experts - 3))[:experts]
    want = torch.cat([x[:3] @ (layer.weight + part.delta())[0].T, x[3:] @ (layer.weight + part.delta())[2].T])
    torch.testing.assert_close(layer(x, sizes), want)
    with pytest.raises(UsageError, match="experts, and DoRA"):
        LoRAConfig(dora=True, targets=["*.experts.*"]).plan(model, "x")


def test_a_recurrent_layer_with_weight_dropout_keeps_its_adapter(tmp_path):
    model = make_ours("awd-lstm", tmp_path).train()
    add_adapter(model, LoRAConfig(rank=2, targets=["state_proj"]))
    away(model)
    model(ids()).logsumexp(-1).mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.adapters.parameters("default").values())
