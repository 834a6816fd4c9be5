"""Folders of adapters: what does not fit is refused by name, and the base is bit for bit what it was."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from families.tiny import ids, make_ours, make_pair
from groundup import load_model
from groundup.adapters import LoRAConfig, adapters_of, add_adapter, load_adapter, merge, merged, save_adapter
from groundup.adapters.files import CONFIG, WEIGHTS
from groundup.adapters.names import Names, NoPeftForm
from groundup.base.errors import CheckpointError, UsageError
from groundup.weights import rule

row = pytest.mark.row("PEFT-10", reference="definition")
pytestmark = row


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A base's folder and an adapter's."""
    folder = tmp_path_factory.mktemp("made")
    model = make_pair("llama", folder).ours
    add_adapter(model, LoRAConfig(rank=2, targets=["q_proj", "up_proj"]))
    with torch.no_grad():
        for parameter in model.adapters.parameters("default").values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    save_adapter(model, folder / "adapter")
    return folder


def edited(made, tmp_path, config=None, tensors=None):
    """A copy of the adapter with changes."""
    folder = tmp_path / "edited"
    shutil.copytree(made / "adapter", folder)
    if config:
        values = json.loads((folder / CONFIG).read_text())
        config(values)
        (folder / CONFIG).write_text(json.dumps(values))
    if tensors:
        found = load_file(folder / WEIGHTS)
        tensors(found)
        save_file(found, folder / WEIGHTS, {"format": "pt"})
    return folder


def first(tensors, leaf="lora_A.weight"):
    return next(name for name in tensors if name.endswith(leaf))


def renamed(tensors):
    tensors["base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"] = tensors.pop(first(tensors))


FAULTS = {
    "missing tensor": (None, lambda t: t.pop(first(t)), "missing.*lora_A"),
    "missing module": (
        None,
        lambda t: [t.pop(n) for n in list(t) if "layers.0.mlp" in n],
        "lacks the matrices.*layers.0.mlp",
    ),
    "unexpected tensor": (None, lambda t: t.update({"base_model.model.extra.weight": torch.ones(2)}), "extra"),
    "unexpected module": (None, renamed, "lacks.*layers.9"),
    "wrong shape": (None, lambda t: t.update({first(t): torch.ones(2, 5)}), r"stored \(2, 5\), wanted"),
    "other rank": (lambda v: v.update(r=3), None, r"wanted \(3"),
    "not a number": (None, lambda t: t[first(t)].fill_(torch.nan), "NaN"),
    "infinite": (None, lambda t: t[first(t)].fill_(torch.inf), "infinity"),
    "unknown kind": (lambda v: v.update(peft_type="NEW"), None, "kind 'NEW'.*LORA"),
    "unknown setting": (lambda v: v.update(lora_alhpa=3), None, "`lora_alhpa`.*lora_alpha"),
    "unsupported setting": (lambda v: v.update(lora_bias=True), None, "`lora_bias`"),
    "rank is text": (lambda v: v.update(r="many"), None, "whole numbers"),
    "dropout of 2": (lambda v: v.update(lora_dropout=2), None, "dropout"),
    "saved module is not there": (
        lambda v: v.update(modules_to_save=["lm_head"]),
        None,
        "lacks the tensors of lm_head",
    ),
    "a base's own tensor": (
        None,
        lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(64, 32)}),
        "another base",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_refused_and_the_base_stays(fault, made, tmp_path):
    config, tensors, message = FAULTS[fault]
    folder = edited(made, tmp_path, config, tensors)
    refused(load_model(made / "theirs"), folder, message)


def refused(model, folder, message):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kinds = {name: type(module) for name, module in model.named_modules()}
    learn = [p.requires_grad for p in model.parameters()]
    with pytest.raises(CheckpointError, match="(?s)" + message):
        load_adapter(model, folder)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    assert [p.requires_grad for p in model.parameters()] == learn
    assert not adapters_of(model).configs


def test_a_file_that_is_cut_off_is_refused(made, tmp_path):
    folder = edited(made, tmp_path)
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    refused(load_model(made / "theirs"), folder, "damaged or cut off.*download it again")
    (folder / WEIGHTS).unlink()
    refused(load_model(made / "theirs"), folder, "lacks adapter_model.safetensors")
    (folder / CONFIG).write_text("{")
    refused(load_model(made / "theirs"), folder, "not valid JSON")


@pytest.mark.parametrize(("case", "message"), [("gpt2", "made for a llama model"), ("qwen2", "made for a llama")])
def test_a_base_of_another_family_is_refused(case, message, made, tmp_path):
    refused(make_ours(case, tmp_path), made / "adapter", message)


