"""GPT-1's fine-tuning: the four input formats, and L2 + λ L1 against transformers' model with two heads."""

import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from safetensors.torch import load_file
from torch.testing import assert_close

from families.gpt2 import GPT2
from groundup.base.errors import DataError, UsageError
from groundup.data.task_inputs import TaskInputs, task_batch
from groundup.models.configs.openai_gpt import OpenAIGPTConfig
from groundup.models.hub import build_model, load_model
from groundup.training.config import TrainingConfig
from groundup.training.loop import fit
from groundup.training.objectives.config import JointFineTuningConfig

START, DELIMITER, EXTRACT = 61, 62, 63
INPUTS = TaskInputs(START, DELIMITER, EXTRACT, context_length=32)
ROW = pytest.mark.row("LM-09", reference="transformers, Radford et al. 2018")


@ROW
def test_the_four_formats():
    """Figure 1 of the paper, token by token."""
    a, b, c = [1, 2, 3], [4, 5], [6]
    s, d, e = START, DELIMITER, EXTRACT
    assert INPUTS.classification(a) == [[s, 1, 2, 3, e]]
    assert INPUTS.entailment(a, b) == [[s, 1, 2, 3, d, 4, 5, e]]
    assert INPUTS.similarity(a, b) == [[s, 1, 2, 3, d, 4, 5, e], [s, 4, 5, d, 1, 2, 3, e]]
    assert INPUTS.multiple_choice(a, [b, c]) == [[s, 1, 2, 3, d, 4, 5, e], [s, 1, 2, 3, d, 6, e]]


def test_long_texts_are_cut_and_impossible_ones_refused():
    short = TaskInputs(START, DELIMITER, EXTRACT, context_length=9)
    assert short.entailment([1] * 20, [2] * 20) == [[START, 1, 1, 1, DELIMITER, 2, 2, 2, EXTRACT]]
    assert short.classification([1] * 20) == [[START, *[1] * 7, EXTRACT]]
    with pytest.raises(DataError, match="no room"):
        TaskInputs(START, DELIMITER, EXTRACT, context_length=4).entailment([1], [2])
    with pytest.raises(DataError, match="two answers"):
        INPUTS.multiple_choice([1], [[2]])
    with pytest.raises(DataError, match="as many rows"):
        task_batch([[[1], [2]], [[1]]], [0, 1])


