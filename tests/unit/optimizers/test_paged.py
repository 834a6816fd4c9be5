"""Optimizer state in a mapped file: the same numbers, and really in a file."""

import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from groundup.base.errors import UsageError
from groundup.training.optimizers.config import AdamWConfig
from groundup.training.optimizers.paged import paged_zeros

ROW = pytest.mark.row("PEFT-12", reference="the optimizer with its state in memory")


def trained(paged, flat, steps, state=None, dtype=torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)).to(dtype)
    optimizer = AdamWConfig(lr=1e-2, paged=paged, flat=flat).build(model.named_parameters())
    if state is not None:
        model.load_state_dict(state[0])
        optimizer.load_state_dict(state[1])
    g = torch.Generator().manual_seed(len(state or ()))
    for _ in range(steps):
        model(torch.randn(4, 6, generator=g).to(dtype)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def saved(model, optimizer, folder):
    torch.save((model.state_dict(), optimizer.state_dict()), folder / "checkpoint.pt")
    return torch.load(folder / "checkpoint.pt")


@ROW
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_numbers(flat, dtype, tmp_path):
    """Step for step, and through a checkpoint, in either direction."""
    first = [trained(paged, flat, 4, dtype=dtype) for paged in (False, True)]
    files = [saved(*end, tmp_path) for end in first]
    second = [trained(paged, flat, 3, file, dtype) for paged, file in zip((True, False), files, strict=True)]
    for (ours, our_state), (theirs, their_state) in (first, second):
        assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
        assert_close(our_state.state_dict()["state"], their_state.state_dict()["state"], rtol=0, atol=0)


@ROW
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_state_lies_in_a_file(tmp_path, monkeypatch):
    """One mapping a state tensor, of a file in TMPDIR that has no name any more."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _, optimizer = trained(True, True, 1)
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    addresses = {int(line.split("-")[0], 16) for line in maps}
    states = [state for states in optimizer._flat_states.values() for state in states.values()]
    assert {state.data_ptr() for state in states} == addresses
    assert all(line.endswith("(deleted)") for line in maps)
    assert {line.split()[1] for line in maps} == {"rw-s"}  # shared: what is written goes to the file
    assert os.listdir(tmp_path) == []


@ROW
def test_only_beside_the_cpu():
    with pytest.raises(UsageError, match="on meta"):
        paged_zeros(torch.zeros(3, device="meta"))
    assert paged_zeros(torch.zeros(0, 4)).shape == (0, 4)
