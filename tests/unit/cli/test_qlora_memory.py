"""QLoRA of a model that does not fit: `groundup train` under a limit that lies below the weights in bf16."""

import json
import os
import re
import subprocess
import sys

import pytest
from safetensors.torch import save_file

from groundup.models.configs.llama import LlamaConfig
from groundup.models.hub import build_model, save_model

WIDE = {"vocab_size": 4096, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 16}
LAYERS = 12
LIMIT = 1.45e9
RUN = """
import re, sys
from pathlib import Path
from groundup.cli import main

code = main(sys.argv[1:])
print("PEAK", re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))
sys.exit(code)
"""


def write_wide_llama(folder):
    """Bytes of the weights of a Llama in bf16: one block's numbers in every layer, one file a layer."""
    save_model(build_model(LlamaConfig(num_hidden_layers=1, **WIDE), dtype="bfloat16"), folder)
    from safetensors.torch import load_file

    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": LAYERS}))
    files = {"rest.safetensors": {name: tensor for name, tensor in whole.items() if ".layers.0." not in name}}
    for layer in range(LAYERS):
        files[f"layer{layer}.safetensors"] = {
            name.replace(".layers.0.", f".layers.{layer}."): tensor
            for name, tensor in whole.items()
            if ".layers.0." in name
        }
    for file, tensors in files.items():
        save_file(tensors, folder / file)
    index = {name: file for file, tensors in files.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return sum((folder / file).stat().st_size for file in files)


def peak_of_training(folder, out, *more):
    """VmHWM of a whole process that trains a LoRA for two steps, bytes."""
    words = ["train", "--init-from", str(folder), "--tokenizer-from", "tiny", "--adapter.kind", "lora"]
    words += [
        "--dtype",
        "fp32",
        "--data.source",
        "pydocs",
        "--data.limit",
        "4",
        "--data.context_length",
        "32",
        "--prompts",
        "The",
    ]
    words += ["--training.steps", "2", "--training.batch-size", "1", "--evaluate-batches", "1", "--sample-tokens", "2"]
    result = subprocess.run(
        [sys.executable, "-c", RUN, *words, "--device", "cpu", "--out-dir", str(out), *more],
        capture_output=True, text=True, check=False, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return int(re.search(r"PEAK (\d+)", result.stdout).group(1)) * 1024


@pytest.mark.slow
@pytest.mark.row("PEFT-12", reference="peak memory of the whole process")
def test_qlora_runs_under_a_limit_below_the_weights_in_bf16(tmp_path):
    weights = write_wide_llama(tmp_path / "wide")
    assert weights > LIMIT
    peak = peak_of_training(tmp_path / "wide", tmp_path / "run", "--quantization.kind", "nf4")
    assert peak < LIMIT, f"{peak / 1e9:.2f} GB"
