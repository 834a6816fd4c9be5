"""The int4 and int8 folders of ChatGLM's releases: their layout number by number in numpy, both directions, faults.

No library reads them without the authors' CUDA kernels; what those do to a row is in `weight_of`.
"""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from families.tiny import ids, make_ours
from groundup.adapters.attach import add_adapter
from groundup.adapters.configs import LoRAConfig
from groundup.base.errors import CheckpointError
from groundup.models.hub import load_model
from groundup.quantization import ChatGLMInt4Config, ChatGLMInt8Config, QuantizedLinear, quantize

CONFIGS = {4: ChatGLMInt4Config, 8: ChatGLMInt8Config}
FAMILIES = ["chatglm", "chatglm-biased", "chatglm_6b"]


def stored_as(weight, bits):
    """(int8 numbers, float16 scales) of a matrix, as the release quantizes it."""
    weight = weight.half().numpy().astype(np.float32)
    largest = np.float32(2 ** (bits - 1) - 1)
    scale = (np.abs(weight).max(1) / largest).astype(np.float16)
    q = np.clip(np.rint(weight / scale[:, None].astype(np.float32)), -largest, largest).astype(np.int32)
    if bits == 4:
        q = (((q[:, 0::2] & 15) << 4) | (q[:, 1::2] & 15)).astype(np.uint8).view(np.int8)
    return torch.from_numpy(q.astype(np.int8)), torch.from_numpy(scale)


def weight_of(q, scale, bits):
    """The matrix that a row of their kernels multiplies by: the high half of a byte first, both signed."""
    q = q.numpy()
    if bits == 4:
        wide = np.empty((len(q), 2 * q.shape[1]), np.int8)
        wide[:, 0::2] = q >> 4
        wide[:, 1::2] = (q << 4).astype(np.int8) >> 4
        q = wide
    return torch.from_numpy(q.astype(np.float32) * scale.numpy().astype(np.float32)[:, None])


def release(tmp_path, family, bits):
    """A folder as the authors publish it, and one of the plain weights that it stands for."""
    make_ours(family, tmp_path / "made").half().save_pretrained(tmp_path / "plain")
    tensors = load_file(tmp_path / "plain/model.safetensors")
    linear = [name for name in tensors if ".layers." in name and tensors[name].ndim == 2]
    packed = dict(tensors)
    for name in linear:
        packed[name], packed[f"{name}_scale"] = stored_as(tensors[name], bits)
        tensors[name] = weight_of(packed[name], packed[f"{name}_scale"], bits)
    for folder, content in (("plain", tensors), ("release", packed)):
        (tmp_path / folder).mkdir(exist_ok=True)
        save_file(content, tmp_path / folder / "model.safetensors")
    config = json.loads((tmp_path / "plain/config.json").read_text())
    (tmp_path / "release/config.json").write_text(json.dumps(config | {"quantization_bit": bits}))
    return tmp_path / "release", tmp_path / "plain", linear


@pytest.mark.row("QNT-12", reference="ChatGLM's layout in numpy")
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_release_is_read_and_written_as_it_was(family, bits, tmp_path):
    folder, plain, linear = release(tmp_path, family, bits)
    ours = load_model(folder)
    assert sum(isinstance(m, QuantizedLinear) for m in ours.modules()) >= len(linear)
    with torch.no_grad():
        torch.testing.assert_close(ours.float()(ids()), load_model(plain, dtype="float32")(ids()), rtol=1e-4, atol=1e-4)
    load_model(folder).save_pretrained(tmp_path / "again")
    first, again = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "again"))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) and first[name].dtype == again[name].dtype for name in first)
    assert json.loads((tmp_path / "again/config.json").read_text())["quantization_bit"] == bits


@pytest.mark.row("QNT-04", reference="ChatGLM's layout in numpy")
@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_quantized_here_is_what_they_publish(bits, tmp_path):
    folder, _, linear = release(tmp_path, "chatglm", bits)
    model = make_ours("chatglm", tmp_path / "made").half()
    quantize(model, CONFIGS[bits]())
    model.save_pretrained(tmp_path / "ours")
    theirs, ours = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "ours"))
    assert theirs.keys() == ours.keys()
    for name in linear:
        torch.testing.assert_close(ours[f"{name}_scale"], theirs[f"{name}_scale"], rtol=1e-3, atol=0)
        ones = torch.ones(len(ours[name]))
        numbers, wanted = (weight_of(tensors[name], ones, bits) for tensors in (ours, theirs))
        assert (numbers - wanted).abs().max() <= 1  # a scale that is rounded otherwise moves a number by one at most
        assert (numbers != wanted).float().mean() < 0.2


def test_an_adapter_learns_on_a_release(tmp_path):
    model = load_model(release(tmp_path, "chatglm_6b", 4)[0]).float()
    add_adapter(model, LoRAConfig(rank=2))
    model(ids()).sum().backward()
    learning = [p.grad for p in model.parameters() if p.requires_grad]
    assert learning
    assert any(grad.abs().sum() > 0 for grad in learning)


def spoil(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors, next(name for name in tensors if name.endswith(".weight_scale")))
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, name: t.update({name: t[name][:-1].clone()}), "weight_scale is"),
        (lambda t, name: t.pop(name.removesuffix("_scale")), "lacks its matrix"),
        (lambda t, name: t.update({name.removesuffix("_scale"): t[name.removesuffix("_scale")].short()}), "int16"),
        (lambda t, name: [t.pop(each) for each in [*t] if each.endswith("_scale")], "no tensor is a `weight_scale`"),
    ],
)
def test_a_spoilt_release_is_refused_by_name(change, words, tmp_path):
    folder = release(tmp_path, "chatglm", 4)[0]
    spoil(folder, change)
    with pytest.raises(CheckpointError, match=words):
        load_model(folder)


def test_other_numbers_of_bits_are_refused(tmp_path):
    folder = release(tmp_path, "chatglm", 4)[0]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_bit": 3}))
    with pytest.raises(CheckpointError, match="8 bits or 4"):
        load_model(folder)
