"""Prompts and prefixes against peft: same outputs and gradients for the same weights, and files both ways."""

import copy

import pytest
import torch
from torch.testing import assert_close

from families.tiny import ids, make_pair
from groundup.adapters import PrefixConfig, PromptConfig, PTuningConfig, adapters_of, add_adapter, bake
from groundup.adapters.files import load_adapter, save_adapter
from groundup.base.errors import CheckpointError

peft = pytest.importorskip("peft")

N = 3
THEIRS = {
    "prompt": lambda **more: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=N),
    "p_tuning-mlp": lambda: peft.PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=N, encoder_hidden_size=10, encoder_reparameterization_type="MLP"
    ),
    "p_tuning-lstm": lambda: peft.PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=N, encoder_hidden_size=10, encoder_reparameterization_type="LSTM"
    ),
    "prefix": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=N),
    "prefix-projected": lambda: peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=N, prefix_projection=True, encoder_hidden_size=10
    ),
}
OURS = {
    "prompt": lambda dim: PromptConfig(length=N),
    "p_tuning-mlp": lambda dim: PTuningConfig(length=N, encoder="mlp", hidden=10),
    "p_tuning-lstm": lambda dim: PTuningConfig(length=N, encoder="lstm", hidden=10),
    "prefix": lambda dim: PrefixConfig(length=N, projection=False),
    "prefix-projected": lambda dim: PrefixConfig(length=N, hidden=10, dim=dim),
}
ROWS = {
    "prompt": ["PEFT-06"],
    "p_tuning-mlp": ["PEFT-07"],
    "p_tuning-lstm": ["PEFT-07"],
    "prefix": ["PEFT-08", "PEFT-09"],
    "prefix-projected": ["PEFT-09"],
}
KINDS = [pytest.param(k, marks=[pytest.mark.row(r, reference="peft") for r in ROWS[k]]) for k in THEIRS]
FAMILIES = ("llama-grouped", "gpt2")


def both(kind, family, tmp_path):
    """The same adapter with the same weights on the same model, theirs and ours; their names -> ours."""
    pair = make_pair(family, tmp_path)
    torch.manual_seed(1)
    theirs = peft.get_peft_model(copy.deepcopy(pair.theirs), THEIRS[kind]()).train()
    encoder = theirs.prompt_encoder["default"]
    dim = encoder.embedding.weight.shape[1]
    add_adapter(pair.ours, OURS[kind](dim))
    ours = adapters_of(pair.ours).parameters("default")
    return pair, theirs, dict(encoder.named_parameters()), ours


def by_layer(kind, tensors, layers):
    """Peft's tensors under our names: the prefixes of all layers are one tensor there."""
    if kind == "prefix":
        pieces = tensors["embedding.weight"].chunk(layers, dim=1)
        return {f"blocks.{i}.attn.core.adapters.default.key_values": piece for i, piece in enumerate(pieces)}
    if kind == "prefix-projected":
        found = {"prompt.default.embedding.weight": tensors["embedding.weight"]}
        for leaf in ("weight", "bias"):
            found[f"prompt.default.inner.{leaf}"] = tensors[f"transform.0.{leaf}"]
            for i, piece in enumerate(tensors[f"transform.2.{leaf}"].chunk(layers)):
                found[f"blocks.{i}.attn.core.adapters.default.outer.{leaf}"] = piece
        return found
    return {f"prompt.default.{name}": tensor for name, tensor in tensors.items()}


def loss(logits, x):
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_gradients_and_counts_are_pefts(kind, family, tmp_path):
    pair, theirs, given, ours = both(kind, family, tmp_path)
    assert sum(p.numel() for p in ours.values()) == theirs.get_nb_trainable_parameters()[0]
    assert {name for name, p in pair.ours.named_parameters() if p.requires_grad} == ours.keys()
    wanted = by_layer(kind, given, len(pair.ours.blocks))
    assert wanted.keys() == ours.keys()
    with torch.no_grad():
        for name, tensor in wanted.items():
            ours[name].copy_(tensor)
    theirs.eval()
    theirs.prompt_encoder.train()  # their network stands aside in evaluation
    x = ids()
    reference = theirs(input_ids=x, attention_mask=torch.ones_like(x)).logits[:, -x.shape[1] :]
    found = pair.ours(x)
    assert_close(found, reference)
    gradients = torch.autograd.grad(loss(reference, x), list(given.values()))
    wanted = by_layer(kind, dict(zip(given, gradients, strict=True)), len(pair.ours.blocks))
    for name, gradient in zip(ours, torch.autograd.grad(loss(found, x), list(ours.values())), strict=True):
        assert_close(gradient, wanted[name], msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_pefts_is_read(kind, family, tmp_path):
    pair, theirs, _, _ = both(kind, family, tmp_path)
    adapters_of(pair.ours).remove("default")
    theirs.eval()
    theirs.save_pretrained(tmp_path / "theirs_adapter")
    load_adapter(pair.ours, tmp_path / "theirs_adapter")
    x = ids()
    again = peft.PeftModel.from_pretrained(pair.theirs, tmp_path / "theirs_adapter")
    assert_close(pair.ours(x), again(input_ids=x, attention_mask=torch.ones_like(x)).logits[:, -x.shape[1] :])


@pytest.mark.parametrize("baked", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_peft_reads_our_folder_and_so_do_we(kind, family, baked, tmp_path):
    pair, _, _, _ = both(kind, family, tmp_path)
    x = ids()
    with torch.no_grad():
        wanted = pair.ours(x)
        if baked:
            bake(pair.ours)
            assert_close(pair.ours(x), wanted)
        save_adapter(pair.ours, tmp_path / "ours_adapter")
        theirs = peft.PeftModel.from_pretrained(pair.theirs, tmp_path / "ours_adapter")
        assert_close(theirs(input_ids=x, attention_mask=torch.ones_like(x)).logits[:, -x.shape[1] :], wanted)
        adapters_of(pair.ours).remove("default")
        load_adapter(pair.ours, tmp_path / "ours_adapter")
        assert_close(pair.ours(x), wanted)
        save_adapter(pair.ours, tmp_path / "again")
    assert (tmp_path / "again/adapter_model.safetensors").stat().st_size > 0


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_a_folder_for_another_shape_is_refused_and_the_model_stays(kind, tmp_path):
    pair, _, _, _ = both(kind, "gpt2", tmp_path)
    save_adapter(pair.ours, tmp_path / "adapter")
    other = make_pair("llama-grouped", tmp_path / "other").ours
    path = tmp_path / "adapter/adapter_config.json"
    path.write_text(path.read_text().replace('"num_virtual_tokens": 3', '"num_virtual_tokens": 4'))
    with pytest.raises(CheckpointError, match="stored"):
        load_adapter(pair.ours, tmp_path / "adapter", "second")
    assert list(adapters_of(pair.ours).configs) == ["default"]
    with pytest.raises(CheckpointError):
        load_adapter(other, tmp_path / "adapter")
    assert other.prompt is None
