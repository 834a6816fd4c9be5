"""AdaLoRA in the training loop: its gradients and penalty at the right weight, its budget, its ranks."""

import pytest
import torch
from torch.testing import assert_close

from groundup.adapters import AdaLoRAConfig, add_adapter
from groundup.adapters.adalora import AdaLoRA, Allocator
from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model
from groundup.training.distributed import Workers
from groundup.training.objectives.language_modeling import LanguageModeling
from groundup.training.optimizers.config import AdamWConfig, SGDConfig
from groundup.training.precision import PrecisionConfig
from groundup.training.step import Step

SIZES = dict(
    vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2,
)  # fmt: skip


def make(optimizer=None, micro_batch_size=None, clip=None, **settings):
    """(model, step, parts, allocator)"""
    torch.manual_seed(0)
    model = build_model(LlamaConfig(**SIZES)).train()
    settings = {"steps": 12, "warmup": 2, "final": 3, "rank": 4, "target_rank": 1, "alpha": 16.0} | settings
    adapters = add_adapter(model, AdaLoRAConfig(**settings))
    parts = [p for p in adapters.plans["default"].parts.values() if isinstance(p, AdaLoRA)]
    [allocator] = [p for p in adapters.plans["default"].parts.values() if isinstance(p, Allocator)]
    learning = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    built = (optimizer or AdamWConfig(lr=1e-2)).build(learning)
    options = {"micro_batch_size": micro_batch_size, "clip": clip}
    workers, precision = Workers(torch.device("cpu")), PrecisionConfig()
    return model, Step(model, model, LanguageModeling(), built, precision, workers, **options), parts, allocator


def batch(seed=0):
    """Four rows of a text with a period; one is half padding, one is trained in part."""
    start = torch.randint(1, 8, (4, 1), generator=torch.Generator().manual_seed(seed))
    tokens = 1 + (start + 3 * torch.arange(11)) % 8
    ids, labels = tokens[:, :-1].contiguous(), tokens[:, 1:].clone()
    documents = torch.ones_like(ids)
    documents[0, 5:], labels[0, 5:], labels[1, :4] = 0, -100, -100
    return {"ids": ids, "labels": labels, "documents": documents, "sources": [""] * 4}


def moved(**options):
    """By how much one step of plain descent at rate 1 changes each triplet."""
    optimizer = SGDConfig(lr=1.0, momentum=0.0, weight_decay=0.0)
    _, step, parts, _ = make(optimizer, warmup=5, **options)
    before = [w.detach().clone() for part in parts for w in part.triplets().values()]
    step(batch())
    after = [w.detach() for part in parts for w in part.triplets().values()]
    return [a - b for a, b in zip(before, after, strict=True)]


def test_importance_is_that_of_the_gradients_that_are_applied():
    """With plain descent at rate 1 the weights move by what was clipped, and by nothing else."""
    optimizer = SGDConfig(lr=1.0, momentum=0.0, weight_decay=0.0)
    _, step, parts, allocator = make(optimizer, warmup=5, clip=0.01, orthogonality=0.0)
    before = [{name: w.detach().clone() for name, w in part.triplets().items()} for part in parts]
    seen = []
    allocator.advance = seen.extend
    step(batch())
    for part, was, gradients in zip(parts, before, seen, strict=True):
        for name, weight in part.triplets().items():
            torch.testing.assert_close(was[name] - weight.detach(), gradients[name])


def test_any_split_gives_the_same_update():
    whole = moved()
    for size in (1, 3):
        for mine, wanted in zip(moved(micro_batch_size=size), whole, strict=True):
            assert_close(mine, wanted)


def test_the_penalty_enters_once_whatever_is_padding_or_untrained():
    """As l is zero at first, P and Q get no gradient but the penalty's: w dR/dP."""
    _, _, parts, _ = make()
    penalty = sum(part.distance() for part in parts) / (2 * len(parts))
    (0.5 * penalty).backward()
    wanted = [w.grad for part in parts for name, w in part.triplets().items() if name != "E"]
    changes = moved(micro_batch_size=2)
    got = [change for i, change in enumerate(changes) if i % 3 != 1]
    for mine, gradient in zip(got, wanted, strict=True):
        assert_close(mine, gradient)


def test_the_loop_weighs_and_masks_as_the_formulas_say():
    _, step, parts, allocator = make(clip=0.5)
    losses, left = [], []
    for number in range(1, 13):
        losses.append(step(batch(number)).loss)
        left.append(sum(allocator.ranks()))
        if number > 2:
            assert left[-1] == allocator.budget(number)
            assert all(not part.lora_E[~part.kept].any() for part in parts)
    first, last = 4 * len(parts), len(parts)
    assert left[:2] == [first, first]
    assert left[-4:] == [last] * 4
    assert left == sorted(left, reverse=True)
    assert len({*left}) > 5
    assert losses[-1] < losses[0]


def test_sensitivity_is_of_the_gradient_that_the_optimizer_used():
    optimizer = SGDConfig(lr=1.0, momentum=0.0, weight_decay=0.0)
    _, step, parts, _ = make(optimizer, micro_batch_size=2, clip=0.01)
    before = [part.lora_B.detach().clone() for part in parts]
    step(batch())
    for part, old in zip(parts, before, strict=True):
        used = old - part.lora_B.detach()
        sensitivity = part.get_buffer("sensitivity_B")
        # the gradient told from two weights of 0.02 that differ by 1e-5: three digits
        assert_close(sensitivity, 0.15 * (part.lora_B.detach() * used).abs(), rtol=2e-2, atol=1e-9)


def test_every_optimizer_shows_the_gradient_that_it_used():
    """Some multiply it in place, some while they read it."""
    found = []
    for kind in (SGDConfig(lr=1e-9, momentum=0.0, weight_decay=0.0), AdamWConfig(lr=1e-9, weight_decay=0.0)):
        _, step, parts, _ = make(kind, clip=0.01)
        step(batch())
        found.append([part.get_buffer("sensitivity_B") for part in parts])
    for first, second in zip(*found, strict=True):
        assert first.any()
        assert_close(second, first, rtol=1e-4, atol=1e-10)


def test_what_a_checkpoint_keeps_is_enough_to_go_on():
    plain = SGDConfig(lr=0.5, momentum=0.0, weight_decay=0.0)
    model, step, _, allocator = make(plain)
    other, again, _, restored = make(plain)
    for number in range(6):
        step(batch(number))
    kept, own = model.adapters.tensors("default"), other.adapters.tensors("default")
    with torch.no_grad():
        for name, tensor in kept.items():
            own[name].copy_(tensor)
    for number in range(6, 12):
        step(batch(number))
        again(batch(number))
        assert restored.ranks() == allocator.ranks()
    assert int(restored.step) == 12


def test_a_step_that_is_left_out_does_not_count():
    _, step, _, allocator = make()
    step.loss_limit = 0.0
    step(batch())
    assert int(allocator.step) == 0


def test_phases_are_checked():
    with pytest.raises(ValueError, match="leaves no step"):
        AdaLoRAConfig(steps=10, warmup=5, final=5)
    with pytest.raises(ValueError, match="target_rank is above rank"):
        AdaLoRAConfig(steps=10, rank=2, target_rank=4)
