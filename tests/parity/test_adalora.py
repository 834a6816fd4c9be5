"""AdaLoRA against peft: outputs, the loss with its penalty, gradients, the budget and the chosen ranks step by step."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.testing import assert_close

from families.tiny import ids, make_pair
from groundup.adapters import AdaLoRAConfig, add_adapter, load_adapter, save_adapter
from groundup.adapters.adalora import AdaLoRA, Allocator
from groundup.adapters.merging import merged
from groundup.base.errors import CheckpointError
from groundup.base.files import read_json
from groundup.layers.moe.losses import scaled

pytestmark = pytest.mark.row("PEFT-11", reference="peft")

LEAVES = ["q_proj", "v_proj", "down_proj"]
PHASES = {"steps": 14, "warmup": 2, "final": 4, "every": 2}


def make(tmp_path, **settings):
    """(theirs, ours with the same weights, our parts by name, their parameters by (our name, leaf))"""
    import peft

    pair = make_pair("llama", tmp_path)
    settings = {"rank": 4, "target_rank": 2, "orthogonality": 0.3, "alpha": 6.0, **PHASES} | settings
    c = AdaLoRAConfig(targets=LEAVES, **settings)
    config = peft.AdaLoraConfig(
        target_modules=LEAVES, init_r=c.rank, target_r=c.target_rank, lora_alpha=c.alpha, total_step=c.steps,
        tinit=c.warmup, tfinal=c.final, deltaT=c.every, beta1=c.beta1, beta2=c.beta2, orth_reg_weight=c.orthogonality,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    theirs = peft.get_peft_model(pair.theirs, config).eval()
    adapters = add_adapter(pair.ours, c)
    parts = {n: p for n, p in adapters.plans["default"].parts.items() if isinstance(p, AdaLoRA)}
    known = dict(theirs.named_parameters())
    weights = {}
    torch.manual_seed(5)
    for where, part in parts.items():
        where_theirs = where.replace("blocks.", "base_model.model.model.layers.").replace(".attn.", ".self_attn.")
        for leaf, weight in part.triplets().items():
            found = known[f"{where_theirs}.lora_{leaf}.default"]
            found.data.copy_(torch.randn_like(found) * 0.2)
            weight.data.copy_(found)
            weights[where, leaf] = found
    return theirs, pair.ours, parts, weights


def loss_of_ours(model, x):
    """The summed loss, divided once: as the training loop does."""
    logits = model(x)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten(), reduction="sum")
    return loss, x[:, 1:].numel()


def backward(model, x):
    """Gradients of the mean loss and of the penalty."""
    loss, weight = loss_of_ours(model, x)
    with scaled(weight / x.numel()):  # losses inside the model are sums over tokens
        loss.backward()
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad /= weight


def test_outputs_and_gradients_with_the_penalty(tmp_path):
    theirs, ours, parts, weights = make(tmp_path)
    x = ids()
    assert_close(ours(x), theirs(x).logits)
    theirs(input_ids=x, labels=x).loss.backward()
    ours.train()
    backward(ours, x)
    for where, part in parts.items():
        for leaf, weight in part.triplets().items():
            assert_close(weight.grad, weights[where, leaf].grad, msg=lambda m, n=(where, leaf): f"{n}: {m}")
    learning = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    assert learning == sum(p.numel() for p in theirs.parameters() if p.requires_grad)


def test_any_split_of_a_batch_gives_the_same_penalty(tmp_path):
    _, ours, parts, _ = make(tmp_path)
    ours.train()
    x = ids(rows=4)
    gradients = []
    for sizes in ([4], [1, 3], [1, 1, 2]):
        ours.zero_grad()
        with scaled(x[:, 1:].numel() / x.numel()):
            for part in x.split(sizes):
                loss_of_ours(ours, part)[0].backward()
        gradients.append([w.grad.clone() for part in parts.values() for w in part.triplets().values()])
    for other in gradients[1:]:
        for mine, wanted in zip(other, gradients[0], strict=True):
            # sums of 44 terms of about 1 in another order
            assert_close(mine, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("every", [1, 2])
def test_budget_and_ranks_are_those_of_peft_step_by_step(tmp_path, every):
    theirs, ours, parts, weights = make(tmp_path, every=every)
    allocator = next(p for p in ours.adapters.plans["default"].parts.values() if isinstance(p, Allocator))
    allocate = theirs.base_model.rankallocator
    ours.train()
    chosen = set()
    for step in range(1, PHASES["steps"] + 1):
        x = ids(seed=step)
        theirs.zero_grad(), ours.zero_grad()
        theirs(input_ids=x, labels=x).loss.backward()
        backward(ours, x)
        with torch.no_grad():
            for (where, leaf), weight in weights.items():
                weight -= 0.5 * weight.grad
                mine = parts[where].triplets()[leaf]
                mine -= 0.5 * mine.grad
        theirs.base_model.update_and_allocate(step)
        allocator.advance([{n: w.grad for n, w in part.triplets().items()} for part in parts.values()])
        assert allocator.budget(step) == allocate.budget_schedule(step)[0]
        for where, part in parts.items():
            assert_close(part.lora_E, weights[where, "E"], rtol=1e-4, atol=1e-5)  # fourteen steps of rounding
            assert torch.equal(part.lora_E == 0, weights[where, "E"] == 0), (step, where)
        chosen.add(tuple(allocator.ranks()))
    pattern = theirs.peft_config["default"].rank_pattern
    assert [sum(kept) for kept in pattern.values()] == allocator.ranks()
    assert sum(allocator.ranks()) == 2 * len(parts)
    assert len(chosen) > 2  # the budget fell more than once
    assert len(set(allocator.ranks())) > 1  # and layers differ


def test_merged_weights_are_those_of_peft(tmp_path):
    theirs, ours, parts, _ = make(tmp_path)
    wanted = {name: layer.get_delta_weight("default") for name, layer in _layers(theirs)}
    for where, part in parts.items():
        assert_close(part.delta(), wanted[where])
    assert_close(merged(ours)(ids()), theirs(ids()).logits)
    assert wanted.keys() == parts.keys()


def _layers(theirs):
    for name, module in theirs.named_modules():
        if hasattr(module, "get_delta_weight"):
            ours = name.replace("base_model.model.model.layers.", "blocks.").replace(".self_attn.", ".attn.")
            yield ours, module


@pytest.mark.parametrize("case", ["llama", "gpt2"])
def test_files_both_ways(case, tmp_path):
    """After the ranks were chosen, and files hold these alone."""
    import peft
    import transformers

    pair = make_pair(case, tmp_path)
    targets = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_fc", "mlp.c_proj"]}[case]
    settings = {"init_r": 4, "target_r": 2, "total_step": 6, "tinit": 1, "tfinal": 1, "lora_alpha": 8}
    config = peft.AdaLoraConfig(target_modules=targets, task_type="CAUSAL_LM", **settings)
    theirs = peft.get_peft_model(pair.theirs, config)
    for step in range(1, 6):
        x = ids(seed=step)
        theirs(input_ids=x, labels=x).loss.backward()
        with torch.no_grad():
            for parameter in theirs.parameters():
                if parameter.grad is not None:
                    parameter -= parameter.grad
        theirs.base_model.update_and_allocate(step)
        theirs.zero_grad()
    theirs.eval()
    wanted = theirs(ids()).logits
    theirs.save_pretrained(tmp_path / "by_peft")
    ours = load_adapter(pair.ours, tmp_path / "by_peft")
    assert_close(pair.ours(ids()), wanted)
    allocator = next(p for p in ours.plans["default"].parts.values() if isinstance(p, Allocator))
    assert sum(allocator.ranks()) == 2 * len(allocator.ranks())
    assert len({*allocator.ranks()}) > 1
    save_adapter(pair.ours, tmp_path / "by_us")
    base = transformers.AutoModelForCausalLM.from_pretrained(pair.folder / "theirs", dtype=torch.float32)
    again = peft.PeftModel.from_pretrained(base, tmp_path / "by_us").eval()
    assert_close(again(ids()).logits, wanted)
    written, read = (load_file(tmp_path / d / "adapter_model.safetensors") for d in ("by_us", "by_peft"))
    assert written.keys() == read.keys()
    assert all(torch.equal(written[name], read[name]) for name in read)


def test_where_peft_has_one_matrix_for_several_it_is_written_in_our_own_layout(tmp_path):
    model = make_pair("gpt2", tmp_path).ours
    add_adapter(model, AdaLoRAConfig(steps=5, targets=["q_proj", "v_proj"]))
    for parameter in model.adapters.parameters("default").values():
        parameter.data.add_(0.1)
    save_adapter(model, tmp_path / "own")
    other = make_pair("gpt2", tmp_path / "again").ours
    load_adapter(other, tmp_path / "own")
    assert torch.equal(other(ids()), model(ids()))


def test_what_does_not_fit_is_refused(tmp_path):
    model = make_pair("llama", tmp_path).ours
    add_adapter(model, AdaLoRAConfig(steps=5, targets=["q_proj"], rank=3, target_rank=2))
    parts = [p for p in model.adapters.plans["default"].parts.values() if isinstance(p, AdaLoRA)]
    parts[0].kept[0] = False
    save_adapter(model, tmp_path / "a")
    described = read_json(tmp_path / "a" / "adapter_config.json")
    key = next(iter(described["rank_pattern"]))
    for changes, match in (
        ({"rank_pattern": {key: [True, False]}}, "2 entries for rank 3"),
        ({"rank_pattern": {key: [True, True, True]}}, "wanted"),
        ({"rank_pattern": {key: 2}}, "must list true and false"),
        ({"init_r": 5}, "rank_pattern has 3 entries"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "with biases"),
        ({"tinit": 9}, "leaves no step"),
    ):
        (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(described | changes))
        with pytest.raises(CheckpointError, match=match):
            load_adapter(model, tmp_path / "a", "again")
