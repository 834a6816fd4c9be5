"""Families that no released library has: against numbers of their authors' code, kept in tests/data/reference.

A folder there holds config.json, weights.safetensors in the layout of the published checkpoints, values.safetensors
(`ids`, `logits`, `gradient.NAME`, and `stepped`: logits token by token) and ORIGIN.md, which tells where they are from.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.testing import assert_close

from groundup.models.hub import load_model

FOLDER = Path(__file__).parents[1] / "data" / "reference"
ROWS = {"rwkv2": ["LM-37"], "rwkv3": ["LM-38"], "rwkv5": ["LM-40"], "rwkv6": ["LM-41"]}
FOLDERS = sorted(path.name for path in FOLDER.iterdir() if (path / "values.safetensors").is_file())


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.row(row, reference="the authors' code") for row in ROWS.get(name, ())])
        for name in FOLDERS
    ]
)
def case(request):
    """(the model, values)"""
    folder = FOLDER / request.param
    return load_model(folder / "weights.safetensors"), load_file(folder / "values.safetensors")


def test_logits(case):
    model, values = case
    with torch.no_grad():
        assert_close(model(values["ids"]), values["logits"])


def test_gradients(case):
    model, values = case
    ids = values["ids"]
    logits = model(ids)
    F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    mine = {name: p.grad for name, p in model.named_parameters()}
    renamed = dict(model.weight_map(model.config).save(mine, mine.__getitem__))
    wanted = {name.removeprefix("gradient."): v for name, v in values.items() if name.startswith("gradient.")}
    assert wanted
    for name, gradient in wanted.items():
        assert_close(renamed[name], gradient, msg=lambda m, name=name: f"{name}: {m}")


def test_steps(case):
    model, values = case
    ids, state = values["ids"], model.make_state(*values["ids"].shape)
    with torch.no_grad():
        stepped = torch.cat([model(ids[:, t : t + 1], state=state) for t in range(ids.shape[1])], dim=1)
    assert_close(stepped, values["logits"])
    assert_close(stepped, values.get("stepped", values["logits"]))


def test_every_folder_tells_its_origin():
    assert FOLDERS
    for name in FOLDERS:
        assert "commit" in (FOLDER / name / "ORIGIN.md").read_text(encoding="utf-8")
