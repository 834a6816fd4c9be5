"""Families that no released library has: against numbers of their authors' code, kept in tests/data/reference.

A folder there holds config.json, weights.safetensors in the layout of the published checkpoints, values.safetensors
(`ids`, `logits`, `gradient.NAME`, and `stepped`: logits token by token, after `prefill` tokens in one call where a
prompt is seen in both directions) and ORIGIN.md, which tells where they are from.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch.testing import assert_close

from groundup.layers.rwkv.first import ChannelMix1, TimeMix1
from groundup.models.hub import load_model

FOLDER = Path(__file__).parents[1] / "data" / "reference"
ROWS = {
    **{"rwkv2": ["LM-37"], "rwkv3": ["LM-38"], "rwkv5": ["LM-40"], "rwkv6": ["LM-41"]},
    **{"openelm": ["LM-46"], "openelm_plain": ["LM-46"], "pangu": ["LM-46"]},
    **{"chatglm2": ["LM-22"], "chatglm_6b": ["LM-21"], "qwen": ["LM-31"], "qwen_long": ["LM-31"]},
    **{"glm_2021": ["LM-20"], "glm_2021_hub": ["LM-20"], "glm_130b": ["LM-20"]},
}
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
    weight_map = model.weight_map(model.config)
    renamed = dict(weight_map.save(mine, mine.__getitem__))
    renamed |= {name.removeprefix(weight_map.prefix): gradient for name, gradient in renamed.items()}
    wanted = {name.removeprefix("gradient."): v for name, v in values.items() if name.startswith("gradient.")}
    assert wanted
    for name, gradient in wanted.items():
        assert_close(renamed[name], gradient, msg=lambda m, name=name: f"{name}: {m}")


def test_steps(case):
    model, values = case
    ids, state = values["ids"], model.make_state(*values["ids"].shape)
    first = int(values.get("prefill", torch.tensor(1)))
    calls = [ids[:, :first], *ids[:, first:].split(1, dim=1)]
    with torch.no_grad():
        stepped = torch.cat([model(call, state=state) for call in calls], dim=1)
    assert_close(stepped, values["logits"])
    assert_close(stepped, values.get("stepped", values["logits"]))


def test_every_folder_tells_its_origin():
    assert FOLDERS
    for name in FOLDERS:
        assert "commit" in (FOLDER / name / "ORIGIN.md").read_text(encoding="utf-8")


# -- RWKV-1: parts, no family ------------------------------------------------------------------------------------------

NAMES_1 = {
    "time": {"by_distance": "time_w", **{n: f"time_{n}" for n in ("alpha", "beta", "gamma")}},
    "channel": {"up_proj": "value", "gate_proj": "key", "down_proj": "weight", "r_proj": "receptance"},
}
NAMES_1["time"] |= {"r_proj": "receptance", "k_proj": "key", "v_proj": "value", "o_proj": "output"}


@pytest.mark.row("LM-36", reference="the authors' code")
@pytest.mark.parametrize("part", ["time", "channel"])
def test_the_parts_of_rwkv_1(part):
    values = load_file(FOLDER / "rwkv1" / "parts.safetensors")
    module = TimeMix1(8, 12, 3, 10) if part == "time" else ChannelMix1(8, 20)
    theirs = {}
    for name, _ in module.named_parameters():
        first, _, leaf = name.partition(".")
        theirs[name] = ".".join(filter(None, (NAMES_1[part][first], leaf)))
    module.load_state_dict({name: values[f"{part}.{their}"] for name, their in theirs.items()})
    out = module(values["x"])
    assert_close(out, values[part])
    out.square().sum().backward()
    for name, parameter in module.named_parameters():
        wanted = values[f"{part}.gradient.{theirs[name]}"]
        if name == "k_proj.bias":  # cancels between numerator and denominator: rounding is all that is there
            assert wanted.abs().max() < 1e-3
            assert parameter.grad.abs().max() < 1e-3
        else:
            # of the same two parts, so that processors differ in the last digits
            own = {"rtol": 1e-4, "atol": 1e-4} if name == "k_proj.weight" else {}
            assert_close(parameter.grad, wanted, msg=lambda said, name=name: f"{name}: {said}", **own)


@pytest.mark.row("LM-36", reference="its formula, position by position")
def test_rwkv_1_position_by_position():
    torch.manual_seed(0)
    module, x = TimeMix1(8, 12, 3, 10), torch.randn(1, 9, 8)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        found = module(x)[0]
        before = torch.cat((torch.zeros(1, 8), x[0, :-1]))
        half = torch.cat((before[:, :4], x[0, :, 4:]), dim=1)
        r, k, v = (proj(half) for proj in (module.r_proj, module.k_proj, module.v_proj))
        for t in range(9):
            num, den = torch.zeros(12), torch.zeros(12)
            for u in range(t + 1):
                for h in range(3):
                    own = slice(4 * h, 4 * h + 4)
                    w = module.by_distance[h, 9 - (t - u)] * module.alpha[h, 0, u] * module.beta[h, t, 0]
                    num[own] += w * k[u, own].exp() * v[u, own]
                den += k[u].exp()
            told = module.gamma[t] * module.o_proj(torch.sigmoid(r[t]) * num / den)
            assert_close(found[t], told)
