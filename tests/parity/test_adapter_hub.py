"""Bottlenecks, MAD-X and AdapterFusion against numbers of the `adapters` library, kept in tests/data/reference/adapters
(`make.py` there made them), through its files.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.testing import assert_close

from groundup.adapters import adapters_of, load_adapter
from groundup.adapters.adapter_hub import names_in_files, own_parameters, save_adapter
from groundup.base.errors import CheckpointError, UsageError
from groundup.base.files import read_json
from groundup.models.hub import load_model

FOLDER = Path(__file__).parents[1] / "data" / "reference" / "adapters"
ADAPTERS = {
    **{"pfeiffer": "PEFT-14", "other": "PEFT-14", "houlsby": "PEFT-14", "normed": "PEFT-14", "plus": "PEFT-14"},
    **{"language": "PEFT-16", "fused": "PEFT-15"},
}
SETUPS = {name: (name,) for name in ADAPTERS} | {"fused": ("pfeiffer_other",), "stacked": ("language", "pfeiffer")}
ROWS = ADAPTERS | {"stacked": "PEFT-16"}
FAMILIES = ("llama", "gpt2")


def marked(rows):
    return [pytest.param(name, marks=pytest.mark.row(row, reference="adapters")) for name, row in rows.items()]


@pytest.fixture(scope="module", params=FAMILIES)
def case(request):
    """(folder, the model with all adapters, values)"""
    folder = FOLDER / request.param
    model = load_model(folder)
    for name in ADAPTERS:
        load_adapter(model, folder / name)
    return folder, model, load_file(folder / "values.safetensors")


@pytest.mark.parametrize("setup", marked(ROWS))
def test_outputs_and_gradients_are_those_of_the_library(case, setup):
    _, model, values = case
    adapters = adapters_of(model)
    adapters.activate(*SETUPS[setup])
    adapters.train_only(*adapters.configs)
    model.zero_grad()
    logits = model(values["ids"])
    assert_close(logits, values[f"{setup}.logits"])
    assert not torch.equal(logits, values["plus.logits" if setup != "plus" else "other.logits"])
    F.cross_entropy(logits[:, :-1].flatten(0, 1), values["ids"][:, 1:].flatten()).backward()
    compared = 0
    for name in adapters.configs:
        plan = adapters.plans[name]
        theirs = "pfeiffer,other" if name == "pfeiffer_other" else name
        own = own_parameters(plan)
        for ours, key in names_in_files(model, plan, theirs).items():
            if name == "normed":  # the library has the norm under two names, and gives its gradient under this one
                key = key.replace("adapter_down.0", "adapter_norm_before")
            wanted = values.get(f"{setup}.gradient.{key}")
            if wanted is None:
                assert own[ours].grad is None
            else:
                assert_close(own[ours].grad, wanted, msg=lambda m, key=key: f"{key}: {m}")
                compared += 1
    assert compared == sum(key.startswith(f"{setup}.gradient.") for key in values)


@pytest.mark.parametrize("name", marked(ADAPTERS))
def test_files_are_those_of_the_library(case, name, tmp_path):
    folder, model, _ = case
    ours = "pfeiffer_other" if name == "fused" else name
    save_adapter(model, tmp_path, ours)
    description = "adapter_fusion_config.json" if name == "fused" else "adapter_config.json"
    written, theirs = read_json(tmp_path / description), read_json(folder / name / description)
    for key, value in written["config"].items():
        if name == "plus" and key in ("original_ln_after", "residual_before_ln"):
            continue  # two ways of the library to say one thing, where nothing is normalised after a branch
        wanted = theirs["config"][key]
        assert value == wanted or (key, value, wanted) == ("non_linearity", wanted, value), key
    mine = load_file(next(tmp_path.glob("*.safetensors")))
    pickled = list((folder / name).glob("*.bin"))
    stored = torch.load(pickled[0]) if pickled else load_file(next((folder / name).glob("*.safetensors")))
    stored = {key: tensor for key, tensor in stored.items() if ".adapter_norm_before." not in key}
    assert mine.keys() == stored.keys()
    for key, tensor in stored.items():
        assert torch.equal(mine[key], tensor), key
    other = load_model(folder)
    for part in ("pfeiffer", "other"):
        load_adapter(other, folder / part)
    load_adapter(other, tmp_path, "again")
    assert adapters_of(other).configs["again"] == adapters_of(model).configs[ours]


def test_what_has_no_counterpart_is_refused_by_name(tmp_path):
    import json
    import shutil

    folder = FOLDER / "llama"
    model = load_model(folder)
    shutil.copytree(folder / "pfeiffer", tmp_path / "x")
    described = read_json(folder / "pfeiffer" / "adapter_config.json")
    for key, value, match in (
        ("use_gating", True, "use_gating"),
        ("is_parallel", True, "is_parallel"),
        ("mh_adapter", True, "after attention that reads the stream"),
        ("original_ln_after", False, "twice, or never"),
        ("inv_adapter", "glow", "glow"),
    ):
        changed = described | {"config": described["config"] | {key: value}}
        (tmp_path / "x" / "adapter_config.json").write_text(json.dumps(changed))
        with pytest.raises(UsageError, match=match):
            load_adapter(model, tmp_path / "x")
    for key, value, match in (("reduction_factor", 3, "wanted"), ("ln_before", True, "Missing")):
        changed = described | {"config": described["config"] | {key: value}}
        (tmp_path / "x" / "adapter_config.json").write_text(json.dumps(changed))
        with pytest.raises(CheckpointError, match=match):
            load_adapter(model, tmp_path / "x")
    with pytest.raises(UsageError, match="does not have"):
        load_adapter(model, folder / "fused")
    assert not adapters_of(model).configs
