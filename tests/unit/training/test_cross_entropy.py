import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from groundup.training.objectives.config import LanguageModelingConfig
from groundup.training.objectives.cross_entropy import chunked_cross_entropy
from groundup.training.objectives.language_modeling import LanguageModeling


@pytest.mark.row("OBJ-01", reference="hand calculation")
def test_next_token_likelihood_by_hand():
    """Three words, hidden = one-hot rows of a table of logits, so that every number can be worked out on paper."""
    # position 0: logits (0, ln 2, ln 5), p = (1, 2, 5) / 8; position 1: (ln 3, 0, 0), p = (3, 1, 1) / 5; 2 is masked
    head = nn.Linear(3, 3, bias=False)
    head.weight.data = torch.tensor([[0.0, math.log(3), 9.0], [math.log(2), 0.0, 9.0], [math.log(5), 0.0, 9.0]])
    batch = {"labels": torch.tensor([[2, 1, -100]])}
    objective = LanguageModeling(LanguageModelingConfig(accuracy=True))
    loss, weight, metrics = objective.loss(objective.head(batch)(torch.eye(3)[None], head), batch)
    assert loss.item() == pytest.approx(-math.log(5 / 8) - math.log(1 / 5), rel=1e-6)
    assert weight.item() == 2
    assert metrics["accuracy"].item() == 1  # the likeliest word is right at position 0 and wrong at position 1


@pytest.mark.row("OBJ-01", reference="torch.nn.functional.cross_entropy")
@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_library_in_loss_and_gradients(chunk, smoothing, bias):
    torch.manual_seed(0)
    hidden = torch.randn(3, 11, 8, requires_grad=True)
    head = nn.Linear(8, 23, bias=bias)
    labels = torch.randint(0, 23, (3, 11))
    labels[0, 3:6] = -100
    labels[2] = -100
    parameters = [hidden, *head.parameters()]

    expected = F.cross_entropy(head(hidden).flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=smoothing)
    expected_gradients = torch.autograd.grad(expected * 0.37, parameters)
    loss, weight, _ = chunked_cross_entropy(hidden, head, labels, chunk, smoothing)
    assert_close(loss, expected)
    assert weight.item() == int((labels != -100).sum())
    for ours, theirs in zip(torch.autograd.grad(loss * 0.37, parameters), expected_gradients, strict=True):
        assert_close(ours, theirs)


def test_other_heads_and_z_loss():
    torch.manual_seed(0)
    hidden = torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True)
    linear = nn.Linear(8, 13).double()
    wrapped = nn.Sequential(linear)  # any module that is not a plain Linear
    labels = torch.randint(0, 13, (2, 5))
    logits = linear(hidden).flatten(0, 1)
    expected = F.cross_entropy(logits, labels.flatten(), reduction="sum") + 0.01 * logits.logsumexp(-1).square().sum()
    expected_gradients = torch.autograd.grad(expected, [hidden, *linear.parameters()])
    for head, tolerance in ((linear, 1e-10), (wrapped, 1e-5)):
        loss, _, _ = chunked_cross_entropy(hidden, head, labels, 3, z_loss=0.01)
        assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
        for ours, theirs in zip(
            torch.autograd.grad(loss, [hidden, *linear.parameters()]), expected_gradients, strict=True
        ):
            assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_gradient_of_a_bf16_head_is_summed_in_fp32():
    """65 chunks of one word each: summed in bf16 the small terms would be lost."""
    torch.manual_seed(0)
    hidden = torch.randn(4096, 4)
    head = nn.Linear(4, 8, bias=False)
    labels = torch.randint(0, 8, (4096,))
    half = nn.Linear(4, 8, bias=False).bfloat16()
    half.weight.data = head.weight.data.bfloat16()
    head.weight.data = half.weight.data.float()
    loss, _, _ = chunked_cross_entropy(hidden.bfloat16(), half, labels, 16)
    (ours,) = torch.autograd.grad(loss, [half.weight])
    exact, _, _ = chunked_cross_entropy(hidden.bfloat16().float(), head, labels, 16)
    (expected,) = torch.autograd.grad(exact, [head.weight])
    assert ours.dtype == torch.bfloat16
    assert ((ours.float() - expected).norm() / expected.norm()).item() < 0.01


def test_largest_tensor_is_a_chunk_of_logits():
    """With 512 tokens and 1000 words no tensor of 512 x 1000 is ever made."""
    from torch.utils._python_dispatch import TorchDispatchMode

    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in (out if isinstance(out, (tuple, list)) else [out]) if torch.is_tensor(t))
            return out

    hidden, head = torch.randn(512, 8, requires_grad=True), nn.Linear(8, 1000, bias=False)
    with Watch():
        loss, _, _ = chunked_cross_entropy(hidden, head, torch.randint(0, 1000, (512,)), 32)
        loss.backward()
    assert max(sizes) == 32 * 1000


def test_no_gradient_work_in_evaluation():
    head = nn.Linear(4, 8)
    with torch.no_grad():
        loss, _, _ = chunked_cross_entropy(torch.randn(5, 4), head, torch.randint(0, 8, (5,)), 2)
    assert not loss.requires_grad
