"""Adaptation as one problem: what may learn (Γ), a loss and data; `fit` finds γ and nothing else of the model moves.

γ* = argmin over γ in Γ of the mean over (x, y) of loss(γ, θ, x, y)               θ: the base's weights
"""

import copy

import pytest
import torch
import torch.nn.functional as F

from families.tiny import ids, make_ours
from groundup.adapters import (
    BitFitConfig,
    BottleneckConfig,
    IA3Config,
    LoRAConfig,
    PartialConfig,
    PrefixConfig,
    PromptConfig,
    PTuningV2Config,
    add_adapter,
)
from groundup.training.config import TrainingConfig
from groundup.training.loop import fit
from groundup.training.objectives.language_modeling import LanguageModeling
from groundup.training.optimizers.config import AdamWConfig
from groundup.training.schedules import Constant

STEPS, LR = 3, 1e-2
FAMILIES_OF_NUMBERS = {
    "all, without an adapter": None,
    "all": PartialConfig(train=["all"]),
    "head": PartialConfig(train=["head"]),
    "biases": BitFitConfig(),
    "lora": LoRAConfig(rank=2),
    "ia3": IA3Config(),
    "bottleneck": BottleneckConfig(),
    "prompt": PromptConfig(length=2, init="random"),
    "prefix": PrefixConfig(length=2, hidden=8),
    "p-tuning v2": PTuningV2Config(length=2),
}
IN_THE_BASE_ALONE = ("all, without an adapter", "all", "head", "biases")


def moves(kind, name):
    """Whether a tensor of the base may learn."""
    return {"head": name == "lm_head.weight", "biases": name.endswith(".bias")}.get(kind, kind.startswith("all"))


class LastToken:
    """A loss of a task's own: classes as words, scored at the last token."""

    rows_together = 1

    def prepare(self, batch):
        return batch

    def head(self, batch):
        return None

    def loss(self, outputs, batch):
        total = F.cross_entropy(outputs[:, -1].float(), batch["labels"][:, -1], reduction="sum")
        return total, torch.tensor(len(outputs)), {}


def by_hand(model, batch, kind):
    """The losses of plain AdamW steps over whatever learns; nothing of the training package."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], LR, weight_decay=0)
    losses = []
    for _ in range(STEPS):
        logits, labels = model(batch["ids"]), batch["labels"]
        if kind == "last token":
            logits, labels = logits[:, -1:], labels[:, -1:]
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def problem(tmp_path, config):
    """(a model that learns Γ, its numbers before, a batch)"""
    model = make_ours("gpt2-untied", tmp_path)
    if config is None:
        model.requires_grad_(True)
    else:
        torch.manual_seed(0)
        add_adapter(model, config)
    tokens = ids(4)
    return (
        model,
        {n: p.detach().clone() for n, p in model.named_parameters()},
        dict(ids=tokens[:, :-1], labels=tokens[:, 1:]),
    )


def solve(model, batch, loss, out_dir):
    """The losses of the run of `fit`."""
    config = TrainingConfig(
        steps=STEPS, batch_size=4, optimizer=AdamWConfig(lr=LR, betas=(0.9, 0.999), weight_decay=0.0),
        schedule=Constant(), clip=None, compile=False, checkpoint_every=10**9, out_dir=out_dir,
    )  # fmt: skip
    objective = LanguageModeling() if loss == "next token" else LastToken()
    run = fit(model, objective, [{k: v.contiguous() for k, v in batch.items()}] * STEPS, config)
    return [event["loss"] for event in run.metrics("train")]


@pytest.mark.row("PEFT-01", reference="AdamW steps written out")
@pytest.mark.parametrize("loss", ["next token", "last token"])
@pytest.mark.parametrize("kind", FAMILIES_OF_NUMBERS)
def test_any_share_with_any_loss_is_learnt_by_the_one_loop_and_the_rest_stays(kind, loss, tmp_path):
    model, before, batch = problem(tmp_path, FAMILIES_OF_NUMBERS[kind])
    other = copy.deepcopy(model)
    losses, wanted = solve(model, batch, loss, tmp_path / "run"), by_hand(other, batch, loss)
    torch.testing.assert_close(losses, wanted, rtol=1e-4, atol=1e-5)
    assert losses[-1] < losses[0]
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    base = set(dict(make_ours("gpt2-untied", tmp_path / "base").named_parameters()))
    assert {name.replace(".base.", ".") for name in changed} & base == {n for n in base if moves(kind, n)}
    assert changed - base or kind in IN_THE_BASE_ALONE


@pytest.mark.row("PEFT-03", reference="AdamW steps written out")
@pytest.mark.parametrize("kind", ["all, without an adapter", "all"])
def test_full_fine_tuning_moves_every_tensor_as_steps_written_out_do(kind, tmp_path):
    model, before, batch = problem(tmp_path, FAMILIES_OF_NUMBERS[kind])
    other = copy.deepcopy(model)
    solve(model, batch, "next token", tmp_path / "run")
    by_hand(other, batch, "next token")
    wanted = dict(other.named_parameters())
    for name, p in model.named_parameters():
        assert p.requires_grad
        assert not torch.equal(p, before[name]), name
        if not name.endswith("bias"):  # a bias of keys has no gradient but rounding, which Adam makes large
            torch.testing.assert_close(p, wanted[name], rtol=1e-3, atol=2e-4, msg=lambda m, name=name: f"{name}: {m}")
