"""Mamba's scan against its own definition, and biased projections against transformers."""

from typing import Any

import pytest
import torch
import transformers as tf
from torch.testing import assert_close

from families.mamba import MAMBA
from families.tiny import ids
from groundup.layers import selective_scan
from groundup.models.hub import load_model
from right_padding import assert_rows_go_on_from_their_last_token


@pytest.mark.row("LM-46", reference="the recurrence, step by step")
@pytest.mark.parametrize("form", ["steps", "doubling"])
@pytest.mark.parametrize(("length", "chunk"), [(1, 64), (2, 64), (7, 64), (64, 16), (33, 8)])
def test_the_scan_gives_the_recurrence_and_its_gradients(length, chunk, form, monkeypatch):
    """Against autograd of the definition in fp64, with documents that begin anew; both forms of the scan."""
    monkeypatch.setattr(selective_scan, "CHUNK", chunk)
    if form == "doubling":
        monkeypatch.setattr(selective_scan, "scan", doubling)
    torch.manual_seed(0)
    shapes = ((2, length, 3), (2, length, 3), (3, 4), (2, length, 4), (2, length, 4), (2, 3, 4))
    x, dt, a, b, c, h = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    inputs: Any = [t.requires_grad_() for t in (x, dt.abs(), -a.abs(), b, c, h)]
    keeps = torch.ones(2, length, dtype=torch.float64)
    keeps[0, length // 2] = 0

    def defined(x, dt, a, b, c, h):
        outputs = []
        for t in range(length):
            decay = torch.exp(dt[:, t, :, None] * a) * keeps[:, t, None, None]
            h = decay * h + (dt[:, t] * x[:, t])[..., None] * b[:, t, None]
            outputs.append((h * c[:, t, None]).sum(-1))
        return torch.stack(outputs, dim=1), h

    wanted, found = defined(*inputs), selective_scan.selective_scan(*inputs, keeps)
    assert_close(found, wanted)
    weights = [torch.randn_like(one) for one in wanted]
    gradients = [
        torch.autograd.grad([(one * w).sum() for one, w in zip(pair, weights, strict=True)], inputs)
        for pair in (found, wanted)
    ]
    assert_close(gradients[0], gradients[1])


def doubling(decay, states, *, backwards=False):
    """What a GPU does, on tensors that are not on one."""
    selective_scan.scan_by_doubling(decay, states, backwards=backwards)


def test_training_keeps_no_states_of_single_tokens():
    """The graph holds the inputs and the states between chunks; every token's states would be 16 times the input."""
    kept = 0

    def count(tensor):
        nonlocal kept
        kept += tensor.numel()
        return tensor

    x, dt = torch.randn(1, 512, 32, requires_grad=True), torch.rand(1, 512, 32)
    a, b, c = -torch.rand(32, 16), torch.randn(1, 512, 16), torch.randn(1, 512, 16)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        selective_scan.selective_scan(x, dt, a, b, c, None)
    assert kept < 4 * x.numel()


@pytest.mark.row("LM-46", reference="transformers")
def test_biased_projections_equal_transformers(tmp_path):
    torch.manual_seed(0)
    theirs = tf.AutoModelForCausalLM.from_config(tf.MambaConfig(**MAMBA, use_bias=True), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        assert_close(load_model(tmp_path)(ids()), theirs(ids()).logits)


def test_right_padding_and_chunks_equal_each_row_alone(tmp_path):
    torch.manual_seed(0)
    tf.AutoModelForCausalLM.from_config(tf.MambaConfig(**MAMBA, use_bias=True), dtype=torch.float32).save_pretrained(
        tmp_path
    )
    assert_rows_go_on_from_their_last_token(load_model(tmp_path))