def test_batches_are_padded_and_shifted():
    batch = task_batch([INPUTS.classification([1, 2]), INPUTS.classification([3])], [1, 0], pad=9)
    assert batch["ids"].tolist() == [[START, 1, 2, EXTRACT], [START, 3, EXTRACT, 9]]
    assert batch["labels"].tolist() == [[1, 2, EXTRACT, -100], [3, EXTRACT, -100, -100]]
    assert batch["documents"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert (batch["last"].tolist(), batch["targets"].tolist()) == ([3, 2], [1, 0])


def as_tensors(batch):
    return {name: torch.from_numpy(values) for name, values in batch.items()}


def joint_loss(model, config, batch):
    objective = JointFineTuningConfig(**config).build()
    outputs = model(batch["ids"], documents=batch["documents"], head=objective.head(batch))
    loss, weight, metrics = objective.loss(outputs, batch)
    return loss / weight, weight, metrics


@ROW
def test_multiple_choice_with_both_losses_equals_transformers(tmp_path):
    """Loss, gradients by names on disk, and files both ways; texts of one length, so that both means are the same."""
    torch.manual_seed(0)
    theirs = tf.OpenAIGPTDoubleHeadsModel(tf.OpenAIGPTConfig(**GPT2)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs").eval()
    examples = [INPUTS.multiple_choice([i, 2 * i, 7], [[8, i], [9, 4], [10, 3 * i]]) for i in (1, 5)]
    batch = as_tensors(task_batch(examples, [2, 0]))
    found, weight, metrics = joint_loss(ours, {"task": "multiple_choice", "choices": 3}, batch)
    ids = batch["ids"].view(2, 3, -1)
    out = theirs(
        ids, mc_token_ids=batch["last"].view(2, 3), labels=ids, mc_labels=batch["targets"][::3], return_dict=True
    )
    expected = out.mc_loss + 0.5 * out.loss
    assert weight == 2
    assert metrics["accuracy"] == (out.mc_logits.argmax(-1) == batch["targets"][::3]).sum()
    assert_close(metrics["task_loss"] / 2, out.mc_loss.detach())
    assert_close(metrics["language_loss"] / 2, out.loss.detach())
    assert_close(found, expected)
    found.backward()
    expected.backward()
    mine = {name: p.grad for name, p in ours.named_parameters()}
    renamed = dict(ours.weight_map(ours.config).save(mine, mine.__getitem__))
    for parameter in theirs.parameters():
        parameter.data = parameter.grad
    theirs.save_pretrained(tmp_path / "gradients")
    gradients = load_file(tmp_path / "gradients/model.safetensors")
    assert set(renamed) == set(gradients)
    for name, gradient in renamed.items():
        assert_close(gradient, gradients[name], msg=lambda m, name=name: f"{name}: {m}")
    ours.save_pretrained(tmp_path / "ours")
    again = tf.OpenAIGPTDoubleHeadsModel.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        there = again(ids, mc_token_ids=batch["last"].view(2, 3), return_dict=True).mc_logits
    assert_close(there, out.mc_logits.detach())


@ROW
@pytest.mark.parametrize("task", ["classification", "entailment", "similarity"])
def test_the_loss_is_the_papers_formula(task):
    """Written out for texts of different lengths: each row alone, without padding."""
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = build_model(OpenAIGPTConfig(**shape, max_position_embeddings=32, task_outputs=3)).eval()
    with torch.no_grad():
        model.lm_head.task.weight.normal_()
    pairs = [([1, 2, 3], [4, 5]), ([6], [7, 8, 9, 10])]
    lay = getattr(INPUTS, task)
    examples = [lay(*pair) if task != "classification" else lay(pair[0]) for pair in pairs]
    found, weight, _ = joint_loss(
        model, {"task": task, "language_weight": 0.3}, as_tensors(task_batch(examples, [2, 1]))
    )
    expected = torch.zeros(())
    for rows, target in zip(examples, [2, 1], strict=True):
        hidden = [model(torch.tensor([row]), head=lambda h, _: h)[0] for row in rows]
        scores = model.lm_head.task(sum(h[-1] for h in hidden))
        expected = expected - scores.log_softmax(-1)[target]
        for row, h in zip(rows, hidden, strict=True):
            tokens = model.lm_head(h[:-1]).log_softmax(-1)[torch.arange(len(row) - 1), torch.tensor(row[1:])]
            expected = expected - 0.3 * tokens.mean() / len(rows)
    assert weight == 2
    assert_close(found, expected / 2)


@ROW
def test_fine_tuning_learns_the_task(tmp_path):
    """The loop with examples of two rows: the loss falls, and the right class is found."""
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    rates = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop", "summary_first_dropout"), 0.0)
    model = build_model(OpenAIGPTConfig(**shape, max_position_embeddings=32, task_outputs=2, **rates))
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randint(1, 20, (32, 2), generator=generator).tolist()
    examples = [INPUTS.similarity([a, 25], [a if i % 2 else b + 30, 25]) for i, (a, b) in enumerate(pairs)]
    batch = as_tensors(task_batch(examples, [i % 2 for i in range(32)]))
    objective = JointFineTuningConfig(task="similarity").build()
    settings = TrainingConfig.parse(
        {"steps": 40, "batch_size": 64, "out_dir": str(tmp_path), "optimizer": {"kind": "adamw", "lr": 0.01}}
    )
    run = fit(model, objective, [batch], settings)
    losses = [row["loss"] for row in run.metrics("train")]
    assert losses[-1] < 0.6 * losses[0]
    model.eval()
    _, weight, metrics = joint_loss(model, {"task": "similarity"}, batch)
    assert metrics["accuracy"] >= 0.95 * weight


def test_a_model_without_a_second_head_is_refused():
    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    batch = as_tensors(task_batch([INPUTS.classification([1, 2])], [0]))
    with pytest.raises(UsageError, match="task_outputs"):
        joint_loss(build_model(OpenAIGPTConfig(**shape)), {}, batch)
    model = build_model(OpenAIGPTConfig(**shape, task_outputs=2))
    choices = as_tensors(task_batch([INPUTS.multiple_choice([1], [[2], [3]])], [0]))
    with pytest.raises(UsageError, match="task_outputs is 1"):
        joint_loss(model, {"task": "multiple_choice"}, choices)
    assert F.softmax(model(choices["ids"]), -1).shape == (2, 5, 64)