def test_a_base_of_another_shape_or_family_is_refused_for_peft_s_folders_too(made, tmp_path):
    import transformers as tf

    bare = edited(made, tmp_path, tensors=lambda t: None)
    found = load_file(bare / WEIGHTS)
    save_file(found, bare / WEIGHTS)  # without our note
    refused(make_ours("gpt2", tmp_path), bare, "a gpt2 lacks.*another base")
    shape = tf.LlamaConfig(
        vocab_size=64, hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4
    )
    tf.LlamaForCausalLM(shape).save_pretrained(tmp_path / "wider")
    refused(load_model(tmp_path / "wider"), bare, "wanted")


def test_the_folder_loads_as_a_model_and_says_its_base(made, tmp_path):
    model = load_model(made / "adapter")
    assert list(model.adapters.configs) == ["default"]
    plain = load_model(made / "theirs")
    load_adapter(plain, made / "adapter", "legal")
    torch.testing.assert_close(model(ids()), plain(ids()))
    folder = edited(made, tmp_path, lambda v: v.update(base_model_name_or_path=None))
    with pytest.raises(CheckpointError, match="does not say which base"):
        load_model(folder)
    with pytest.raises(UsageError, match="has an adapter `legal` already"):
        load_adapter(plain, made / "adapter", "legal")


def test_saving_replaces_an_adapter_and_nothing_else(made, tmp_path):
    model = load_model(made / "adapter")
    save_adapter(model, tmp_path / "one")
    save_adapter(model, tmp_path / "one")
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [CONFIG, WEIGHTS]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="something else than an adapter"):
        save_adapter(model, tmp_path / "notes")
    with pytest.raises(UsageError, match="no adapter `legl`"):
        save_adapter(model, tmp_path / "two", "legl")
    with pytest.raises(UsageError, match="save_adapter"):
        model.save_pretrained(tmp_path / "three")
    merge(model)
    with pytest.raises(UsageError, match="merged into the weights"):
        save_adapter(model, tmp_path / "four")
    merged(model).save_pretrained(tmp_path / "five")
    torch.testing.assert_close(load_model(tmp_path / "five")(ids()), model(ids()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["mixtral", "rnn-lstm"])
def test_what_peft_cannot_hold_goes_into_our_own_layout(case, tmp_path, capsys):
    model = make_ours(case, tmp_path)
    add_adapter(model, LoRAConfig(rank=2, targets=["*"], init="gaussian"))
    with torch.no_grad():
        for parameter in model.adapters.parameters("default").values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    want = model(ids())
    save_adapter(model, tmp_path / "own")
    assert "groundup" in json.loads((tmp_path / "own" / CONFIG).read_text())
    assert "peft does not read" in capsys.readouterr().err
    again = make_ours(case, tmp_path / "again")
    load_adapter(again, tmp_path / "own")
    torch.testing.assert_close(again(ids()), want)

    fresh = make_ours(case, tmp_path / "fresh")
    values = json.loads((tmp_path / "own" / CONFIG).read_text())
    for change, message in (
        ({"kind": "lorra"}, "kind 'lorra'.*lora"),
        ({"rnak": 3}, "`rnak` is not a setting"),
        ({"rank": 3}, "stored"),
        ({"targets": ["nothing"]}, "no linear layers"),
    ):
        broken = tmp_path / "broken"
        shutil.copytree(tmp_path / "own", broken, dirs_exist_ok=True)
        (broken / CONFIG).write_text(json.dumps(values | {"groundup": values["groundup"] | change}))
        refused(fresh, broken, message)
    (broken / CONFIG).write_text(json.dumps(values | {"more": 1}))
    refused(fresh, broken, "more is not known")


class Flipped:
    """What a file might do to a matrix: its rows or its columns the other way round."""

    def __init__(self, dim):
        self.dim = dim

    def load(self, tensors):
        return [tensor.flip(self.dim) for tensor in tensors]

    save = load


@pytest.mark.parametrize(("dim", "fits"), [(0, True), (1, False)])
def test_an_adapter_follows_rows_that_are_moved_and_not_columns(dim, fits, tmp_path):
    names = Names(make_ours("llama", tmp_path))
    moved = rule("q_proj", "q_proj", Flipped(dim))
    if fits:
        names.check_rows(moved, [(32, 48)])
    else:
        with pytest.raises(NoPeftForm, match="another form than row by row"):
            names.check_rows(moved, [(32, 48)])
