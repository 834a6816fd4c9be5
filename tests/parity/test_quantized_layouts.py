"""The files of GPTQ, AWQ and our own: numbers as other libraries pack them, both directions, faults."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from families.tiny import ids, make_ours, make_pair
from groundup.adapters.attach import adapters_of
from groundup.adapters.configs import LoRAConfig
from groundup.base.errors import CheckpointError, UsageError
from groundup.models.hub import load_model
from groundup.quantization import (
    AWQConfig,
    GPTQConfig,
    Int8Config,
    NF4Config,
    QuantizedLinear,
    SmoothQuantConfig,
    quantize,
)
from groundup.quantization.bitstream import pack, unpack
from groundup.quantization.grouped_linear import AWQLinear, GPTQLinear
from groundup.quantization.groups import Grouped, round_to_nearest
from groundup.quantization.layouts.bitsandbytes import STATE, FourBitLayout
from groundup.quantization.layouts.layout import Rows
from groundup.quantization.nf4 import NF4Linear

STORED = Path(__file__).parents[1] / "data/reference/quantized_layouts.json"


# -- an independent reader: the published layouts in numpy, number by number ----------------------------------------


def number(words, bits, i):
    """Number i of a stream of bits in 32-bit words."""
    value = 0
    for bit in range(bits):
        word, place = divmod(i * bits + bit, 32)
        value |= ((int(words[word]) >> place) & 1) << bit
    return value


def gptq_weight(stored, bits, less_one):
    qweight, qzeros = stored["qweight"].numpy(), stored["qzeros"].numpy()
    scales, groups = stored["scales"].float().numpy(), stored["g_idx"].numpy()
    inner, out = len(groups), scales.shape[1]
    weight = np.zeros((out, inner), dtype=np.float32)
    for i in range(out):
        for j in range(inner):
            zero = (number(qzeros[groups[j]], bits, i) + less_one) % 2**bits
            weight[i, j] = (number(qweight[:, i], bits, j) - zero) * scales[groups[j], i]
    return torch.from_numpy(weight)


def awq_weight(stored, size):
    qweight, qzeros, scales = stored["qweight"].numpy(), stored["qzeros"].numpy(), stored["scales"].float().numpy()
    inner, out = len(qweight), scales.shape[1]
    shift = [0, 16, 4, 20, 8, 24, 12, 28]  # of output 0, 1, ... of eight
    weight = np.zeros((out, inner), dtype=np.float32)
    for i in range(out):
        for j in range(inner):
            code, zero = ((int(words[i // 8]) >> shift[i % 8]) & 15 for words in (qweight[j], qzeros[j // size]))
            weight[i, j] = (code - zero) * scales[j // size, i]
    return torch.from_numpy(weight)


def in_transformers(quantized, folder, turn):
    """transformers' model of a quantized folder, whose matrices are multiplied out without any of our code.

    Args:
        turn: whether the family stores matrices (in, out).
    """
    import transformers as tf

    tensors = load_file(quantized / "model.safetensors")
    config = json.loads((quantized / "config.json").read_text())
    settings = config.pop("quantization_config")
    for module in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
        stored = {part: tensors.pop(f"{module}.{part}") for part in ("qweight", "qzeros", "scales")}
        if settings["quant_method"] == "awq":
            weight = awq_weight(stored, settings["group_size"])
        else:
            stored["g_idx"] = tensors.pop(f"{module}.g_idx")
            weight = gptq_weight(stored, settings["bits"], less_one=settings["checkpoint_format"] == "gptq")
        tensors[module + ".weight"] = (weight.T if turn else weight).contiguous()
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.row("QNT-12", reference="GPTQModel 7.7.0")
@pytest.mark.parametrize("case", ["gptq-2", "gptq-3", "gptq-4", "gptq-8", "awq-4"])
def test_numbers_are_packed_as_gptqmodel_packs_them(case):
    """The stored words came out of its `pack_original` and `pack_awq` for these numbers."""
    stored, bits = json.loads(STORED.read_text())[case], int(case[-1])
    codes, zeros = (torch.tensor(stored[name], dtype=torch.uint8) for name in ("codes", "zeros"))
    groups = torch.arange(32).div(16, rounding_mode="floor").int()
    numbers = Grouped(codes, torch.full((32, 2), 0.5).half(), zeros, groups)
    layer = (AWQLinear if case == "awq-4" else GPTQLinear).from_grouped(numbers, bits, 16)
    assert layer.qweight.tolist() == stored["qweight"]
    assert layer.qzeros.tolist() == stored["qzeros"]
    back = layer.grouped()
    assert torch.equal(back.codes, codes)
    assert torch.equal(back.zeros, zeros)
    assert layer.bits_per_weight < bits + 5


@pytest.mark.row("QNT-12", reference="numbers bit by bit")
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_stream_of_bits_is_read_back(bits):
    codes = torch.randint(0, 2**bits, (3, 96), dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (3, 96 * bits // 32)
    assert torch.equal(unpack(packed, bits), codes)
    assert [number(packed[1], bits, i) for i in range(96)] == codes[1].tolist()
    with pytest.raises(UsageError, match="whole words"):
        pack(codes[:, :5], bits)


METHODS = {
    "gptq": GPTQConfig(bits=4, group_size=8),
    "gptq-3": GPTQConfig(bits=3, group_size=16, symmetric=False, desc_act=True, targets=["*.q_proj", "*.o_proj"]),
    "awq": AWQConfig(group_size=8),
}


@pytest.mark.row("QNT-12", reference="transformers")
@pytest.mark.parametrize(
    ("family", "method"),
    [("llama", "gptq"), ("llama", "gptq-3"), ("llama", "awq"), ("gpt2", "gptq"), ("phi3", "awq"), ("gpt-neox", "gptq")],
)
def test_transformers_computes_the_same_with_what_the_files_hold(family, method, tmp_path):
    """Ours written; each matrix read from the published layout by numpy, put into transformers' model."""
    pair = make_pair(family, tmp_path)
    quantize(pair.ours, METHODS[method], ids())
    pair.ours.save_pretrained(tmp_path / "quantized")
    theirs = in_transformers(tmp_path / "quantized", tmp_path / "plain", turn=family == "gpt2")
    with torch.no_grad():
        wanted, given = theirs(ids()).logits, pair.ours(ids())
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=2e-5)
        again = load_model(tmp_path / "quantized")
        assert torch.equal(again(ids()), given)
    assert again.quantization.kind == METHODS[method].kind


