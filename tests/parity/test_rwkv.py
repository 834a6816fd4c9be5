"""RWKV-4 to 7 against BlinkDL's own `rwkv` library, through .pth files in his layout."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from families.rwkv5 import TINY
from families.tiny import ids
from groundup.base.errors import CheckpointError, UsageError
from groundup.base.folders import find_folder
from groundup.generation.config import SamplingConfig
from groundup.generation.generate import generate
from groundup.models.catalogue import FAMILIES, model_class
from groundup.models.formats.rwkv import save_rwkv
from groundup.models.hub import load_model
from groundup.models.text.rwkv4 import RWKV4
from groundup.tokenizers.hub import load_tokenizer

VERSIONS = {
    "4": ("rwkv", {}),
    "5.0": ("rwkv5", {"version": "5.0"}),
    "5.1": ("rwkv5", {"version": "5.1"}),
    "5.2": ("rwkv5", {"version": "5.2"}),
    "6": ("rwkv6", {"mix_rank": 4, "decay_rank": 6}),
    "7": ("rwkv7", {"decay_rank": 4, "rate_rank": 5, "residual_rank": 6, "gate_rank": 7}),
}
ROWS = {
    "4": ["LM-39"],
    "5.0": ["LM-40"],
    "5.1": ["LM-40"],
    "5.2": ["LM-40", "LAY-05"],
    "6": ["LM-41", "LAY-05"],
    "7": [],
}
versions = pytest.mark.parametrize(
    "version",
    [pytest.param(v, marks=[pytest.mark.row(row, reference="rwkv") for row in (*ROWS[v], "LM-51")]) for v in VERSIONS],
)


def make(version, **changes):
    """A tiny model away from its start, with extreme decays among its channels."""
    family, own = VERSIONS[version]
    shape = {k: v for k, v in TINY.items() if version != "4" or k != "num_attention_heads"}
    config = FAMILIES[family].config(**{**shape, **own, **changes})
    torch.manual_seed(0)
    model = model_class(config).build(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (2.0 if name.endswith(("decay", "decay.bias")) else 0.2))
    return model


def library(monkeypatch, file, version):
    """BlinkDL's model of that file, on the CPU in float32. It decides on import whether it is for version 7."""
    spec = importlib.util.find_spec("rwkv.model")
    if spec is None:
        pytest.skip("the rwkv library is not installed")
    for name, value in {"RWKV_JIT_ON": "0", "RWKV_CUDA_ON": "0", "RWKV_V7_ON": "1" if version == "7" else "0"}.items():
        monkeypatch.setenv(name, value)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "rwkv_as_set", module)
    spec.loader.exec_module(module)
    model = str(file.with_suffix(""))
    return module.RWKV_x070(model, "cpu fp32") if version == "7" else module.RWKV(model, "cpu fp32", verbose=False)


@versions
def test_their_library_gives_our_logits_in_one_pass_and_step_by_step(tmp_path, monkeypatch, version):
    """Ours are saved and read again; theirs read the same file."""
    made = make(version)
    file = save_rwkv(made, tmp_path / "RWKV-tiny-ctx77.pth")
    ours, theirs = load_model(file), library(monkeypatch, file, version)
    assert ours.config.to_hf() == made.config.model_copy(update={"max_position_embeddings": 77}).to_hf()
    row = ids(rows=1, length=9)
    state = ours.make_state(1, 9)
    with torch.no_grad():
        expected = theirs.forward(row[0].tolist(), None, full_output=True)[0]
        assert_close(ours(row)[0], expected)
        first, memory = theirs.forward(row[0, :4].tolist(), None)
        assert_close(ours(row[:, :4], state=state)[0, -1], first)
        for t in range(4, 9):
            stepped, memory = theirs.forward([int(row[0, t])], memory)
            assert_close(ours(row[:, t : t + 1], state=state)[0, -1], stepped)
            assert_close(stepped, expected[t])


@pytest.mark.slow
@versions
def test_their_state_is_ours(tmp_path, monkeypatch, version):
    ours = make(version)
    theirs = library(monkeypatch, save_rwkv(ours, tmp_path / "x.pth"), version)
    row, state = ids(rows=1, length=7), ours.make_state(1, 7)
    with torch.no_grad():
        memory = theirs.forward(row[0].tolist(), None)[1]
        ours(row, state=state)
    parts = len(memory) // 3
    for i in range(3):
        attn, mlp = (state.layers[f"blocks.{i}.{name}"].tensors for name in ("attn", "mlp"))
        own = memory[i * parts : (i + 1) * parts]
        assert_close(attn["shift"][0], own[0])
        assert_close(mlp["shift"][0], own[-1])
        if version == "4":
            num, den, peak = (attn[name][0] for name in ("num", "den", "peak"))
            assert_close(num / den, own[1] / own[2])
            assert_close(den.log() + peak, own[2].log() + own[3])
        else:
            assert_close(attn["matrix"][0], own[1].mT if version == "7" else own[1])


@pytest.mark.row("LM-51", reference="torch.load")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_files_come_back_bit_for_bit(tmp_path, version, dtype):
    first = save_rwkv(make(version).to(getattr(torch, dtype)), tmp_path / "a.pth")
    second = save_rwkv(load_model(first), tmp_path / "b.pth")
    a, b = (torch.load(file, weights_only=True) for file in (first, second))
    assert set(a) == set(b)
    for name, tensor in a.items():
        assert tensor.dtype == getattr(torch, dtype)
        assert torch.equal(tensor, b[name]), name
    assert a["blocks.0.ln0.weight"].shape == (32,)


