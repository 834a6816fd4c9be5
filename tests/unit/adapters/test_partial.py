"""Training a share of the base's own tensors: which learn, and that the base comes back bit for bit."""

import pytest
import torch

from families import CASES
from families.tiny import ids, make_ours
from groundup.adapters import BitFitConfig, LoRAConfig, PartialConfig, adapters_of, add_adapter
from groundup.adapters.files import load_adapter, save_adapter
from groundup.base.errors import UsageError


def loss(model, x):
    return torch.nn.functional.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())


def learn(model, x, steps=6, lr=3e-2):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr, weight_decay=0)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model, x)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def copied(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


FAMILIES = {id(reference): name for name, reference in reversed(CASES.items()) if reference.make is None}.values()


@pytest.mark.row("PEFT-05", reference="the family's own biases")
@pytest.mark.parametrize("family", FAMILIES)
def test_bitfit_trains_the_biases_of_any_family_or_says_that_there_are_none(family, tmp_path):
    model = make_ours(family, tmp_path)
    before = copied(model)
    biases = {name for name in before if name.endswith(".bias")}
    if not biases:
        with pytest.raises(UsageError, match=f"{type(model).__name__} has no biases"):
            add_adapter(model, BitFitConfig())
        assert all(p.requires_grad for p in model.parameters())
        return
    add_adapter(model, BitFitConfig())
    assert {name for name, p in model.named_parameters() if p.requires_grad} == biases
    learn(model, ids(), steps=2)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert changed <= biases
    adapters_of(model).remove("default")
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.row("PEFT-03", reference="the names of the tensors")
@pytest.mark.row("PEFT-04", reference="the names of the tensors")
def test_head_last_layer_last_block_and_all_train_more_and_learn_more(tmp_path):
    last = {"blocks.2." + leaf for leaf in ("attn.", "mlp.", "norm1.", "norm2.")}
    shares = {
        ("head",): {"lm_head."},
        ("head", "norm"): {"lm_head.", "norm."},
        ("head", "norm", "last:1"): {"lm_head.", "norm.", *last},
        ("all",): {"embed.", "blocks.", "norm.", "lm_head."},
    }
    x, counts, ends = ids(4), [], []
    for words, prefixes in shares.items():
        model = make_ours("gpt2-untied", tmp_path / "_".join(words).replace(":", ""))
        assert len(model.blocks) == 3
        add_adapter(model, PartialConfig(train=list(words)))
        learning = {name for name, p in model.named_parameters() if p.requires_grad}
        assert learning == {name for name in copied(model) if name.startswith(tuple(prefixes))}
        counts.append(model.num_parameters(trainable=True))
        assert f"{counts[-1]:,} of" in adapters_of(model).report()
        ends.append(learn(model, x, steps=12, lr=3e-3)[-1])
    assert counts == sorted(set(counts))
    assert ends == sorted(ends, reverse=True)
    assert model.num_parameters() == counts[-1]


def test_one_can_be_switched_off_and_saved_and_stands_beside_another_kind(tmp_path):
    model = make_ours("gpt2", tmp_path)
    x, before = ids(), copied(model)
    base = model(x)
    adapters = add_adapter(model, PartialConfig(train=["last:1"]), "block")
    learn(model, x)
    learned = model(x)
    adapters.activate()
    assert torch.equal(model(x), base)
    save_adapter(model, tmp_path / "block", "block")
    adapters.activate("block")
    assert torch.equal(model(x), learned)
    add_adapter(model, LoRAConfig(rank=2), "low")
    adapters.activate("block")
    with adapters.for_rows(["low", None]):  # B of a new one is zero, so either is the base
        assert torch.equal(model(x), base)
    assert torch.equal(model(x), learned)
    adapters.remove("block")
    assert all(".low." in name for name, p in model.named_parameters() if p.requires_grad)
    adapters.remove("low")
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    load_adapter(model, tmp_path / "block", "again")
    assert torch.equal(model(x), learned)


def test_a_head_that_is_the_embedding_learns_as_one_and_wrong_words_are_refused(tmp_path):
    model = make_ours("gpt2", tmp_path)
    adapters = add_adapter(model, PartialConfig(train=["head"]))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["embed.tokens.weight"]
    with pytest.raises(UsageError, match="would both have their own"):
        add_adapter(model, PartialConfig(train=["embed.tokens.*"]), "second")
    adapters.remove("default")
    for wrong in ("tail", "last:0", "blocks.9.*"):
        with pytest.raises(UsageError, match=f"`{wrong.replace('*', '.')}"):
            add_adapter(model, PartialConfig(train=[wrong]))