@pytest.mark.row("QNT-12", reference="the published layout of GPTQ")
def test_their_folder_is_read(tmp_path):
    """A checkpoint as AutoGPTQ writes it, `gptq` and `gptq_v2`, with and without g_idx, packed here by hand."""
    pair = make_pair("llama", tmp_path)
    tensors = {name: tensor.clone() for name, tensor in pair.theirs.state_dict().items()}
    for name in [name for name in tensors if "_proj.weight" in name]:
        weight, module = tensors.pop(name), name.removesuffix(".weight")
        out, inner = weight.shape
        scale = (weight.unflatten(1, (-1, 8)).abs().amax(-1) / 7).half()
        codes = ((weight / scale.float().repeat_interleave(8, 1)).round() + 8).clamp(0, 15).long()
        words = sum(codes[:, i::8] << (4 * i) for i in range(8)).T
        zeros = torch.full((inner // 8, out // 8), 0x77777777)
        tensors |= {f"{module}.qweight": wrapped(words), f"{module}.qzeros": wrapped(zeros)}
        tensors |= {f"{module}.scales": scale.T.contiguous(), f"{module}.g_idx": (torch.arange(inner) // 8).int()}
        pair.theirs.get_parameter(name).data = (codes - 8) * scale.float().repeat_interleave(8, 1)
    with torch.no_grad():
        wanted = pair.theirs(ids()).logits
    for form in ("gptq", "gptq_v2"):
        described = {"quant_method": "gptq", "bits": 4, "group_size": 8, "sym": True, "desc_act": False}
        if form == "gptq_v2":
            described["checkpoint_format"] = form
            change = {
                name: wrapped((tensor.long() & 0xFFFFFFFF) + 0x11111111)
                for name, tensor in tensors.items()
                if "qzeros" in name
            }
            tensors = {name: tensor for name, tensor in (tensors | change).items() if "g_idx" not in name}
        folder = tmp_path / form
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((pair.folder / "theirs/config.json").read_text()) | {"quantization_config": described}
        (folder / "config.json").write_text(json.dumps(config))
        model = load_model(folder)
        with torch.no_grad():
            torch.testing.assert_close(model(ids()), wanted, rtol=1e-4, atol=2e-5)


def wrapped(words):
    """Words below 2^32 as int32."""
    return torch.from_numpy(words.numpy().astype(np.uint32).view(np.int32).copy())


@pytest.mark.row("QNT-12", reference="the model before saving")
@pytest.mark.parametrize("name", ["gpt2", "qwen2-moe", "gemma4-e", "rwkv7", "mamba2", "falcon-7b-like", "glm4"])
def test_what_has_no_public_layout_is_saved_in_ours(name, tmp_path):
    model, config = make_ours(name, tmp_path), SmoothQuantConfig()
    quantize(model, config, ids())
    model.save_pretrained(tmp_path / "saved")
    described = json.loads((tmp_path / "saved/config.json").read_text())["quantization_config"]
    assert described["quant_method"] == "groundup"
    again = load_model(tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(again(ids()), model(ids()))
    assert again.quantization == config
    assert list(again.state_dict()) == list(model.state_dict())


@pytest.fixture
def folder(tmp_path):
    model = make_ours("llama", tmp_path)
    quantize(model, GPTQConfig(bits=4, group_size=8), ids())
    model.save_pretrained(tmp_path / "good")
    return tmp_path / "good"


def changed(folder, tensors=None, **settings):
    new = folder.parent / "bad"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(folder, new)
    config = json.loads((new / "config.json").read_text())
    config["quantization_config"] |= settings
    (new / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        own = load_file(new / "model.safetensors")
        tensors(own)
        save_file(own, new / "model.safetensors")
    return new


PROJ = "model.layers.1.mlp.up_proj"


@pytest.mark.row("QNT-12", reference="the same folder unchanged")
@pytest.mark.parametrize(
    ("message", "settings", "tensors"),
    [
        ("`quant_method` is 'gqtp'.*gptq", {"quant_method": "gqtp"}, None),
        ("`bits` is 5", {"bits": 5}, None),
        ("`group_size` is 'x'", {"group_size": "x"}, None),
        ("`checkpoint_format` is 'marlin'", {"checkpoint_format": "marlin"}, None),
        ("qzeros is .*want", {"group_size": 16}, None),
        ("qweight|want", {"bits": 8}, None),
        (f"{PROJ} lacks scales", {}, lambda own: own.pop(f"{PROJ}.scales")),
        (f"{PROJ}.qweight is .*want", {}, lambda own: own.update({f"{PROJ}.qweight": own[f"{PROJ}.qweight"].long()})),
        ("missing", {}, lambda own: own.pop("model.norm.weight")),
        ("unexpected|no rule", {}, lambda own: own.update({"model.more.weight": torch.ones(2)})),
        (
            "up_proj.weight: stored",
            {},
            lambda own: own.update(
                {
                    f"{PROJ}.{part}": own[f"{PROJ}.{part}"][:, :n].contiguous()
                    for part, n in (("qweight", 8), ("qzeros", 1), ("scales", 8))
                }
            ),
        ),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_by_name(folder, message, settings, tensors, monkeypatch):
    load_model(folder)
    new = changed(folder, tensors, **settings)
    monkeypatch.setattr("groundup.quantization.loading.Placing.tensor", None)  # nothing may be placed
    monkeypatch.setattr("groundup.quantization.loading.Placing.layer", None)
    with pytest.raises(CheckpointError, match=message):
        load_model(new)


def by_bitsandbytes(pair, tmp_path, **settings):
    """transformers' model with bitsandbytes' layers, and the folder that it writes."""
    import transformers as tf

    config = tf.BitsAndBytesConfig(bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32, **settings)
    theirs = tf.AutoModelForCausalLM.from_pretrained(
        pair.folder / "theirs", quantization_config=config, dtype=torch.float32
    )
    theirs.save_pretrained(tmp_path / "theirs_quantized")
    return theirs.eval(), tmp_path / "theirs_quantized"


@pytest.mark.row("QNT-12", reference="transformers with bitsandbytes")
@pytest.mark.parametrize("double", [False, True])
def test_four_bits_are_those_of_bitsandbytes_both_ways(double, tmp_path):
    """Their folder here, ours there, and the same numbers from the same weights; all to the bit."""
    import transformers as tf

    pair = make_pair("llama", tmp_path)
    theirs, folder = by_bitsandbytes(pair, tmp_path, load_in_4bit=True, bnb_4bit_use_double_quant=double)
    quantize(pair.ours, NF4Config(double=double))
    pair.ours.save_pretrained(tmp_path / "ours")
    there = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    with torch.no_grad():
        wanted = theirs(ids()).logits
        for given in (load_model(folder), pair.ours, load_model(tmp_path / "ours")):
            torch.testing.assert_close(given(ids()), wanted)
        torch.testing.assert_close(there(ids()).logits, wanted)
    ours, other = load_file(tmp_path / "ours/model.safetensors"), load_file(folder / "model.safetensors")
    assert ours.keys() == other.keys()
    assert all(torch.equal(ours[name], other[name]) for name in ours if "quant_state" not in name)


@pytest.mark.row("QNT-12", reference="transformers with bitsandbytes")
def test_eight_bits_are_those_of_bitsandbytes_both_ways(tmp_path):
    """They round the inputs to 8 bits too, so tensors are compared, and outputs loosely."""
    import transformers as tf

    pair = make_pair("gpt2", tmp_path)
    theirs, folder = by_bitsandbytes(pair, tmp_path, load_in_8bit=True)
    quantize(pair.ours, Int8Config())
    pair.ours.save_pretrained(tmp_path / "ours")
    ours, other = load_file(tmp_path / "ours/model.safetensors"), load_file(folder / "model.safetensors")
    assert ours.keys() == other.keys()
    for name in ours:
        if ours[name].dtype == torch.int8:  # they divide in float16
            assert (ours[name].int() - other[name].int()).abs().max() <= 1
        else:
            torch.testing.assert_close(ours[name], other[name], rtol=1e-3, atol=1e-5)
    there = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    with torch.no_grad():
        for given in (load_model(folder)(ids()), there(ids()).logits, pair.ours(ids())):
            torch.testing.assert_close(given, theirs(ids()).logits, rtol=0, atol=0.1)
        assert torch.equal(load_model(tmp_path / "ours")(ids()), pair.ours(ids()))


@pytest.mark.row("QNT-12", reference="transformers with bitsandbytes")
def test_a_tensor_that_holds_several_of_our_layers_is_taken_apart_or_multiplied_out(tmp_path, capsys):
    """phi3 stores q, k and v in one: cut where rows end with blocks of 64, else kept in precision, and said."""
    pair = make_pair("phi3", tmp_path)
    theirs, folder = by_bitsandbytes(pair, tmp_path, load_in_4bit=True)
    model = load_model(folder)
    with torch.no_grad():
        torch.testing.assert_close(model(ids()), theirs(ids()).logits, rtol=1e-4, atol=2e-5)
    assert "kept in precision" in capsys.readouterr().err
    quantize(pair.ours, NF4Config())
    with pytest.raises(UsageError, match=r"q_proj.*do not end where blocks of 64 do"):
        pair.ours.save_pretrained(tmp_path / "ours")

    layers = [torch.nn.Linear(128, out, bias=False) for out in (16, 8, 8)]
    layout = FourBitLayout(NF4Config())
    parts = [NF4Linear.of(layer) for layer in layers]
    rows = [layout.rows(part) for part in parts]
    whole = layout.from_rows(Rows({n: torch.cat([r.each[n] for r in rows]) for n in rows[0].each}, rows[0].shared))
    assert torch.equal(whole.dequantize(), torch.cat([part.dequantize() for part in parts]))
    assert torch.equal(layout.layer(layout.stored(whole)).dequantize(), whole.dequantize())


@pytest.mark.row("QNT-12", reference="the same folder unchanged")
@pytest.mark.parametrize(
    ("message", "change"),
    [
        (f"{PROJ} lacks weight.quant_map", lambda own: own.pop(f"{PROJ}.weight.quant_map")),
        (f"{PROJ}: lacks weight.quant_state", lambda own: own.pop(f"{PROJ}.{STATE}nf4")),
        ("is no JSON", lambda own: own[f"{PROJ}.{STATE}nf4"].fill_(7)),
        ("is not whole", lambda own: own.update({f"{PROJ}.{STATE}nf4": torch.tensor([*b"{}"], dtype=torch.uint8)})),
        (
            "weight.absmax is .*want",
            lambda own: own.update({f"{PROJ}.weight.absmax": own[f"{PROJ}.weight.absmax"][:-1].clone()}),
        ),
        (
            "up_proj.weight: stored",
            lambda own: own.update(
                {
                    n.replace("layers.0.mlp.down", "layers.1.mlp.up"): t.clone()
                    for n, t in own.items()
                    if "0.mlp.down" in n
                }
            ),
        ),
    ],
)
def test_a_folder_of_four_bits_that_does_not_fit_is_refused_by_name(message, change, tmp_path):
    model = make_ours("llama", tmp_path)
    quantize(model, NF4Config())
    model.save_pretrained(tmp_path / "good")
    with pytest.raises(CheckpointError, match=message):
        load_model(changed(tmp_path / "good", change))
    with pytest.raises(CheckpointError, match="one of"):
        load_model(changed(tmp_path / "good", load_in_8bit=True))


@pytest.mark.row("QNT-12", reference="the same folder unchanged")
def test_a_truncated_file_and_a_missing_method_are_refused(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CheckpointError):
        load_model(folder)
    (folder / "model.safetensors").write_bytes(whole)
    own = folder.parent / "own"
    model = make_ours("llama", folder.parent)
    quantize(model, SmoothQuantConfig(), ids())
    model.save_pretrained(own)
    config = json.loads((own / "config.json").read_text())
    for wrong, message in (({"kind": "int9"}, "not understood"), ({"modules": ["blocks.0.nowhere"]}, "modules")):
        bad = config | {"quantization_config": config["quantization_config"] | wrong}
        (own / "config.json").write_text(json.dumps(bad))
        with pytest.raises(CheckpointError, match=message):
            load_model(own)


@pytest.mark.row("QNT-12", reference="the model as it was")
def test_what_one_file_tensor_cannot_hold_is_refused_before_writing(tmp_path):
    model = make_ours("phi3", tmp_path)
    quantize(model, GPTQConfig(bits=4, group_size=8, targets=["*.q_proj"]), ids())
    with pytest.raises(UsageError, match=r"q_proj.*k_proj.*qkv_proj.*all of them or none"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    quantize(model, Int8Config(targets=["*.mlp.*"]))
    with pytest.raises(UsageError, match="several methods"):
        model.save_pretrained(tmp_path / "saved")


@pytest.mark.row("QNT-12", reference="the matrices multiplied out")
def test_quantized_experts_are_multiplied_out(tmp_path, capsys):
    """GPTQ files hold each expert's matrices as layers; ours are one tensor, which keeps its precision."""
    pair = make_pair("mixtral", tmp_path)
    quantize(pair.ours, GPTQConfig(bits=4, group_size=8), ids())
    pair.ours.save_pretrained(tmp_path / "saved")
    own = load_file(tmp_path / "saved/model.safetensors")
    name = next(name for name in own if name.endswith("experts.0.w1.weight"))
    weight = own.pop(name)
    layer = GPTQLinear.from_grouped(round_to_nearest(weight, 4, 8, symmetric=True), 4, 8)
    own |= {name.replace(".weight", ".qweight"): layer.qweight, name.replace(".weight", ".scales"): layer.scales}
    own |= {name.replace(".weight", ".qzeros"): (layer.qzeros.long() - 0x11111111).int()}
    save_file(own, tmp_path / "saved/model.safetensors")
    again = load_model(tmp_path / "saved", dtype="float32")
    assert "kept in precision" in capsys.readouterr().err
    place = "blocks.0.mlp.experts.gate_proj.weight"
    torch.testing.assert_close(again.get_parameter(place)[0], layer.dequantize(), rtol=1e-3, atol=1e-3)
    assert torch.equal(again.get_parameter(place)[1], pair.ours.get_parameter(place)[1])


@pytest.mark.row("QNT-12", reference="the dequantized model")
def test_a_loaded_model_carries_an_adapter_and_learns(folder):
    model = load_model(folder, dtype="float32")
    adapters_of(model).add("mine", LoRAConfig(targets=["q_proj", "down_proj"]))
    adapters_of(model).activate("mine")
    model(ids()).sum().backward()
    assert isinstance(model.blocks["0"].attn.q_proj, QuantizedLinear)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in adapters_of(model).parameters("mine").values())