def test_a_folder_with_one_such_file_is_enough(tmp_path):
    model = make("7")
    save_rwkv(model, tmp_path / "x.pth")
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(ids()), model(ids()))


def test_the_residual_of_the_first_layer_that_some_files_hold_is_passed_over(tmp_path):
    model = make("7")
    tensors = torch.load(save_rwkv(model, tmp_path / "a.pth"), weights_only=True)
    for part in "012":
        tensors[f"blocks.0.att.v{part}"] = torch.randn_like(tensors[f"blocks.1.att.v{part}"])
    torch.save(tensors, tmp_path / "b.pth")
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "b.pth")(ids()), model(ids()))


def test_what_is_missing_or_foreign_is_named(tmp_path):
    tensors = torch.load(save_rwkv(make("6"), tmp_path / "a.pth"), weights_only=True)
    for change, message in (
        (lambda t: t.pop("blocks.1.att.gate.weight"), r"missing \(1\): blocks.1.attn.gate_proj.weight"),
        (lambda t: t.update({"blocks.0.att.gate_w1": torch.zeros(2, 2)}), "no rule of this family knows .*gate_w1"),
        (lambda t: t.update({"blocks.0.att.time_faaaa": torch.zeros(5, 8)}), "num_attention_heads"),
        (lambda t: t.update({"blocks.0.att.time_faaaa": torch.zeros(32)}), "time_faaaa has the shape"),
        (lambda t: t.pop("blocks.0.ffn.key.weight"), "without the matrices blocks.0.ffn.key.weight"),
    ):
        changed = dict(tensors)
        change(changed)
        torch.save(changed, tmp_path / "b.pth")
        with pytest.raises((CheckpointError, UsageError), match=message):
            load_model(tmp_path / "b.pth")


def test_saving_never_writes_over_a_file_and_takes_rwkv_alone(tmp_path):
    (tmp_path / "x.pth").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        save_rwkv(make("4"), tmp_path / "x.pth")
    assert (tmp_path / "x.pth").read_text() == "mine"
    with pytest.raises(UsageError, match="has no RWKV layout"):
        save_rwkv(load_model("tiny"), tmp_path / "y.pth")


@pytest.mark.row("LM-39", reference="transformers, torch.load")
def test_a_published_file_of_version_4_becomes_a_hugging_face_folder(tmp_path):
    import transformers as tf

    ours = load_model(save_rwkv(make("4"), tmp_path / "x.pth"))
    assert isinstance(ours, RWKV4)
    ours.save_pretrained(tmp_path / "hf")
    theirs = tf.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    with torch.no_grad():
        assert_close(ours(ids()), theirs(ids(), use_cache=False).logits)


def run(capsys, *words):
    from groundup.cli import main

    code = main([*map(str, words), "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out) if code == 0 else None, err


@pytest.mark.row("LM-51", reference="rwkv")
def test_commands_take_such_a_file_with_the_tokenizer_that_its_vocabulary_means(tmp_path, capsys):
    """65,536 ids: the World vocabulary, as the `rwkv` library holds it; fewer: the tokenizer.json beside it."""
    library_folder = Path(importlib.util.find_spec("rwkv").submodule_search_locations[0])
    small, world = tmp_path / "small", tmp_path / "world"
    for folder in (small, world):
        folder.mkdir()
        shutil.copy(library_folder / "rwkv_vocab_v20230424.txt", folder)
    save_rwkv(make("7", vocab_size=65_536, hidden_size=8, num_attention_heads=2), world / "x.pth")
    code, found, _ = run(capsys, "generate", world / "x.pth", "The Eiffel tower", "--max-new-tokens", "3")
    assert code == 0
    assert found["completions"][0]["prompt"] == "The Eiffel tower"
    tiny = load_tokenizer("tiny")
    save_rwkv(make("4", vocab_size=tiny.vocab_size), small / "x.pth")
    code, _, err = run(capsys, "generate", small / "x.pth", "One")
    assert code == 1
    assert "put 20B_tokenizer.json or tokenizer.json beside it" in err
    shutil.copy(find_folder("tiny") / "tokenizer.json", small / "20B_tokenizer.json")
    assert run(capsys, "generate", small / "x.pth", "One", "--max-new-tokens", "3")[0] == 0


def test_a_long_text_goes_on_beyond_the_context_of_training(tmp_path, capsys):
    tiny = load_tokenizer("tiny")
    model = make("6", vocab_size=tiny.vocab_size, max_position_embeddings=8)
    out = generate(model, tiny, ["Once upon a time there was a fox."], SamplingConfig(max_new_tokens=30, temperature=0))
    assert len(out[0].ids) == 30


@pytest.mark.row("LM-51", reference="rwkv")
def test_export_and_show(tmp_path, capsys, monkeypatch):
    """A Hugging Face folder of version 4 becomes a file that their library reads; `models show` tells its shape."""
    model = make("4")
    model.save_pretrained(tmp_path / "hf")
    code, found, _ = run(capsys, "export", "rwkv", tmp_path / "hf", tmp_path / "x.pth")
    assert code == 0
    assert found["parameters"] == model.num_parameters()
    row = ids(rows=1, length=5)
    with torch.no_grad():
        assert_close(library(monkeypatch, tmp_path / "x.pth", "4").forward(row[0].tolist(), None)[0], model(row)[0, -1])
    code, shown, _ = run(capsys, "models", "show", tmp_path / "x.pth")
    assert (code, shown["family"], shown["parameters"]) == (0, "rwkv", model.num_parameters())
