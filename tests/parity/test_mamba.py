"""Mamba's scan against its own definition, and biased projections against transformers."""

import pytest
import torch
import transformers as tf
from torch.testing import assert_close

from families.mamba import MAMBA
from families.tiny import ids
from groundup.layers import selective_scan
from groundup.layers.selective_scan import read_out
from groundup.models.hub import load_model


@pytest.mark.row("LM-46", reference="the recurrence, step by step")
@pytest.mark.parametrize(("length", "chunk"), [(1, 64), (7, 64), (64, 16), (33, 8)])
def test_doubling_gives_the_states_of_the_recurrence(length, chunk, monkeypatch):
    """Step by step in fp64, with documents that begin anew (decay 0), values and gradients."""
    monkeypatch.setattr(selective_scan, "CHUNK", chunk)
    torch.manual_seed(0)
    decay = torch.rand(2, length, 3, 4, dtype=torch.float64)
    decay[:, length // 2] = 0
    decay, inflow = decay.requires_grad_(), torch.randn(2, length, 3, 4, dtype=torch.float64, requires_grad=True)
    c, start = torch.randn(2, length, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    h, outputs = start, []
    for t in range(length):
        h = decay[:, t] * h + inflow[:, t]
        outputs.append((h * c[:, t, None]).sum(-1))
    wanted = torch.stack(outputs, dim=1)
    found, last = read_out(decay, inflow, c, start)
    assert_close(found, wanted)
    assert_close(last, h)
    weight = torch.randn_like(wanted)
    expected = torch.autograd.grad((wanted * weight).sum() + h.sum(), (decay, inflow))
    assert_close(torch.autograd.grad((found * weight).sum() + last.sum(), (decay, inflow)), expected)


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
    """Rows padded on the right go on from their last token, not from the padding."""
    torch.manual_seed(0)
    tf.AutoModelForCausalLM.from_config(tf.MambaConfig(**MAMBA, use_bias=True), dtype=torch.float32).save_pretrained(
        tmp_path
    )
    ours, x, more = load_model(tmp_path), ids(rows=3, length=9), ids(rows=3, length=4, seed=2)
    documents = (torch.arange(9) < torch.tensor([[9], [5], [1]])).long()
    second = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]])
    state = ours.make_state(3, 16)
    with torch.no_grad():
        first, then = ours(x, documents=documents, state=state), ours(more, documents=second, state=state)
        for row, count in enumerate((9, 5, 1)):
            real = second[row].bool()
            alone = ours(torch.cat((x[row, :count], more[row, real]))[None])[0]
            assert_close(first[row, :count], alone[:count])
            assert_close(then[row, real], alone[count:])
