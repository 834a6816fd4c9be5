"""gpt-oss in 4 bits: widened as transformers widens it, and loaded from its own files."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from families.tiny import ids, make_pair
from groundup.base.errors import CheckpointError
from groundup.models.catalogue import config_from_hf
from groundup.models.hub import load_model
from groundup.models.text.gpt_oss import Mxfp4


def packed(rows, groups, seed=0):
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (4, rows, groups, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(110, 130, (4, rows, groups), dtype=torch.uint8, generator=generator)
    return blocks, scales


def test_widening_equals_transformers():
    blocks, scales = packed(6, 3)
    assert torch.equal(Mxfp4().load([blocks, scales])[0].mT, convert_moe_packed_tensors(blocks, scales))
    with pytest.raises(NotImplementedError, match="bfloat16"):
        Mxfp4().save([blocks])


def test_files_in_four_bits_load_as_the_widened_ones_and_are_saved_wide(tmp_path):
    """Width 32, so that blocks of 32 fit: the tensors of experts are replaced in a folder that transformers wrote."""
    ours = make_pair("gpt-oss-packable", tmp_path).ours
    folder = tmp_path / "theirs"
    tensors, wide = load_file(folder / "model.safetensors"), {}
    for layer in range(3):
        for name, rows, inner in (("gate_up_proj", 128, 32), ("down_proj", 32, 64)):
            stem = f"model.layers.{layer}.mlp.experts.{name}"
            blocks, scales = packed(rows, inner // 32, seed=layer)
            scales = scales - 6  # numbers near those of a trained model
            wide[stem] = convert_moe_packed_tensors(blocks, scales).float().contiguous()
            assert tensors.pop(stem).shape == wide[stem].shape
            tensors |= {f"{stem}_blocks": blocks, f"{stem}_scales": scales}
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4"}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    small = load_model(folder, dtype="float32")
    small.save_pretrained(tmp_path / "wide")
    saved = load_file(tmp_path / "wide/model.safetensors")
    for name, tensor in wide.items():
        assert_close(saved[name], tensor, rtol=0, atol=0)
    assert "quantization_config" not in json.loads((tmp_path / "wide/config.json").read_text())
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "wide")(ids()), small(ids()))
        assert not torch.equal(small(ids()), ours(ids()))
    with pytest.raises(CheckpointError, match="awq"):
        config_from_hf(config | {"quantization_config": {"quant_method": "awq"}})
